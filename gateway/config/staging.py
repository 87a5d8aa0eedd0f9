"""``[staging]``: nearline files, restored when they are asked for, and the cache of restored copies."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.config.section import Seconds, Section, Text

_Hours = Annotated[float, Field(gt=0, le=3660 * 24)]


class Staging(Section):
    """``[staging]``."""

    on_demand: bool = True
    """Whether a download of a nearline file has it restored; else it is refused: 410, and 409 on STAC's routes."""
    answer: Literal[503, 202] = 503
    """Of a download that has a file restored: 503 makes most clients wait and come back, where they take the body of a
    202 for the file. With ``Prefer: respond-async`` it is 202 in any case."""
    open_to_users: bool = True
    """Whether everyone with a right to a file may ask for its restore and see its state; else role EXPLOIT, as in
    REGARDS."""
    bulk_limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Most products, and most files of them, in one question for availability or one request for restores."""
    hours: _Hours = 24
    """That a restored copy can be read if nobody asks for more."""
    max_hours: _Hours = 168
    """Most hours, from now on, that somebody can ask for."""
    user_files: Annotated[int, Field(ge=0)] = 1000
    """Most restores that one user waits for at a time; those of orders do not count."""
    user_size: Annotated[int, Field(ge=0)] = 2**40
    """Most bytes of these."""
    order_pin_hours: _Hours = 24
    """That files restored for an order stay in the cache for it, until they are downloaded. Then the next may come."""
    store_files: Annotated[int, Field(ge=1)] = 1000
    """Most copies that one storage location is asked to restore at a time."""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Workers that restore inside ``gateway serve``; 0 leaves all to ``gateway worker``."""
    fetches: Annotated[int, Field(ge=1, le=256)] = 4
    """Copies that a worker fetches into the cache at a time."""
    lease: Annotated[float, Field(ge=1, le=3600)] = 30
    """Seconds without a sign of life after which a worker counts as dead, and another one takes over."""
    poll: Annotated[float, Field(ge=0.05, le=3600)] = 10
    """Seconds after which a storage is asked again how it stands; more the longer it takes, up to ten times that."""
    tries: Annotated[int, Field(ge=1, le=100)] = 5
    """After so many failures a restore has failed."""
    retry: Seconds = 60
    """Seconds after which it is tried again for the first time; each further time after twice as long, to an hour."""
    timeout: Seconds = 60
    """Seconds that a storage may take to answer a call other than to fetch a copy."""
    fetch_timeout: Annotated[float, Field(gt=0, le=30 * 86400)] = 3600
    """Seconds that fetching a copy into the cache may take, and one more for each megabyte: it may wait its turn for a
    drive before its first byte comes."""
    keep_days: Annotated[float, Field(gt=0, le=3660)] = 30
    """That restores that ended are remembered: estimates are made of them."""
    cache: Text | None = None
    """Name of the [[storage]] that restored copies are kept in where they cannot be read in place. Its plug-in must be
    able to keep files ("local", "s3"), and nothing else may lie there. All gateways and workers must reach it."""
    cache_size: Annotated[int, Field(ge=1)] = 500_000_000_000
    """Most bytes of it."""

    @model_validator(mode="after")
    def _hours_fit(self) -> Self:
        if self.hours > self.max_hours:
            raise ValueError("'hours' must not be above 'max_hours'")
        return self
