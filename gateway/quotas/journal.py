"""What this process did, kept until the ledger has it."""

from __future__ import annotations

from collections import deque


class Journal:
    """Events that scripts appended for this process and the ledger may not have.

    Should Redis lose them, the process tells the ledger itself.
    """

    def __init__(self) -> None:
        self._events: dict[str, deque[tuple[int, int, str]]] = {}

    def add(self, tenant: str, epoch: int, number: int, event: str) -> None:
        """Keep an event, which has ``number`` in the stream of its epoch."""
        self._events.setdefault(tenant, deque()).append((epoch, number, event))

    def confirm(self, tenant: str, epoch: int, position: int) -> None:
        """The ledger has the stream of ``epoch`` up to ``position``.

        Events are kept in the order of their answers, which is about that of their numbers: one that is out of order
        stays a little longer.
        """
        events = self._events.get(tenant)
        while events and (events[0][0], events[0][1]) <= (epoch, position):
            events.popleft()

    def waiting(self, tenant: str) -> list[str]:
        """The events of ``tenant``."""
        return [event for _, _, event in self._events.get(tenant, ())]

    def recorded(self, tenant: str, count: int) -> None:
        """The ledger has the first ``count`` of them, whatever became of their streams."""
        events = self._events.get(tenant)
        for _ in range(min(count, len(events or ()))):
            assert events is not None  # noqa: S101 - counted
            events.popleft()

    def tenants(self) -> list[str]:
        """Those with events."""
        return [tenant for tenant, events in self._events.items() if events]
