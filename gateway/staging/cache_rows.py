"""The rows of the cache: who has how much room. What is said here to be gone is gone before.

Locks are taken in the order restores, cache_entries, caches. Whoever takes room locks the cache's row first and makes
new entries only, for which nobody can wait; whoever evicts or drops waits for nobody.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Callable, Iterator, Sequence

from gateway.db import Connection, Database

READY = """
UPDATE cache_entries SET state = 'READY', lease = NULL, read_until = NULL, used_at = now()
WHERE entry_id = $1 AND lease = $2 AND state = 'FILLING' RETURNING entry_id"""
"""What makes an entry whole, in the transaction that writes its copy (`CACHED`): entry_id and lease of what
`Cache.fill` gave. No row: somebody else has it by now, and no copy may be written."""
CACHED = """
INSERT INTO copies
    (file_id, storage, location, state, size, modified, version, verified_version, restored_until, entry_id)
SELECT file.file_id, e.cache, e.location, 'NEARLINE', $2, $3, $4, $4, $5, e.entry_id
FROM cache_entries e
CROSS JOIN LATERAL (
    SELECT f.file_id FROM files f
    WHERE f.file_id = e.file_id AND f.checksum_algorithm IS NOT DISTINCT FROM $6
      AND lower(f.checksum) IS NOT DISTINCT FROM lower($7) AND (f.size IS NULL OR f.size = $2)
    FOR SHARE
) file
WHERE e.entry_id = $1 RETURNING copy_id"""
"""Writes the copy of an entry that `READY` has just made whole: entry_id, size, modified and version of its `Stat`,
until when it can be read, algorithm and checksum that its bytes were held against. No row: the file is gone, or is
another one by now (it waits for an ingest that changes it); roll all back, and give the entry back."""

USED = "SELECT used FROM caches WHERE name = $1"
"""Bytes of a cache that are promised, kept or not removed yet, by its name."""

_TAKE_TURN = "SELECT used FROM caches WHERE name = $1 FOR NO KEY UPDATE"
_KNOWN = "SELECT restore_id, state FROM cache_entries WHERE restore_id = ANY ($1::bigint[])"
_NEXT_IDS = (
    "SELECT nextval(pg_get_serial_sequence('cache_entries', 'entry_id')) AS entry_id FROM generate_series(1, $1)"
)
_TAKE = """
INSERT INTO cache_entries (entry_id, cache, restore_id, file_id, location, size, state) OVERRIDING SYSTEM VALUE
SELECT entry_id, $1, restore_id, file_id, location, size, 'FILLING'
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[])
     AS wanted (entry_id, restore_id, file_id, location, size)"""
_USE = "UPDATE caches SET used = used + $2 WHERE name = $1"

_PINNED = """EXISTS (
    SELECT FROM restore_wishes w JOIN order_files o ON o.order_file_id = w.order_file_id
    WHERE w.restore_id = e.restore_id AND w.order_file_id <> 0 AND w.pinned_until > now()
      AND o.state IN ('PENDING', 'AVAILABLE')
)"""
_FREE = f"e.state = 'READY' AND (e.read_until IS NULL OR e.read_until <= now()) AND NOT {_PINNED}"
_EXPIRED = f"""
SELECT e.entry_id, e.size FROM restores r JOIN cache_entries e USING (restore_id)
WHERE r.state = 'RESTORED' AND r.expires_at <= now() AND e.cache = $1 AND {_FREE}
ORDER BY r.expires_at LIMIT $2"""  # noqa: S608 - made of constants
_LEAST_USED = f"""
SELECT e.used_at, e.entry_id, e.size FROM cache_entries e
WHERE e.cache = $1 AND {_FREE} AND (e.used_at, e.entry_id) > ($2, $3)
ORDER BY e.used_at, e.entry_id LIMIT $4"""  # noqa: S608 - as above
# Who has the copy's row may be an ingest that takes minutes: nobody waits for it, nor for anybody else.
_LOCK_VICTIMS = """
SELECT e.entry_id, e.restore_id, e.size
FROM cache_entries e JOIN restores r USING (restore_id) JOIN copies c USING (entry_id)
WHERE e.entry_id = ANY ($1::bigint[]) AND {condition}
ORDER BY r.restore_id FOR UPDATE OF r, e, c SKIP LOCKED"""
_LOCK_EVICTED = _LOCK_VICTIMS.format(condition=_FREE)
_LOCK_DROPPED = _LOCK_VICTIMS.format(condition="e.state = 'READY'")
_DELETE_COPIES = "DELETE FROM copies WHERE entry_id = ANY ($1::bigint[])"
_EXPIRE = """
UPDATE restores
SET state = 'EXPIRED', ended_at = now(), expires_at = least(expires_at, now()), due_at = NULL, lease = NULL,
    lease_until = NULL
