"""The cache of restored copies: never more bytes than it may have, never a copy that is not whole.

An entry takes its room before its first byte is written (FILLING), is read once its bytes were held against size and
checksum (READY), and gives its room back when its file is gone (REMOVING, and then no row). Whatever dies in between,
`Cache.upkeep` of any process ends it. Any number of processes may work on one cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from gateway.config import Config
from gateway.db import Database
from gateway.errors import ConfigurationError
from gateway.locations import Location
from gateway.staging.cache_filling import CacheFullError, Filling, Kept, NotOursError
from gateway.staging.cache_names import location_of, prefix_of
from gateway.staging.cache_rows import CACHED, NEVER, READY, Room, Rows
from gateway.staging.cache_tidying import Tidying
from gateway.storage import CanKeep, CopyUnavailableError, OnDisk, can_stream

__all__ = ["CACHED", "READY", "Cache", "CacheFullError", "Kept", "NotOursError", "Room", "opened_cache"]

log = logging.getLogger(__name__)

REMOVERS = 8
"""Files that are removed at a time."""


class Cache:
    """The cache, for one process. Made by `opened_cache`."""

    def __init__(self, database: Database, location: Location, storage: CanKeep, *, size: int, lease: float) -> None:
        """Make it.

        Args:
            database: with rows of it.
            location: where it lies.
            storage: of that location.
            size: bytes that it may have.
            lease: seconds without a sign of life after which one who fills an entry counts as dead.
        """
        self.name = location.storage.name
        """Of its ``[[storage]]``, and in ``copies.storage``."""
        self.size = size
        """Most bytes."""
        self._location = location
        self._storage = storage
        self._rows = Rows(database, self.name)
        self._filling = Filling(self._rows, storage, self.name, lease)
        self._tidying = Tidying(self._rows, storage)

    async def open(self) -> None:
        """See that its row and its folder are there.

        Raises:
            ConfigurationError: the folder cannot be made.
        """
        await self._rows.make()
        await self._filling.open()

    def can_hold(self, room: Room) -> bool:
        """Whether there can ever be room: not for what is larger than the whole cache, or of a tenant it is not for."""
        return room.size <= self.size and self._location.serves(room.tenant, self._where(room, 0))

    async def reserve(self, wanted: Sequence[Room]) -> set[int]:
        """Take room for restores, in their order; those that have room already are well.

        What was not used for longest goes for them, but only if that makes enough room. A smaller one may get room
        where a larger one before it does not.

        Returns the ``restore_id`` of those that have room now.

        Raises:
            GatewayError: 503.
        """
        left = [room for room in wanted if self.can_hold(room)]
        had, free = await self._take(left)
        left = [room for room in left if room.restore_id not in had]
        if left and await self._remove():
            found, free = await self._take(left)
            had |= found
            left = [room for room in left if room.restore_id not in had]
        if left and await self._make_room(left, free):
            had |= (await self._take(left))[0]
        return had

    async def fill(
        self,
        restore_id: int,
        checksum: str | None,
        algorithm: str | None,
        fetch: Callable[[Path], Awaitable[None]],
    ) -> Kept:
        """Fetch the bytes of a restore that has room, and keep them.

        Nobody reads them yet: that is for the transaction with `READY` and `CACHED`, within the lease. If it fails, the
        room stays taken until it is given back.

        Args:
            restore_id: of the restore.
            checksum: hexadecimal, in any case; None where the catalogue has none.
            algorithm: of the checksum, as the catalogue names it.
            fetch: writes the bytes to a path where nothing is yet.

        Raises:
            CacheFullError: the disk or the bucket has no room; what was used least was evicted, so that a later try may
                succeed.
            CopyBrokenError: what was fetched has not the size or the checksum.
            NotOursError: somebody else fills it, or it was given back.
            CopyUnavailableError: it could not be written.
            StorageError: as ``fetch`` raises.
        """
        try:
            return await self._filling.fill(restore_id, checksum, algorithm, fetch)
        except CacheFullError as error:
            log.error("alarm: the cache of restored copies cannot be written to: %s", error)  # noqa: TRY400 - said all
            await self._evict(error.size)
            await self._remove()
            raise

    async def give_back(self, restore_ids: Sequence[int]) -> None:
        """Have no entries of restores any more: copies are gone at once, files as soon as nobody needs them.

        Raises:
            GatewayError: 503.
        """
        await self._rows.give_back(restore_ids)
        await self._remove()

    async def upkeep(self) -> None:
        """End what somebody else began and left, and see that files are there. To be called every minute or so.

        Raises:
            GatewayError: 503.
        """
        used, counted = await self._rows.balance()
        if used != counted:
            log.error("alarm: the cache counts %s bytes as used, but its entries have %s", used, counted)
        await self._rows.give_back_left_over()
        await self._rows.drop_uncopied()
        if used > self.size:  # it was larger once
            await self._evict(used - self.size)
        try:
            await self._tidying.check()
            await self._tidying.sweep()
        except (CopyUnavailableError, OSError) as error:
            log.warning("the cache cannot be looked after at the moment: %s", error)
        await self._remove()

    async def close(self) -> None:
        """Let the threads end."""
        self._filling.close()

    async def _take(self, wanted: Sequence[Room]) -> tuple[set[int], int]:
        return await self._rows.take(wanted, self.size, self._where) if wanted else (set(), 0)

    def _where(self, room: Room, entry_id: int) -> str:
        prefix = prefix_of(room.tenant, self._location.prefixes, self._storage.base)
        return location_of(prefix, room.file_id, entry_id)

    async def _make_room(self, left: Sequence[Room], free: int) -> bool:
        """Evict what has to go for those of ``left`` that there can be room for; whether anything went."""
        victims: dict[int, int] = {}
        wanted = octets = 0
        pages = self._evictable()
        async with contextlib.aclosing(pages):
            ended = False
            for room in left:
                while not ended and free + octets < wanted + room.size:
                    try:
                        page = await anext(pages)
                    except StopAsyncIteration:
                        ended = True
                    else:
                        victims |= page
                        octets = sum(victims.values())
                if free + octets >= wanted + room.size:
                    wanted += room.size
        if not wanted:
            return False
        gone = await self._rows.evict(_first(victims, wanted - free))
        return await self._remove() or gone > 0

    async def _evict(self, octets: int) -> None:
        victims: dict[int, int] = {}
        async with contextlib.aclosing(self._evictable()) as pages:
            async for page in pages:
                victims |= page
                if sum(victims.values()) >= octets:
                    break
        await self._rows.evict(_first(victims, octets))

    async def _evictable(self) -> AsyncGenerator[Mapping[int, int], None]:
        """Entries that can be evicted and their sizes, those to go first in front."""
        yield dict(await self._rows.expired())
        last = NEVER
        while page := await self._rows.least_used(last):
            yield {one.entry_id: one.size for one in page}
            last = page[-1]

    async def _remove(self) -> bool:
        """Remove files of entries that are to go; whether any has gone. One that cannot be removed is tried again."""
        last, any_gone = 0, False
        turns = asyncio.Semaphore(REMOVERS)

        async def remove(entry_id: int, location: str) -> int | None:
            async with turns:
                try:
                    await self._storage.remove(location)
                except CopyUnavailableError as error:
                    log.warning("an entry of the cache cannot be removed at the moment: %s", error)
                    return None
                return entry_id

        while page := await self._rows.removable(last):
            last = page[-1][0]
            gone = [one for one in await asyncio.gather(*(remove(*it) for it in page)) if one is not None]
            await self._rows.removed(gone)
            any_gone |= bool(gone)
            if not gone:
                break
        return any_gone


def _first(victims: Mapping[int, int], octets: int) -> list[int]:
    """So many of ``victims``, in their order, as have at least some bytes together."""
    chosen, found = [], 0
    for entry_id, size in victims.items():
        if found >= octets:
            break
        chosen.append(entry_id)
        found += size
    return chosen


@contextlib.asynccontextmanager
async def opened_cache(
    config: Config, locations: Mapping[str, Location], database: Database
) -> AsyncIterator[Cache | None]:
    """The cache of the settings while the block runs; None without one.

    Raises:
        ConfigurationError: its storage cannot keep files, or the folder for new ones cannot be made.
    """
    name = config.staging.cache
    if name is None:
        yield None
        return
    storage = cache_storage(locations[name])
    cache = Cache(database, locations[name], storage, size=config.staging.cache_size, lease=config.staging.lease)
    try:
        await cache.open()
        yield cache
    finally:
        await cache.close()


def cache_storage(location: Location) -> CanKeep:
    """The storage of a location that a cache can lie in.

    Raises:
        ConfigurationError: none can.
    """
    storage = location.storage
    name = storage.name
    if not isinstance(storage, CanKeep) or not (isinstance(storage, OnDisk) or can_stream(storage)):
        raise ConfigurationError(
            f"staging.cache: the plug-in of storage {name!r} cannot keep files; take 'local' or 's3'"
        )
    if storage.scratch is None:
        raise ConfigurationError(f"staging.cache: storage {name!r} needs the option 'scratch' to be a cache")
    return storage
