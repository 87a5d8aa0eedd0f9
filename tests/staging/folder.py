"""A cache in a folder, with the tables of the gateway: what the workers need of one, and no more."""

from __future__ import annotations

import errno
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import asyncpg

from gateway.staging.room import CacheFullError, Kept, Room
from gateway.storage import CopyBrokenError, Stat

_EVICTABLE = """
SELECT e.entry_id, e.restore_id, e.size, e.location FROM cache_entries e
WHERE e.state = 'READY' AND NOT EXISTS (
    SELECT FROM restore_wishes w WHERE w.restore_id = e.restore_id AND w.pinned_until > now())
ORDER BY e.used_at"""


class FolderCache:
    """As `Cache`, for any number of processes."""

    def __init__(self, pool: asyncpg.Pool, folder: Path, size: int) -> None:
        self.pool = pool
        self.folder = folder
        self.size = size
        self.full = False
        self.evicted: list[int] = []
        folder.mkdir(exist_ok=True)

    async def reserve(self, wanted: Sequence[Room]) -> set[int]:
        found = set()
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO caches (name) VALUES ('cache') ON CONFLICT DO NOTHING")
            used = await connection.fetchval("SELECT used FROM caches WHERE name = 'cache' FOR UPDATE")
            for room in wanted:
                if await connection.fetchval("SELECT true FROM cache_entries WHERE restore_id = $1", room.restore_id):
                    found.add(room.restore_id)
                    continue
                while used + room.size > self.size:
                    row = await connection.fetchrow(_EVICTABLE + " LIMIT 1")
                    if row is None:
                        break
                    await self._forget(connection, row)
                    used -= row["size"]
                if used + room.size <= self.size:
                    used += room.size
                    await connection.execute(
                        "INSERT INTO cache_entries (cache, restore_id, file_id, location, size, state) "
                        "VALUES ('cache', $1, $2, $3, $4, 'FILLING')",
                        *(room.restore_id, room.file_id, f"{room.restore_id}", room.size),
                    )
                    found.add(room.restore_id)
            await connection.execute("UPDATE caches SET used = $1", used)
        return found

    async def fill(
        self, restore_id: int, checksum: str | None, algorithm: str | None, fetch: Callable[[Path], Awaitable[None]]
    ) -> Kept:
        partial, whole = self.folder / f"{restore_id}.{uuid.uuid4()}.part", self.folder / str(restore_id)
        try:
            await fetch(partial)
            if self.full:
                raise CacheFullError("disk full") from OSError(errno.ENOSPC, "full")
            data = partial.read_bytes()
            if checksum is not None and hashlib.md5(data).hexdigest() != checksum:
                raise CopyBrokenError("other bytes")
            partial.rename(whole)
        finally:
            partial.unlink(missing_ok=True)
        found = whole.stat()
        entry = await self.pool.fetchval(
            "UPDATE cache_entries SET state = 'READY' WHERE restore_id = $1 RETURNING entry_id", restore_id
        )
        return Kept(entry, "cache", str(restore_id), Stat(found.st_size, None, f"{found.st_mtime_ns:x}"))

    async def give_back(self, restore_ids: Sequence[int]) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.fetch("SELECT used FROM caches FOR UPDATE")
            rows = await connection.fetch(
                "DELETE FROM cache_entries WHERE restore_id = ANY ($1::bigint[]) RETURNING restore_id, size",
                list(restore_ids),
            )
            await connection.execute("UPDATE caches SET used = used - $1", sum(row["size"] for row in rows))
        for one in restore_ids:
            (self.folder / str(one)).unlink(missing_ok=True)

    async def upkeep(self) -> None:
        pass

    async def _forget(self, connection: asyncpg.Connection, row: asyncpg.Record) -> None:
        await connection.execute("DELETE FROM copies WHERE entry_id = $1", row["entry_id"])
        await connection.execute(
            "UPDATE restores SET state = 'EXPIRED', ended_at = now() WHERE restore_id = $1 AND state = 'RESTORED'",
            row["restore_id"],
        )
        await connection.execute("DELETE FROM cache_entries WHERE entry_id = $1", row["entry_id"])
        (self.folder / row["location"]).unlink(missing_ok=True)
        self.evicted.append(row["restore_id"])
