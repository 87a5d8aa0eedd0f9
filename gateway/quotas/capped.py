"""Admission while Redis is out of reach, for callers whose every limit says ``fail = capped``."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from gateway.quotas.limits import Limit
from gateway.quotas.reservation import Reservation


class Capped:
    """Counts what this process admits on its own, and keeps what it charges until the ledger has it."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        """Nothing is admitted yet.

        Args:
            most: downloads of one account at a time, and starts of it in any second.
            clock: seconds since 1970.
        """
        self._most = most
        self._clock = clock
        self._running: Counter[tuple[str, str]] = Counter()
        self._starts: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._events: list[tuple[str, str]] = []

    def admit(self, reservation: Reservation, limits: Sequence[Limit]) -> bool:
        """Admit a download, if its limits allow that; then it is to be ended with `end`.

        Limits of count and bytes are exact or nothing, and so never capped; anonymous callers are nobody in particular.
        """
        if not limits or not all(limit.capped and limit.value for limit in limits) or not reservation.merges:
            return False
        who, now = (reservation.tenant, reservation.accounts[0]), self._clock()
        starts = self._starts[who]
        while starts and starts[0] <= now - 1:
            starts.popleft()
        if self._running[who] >= self._most or len(starts) >= self._most:
            return False
        starts.append(now)
        self._running[who] += 1
        return True

    def end(self, reservation: Reservation, sent: int, *, delivered: bool) -> None:
        """Charge what was sent to the ledger."""
        who = (reservation.tenant, reservation.accounts[0])
        self._running[who] -= 1
        if not self._running[who]:
            del self._running[who], self._starts[who]
        if delivered:
            amounts = {"k": "grant", "d": 1, "b": sent, "at": int(self._clock() * 1e6)}
            event = f"{{{reservation.about},{json.dumps(amounts)[1:]}"
            self._events.append((reservation.tenant, event))

    def waiting(self) -> dict[str, list[str]]:
        """Events that the ledger has not, by tenant."""
        found: dict[str, list[str]] = {}
        for tenant, event in self._events:
            found.setdefault(tenant, []).append(event)
        return found

    def recorded(self, tenant: str, events: Sequence[str]) -> None:
        """The ledger has these."""
        known = set(events)
        self._events = [entry for entry in self._events if entry[0] != tenant or entry[1] not in known]