WHERE restore_id = ANY ($1::bigint[]) AND state = 'RESTORED'"""
_TO_REMOVE = "UPDATE cache_entries SET state = 'REMOVING' WHERE entry_id = ANY ($1::bigint[])"
# A reader or a writer may still be at it.
_REMOVABLE = """
SELECT entry_id, location FROM cache_entries
WHERE cache = $1 AND state = 'REMOVING' AND (read_until IS NULL OR read_until <= now())
  AND entry_id > $2 ORDER BY entry_id LIMIT $3"""
_REMOVED = """
WITH gone AS (
    DELETE FROM cache_entries WHERE entry_id = ANY (ARRAY(
        SELECT entry_id FROM cache_entries WHERE entry_id = ANY ($2::bigint[]) AND state = 'REMOVING'
        ORDER BY entry_id FOR UPDATE
    )) RETURNING size
)
UPDATE caches SET used = used - (SELECT coalesce(sum(size), 0) FROM gone)
WHERE name = $1 AND EXISTS (SELECT FROM gone)"""
_GIVE_BACK = """
WITH given AS (
    SELECT entry_id FROM cache_entries
    WHERE restore_id = ANY ($2::bigint[]) AND cache = $1 AND state <> 'REMOVING' ORDER BY entry_id FOR UPDATE
), uncopied AS (
    DELETE FROM copies WHERE entry_id IN (SELECT entry_id FROM given)
)
UPDATE cache_entries e SET state = 'REMOVING' FROM given WHERE e.entry_id = given.entry_id"""
"""Who fills one keeps his lease: its file is removed when he has let go, or his time is over."""

# Entries whose restore has ended or is gone; nobody will ask for them again.
_LEFT_OVER = """
SELECT e.entry_id, e.restore_id FROM cache_entries e LEFT JOIN restores r USING (restore_id)
WHERE e.cache = $1 AND e.state <> 'REMOVING' AND e.created_at < now() - interval '1 minute'
  AND (r.restore_id IS NULL OR r.ended_at IS NOT NULL) LIMIT $2"""
# Entries whose copy an ingest deleted: the file is another one by now, or is gone.
_UNCOPIED = """
SELECT e.entry_id FROM cache_entries e
WHERE e.cache = $1 AND e.state = 'READY' AND NOT EXISTS (SELECT FROM copies c WHERE c.entry_id = e.entry_id) LIMIT $2"""
_LOCK_UNCOPIED = """
SELECT e.entry_id, e.restore_id, e.size FROM cache_entries e JOIN restores r USING (restore_id)
WHERE e.entry_id = ANY ($1::bigint[]) AND e.state = 'READY'
  AND NOT EXISTS (SELECT FROM copies c WHERE c.entry_id = e.entry_id)
