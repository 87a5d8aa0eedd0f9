"""Leases: what is granted, while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol

from gateway.delivery.allowance import AllowanceEndedError
from gateway.delivery.transfer import Transfer
from gateway.quotas.calls import UNKNOWN_ERRORS, Calls
from gateway.quotas.limits import Limit
from gateway.quotas.reservation import Reservation
from gateway.quotas.standing import Standing

log = logging.getLogger(__name__)

SLICE = 64 * 1024 * 1024
"""Bytes that may be sent between two heartbeats, at least: should the process die, so many may be charged that were
not sent. It grows with what was sent, so that a fast client never waits."""
MOST_SLICE = 4 * 1024**3
_AT_ONCE = 256
"""Heartbeats under way."""
_PAUSE = 0.25
"""Seconds before a heartbeat that had no answer is tried again."""


class Renew(Protocol):
    """Gives a lease more to send."""

    async def __call__(self, lease: Lease) -> None:
        """Have its mark grow.

        Raises:
            AllowanceEndedError: it cannot.
        """


@dataclasses.dataclass(eq=False, slots=True)
class Lease:
    """A granted reservation. Whoever holds it settles it, whatever happens.

    It is an `gateway.delivery.allowance.Allowance`: no more may be sent than what is charged if the process dies.
    """

    reservation: Reservation
    limits: tuple[Limit, ...]
    standings: tuple[Standing, ...]
    transfer: Transfer
    at: int
    """When it was granted, by the clock of Redis in microseconds."""
    opener: str
    """The lease that was charged as the download."""
    mark: int
    """Bytes that may be sent under this reservation so far."""
    renew: Renew
    capped: bool = False
    """Granted by this process alone: Redis knows nothing of it."""
    base: int = 0
    """Bytes of the answer that were charged to reservations before, which ran out."""
    ending: bool = False
    """It is being settled: that Redis does not know it any more is no wonder."""
    gone: bool = False
    """It ran out, or was lost: what may be sent is charged, and no more may be."""
    heard: Callable[[tuple[int, ...]], None] | None = None
    """Is told at each heartbeat how many leases each account has in all."""
    renewal: asyncio.Task[None] | None = None

    @property
    def sent(self) -> int:
        """Bytes that were sent under this reservation."""
        return max(self.transfer.sent - self.base, 0)

    @property
    def next_mark(self) -> int:
        """Up to where it should be allowed to send with the next heartbeat."""
        if self.sent + SLICE // 2 <= self.mark:
            return self.mark
        return min(self.reservation.promised, self.mark + min(max(self.sent, SLICE), MOST_SLICE))

    def granted(self) -> int:
        """Bytes of the answer that may be sent so far."""
        if self.next_mark > self.mark:
            # Ask ahead, so that nobody has to wait.
            self._renew()
        return self.base + self.mark

    async def more(self) -> None:
        """Wait until more may be sent.

        Raises:
            AllowanceEndedError: no more may.
        """
        await asyncio.shield(self._renew())

    def _renew(self) -> asyncio.Task[None]:
        if self.renewal is None or self.renewal.done():
            self.renewal = asyncio.get_running_loop().create_task(self.renew(self))
            self.renewal.add_done_callback(_seen)
        return self.renewal


def _seen(task: asyncio.Task[None]) -> None:
    """Whoever needs more hears of it; nobody else has to."""
    if not task.cancelled():
        task.exception()


class Leases:
    """The leases that this process holds, and their heartbeats."""

    def __init__(self, calls: Calls, ttl: int, again: Callable[[Lease], Awaitable[None]]) -> None:
        """Nothing is held.

        Args:
            calls: to Redis.
            ttl: seconds that a lease lives without a heartbeat.
            again: reserves anew for what a lease that is gone has left, and changes the lease to that.
        """
        self._calls = calls
        self._ttl = ttl
        self._again = again
        self._held: dict[str, Lease] = {}

    def of(self, tenant: str) -> list[Lease]:
        """Those of ``tenant`` that are neither settled nor gone."""
        return [lease for lease in self._held.values() if lease.reservation.tenant == tenant and not lease.gone]

    def hold(self, lease: Lease) -> None:
        """Keep the heart of ``lease`` beating."""
        self._held[lease.reservation.identifier] = lease

    def drop(self, lease: Lease) -> None:
        """It is settled."""
        self._held.pop(lease.reservation.identifier, None)

    @contextlib.contextmanager
    def replacing(self, lease: Lease) -> Iterator[None]:
        """In the block another reservation takes the place of that of ``lease``."""
        self.drop(lease)
        yield
        self.hold(lease)

    async def renew(self, lease: Lease) -> None:
        """Heartbeat of one lease that wants more, however often it must be tried while the lease lasts.

        Raises:
            AllowanceEndedError: it is gone, and what is left of it is not granted anew; or Redis does not answer.
        """
        try:
            async with asyncio.timeout(self._ttl):
                while not await self._beat(lease):  # noqa: ASYNC110 - each is a question to Redis
                    await asyncio.sleep(_PAUSE)
        except TimeoutError as error:
            raise AllowanceEndedError("the quota service does not answer") from error
        if lease.gone:
            await self._again(lease)

    async def beat(self) -> None:
        """One heartbeat of all leases."""
        held = [lease for lease in self._held.values() if not lease.gone]
        for first in range(0, len(held), _AT_ONCE):
            await asyncio.gather(*(self._beat(lease) for lease in held[first : first + _AT_ONCE]))

    async def _beat(self, lease: Lease) -> bool:
        """Whether there was an answer."""
        reservation, mark = lease.reservation, lease.next_mark
        try:
            answer = await self._calls.run(
                "heartbeat",
                reservation.tenant,
                lambda keys: (
                    keys.state,
                    keys.lease(reservation.identifier),
                    *(keys.running(account) for account in reservation.accounts),
                ),
                (reservation.identifier, mark, self._ttl),
            )
        except UNKNOWN_ERRORS:
            return False
        if lease.reservation is not reservation:
            return True
        if answer[0] == b"running":
            lease.mark = max(lease.mark, mark)
            if lease.heard is not None:
                lease.heard(tuple(int(count) for count in answer[2:]))
        elif reservation.identifier in self._held and not lease.ending:
            log.warning("a lease ran out while its download was running: it had no heartbeat for %s s", self._ttl)
            lease.gone = True
        return True


def first_mark(promised: int) -> int:
    """Bytes that may be sent before the first heartbeat."""
    return min(promised, SLICE)


def identifiers(leases: Sequence[Lease]) -> list[str]:
    """Of their reservations."""
    return [lease.reservation.identifier for lease in leases]
