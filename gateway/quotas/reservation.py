"""What a download is charged for, as the scripts and the ledger are told."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.quotas.keys import Keys
from gateway.quotas.limits import Limit

MOST_BYTES = 2**53
"""Redis' Lua counts in doubles, which are exact up to here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reservation:
    """One download of one caller, before it is known whether it is granted."""

    tenant: str
    identifier: str
    accounts: tuple[str, ...]
    """That it is charged to; the first is the caller's own."""
    content: str
    """The same for the same bytes."""
    windows: tuple[int, ...]
    """Rolling windows that it counts in, seconds."""
    promised: int
    """Bytes of the representation that the answer will hold."""
    size: int
    """Bytes of the whole file; -1 unknown."""

    @property
    def about(self) -> str:
        """What its events say of it: members of a JSON object."""
        return f'"r":"{self.identifier}",{_about(self.accounts, self.content, self.windows)}'

    @property
    def merges(self) -> bool:
        """Whether it is one with other downloads of the same content; anonymous callers are many people."""
        return self.accounts[0].startswith("user:")

    def keys(self, keys: Keys) -> tuple[str, ...]:
        """``KEYS`` of the scripts that reserve and finish it."""
        content = self.content if self.merges else self.identifier
        return (
            keys.state,
            keys.events,
            keys.lease(self.identifier),
            keys.content(self.accounts[0], content),
            *keys.of_accounts(self.accounts),
        )


def from_about(tenant: str, about: str) -> Reservation:
    """The reservation of a lease that somebody else made; what it promised is not told."""
    told: Mapping[str, Any] = json.loads(f"{{{about}}}")
    return Reservation(tenant, told["r"], tuple(told["u"]), told["c"], tuple(told["w"]), 0, -1)


def from_lease(tenant: str, lease: str) -> Reservation:
    """As `from_about`, of a lease as the scripts keep it."""
    return from_about(tenant, lease.split(";", 2)[2])


def accounts_in(events: Iterable[str]) -> list[str]:
    """The accounts that events charge."""
    return sorted({account for event in events for account in json.loads(event)["u"]})


@functools.lru_cache(maxsize=4096)
def windows_of(limits: tuple[Limit, ...]) -> tuple[int, ...]:
    """The rolling windows of counting limits, in seconds."""
    rolling = {limit.period for limit in limits if limit.metric in ("downloads", "bytes")} - {"total", "day", "month"}
    return tuple(sorted(int(period[:-1]) for period in rolling))


@functools.lru_cache(maxsize=4096)
def limit_arguments(limits: tuple[Limit, ...], accounts: tuple[str, ...]) -> tuple[str | int, ...]:
    """The limits as ``reserve.lua`` reads them."""
    found: list[str | int] = []
    for limit in limits:
        number = accounts.index(limit.account) + 1
        period = limit.period.removesuffix("s")
        found += [number, limit.metric, period, limit.value, limit.burst, int(limit.slow_rate is not None)]
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _about(accounts: Sequence[str], content: str, windows: Sequence[int]) -> str:
    return json.dumps({"u": accounts, "c": content, "w": windows}, separators=(",", ":"))[1:-1]