ORDER BY r.restore_id FOR UPDATE OF r, e SKIP LOCKED"""
_TO_CHECK = """
SELECT e.entry_id, e.location, c.size, c.version FROM cache_entries e JOIN copies c USING (entry_id)
WHERE e.cache = $1 AND e.state = 'READY' AND e.entry_id > $2 ORDER BY e.entry_id LIMIT $3"""
_AT = "SELECT entry_id, location FROM cache_entries WHERE cache = $1 AND location = ANY ($2::text[])"
_LIVE = """
SELECT entry_id, lease FROM cache_entries
WHERE entry_id = ANY ($1::bigint[]) AND state = 'FILLING' AND lease IS NOT NULL AND read_until > now()"""
_BALANCE = """
SELECT c.used, (SELECT coalesce(sum(size), 0)::bigint FROM cache_entries e WHERE e.cache = c.name) AS counted
FROM caches c WHERE c.name = $1"""

_CLAIM = """
WITH mine AS (
    SELECT entry_id, lease FROM cache_entries
    WHERE restore_id = $1 AND cache = $2 AND state = 'FILLING' AND (lease IS NULL OR read_until <= now()) FOR UPDATE
)
UPDATE cache_entries e SET lease = $3, read_until = now() + $4::float8 * interval '1 second'
FROM mine WHERE e.entry_id = mine.entry_id
RETURNING e.entry_id, e.location, e.size, mine.lease IS NOT NULL AS again"""
_PROLONG = """
UPDATE cache_entries SET read_until = now() + $3::float8 * interval '1 second'
WHERE entry_id = $1 AND lease = $2 AND state = 'FILLING' RETURNING entry_id"""
_LET_GO = "UPDATE cache_entries SET lease = NULL, read_until = NULL WHERE entry_id = $1 AND lease = $2"

PAGE = 500
"""Rows at a time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What a restore wants to put into the cache."""

    restore_id: int
    tenant: str
    """Name."""
    file_id: int
    size: int
    """Bytes, exactly."""


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """An entry that somebody fills."""

    entry_id: int
    lease: uuid.UUID
    location: str
    size: int
    again: bool
    """Whether another one began before, who may have left a file there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A whole entry, and what its file must be."""

    entry_id: int
    location: str
    size: int
    version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Used:
    """An entry that could be evicted, and when it was last used."""

    at: datetime.datetime
    entry_id: int
    size: int


NEVER = Used(datetime.datetime.fromtimestamp(0, datetime.UTC), 0, 0)
"""Before all others."""


class Rows:
    """Those of one cache."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    async def make(self) -> None:
        """See that the cache has its row."""
        await self._database.fetch("INSERT INTO caches (name) VALUES ($1) ON CONFLICT DO NOTHING", self._name)

    async def take(self, wanted: Sequence[Room], limit: int, where: Callable[[Room, int], str]) -> tuple[set[int], int]:
        """Take room for those of ``wanted`` that it is there for, in their order.

        Args:
            wanted: those that have room are well, too.
            limit: bytes of the cache.
            where: the location of the entry with an id.

        Returns the restores that have room now, and the bytes that are free.
        """
        async with self._database.transaction() as connection:
            used = await connection.fetchval(_TAKE_TURN, self._name)
            # A statement of its own: it sees what those did who had the row before.
            rows = await connection.fetch(_KNOWN, [room.restore_id for room in wanted])
            known = {row["restore_id"]: row["state"] for row in rows}
            free, new = limit - used, []
            for room in {room.restore_id: room for room in wanted}.values():
                if room.restore_id not in known and room.size <= free:
                    new.append(room)
                    free -= room.size
            if new:
                await self._insert(connection, new, where)
        had = {restore_id for restore_id, state in known.items() if state != "REMOVING"}
        return had | {room.restore_id for room in new}, free

    async def _insert(self, connection: Connection, new: Sequence[Room], where: Callable[[Room, int], str]) -> None:
        ids = [row["entry_id"] for row in await connection.fetch(_NEXT_IDS, len(new))]
        await connection.execute(
            _TAKE,
            self._name,
            ids,
            [room.restore_id for room in new],
            [room.file_id for room in new],
            [where(room, entry_id) for room, entry_id in zip(new, ids, strict=True)],
            [room.size for room in new],
        )
        await connection.execute(_USE, self._name, sum(room.size for room in new))

    async def expired(self) -> list[tuple[int, int]]:
        """Entries that can be evicted since their time is over: ids and sizes."""
        return [tuple(row) for row in await self._database.fetch(_EXPIRED, self._name, PAGE)]

    async def least_used(self, after: Used) -> list[Used]:
        """A page of the entries that can be evicted, the least recently used first, behind ``after``."""
        rows = await self._database.fetch(_LEAST_USED, self._name, after.at, after.entry_id, PAGE)
        return [Used(*row) for row in rows]

    async def evict(self, entries: Sequence[int]) -> int:
        """End the restores of those of ``entries`` that can be evicted still; gives their bytes."""
        return await self._end(_LOCK_EVICTED, entries)

    async def drop(self, entries: Sequence[int]) -> int:
        """As `evict`, whoever needs them: their files are gone or wrong."""
        return await self._end(_LOCK_DROPPED, entries)

    async def _end(self, locking: str, entries: Sequence[int]) -> int:
        octets = 0
        for page in _pages(entries):
            async with self._database.transaction() as connection:
                rows = await connection.fetch(locking, page)
                ids = [row["entry_id"] for row in rows]
                if ids:
                    await connection.execute(_DELETE_COPIES, ids)
                    await connection.execute(_EXPIRE, [row["restore_id"] for row in rows])
                    await connection.execute(_TO_REMOVE, ids)
                octets += sum(row["size"] for row in rows)
        return octets

    async def drop_uncopied(self) -> None:
        """End the restores of whole entries that are no copy of any file any more."""
        rows = await self._database.fetch(_UNCOPIED, self._name, PAGE)
        await self._end(_LOCK_UNCOPIED, [row["entry_id"] for row in rows])

    async def give_back(self, restore_ids: Sequence[int]) -> None:
        """Have the entries of restores removed, and their copies at once."""
        for page in _pages(restore_ids):
            await self._database.fetch(_GIVE_BACK, self._name, page)

    async def give_back_left_over(self) -> None:
        """As `give_back`, of entries whose restore has ended without that."""
        rows = await self._database.fetch(_LEFT_OVER, self._name, PAGE)
        if rows:
            await self.give_back([row["restore_id"] for row in rows])

    async def removable(self, after: int) -> list[tuple[int, str]]:
        """Entries whose files are to be removed now, from behind an id on: ids and locations."""
        return [tuple(row) for row in await self._database.fetch(_REMOVABLE, self._name, after, PAGE)]

    async def removed(self, entries: Sequence[int]) -> None:
        """Forget entries whose files are gone; whoever else comes with the same ones forgets nothing."""
        for page in _pages(entries):
            async with self._database.transaction() as connection:
                await connection.execute(_REMOVED, self._name, page)

    async def to_check(self, after: int, most: int) -> list[Entry]:
        """Whole entries from behind an id on."""
        rows = await self._database.fetch(_TO_CHECK, self._name, after, most)
        return [Entry(*row) for row in rows]

    async def at(self, locations: Sequence[str]) -> dict[str, int]:
        """Ids of the entries at some locations."""
        rows = await self._database.fetch(_AT, self._name, locations)
        return {row["location"]: row["entry_id"] for row in rows}

    async def live(self, entries: Sequence[int]) -> set[tuple[int, uuid.UUID]]:
        """Those of ``entries`` that somebody fills, and by which lease."""
        return {tuple(row) for row in await self._database.fetch(_LIVE, entries)}

    async def balance(self) -> tuple[int, int]:
        """Bytes that are used, as counted on the way and as counted now."""
        (row,) = await self._database.fetch(_BALANCE, self._name)
        return row["used"], row["counted"]

    async def claim(self, restore_id: int, lease: uuid.UUID, seconds: float) -> Claim | None:
        """Be the one who fills the entry of a restore, for ``seconds``; None without one, or if another does."""
        rows = await self._database.fetch(_CLAIM, restore_id, self._name, lease, seconds)
        return Claim(rows[0]["entry_id"], lease, *rows[0][1:]) if rows else None

    async def prolong(self, claim: Claim, seconds: float) -> bool:
        """Stay the one for ``seconds`` from now on; whether that is still so."""
        return bool(await self._database.fetch(_PROLONG, claim.entry_id, claim.lease, seconds))

    async def let_go(self, claim: Claim) -> None:
        """Leave the entry to others."""
        await self._database.fetch(_LET_GO, claim.entry_id, claim.lease)


def _pages(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    ordered = sorted(set(ids))
    return (ordered[start : start + PAGE] for start in range(0, len(ordered), PAGE))
