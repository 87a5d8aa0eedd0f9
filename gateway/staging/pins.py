"""Pins of what is read: copies in the cache are not evicted while somebody downloads them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self

from gateway.db import Database
from gateway.errors import GatewayError

log = logging.getLogger(__name__)

PIN_SECONDS = 120.0
"""That a pin lasts by itself: so long a process that dies keeps what it read from being evicted."""
RENEW_SECONDS = 40.0
GATHER_SECONDS = 0.5
"""Downloads that begin within it are written down together."""
_MOST = 1000
"""Entries in one statement."""

# Also of one that is to be removed: its room is not free before nobody reads it.
_PIN = """
UPDATE cache_entries e
SET used_at = now(), read_until = greatest(e.read_until, now() + $3::float8 * interval '1 second')
FROM (
    SELECT entry_id FROM cache_entries
    WHERE cache = $1 AND location = ANY ($2::text[]) AND state <> 'FILLING' ORDER BY entry_id FOR NO KEY UPDATE
) pinned WHERE e.entry_id = pinned.entry_id"""


class Readers:
    """The downloads of this process that read from the cache. An async context manager: it owns a task."""

    def __init__(self, database: Database, cache: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        """``cache``: its name; None where there is none, and nothing is done."""
        self._database = database
        self._cache = cache
        self._clock = clock
        self._reading: Counter[str] = Counter()
        self._handed_over: dict[str, float] = {}
        """Until when somebody may read from the storage itself."""
        self._new: set[str] = set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._cache is not None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name="cache readers")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextlib.contextmanager
    def reading(self, storage: str, location: str) -> Iterator[None]:
        """Keep a copy while the block reads it, if it lies in the cache; costs the block nothing."""
        if storage != self._cache:
            yield
            return
        self._begin(location)
        self._reading[location] += 1
        try:
            yield
        finally:
            self._reading[location] -= 1
            if not self._reading[location]:
                del self._reading[location]

    def handed_over(self, storage: str, location: str, seconds: float) -> None:
        """Keep a copy for ``seconds``, if it lies in the cache: somebody was sent to the storage to read it."""
        if storage == self._cache:
            self._begin(location)
            self._handed_over[location] = max(self._handed_over.get(location, 0.0), self._clock() + seconds)

    def _begin(self, location: str) -> None:
        if location not in self._reading:
            self._new.add(location)
            self._woken.set()

    async def _work(self) -> None:
        renewed = self._clock()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(renewed + RENEW_SECONDS - self._clock(), 0)):
                    await self._woken.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._woken.clear()
            now = self._clock()
            self._handed_over = {one: until for one, until in self._handed_over.items() if until > now}
            pinned, self._new = self._new, set()
            if now - renewed >= RENEW_SECONDS:
                pinned |= self._reading.keys() | self._handed_over.keys()
                renewed = now
            await self._pin(sorted(pinned))

    async def _pin(self, locations: list[str]) -> None:
        for start in range(0, len(locations), _MOST):
            some = locations[start : start + _MOST]
            try:
                await self._database.fetch(_PIN, self._cache, some, PIN_SECONDS)
            except GatewayError as error:
                log.warning("what is read from the cache cannot be written down at the moment: %r", error.__cause__)
                self._new.update(some)


@contextlib.asynccontextmanager
async def reading_from(database: Database, cache: str | None) -> AsyncIterator[Readers]:
    """Readers while the block runs; ``cache`` is its name, None without one."""
    async with Readers(database, cache) as readers:
        yield readers
