"""Nearline files, workers that restore them, and a database, without a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import asyncpg
from pydantic import SecretStr

import gateway.db
from gateway.config import Database as DatabaseSettings
from gateway.config.staging import Staging as Settings
from gateway.db import Database
from gateway.locations import EVERY_TENANT, Location
from gateway.notifications import listening
from gateway.staging.cache import Cache
from gateway.staging.opening import BY_INDEX
from gateway.staging.worker import Workers, working
from gateway.storage import CanStage, Storage
from storage_plugins.local import LocalStorage
from tests.orders.support import fill
from tests.staging.robot import Robot

QUICK: Mapping[str, Any] = {"poll": 0.05, "retry": 0.1, "lease": 1, "timeout": 5, "tries": 3}


@dataclasses.dataclass
class Library:
    dsn: str
    database: Database
    pool: asyncpg.Pool
    cache: Cache
    folder: Path
    """Of the cache."""
    settings: Settings
    prefixes: tuple[str, ...] = ("",)

    def workers(self, storages: Mapping[str, CanStage], *, cache: bool = True, **settings: Any) -> Workers:
        changed = self.settings.model_copy(update=settings)
        places = {
            name: Location(cast("Storage", one), "NEARLINE", tenants=frozenset({EVERY_TENANT}), prefixes=self.prefixes)
            for name, one in storages.items()
        }
        return Workers(self.database, changed, places, self.cache if cache else None)

    @contextlib.asynccontextmanager
    async def working(self, *storages: Robot, cache: bool = True, **settings: Any) -> AsyncIterator[Workers]:
        """Workers for them, until the end of the block."""
        workers = self.workers({one.name: one for one in storages}, cache=cache, **settings)
        settings_of_database = DatabaseSettings(dsn=SecretStr(self.dsn))
        async with listening(settings_of_database) as notifications, working(workers, notifications):
            yield workers

    async def files(self, robot: Robot, count: int, *, size: int = 1000, checksums: bool = True) -> list[int]:
        """Files on tape, each with a copy in ``robot``; their ids."""
        async with self.pool.acquire() as connection:
            await fill(cast("asyncpg.Connection", connection), products=count, files=1, state="NEARLINE")
        rows = await self.pool.fetch("SELECT file_id FROM files ORDER BY file_id")
        ids = [row["file_id"] for row in rows]
        contents = {one: content(one, size) for one in ids}
        for one, data in contents.items():
            robot.put(str(one), data)
        await self.pool.execute("UPDATE copies SET storage = $1", robot.name)
        await self.pool.execute("UPDATE files SET size = $1", size)
        if checksums:
            await self.pool.execute(
                "UPDATE files f SET checksum_algorithm = 'MD5', checksum = known.checksum "
                "FROM unnest($1::bigint[], $2::text[]) AS known(file_id, checksum) WHERE f.file_id = known.file_id",
                ids,
                [hashlib.md5(contents[one]).hexdigest() for one in ids],
            )
        return ids

    async def ask(self, *file_ids: int, hours: float = 1, priority: int = 3, who: str = "a@example.org") -> list[int]:
        """Ask for files as users do; ids of the restores."""
        found = []
        for one in file_ids:
            restore_id = await self.pool.fetchval(
                "INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, size, priority, hours) "
                "SELECT p.tenant_id, f.file_id, c.copy_id, c.storage, c.location, f.size, $2, $3 "
                "FROM files f JOIN products p USING (product_id) JOIN copies c USING (file_id) "
                "WHERE f.file_id = $1 AND c.entry_id IS NULL ORDER BY c.copy_id LIMIT 1 RETURNING restore_id",
                *(one, priority, hours),
            )
            await self.pool.execute(
                "INSERT INTO restore_wishes (restore_id, tenant_id, email) SELECT restore_id, tenant_id, $2 "
                "FROM restores WHERE restore_id = $1",
                *(restore_id, who),
            )
            found.append(restore_id)
        return found

    async def cancel(self, restore_id: int) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("DELETE FROM restore_wishes WHERE restore_id = $1", restore_id)
            await connection.execute(
                "UPDATE restores SET state = 'CANCELED', ended_at = now() WHERE restore_id = $1", restore_id
            )

    async def row(self, restore_id: int) -> asyncpg.Record:
        row = await self.pool.fetchrow("SELECT * FROM restores WHERE restore_id = $1", restore_id)
        assert row is not None
        return row

    async def states(self) -> dict[str, int]:
        rows = await self.pool.fetch("SELECT state, count(*) FROM restores GROUP BY state")
        return {row["state"]: row["count"] for row in rows}

    async def become(self, restore_id: int, state: str, *, clean: bool = False) -> asyncpg.Record:
        async with asyncio.timeout(30):
            while True:
                row = await self.row(restore_id)
                if row["state"] == state and row["lease"] is None and not (clean and (row["asked"] or row["roomed"])):
                    return row
                await asyncio.sleep(0.02)

    async def all_become(self, state: str, *, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while set(await self.states()) != {state}:
                await asyncio.sleep(0.05)

    async def readable(self, file_id: int) -> list[bytes]:
        """The bytes of what lies in the cache of a file, and can be read now."""
        rows = await self.pool.fetch(
            "SELECT location FROM copies WHERE file_id = $1 AND entry_id IS NOT NULL AND restored_until > now()",
            file_id,
        )
        return [(self.folder / row["location"]).read_bytes() for row in rows]


def content(number: int, size: int) -> bytes:
    return (f"file {number} " * (size // 6)).encode()[:size]


@contextlib.asynccontextmanager
async def open_library(
    dsn: str, folder: Path, *, cache_size: int = 1_000_000, **settings: Any
) -> AsyncIterator[Library]:
    neighbour = DatabaseSettings(dsn=SecretStr(dsn), pool_size=4, timeout=60)
    chosen = Settings(**{**QUICK, "cache_size": cache_size, **settings})
    folder.mkdir(exist_ok=True)
    storage = LocalStorage.from_options("cache", {"root": str(folder)})
    place = Location(storage, tenants=frozenset({EVERY_TENANT}))
    async with (
        gateway.db.connect(neighbour, BY_INDEX) as database,
        asyncpg.create_pool(dsn, min_size=1, max_size=4) as pool,
    ):
        cache = Cache(database, place, storage, size=cache_size, lease=chosen.lease)
        await cache.open()
        try:
            yield Library(dsn, database, pool, cache, folder, chosen)
        finally:
            await cache.close()
            await storage.close()
