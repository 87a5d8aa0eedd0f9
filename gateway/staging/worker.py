"""Workers: restore what is asked for, storage by storage, and look after what was restored. Any number, anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

from gateway.config.staging import Staging as Settings
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.locations import Location
from gateway.notifications import Notifications, Payload
from gateway.staging import upkeep
from gateway.staging.cache import Cache
from gateway.staging.leases import Leases
from gateway.staging.orders import wake_orders
from gateway.staging.queue import Queue
from gateway.staging.statements import WORK
from gateway.staging.station import Station, Surroundings
from gateway.storage import CanStage

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Without being woken, workers look for work so often, or at each poll if that comes sooner."""
UPKEEP_SECONDS = 60.0
_TIDY_SECONDS = 1.0
"""At least between two looks at what time and users ended."""
_PAUSE_SECONDS = 1.0
"""After a failure."""


class Workers:
    """Some workers of this process for each storage. Made by `working`."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        locations: Mapping[str, Location],
        cache: Cache | None,
    ) -> None:
        """``locations``: those that can restore, the best first."""
        self._database = database
        self._settings = settings
        self._cache = cache
        self._names = list(locations)
        self._queue = Queue(database, lease=settings.lease, pin_hours=settings.order_pin_hours)
        self.leases = Leases(self._queue, settings.lease)
        self._look = min(LOOK_SECONDS, settings.poll)
        self._ended: set[int] = set()
        self._tidy_woken = asyncio.Event()
        self.broken = 0
        """Copies that were found to be broken when they were restored, since the start: an alarm."""
        around = Surroundings(
            settings, self._queue, self.leases, cache, self._names, self._note_ended, self._note_broken
        )
        self.stations = [
            Station(name, location, location.storage, around)
            for name, location in locations.items()
            if isinstance(location.storage, CanStage)
        ]
        self._woken = {station: asyncio.Event() for station in self.stations}

    def changed(self, topic: str, payload: Payload) -> None:  # noqa: ARG002 - as `Subscriber`
        """As `Subscriber`."""
        if topic == WORK:
            self._wake()
            self._tidy_woken.set()
        elif topic == "orders":
            self._tidy_woken.set()

    def missed(self) -> None:
        """As `Subscriber`."""
        self._wake()
        self._tidy_woken.set()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Start to work."""
        found = [asyncio.create_task(self.leases.beat(), name="restore leases")]
        for station in self.stations:
            name = f"restores of {station.name}"
            for _ in range(self._settings.workers):
                found.append(asyncio.create_task(self._work(station), name=name))
                found += [
                    asyncio.create_task(self._forever(station.fetch), name=f"{name}: fetch")
                    for _ in range(self._settings.fetches)
                ]
        found.append(asyncio.create_task(self._tidy(), name="restore upkeep"))
        return found

    async def tidy(self) -> None:
        """End what time and users ended, and have orders look at what was restored for them.

        Raises:
            GatewayError: 503.
        """
        expired = await upkeep.expire(self._database)
        if expired:
            self._wake()
        await upkeep.withdraw(self._database)
        ended, self._ended = self._ended, set()
        if ended:
            try:
                await wake_orders(self._database, ended)
            except BaseException:
                self._ended |= ended
                raise

    async def _work(self, station: Station) -> None:
        woken = self._woken[station]

        async def turn() -> None:
            woken.clear()
            while await station.step():
                pass
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look):
                    await woken.wait()

        await self._forever(turn)

    async def _tidy(self) -> None:
        loop = asyncio.get_running_loop()
        next_upkeep = 0.0
        keep = datetime.timedelta(days=self._settings.keep_days)

        async def turn() -> None:
            nonlocal next_upkeep
            self._tidy_woken.clear()
            await self.tidy()
            if loop.time() >= next_upkeep:
                await upkeep.clean(self._database, self._names, self._cache, keep)
                next_upkeep = loop.time() + UPKEEP_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look):
                    await self._tidy_woken.wait()
            # Many restores that end are told to orders together.
            await asyncio.sleep(min(_TIDY_SECONDS, self._look))

        await self._forever(turn)

    async def _forever(self, doing: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await doing()
            except GatewayError as error:
                log.warning("restores cannot go on at the moment: %r", error.__cause__ or error)
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:
                # What was in hand is begun anew when its lease ends.
                log.exception("a worker of restores failed")
                await asyncio.sleep(_PAUSE_SECONDS)

    def _wake(self) -> None:
        for station, woken in self._woken.items():
            station.room_may_have_come()
            woken.set()

    def _note_ended(self, restore_ids: Iterable[int]) -> None:
        self._ended.update(restore_ids)
        if self._ended:
            self._tidy_woken.set()

    def _note_broken(self) -> None:
        self.broken += 1


@contextlib.asynccontextmanager
async def working(workers: Workers, notifications: Notifications) -> AsyncIterator[None]:
    """Have ``workers`` work while the block runs."""
    notifications.subscribe(workers)
    tasks: Sequence[asyncio.Task[None]] = workers.tasks()
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await workers.leases.hand_back()
