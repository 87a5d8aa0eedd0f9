"""What accounts have used, and what of it running downloads only hold: pure."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.quotas.limits import Limit, period_seconds
from gateway.quotas.standing import Standing

_SECOND = 1_000_000
_BUCKETS = 60
"""Of a rolling window, as in ``lua/common.lua``."""


class Amount(NamedTuple):
    """What was charged."""

    downloads: int
    octets: int


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What an account has used, promises of running downloads included."""

    downloads: int
    octets: int
    running: int
    """Downloads that run now."""
    today: Amount
    """Of the calendar day, in UTC."""
    month: Amount
    """Of the calendar month, in UTC."""


class Held(NamedTuple):
    """What a running download was charged when it began; corrected to what was sent when it ends."""

    downloads: int
    octets: int
    at: int
    """When it began, microseconds since 1970."""


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """What a download would be charged, and where the caller stands before it."""

    downloads: int
    octets: int
    standings: tuple[Standing, ...]

    @property
    def admitted(self) -> bool:
        """Whether it would be let through."""
        return all(standing.state != "refused" for standing in self.standings)


def usages(values: Sequence[bytes | int]) -> list[Usage]:
    """Usage of accounts from what ``usage.lua`` tells, seven values for each."""
    found = []
    for at in range(0, len(values), 7):
        downloads, octets, running, of_day, bytes_of_day, of_month, bytes_of_month = map(int, values[at : at + 7])
        today, month = Amount(of_day, bytes_of_day), Amount(of_month, bytes_of_month)
        found.append(Usage(downloads, octets, running, today, month))
    return found


def reserved(limit: Limit, held: Iterable[Held], now: int) -> int:
    """What of a limit is held by the running downloads ``held`` of its account.

    Args:
        limit: of any metric; a rate holds nothing.
        held: the downloads.
        now: by the clock of Redis, microseconds since 1970.
    """
    if limit.metric == "rate":
        return 0
    if limit.metric == "concurrent":
        return sum(1 for _ in held)
    counted = [one for one in held if _counts(limit.period, one.at, now)]
    return sum(one.downloads if limit.metric == "downloads" else one.octets for one in counted)


def _counts(period: str, at: int, now: int) -> bool:
    """Whether what began ``at`` counts in the period that ``now`` lies in."""
    if period == "total":
        return True
    seconds = period_seconds(period)
    if seconds is None:
        length = 7 if period == "month" else 10
        return _date(at)[:length] == _date(now)[:length]
    width = math.ceil(seconds * _SECOND / _BUCKETS)
    return now // width - at // width <= _BUCKETS


def _date(microseconds: int) -> str:
    return datetime.datetime.fromtimestamp(microseconds / _SECOND, datetime.UTC).date().isoformat()
