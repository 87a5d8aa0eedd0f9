"""Slowing callers down: the downloads of an account together get so many bytes a second, each its fair part."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from gateway.delivery.allowance import Allowance, AllowanceEndedError
from gateway.delivery.bucket import SECOND, Member, TokenBucket


class Throttle:
    """The bucket of one account, with those who wait for its bytes."""

    def __init__(self, rate: int, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._bucket = TokenBucket(_checked(rate), clock())
        self._waiting: dict[Member, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rate(self) -> int:
        """Bytes a second, at least 1; whoever sets it changes it at once for all downloads that run."""
        return self._bucket.rate

    @rate.setter
    def rate(self, rate: int) -> None:
        self._bucket.change_rate(_checked(rate), self._clock())
        self._serve()

    @property
    def downloads(self) -> int:
        """How many share it."""
        return len(self._bucket.members)

    def join(self, most: int | None) -> Member:
        """Let one more draw from it; see `Throttles.throttle`."""
        return self._bucket.join(most)

    def leave(self, member: Member) -> None:
        """Let one go; if it still waits, it does so in vain."""
        self._bucket.leave(member)
        waiter = self._waiting.pop(member, None)
        if waiter is not None and not waiter.done():
            waiter.set_exception(AllowanceEndedError("the download has left its throttle"))
        self._serve()

    async def draw(self, member: Member) -> None:
        """Wait for the next piece of ``member``.

        Raises:
            AllowanceEndedError: it has left, or was given all that it would want.
        """
        if member not in self._bucket.members or member.wants(1) < 1:
            raise AllowanceEndedError("the throttle has no more bytes for this download")
        waiter = self._waiting[member] = asyncio.get_running_loop().create_future()
        self._bucket.ask(member)
        self._serve()
        try:
            await waiter
        finally:
            if self._waiting.pop(member, None) is not None:
                self._bucket.withdraw(member)
                self._serve()

    def _serve(self) -> None:
        """Give what there is, and come back when there is more."""
        for member in self._bucket.serve(self._clock()):
            waiter = self._waiting.pop(member)
            if not waiter.done():
                waiter.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait = self._bucket.wait()
        if wait is not None:
            self._timer = asyncio.get_running_loop().call_later(wait / SECOND, self._serve)


class Share:
    """The part of one download in the throttle of its account: an `Allowance`."""

    def __init__(self, throttle: Throttle, member: Member) -> None:
        self.throttle = throttle
        self._member = member

    def granted(self) -> int:
        """See `Allowance`."""
        return self._member.granted

    async def more(self) -> None:
        """See `Allowance`."""
        await self.throttle.draw(self._member)


class Throttles:
    """The accounts whose downloads are slowed down now, each with its throttle. A process has one."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """``clock`` gives nanoseconds and never goes back."""
        self._clock = clock
        self._running: dict[str, Throttle] = {}

    @property
    def running(self) -> Mapping[str, Throttle]:
        """The throttles by account: for whoever sets their rates by what other processes send."""
        return MappingProxyType(self._running)

    @contextlib.contextmanager
    def throttle(self, account: str, rate: int, *, most: int | None = None) -> Iterator[Share]:
        """Slow one more download of ``account`` down while the block runs.

        Args:
            account: whose downloads share the rate.
            rate: bytes a second for all of them in this process, at least 1; it replaces that of those which run.
            most: bytes that this one will send in all, so that none are taken from the others in vain.

        Raises:
            ValueError: the rate is no such number.
        """
        throttle = self._running.get(account)
        if throttle is None:
            throttle = self._running[account] = Throttle(rate, self._clock)
        elif throttle.rate != rate:
            throttle.rate = rate
        member = throttle.join(most)
        try:
            yield Share(throttle, member)
        finally:
            throttle.leave(member)
            if not throttle.downloads:
                del self._running[account]


class Throttled:
    """An allowance that is slowed down: both bound what is sent."""

    def __init__(self, allowance: Allowance | None, share: Allowance) -> None:
        self._allowance = allowance
        self._share = share

    def granted(self) -> int:
        """See `Allowance`."""
        granted = self._share.granted()
        return granted if self._allowance is None else min(granted, self._allowance.granted())

    async def more(self) -> None:
        """See `Allowance`."""
        mark = self.granted()
        # First, since it may end, or take long: what is taken from the throttle is taken from other downloads.
        while self._allowance is not None and self._allowance.granted() <= mark:
            await self._allowance.more()
        while self._share.granted() <= mark:
            await self._share.more()


def _checked(rate: int) -> int:
    if rate < 1:
        raise ValueError(f"a rate must be at least 1 byte a second, not {rate}")
    return rate
