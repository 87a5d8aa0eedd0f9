"""``[orders]``: what can be ordered, and who prepares it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.section import RandomSecret, Seconds, Section

MOST_FILES = 2**24 - 1
"""Of an order: that many numbers a file can have in it."""
_Days = Annotated[float, Field(gt=0, le=3660)]


class Orders(Section):
    """``[orders]``."""

    secret: RandomSecret | None = None
    """What order tokens are made with, at least 32 bytes; without it there are none. With another one all end."""
    days: _Days = 3
    """That an order lasts from its creation on."""
    least_hours: Annotated[float, Field(ge=0, le=3660 * 24)] = 48
    """That an order still lasts when it is finished, resumed or tried again."""
    keep_days: _Days = 365
    """After which an order that ended is removed."""
    max_files: Annotated[int, Field(ge=1, le=MOST_FILES)] = 1_000_000
    """Most files of an order."""
    basket_datasets: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Most datasets of which a basket has selections."""
    basket_selections: Annotated[int, Field(ge=1, le=500)] = 100
    """Most selections of one dataset in a basket."""
    suborder_files: Annotated[int, Field(ge=1, le=100_000)] = 5000
    """Most files of a sub-order."""
    suborder_size: Annotated[int, Field(ge=1)] = 100 * 1024 * 1024
    """Bytes after which a new sub-order begins."""
    product_folders: bool = False
    """Whether an archive and a metalink have a folder for each product; else all files lie side by side."""
    sum_seconds: Annotated[float, Field(ge=0, le=86400)] = 60
    """Seconds that a worker computes CRC-32 of files that have none before they count as available, for one sub-order
    and those that it takes along; 0 computes none. What is left has none: an archive of it cannot be resumed yet."""
    workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Workers inside ``gateway serve``; 0 leaves all to ``gateway worker``."""
    lease: Annotated[float, Field(ge=1, le=3600)] = 30
    """Seconds without a sign of life after which a worker counts as dead."""
    timeout: Seconds = 300
    """Seconds that it may take to create an order, to change one, or to ask for nearline files of a sub-order."""
    created_status: Literal[200, 201] = 200
    """Of the answer to a new order: 200 as documented, or 201 as REGARDS has it today."""
    success_urls: list[Annotated[str, Field(pattern=r"^https?://[^/?#]+/.*$")]] = []  # noqa: RUF012 - pydantic copies it
    """What an ``onSuccessUrl`` that is no path may begin with, host and a slash at least."""
    strict_delete: bool = False
    """Whether only a paused order can be deleted, as documented; else one that has ended, too, as in REGARDS today."""
    streams: Annotated[int, Field(ge=0, le=100_000)] = 500
    """Most streams of events of a process at a time."""
    streams_per_user: Annotated[int, Field(ge=0, le=100_000)] = 20
    """Of these, most of one user."""
