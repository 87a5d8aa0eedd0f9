"""Workers: take sub-orders, see what has become of their files, write it down. Any number, anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import logging
from collections.abc import AsyncIterator, Sequence

from gateway.config import Orders as Settings
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.notifications import Notifications, Payload
from gateway.orders import queue, upkeep
from gateway.orders.model import Stager, Sums

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Without being woken, workers look for work so often: leases of the dead end, and files come back from tape."""
UPKEEP_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
"""After a failure."""
_HAND_BACK_SECONDS = 2.0
"""That it may take to leave to others what was in hand when the process ends."""


class Workers:
    """Some workers of this process. Made by `working`."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        stager: Stager,
        sums: Sums | None = None,
        offline: Sequence[str] = (),
    ) -> None:
        """``sums``: None computes no CRC-32. ``offline``: storages in which nothing is online for good."""
        self._database = database
        self._sums = sums
        self._offline = list(offline)
        self._settings = settings
        self._stager = stager
        self._woken = asyncio.Event()
        self._due_first = itertools.cycle((True, False))

    def changed(self, topic: str, payload: Payload) -> None:  # noqa: ARG002 - as `Subscriber`
        """As `Subscriber`."""
        if topic == queue.TOPIC:
            self._woken.set()

    def missed(self) -> None:
        """As `Subscriber`."""
        self._woken.set()

    async def work(self) -> None:
        """Do what there is to do, until this is cancelled."""
        while True:
            try:
                while await self.step():
                    pass
            except GatewayError as error:
                log.warning("a worker cannot go on at the moment: %r", error.__cause__ or error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except Exception:
                # What it had in hand is begun anew when its lease ends.
                log.exception("a worker failed")
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()

    async def step(self) -> bool:
        """Prepare one claim; whether there was one.

        Raises:
            GatewayError: 503.
        """
        held = await self._claim()
        if held is None:
            return False
        try:
            return await self._prepare(held)
        except asyncio.CancelledError:
            await self._hand_back(held)
            raise

    async def _claim(self) -> queue.Claim | None:
        claiming = asyncio.ensure_future(
            queue.claim(self._database, self._settings.lease, due_first=next(self._due_first))
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # PostgreSQL may have given us something already.
            await asyncio.wait([claiming], timeout=_HAND_BACK_SECONDS)
            if not claiming.done():
                claiming.cancel()
            elif not claiming.cancelled() and claiming.exception() is None and (held := claiming.result()) is not None:
                await self._hand_back(held)
            raise

    async def _hand_back(self, held: queue.Claim) -> None:
        with contextlib.suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(_HAND_BACK_SECONDS):
                await queue.hand_back(self._database, held)

    async def _prepare(self, held: queue.Claim) -> bool:
        async with self._alive(held):
            nearline, known = await queue.not_online(self._database, held, self._offline)
            if nearline:
                async with asyncio.timeout(self._settings.timeout):
                    known = {**known, **await self._stager.stage(nearline)}
            if self._sums is not None:
                await self._sums.sum(held.ranges)
            least = datetime.timedelta(hours=self._settings.least_hours)
            status = await queue.finish(self._database, held, known, least=least, offline=self._offline)
        if status is None:
            log.warning("what a worker has prepared of order %s was taken from it meanwhile", held.order_id)
        return True

    async def upkeep(self) -> None:
        """End orders whose time is over, and clean up, again and again."""
        while True:
            try:
                await upkeep.run(self._database, self._settings)
            except GatewayError as error:
                log.warning("orders cannot be looked after at the moment: %r", error.__cause__ or error)
            except Exception:
                log.exception("orders cannot be looked after")
            await asyncio.sleep(UPKEEP_SECONDS)

    @contextlib.asynccontextmanager
    async def _alive(self, held: queue.Claim) -> AsyncIterator[None]:
        """Show signs of life while the block runs; it is cancelled once the lease is lost."""
        body = asyncio.current_task()
        assert body is not None  # noqa: S101 - there is one
        lost = False

        async def beat() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(self._settings.lease / 3)
                with contextlib.suppress(GatewayError):
                    if not await queue.prolong(self._database, held, self._settings.lease):
                        lost = True
                        body.cancel()
                        return

        heart = asyncio.create_task(beat(), name="order lease")
        try:
            yield
        except asyncio.CancelledError:
            if not lost or body.uncancel() > 0:
                raise
            raise _LeaseLostError("another worker has it now") from None
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)


class _LeaseLostError(Exception):
    """The worker was taken for dead."""


@contextlib.asynccontextmanager
async def working(
    database: Database,
    notifications: Notifications,
    settings: Settings,
    stager: Stager,
    sums: Sums | None = None,
    *,
    workers: int,
    offline: Sequence[str] = (),
) -> AsyncIterator[None]:
    """Have ``workers`` work while the block runs."""
    crew = Workers(database, settings, stager, sums, offline)
    notifications.subscribe(crew)
    tasks: Sequence[asyncio.Task[None]] = []
    if workers:
        tasks = [asyncio.create_task(crew.work(), name=f"order worker {number}") for number in range(workers)]
        tasks = [*tasks, asyncio.create_task(crew.upkeep(), name="order upkeep")]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
