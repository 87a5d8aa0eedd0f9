"""A cache on a real disk with a real PostgreSQL, and restores as a staging worker has them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import asyncpg
from pydantic import SecretStr

import gateway.db
from gateway.config import Database as DatabaseSettings
from gateway.db import Database
from gateway.locations import EVERY_TENANT, Location
from gateway.staging.cache import CACHED, READY, Cache, Kept, Room
from gateway.storage import CanKeep
from storage_plugins.local import LocalStorage
from tests.harness import TENANT, Catalogue

LEASE = 30.0


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A restore that goes on, and the bytes that it is to bring."""

    room: Room
    content: bytes
    sha256: str


class Stock:
    """Files that are nearline, and a cache for them."""

    def __init__(self, database: Database, connection: asyncpg.Connection, storage: CanKeep, root: Path) -> None:
        self.database = database
        self.connection = connection
        self.storage = storage
        self.root = root
        self.catalogue = Catalogue(connection, root)
        self._number = 0

    def cache(self, size: int, *, lease: float = LEASE, **location: object) -> Cache:
        """A process' own."""
        values: dict[str, object] = {"tenants": frozenset({EVERY_TENANT}), **location}
        place = Location(self.storage, **values)  # type: ignore[arg-type]
        return Cache(self.database, place, self.storage, size=size, lease=lease)

    async def file(self, size: int) -> tuple[int, bytes]:
        """A nearline file; its id and its bytes."""
        self._number += 1
        content = random.Random(self._number).randbytes(size)
        entry = await self.catalogue.described(content, item=f"item-{self._number}", digest=_sha256(content))
        await self.catalogue.copy(entry, "tape", f"tape/{self._number}", None, state="NEARLINE")
        return entry.file_id, content

    async def restore(self, size: int = 1000, *, file: tuple[int, bytes] | None = None) -> Wanted:
        """A restore that a worker has begun."""
        file_id, content = file or await self.file(size)
        restore_id = await self.connection.fetchval(
            """INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, size, state, hours, started_at)
               SELECT t.tenant_id, c.file_id, c.copy_id, c.storage, c.location, $2, 'STAGING', 24, now()
               FROM copies c CROSS JOIN tenants t
               WHERE c.file_id = $1 AND c.storage = 'tape' AND t.name = $3 RETURNING restore_id""",
            file_id,
            len(content),
            TENANT,
        )
        return Wanted(Room(restore_id, TENANT, file_id, len(content)), content, _sha256(content))

    async def fill(self, cache: Cache, wanted: Wanted, content: bytes | None = None) -> Kept:
        """Fetch the bytes, or those given instead."""
        return await cache.fill(
            wanted.room.restore_id,
            wanted.sha256.upper(),
            "SHA-256",
            writing(wanted.content if content is None else content),
        )

    async def finish(self, wanted: Wanted, kept: Kept, hours: float = 24) -> bool:
        """What a worker does once the bytes are there; whether it may."""
        try:
            async with self.connection.transaction():
                await self.connection.execute(
                    """UPDATE restores SET state = 'RESTORED', restored_at = now(),
                       expires_at = now() + $2 * interval '1 hour' WHERE restore_id = $1 AND state = 'STAGING'""",
                    wanted.room.restore_id,
                    hours,
                )
                if await self.connection.fetchval(READY, kept.entry_id, kept.lease) is None:
                    raise _NotOursError
                stat = kept.stat
                until = await self.connection.fetchval(
                    "SELECT expires_at FROM restores WHERE restore_id = $1", wanted.room.restore_id
                )
                written = await self.connection.fetchval(
                    CACHED, kept.entry_id, stat.size, stat.modified, stat.version, until, "SHA-256", wanted.sha256
                )
                if written is None:
                    raise _NotOursError
        except _NotOursError:
            return False
        return True

    async def put(self, cache: Cache, size: int = 1000, hours: float = 24) -> Wanted:
        """Have a file restored into the cache."""
        wanted = await self.restore(size)
        assert await cache.reserve([wanted.room]) == {wanted.room.restore_id}
        assert await self.finish(wanted, await self.fill(cache, wanted), hours)
        return wanted

    async def pin(self, wanted: Wanted, state: str = "AVAILABLE", seconds: float = 3600) -> int:
        """Have an order want it; gives the id of the order's file."""
        self._number += 1
        order_file_id = (1 << 24) + self._number
        await self.connection.execute(
            "INSERT INTO order_files (order_file_id, suborder, file_id, state) VALUES ($1, 1, $2, $3)",
            order_file_id,
            wanted.room.file_id,
            state,
        )
        await self.connection.execute(
            """INSERT INTO restore_wishes (restore_id, tenant_id, email, order_file_id, pinned_until)
               SELECT restore_id, tenant_id, 'a@example.org', $2, now() + $3 * interval '1 second'
               FROM restores WHERE restore_id = $1""",
            wanted.room.restore_id,
            order_file_id,
            seconds,
        )
        return order_file_id

    async def entries(self) -> dict[int, str]:
        """States by restore."""
        rows = await self.connection.fetch("SELECT restore_id, state FROM cache_entries")
        return {row["restore_id"]: row["state"] for row in rows}

    async def entry(self, wanted: Wanted) -> asyncpg.Record:
        row = await self.connection.fetchrow(
            "SELECT * FROM cache_entries WHERE restore_id = $1", wanted.room.restore_id
        )
        assert row is not None
        return row

    async def path(self, wanted: Wanted) -> Path:
        """Where its bytes lie."""
        return self.root / str((await self.entry(wanted))["location"])

    async def used(self) -> int:
        found: int = await self.connection.fetchval("SELECT used FROM caches WHERE name = 'cache'")
        return found

    async def state(self, wanted: Wanted) -> str:
        found: str = await self.connection.fetchval(
            "SELECT state FROM restores WHERE restore_id = $1", wanted.room.restore_id
        )
        return found

    async def copies(self) -> int:
        found: int = await self.connection.fetchval("SELECT count(*) FROM copies WHERE entry_id IS NOT NULL")
        return found

    def files(self) -> dict[str, int]:
        """All that lies in the cache, half-written files included: sizes by location."""
        return {
            str(path.relative_to(self.root)): path.stat().st_size for path in self.root.rglob("*") if path.is_file()
        }


class _NotOursError(Exception):
    pass


def writing(content: bytes) -> Callable[[Path], Awaitable[None]]:
    """A storage's `fetch`."""

    async def fetch(path: Path) -> None:
        path.write_bytes(content)

    return fetch


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.asynccontextmanager
async def stock_of(dsn: str, root: Path, options: Mapping[str, object] | None = None) -> AsyncIterator[Stock]:
    """An empty stock."""
    (root / ".scratch").mkdir(parents=True, exist_ok=True)
    settings = DatabaseSettings(dsn=SecretStr(dsn), timeout=30)
    async with contextlib.AsyncExitStack() as stack:
        connection = await asyncpg.connect(dsn, timeout=10)
        stack.push_async_callback(connection.close, timeout=10)
        database = await stack.enter_async_context(gateway.db.connect(settings, ()))
        storage = LocalStorage.from_options("cache", {"root": str(root), **(options or {})})
        stack.push_async_callback(storage.close)
        await database.fetch("INSERT INTO caches (name) VALUES ('cache') ON CONFLICT DO NOTHING")
        yield Stock(database, connection, storage, root)
