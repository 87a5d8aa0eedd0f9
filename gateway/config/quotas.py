"""``[quotas]``: how downloads are counted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.section import Section

DataType = Literal[
    "RAWDATA", "QUICKLOOK_SD", "QUICKLOOK_MD", "QUICKLOOK_HD", "DOCUMENT", "THUMBNAIL", "OTHER", "AIP", "DESCRIPTION"
]
"""REGARDS' types of files."""


class Quotas(Section):
    """``[quotas]``: how downloads are counted."""

    window: Annotated[int, Field(ge=1)] = 3600
    """Seconds in which ranges, resumes and retries of the same file by the same caller count as one download."""
    lease_ttl: Annotated[int, Field(ge=3)] = 60
    """Seconds that a running download keeps its slot without a sign of life from its process, which gives one three
    times as often. A download whose process died is charged what it may have sent by then."""
    max_unconfirmed: Annotated[int, Field(ge=100)] = 100_000
    """Events of one tenant that may wait for the ledger in PostgreSQL; beyond, downloads are refused with 503."""
    capped_downloads: Annotated[int, Field(ge=1)] = 4
    """Downloads of one caller, and starts of his in a second, that a process admits on its own while Redis is out of
    reach, if all limits of the caller have \"fail\" set to \"capped\"."""
    process_timeout: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10
    """Seconds after which a gateway process that was not seen counts as dead. When Redis has lost counters, nobody is
    admitted before every process that lives has told what it did."""
    metered_data_types: list[DataType] = ["RAWDATA"]  # noqa: RUF012 - pydantic copies it
    """Data types of files whose downloads count; those of all others are free."""
    anonymous_ipv4_prefix: Annotated[int, Field(ge=0, le=32)] = 32
    """Bits that the addresses of an IPv4 network have in common: anonymous callers of a network are counted as one."""
    anonymous_ipv6_prefix: Annotated[int, Field(ge=0, le=128)] = 64
    """As ``anonymous_ipv4_prefix``, for IPv6."""
