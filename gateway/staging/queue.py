"""Restores that wait for workers, in PostgreSQL: taken by one at a time, kept by a lease, each step written once.

Whatever a worker writes it writes only while the lease is his. One that died leaves a lease that ends; one that lets go
ends it himself, and whoever comes next goes on as after a death: he asks the storage again for the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import uuid
from collections.abc import Sequence
from typing import Literal

import asyncpg

from gateway.db import Database
from gateway.staging.cache import CACHED, READY, Kept
from gateway.staging.model import RestoreState
from gateway.storage import ToStage

WORK = "restore_work"
"""The topic that workers are woken by."""

_MOST_POSITIONS = 1000
"""Copies whose places on tape are asked for at a time."""

_ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtextextended('restores of ' || $1, 0))"

_TAKE = """
, held AS (
    UPDATE restores r SET lease = $2, lease_until = now() + $3::interval, due_at = NULL, roomed = r.roomed OR $4
    FROM taken WHERE r.restore_id = taken.restore_id
    RETURNING r.restore_id, r.tenant_id, r.file_id, r.copy_id, r.storage, r.location, r.size, r.state, r.priority,
              r.tape, r.position, r.tries, r.asked, r.roomed, taken.was_held,
              coalesce(extract(epoch FROM now() - r.ended_at), 0)::double precision AS ended_for,
              coalesce(extract(epoch FROM now() - r.started_at), 0)::double precision AS age,
              greatest(r.hours * 3600, extract(epoch FROM r.wanted_until - now()))::double precision AS seconds
)
SELECT held.*, t.name AS tenant, f.file_id IS NOT NULL AS has_file, f.checksum, f.checksum_algorithm,
       coalesce(held.size, f.size, c.size) AS whole
FROM held JOIN tenants t USING (tenant_id) LEFT JOIN files f USING (file_id) LEFT JOIN copies c USING (copy_id)
ORDER BY held.priority, held.tape, held.position, held.restore_id"""

# A file waits until what is left of its restore before is given back: else that would hit the new one.
_CLAIM_QUEUED = f"""
WITH busy AS (
    SELECT count(*) AS copies FROM restores
    WHERE storage = $1 AND (state = 'STAGING' OR lease IS NOT NULL)
      AND (state = 'STAGING' OR (state = 'QUEUED' AND lease_until > now()))
), taken AS (
    SELECT r.restore_id, r.lease IS NOT NULL AS was_held FROM restores r
    WHERE r.storage = $1 AND r.state = 'QUEUED' AND coalesce(r.lease_until, r.due_at, '-infinity') <= now()
      AND NOT EXISTS (
          SELECT FROM restores e WHERE e.file_id = r.file_id AND e.ended_at IS NOT NULL AND (e.asked OR e.roomed))
    ORDER BY r.priority, r.tape, r.position, r.restore_id
    LIMIT (SELECT greatest(0, least($5, $6 - copies)) FROM busy) FOR NO KEY UPDATE OF r SKIP LOCKED
){_TAKE}"""  # noqa: S608 - made of constants

# What is over is not extended any more.
_CLAIM_DUE = f"""
WITH taken AS (
    SELECT r.restore_id, r.lease IS NOT NULL AS was_held FROM restores r
    WHERE r.storage = $1 AND r.state IN ('STAGING', 'RESTORED') AND coalesce(r.lease_until, r.due_at) <= now()
      AND (r.state = 'STAGING' OR greatest(r.expires_at, r.wanted_until) > now())
    ORDER BY r.priority, r.tape, r.position, r.restore_id LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED
){_TAKE}"""  # noqa: S608 - as above

_CLAIM_ENDED = f"""
WITH taken AS (
    SELECT r.restore_id, r.lease IS NOT NULL AS was_held FROM restores r
    WHERE r.storage = $1 AND r.ended_at IS NOT NULL AND (r.asked OR r.roomed)
      AND coalesce(r.lease_until, '-infinity') <= now()
    ORDER BY r.restore_id LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED
){_TAKE}"""  # noqa: S608 - as above
# Several are locked in the order of their ids before anything of them is changed, as by everybody else.
_OURS = """
WITH ours AS (
    SELECT restore_id FROM restores
    WHERE restore_id = ANY ($2::bigint[]) AND lease = $1 {condition} ORDER BY restore_id FOR NO KEY UPDATE
)"""
_HELD = """
WITH held AS (
    SELECT r.restore_id FROM unnest($1::bigint[], $2::uuid[]) AS known(restore_id, lease)
    JOIN restores r ON r.restore_id = known.restore_id AND r.lease = known.lease
    ORDER BY r.restore_id FOR NO KEY UPDATE OF r
)"""

_CLEANED = f"""{_OURS.format(condition="")}
UPDATE restores r SET asked = false, roomed = false, lease = NULL, lease_until = NULL
FROM ours WHERE r.restore_id = ours.restore_id"""  # noqa: S608 - as above

_UNPLACED = f"""
SELECT restore_id, location FROM restores WHERE storage = $1 AND state = 'QUEUED' AND tape IS NULL
ORDER BY restore_id LIMIT {_MOST_POSITIONS}"""  # noqa: S608 - as above
_PLACE = """
WITH placed AS (
    SELECT r.restore_id, told.tape, told.position
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS told(restore_id, tape, position)
    JOIN restores r USING (restore_id) WHERE r.state = 'QUEUED' ORDER BY r.restore_id FOR NO KEY UPDATE OF r
)
UPDATE restores r SET tape = placed.tape, position = placed.position
FROM placed WHERE r.restore_id = placed.restore_id"""

WAKE = f"SELECT pg_notify('gateway', '{json.dumps({'topic': WORK, 'tenant': None, 'id': None})}')"
_PROLONG = f"""{_HELD}
UPDATE restores r SET lease_until = now() + $3::interval
FROM held WHERE r.restore_id = held.restore_id
RETURNING r.restore_id, r.lease, r.ended_at IS NOT NULL AS ended"""  # noqa: S608 - as above

_MINE = """
WITH known AS (SELECT * FROM unnest({columns}), mine AS (
    SELECT r.restore_id FROM restores r JOIN known USING (restore_id)
    WHERE r.lease = $1 AND r.ended_at IS NULL ORDER BY r.restore_id FOR NO KEY UPDATE OF r
)"""


def _mine(columns: str) -> str:
    """``known``: rows of arguments from the second on; ``mine``: those of them that are held still, locked in order."""
    names = [one.split()[0] for one in columns.split(", ")]
    types = [one.split()[1] for one in columns.split(", ")]
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, 2))
    return _MINE.format(columns=f"{arrays}) AS known({', '.join(names)})")


# Asked for before it is asked: whoever finds it thus asks again.
_BEGIN = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET state = 'STAGING', started_at = coalesce(r.started_at, now()), asked = true
FROM mine WHERE r.restore_id = mine.restore_id RETURNING r.restore_id"""  # noqa: S608 - as above
_LEAVE = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET lease = NULL, lease_until = NULL
FROM mine WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
_LEAVE_ENDED = f"""{_OURS.format(condition="AND ended_at IS NOT NULL")}
UPDATE restores r SET lease = NULL, lease_until = NULL
FROM ours WHERE r.restore_id = ours.restore_id"""  # noqa: S608 - as above
_LET_GO = f"""{_HELD}
UPDATE restores r SET lease_until = now() + $3::interval, error = coalesce($4, r.error)
FROM held WHERE r.restore_id = held.restore_id"""  # noqa: S608 - as above
_REQUEUE = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET state = 'QUEUED', due_at = least(r.due_at, now() + $3::interval), error = $4,
    lease = NULL, lease_until = NULL
FROM mine WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
_POLL = f"""
{_mine("restore_id bigint, seconds float8")}
UPDATE restores r SET due_at = least(r.due_at, now() + make_interval(secs => known.seconds)),
    lease = NULL, lease_until = NULL
FROM mine JOIN known USING (restore_id) WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
_EXPECT = f"""
{_mine("restore_id bigint, ready_at timestamptz")}
UPDATE restores r SET ready_at = known.ready_at
FROM mine JOIN known USING (restore_id)
WHERE r.restore_id = mine.restore_id AND r.ready_at IS DISTINCT FROM known.ready_at"""  # noqa: S608 - as above

# In place. What the storage takes back before it is wanted is asked for again in time.
_RESTORED = f"""
{_mine("restore_id bigint, until timestamptz")}, lasting AS (
    SELECT r.restore_id, known.until,
           greatest(r.wanted_until, coalesce(r.restored_at, now()) + r.hours * interval '1 h') AS wanted
    FROM mine JOIN known USING (restore_id) JOIN restores r USING (restore_id)
), done AS (
    UPDATE restores r SET state = 'RESTORED', restored_at = coalesce(r.restored_at, now()),
        expires_at = least(lasting.until, lasting.wanted), tries = 0, error = NULL, lease = NULL, lease_until = NULL,
        due_at = least(r.due_at, CASE WHEN lasting.until < lasting.wanted THEN
                       greatest(now() + $4::interval, lasting.until - (lasting.until - now()) / 4) END)
    FROM lasting WHERE r.restore_id = lasting.restore_id
    RETURNING r.restore_id, r.copy_id, r.storage, r.location, r.expires_at
), readable AS (
    UPDATE copies c SET restored_until = done.expires_at FROM done
    WHERE c.copy_id = done.copy_id AND c.storage = done.storage AND c.location = done.location
)
SELECT restore_id FROM done"""  # noqa: S608 - as above
# It stays in hand until the storage was told that it need not keep it (asked).
_PUBLISHED = """
UPDATE restores SET state = 'RESTORED', restored_at = now(), tries = 0, error = NULL,
    expires_at = greatest(wanted_until, now() + hours * interval '1 h')
WHERE restore_id = $2 AND lease = $1 AND state = 'STAGING' RETURNING expires_at"""
# A statement of its own: it sees the wishes of those who had the restore's row before.
_PIN = """
UPDATE restore_wishes SET pinned_until = now() + $2::interval
WHERE restore_id = $1 AND order_file_id <> 0 AND pinned_until IS NULL"""
_RELEASED = f"""{_OURS.format(condition="AND state = 'RESTORED'")}
UPDATE restores r SET asked = false, lease = NULL, lease_until = NULL
FROM ours WHERE r.restore_id = ours.restore_id"""  # noqa: S608 - as above

_EXTEND_CACHED = f"""
{_mine("restore_id bigint")}, done AS (
    UPDATE restores r SET expires_at = greatest(r.expires_at, r.wanted_until),
        lease = CASE WHEN r.asked THEN r.lease END, lease_until = CASE WHEN r.asked THEN r.lease_until END
    FROM mine WHERE r.restore_id = mine.restore_id RETURNING r.restore_id, r.expires_at
)
UPDATE copies c SET restored_until = done.expires_at FROM done JOIN cache_entries e USING (restore_id)
WHERE c.entry_id = e.entry_id"""  # noqa: S608 - as above
# It stays readable as long as it was to be, and no longer.
_NOT_EXTENDED = f"""
{_mine("restore_id bigint")}
UPDATE restores r SET wanted_until = least(r.wanted_until, r.expires_at), error = $3, lease = NULL, lease_until = NULL
FROM mine WHERE r.restore_id = mine.restore_id"""  # noqa: S608 - as above
_GONE = f"""
{_mine("restore_id bigint")}, done AS (
    UPDATE restores r SET state = 'EXPIRED', expires_at = least(r.expires_at, now()), ended_at = now(), error = $3,
        lease = NULL, lease_until = NULL
    FROM mine WHERE r.restore_id = mine.restore_id RETURNING r.copy_id
)
UPDATE copies c SET restored_until = NULL FROM done WHERE c.copy_id = done.copy_id"""  # noqa: S608 - as above

_LOCK = (
    "SELECT file_id, copy_id, tried FROM restores WHERE restore_id = $2 AND lease = $1 AND ended_at IS NULL FOR UPDATE"
)
_TRY_AGAIN = """
UPDATE restores SET tries = tries + 1, error = $2, due_at = least(due_at, now() + $3::interval), lease = NULL,
    lease_until = NULL, state = CASE state WHEN 'STAGING' THEN 'QUEUED' ELSE state END
WHERE restore_id = $1"""
_LOST = "UPDATE copies SET state = 'LOST' WHERE copy_id = $1 AND storage = $2 AND location = $3"
_BROKEN = """
UPDATE copies SET broken_version = version, verified_version = nullif(verified_version, version)
WHERE copy_id = $1 AND storage = $2 AND location = $3"""
_OTHER_COPY = """
SELECT copy_id, storage, location FROM copies
WHERE file_id = $1 AND storage = ANY ($2::text[]) AND state IN ('NEARLINE', 'ONLINE') AND entry_id IS NULL
  AND copy_id <> ALL ($3::bigint[])
ORDER BY array_position($2::text[], storage), copy_id LIMIT 1"""
_TAKE_OTHER = """
UPDATE restores SET copy_id = $2, storage = $3, location = $4, tried = tried || copy_id, state = 'QUEUED', tries = 0,
    tape = NULL, position = NULL, ready_at = NULL, error = $5, due_at = NULL, lease = NULL, lease_until = NULL
WHERE restore_id = $1"""
_FAIL = """
UPDATE restores SET state = 'FAILED', ended_at = now(), tries = tries + 1, error = $2, due_at = NULL, lease = NULL,
    lease_until = NULL
WHERE restore_id = $1"""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A restore that a worker has in hand."""

    lease: uuid.UUID
    restore_id: int
    tenant: str
    file_id: int
    copy_id: int
    storage: str
    location: str
    state: RestoreState
    order: tuple[int, str, int, int]
    """What is restored first has the lowest."""
    tries: int
    asked: bool
    """Whether the storage is to be told when it is needed no more."""
    roomed: bool
    """Whether the cache is."""
    was_held: bool
    """Whether somebody let go of it without saying how it stands: the storage is asked again for it."""
    age: float
    """Seconds since the storage was first asked."""
    ended_for: float
    """Seconds since it ended; 0 if it goes on."""
    seconds: float
    """That it shall be readable."""
    has_file: bool
    """Whether the catalogue has the file still."""
    size: int | None
    """Bytes, as far as the catalogue knows."""
    checksum: str | None
    algorithm: str | None

    @property
    def to_stage(self) -> ToStage:
        """As storages are asked."""
        return ToStage(str(self.restore_id), self.location, self.size, self.seconds)


Failure = Literal["again", "other copy", "failed", "not ours"]
"""What became of a restore that failed."""


class Queue:
    """The restores in a database, as workers see them. Every method raises `GatewayError` 503."""

    def __init__(self, database: Database, *, lease: float, pin_hours: float) -> None:
        self._database = database
        self._lease = datetime.timedelta(seconds=lease)
        self._pin = datetime.timedelta(hours=pin_hours)

    async def claim_queued(self, storage: str, *, most: int, busy: int, roomed: bool) -> list[Held]:
        """Take what is next of ``storage``: at most ``most``, while no more than ``busy`` are under way in all."""
        lease = uuid.uuid4()
        async with self._database.transaction() as connection:
            await connection.execute(_ONE_BY_ONE, storage)
            # The planner cannot know how few are taken: it would rather sort all that wait.
            await connection.execute("SET LOCAL enable_sort = off")
            rows = await connection.fetch(_CLAIM_QUEUED, storage, lease, self._lease, roomed, most, busy)
        return [_held(lease, row) for row in rows]

    async def claim_due(self, storage: str, *, most: int) -> list[Held]:
        """Take what is to be looked at again."""
        lease = uuid.uuid4()
        rows = await self._database.fetch(_CLAIM_DUE, storage, lease, self._lease, False, most)
        return [_held(lease, row) for row in rows]

    async def unplaced(self, storage: str) -> list[tuple[int, str]]:
        """Id and location of what waits, and nobody asked yet where on tape it lies."""
        return [(row["restore_id"], row["location"]) for row in await self._database.fetch(_UNPLACED, storage)]

    async def place(self, places: Sequence[tuple[int, str, int | None]]) -> None:
        """Write down where copies lie: id, tape (empty if nobody knows) and position."""
        await self._database.fetch(_PLACE, *map(list, zip(*places, strict=True)))

    async def claim_ended(self, storage: str, *, most: int) -> list[Held]:
        """Take what has ended and is to be given back."""
        lease = uuid.uuid4()
        rows = await self._database.fetch(_CLAIM_ENDED, storage, lease, self._lease, False, most)
        return [_held(lease, row) for row in rows]

    async def cleaned(self, held: Sequence[Held]) -> None:
        """All is given back; those who wait for room are woken."""
        await self._database.fetch(_CLEANED, held[0].lease, _ids(held))
        if any(one.roomed for one in held):
            await self._database.fetch(WAKE)

    async def prolong(self, held: Sequence[Held]) -> dict[tuple[int, uuid.UUID], bool]:
        """Show a sign of life; ids and leases of what is held still, and whether it has ended meanwhile."""
        ids, leases = [one.restore_id for one in held], [one.lease for one in held]
        rows = await self._database.fetch(_PROLONG, ids, leases, self._lease)
        return {(row["restore_id"], row["lease"]): row["ended"] for row in rows}

    async def begin(self, held: Sequence[Held]) -> set[int]:
        """Write down that the storage is asked from now on; ids of those that are ours still."""
        rows = await self._database.fetch(_BEGIN, held[0].lease, _ids(held))
        return {row["restore_id"] for row in rows}

    async def leave(self, held: Sequence[Held]) -> None:
        """Leave what waits as it was; nobody is woken."""
        await self._database.fetch(_LEAVE, held[0].lease, _ids(held))

    async def leave_ended(self, held: Sequence[Held]) -> None:
        """Let go of those that have ended meanwhile."""
        await self._database.fetch(_LEAVE_ENDED, held[0].lease, _ids(held))

    async def let_go(self, held: Sequence[Held], seconds: float = 0, error: str | None = None) -> None:
        """Have somebody else ask for it again, in ``seconds``."""
        ids, leases = [one.restore_id for one in held], [one.lease for one in held]
        await self._database.fetch(_LET_GO, ids, leases, datetime.timedelta(seconds=seconds), error)

    async def requeue(self, held: Sequence[Held], seconds: float, error: str) -> None:
        """Have it wait again; that is no failure of its own."""
        await self._database.fetch(_REQUEUE, held[0].lease, _ids(held), datetime.timedelta(seconds=seconds), error)

    async def poll(self, held: Sequence[tuple[Held, float, datetime.datetime | None]]) -> None:
        """Have the storage asked again in so many seconds; it says that the copy will be ready then."""
        lease, ids = held[0][0].lease, [one.restore_id for one, _, _ in held]
        if any(ready is not None for _, _, ready in held):
            await self._database.fetch(_EXPECT, lease, ids, [ready for _, _, ready in held])
        await self._database.fetch(_POLL, lease, ids, [seconds for _, seconds, _ in held])

    async def restored(self, held: Sequence[tuple[Held, datetime.datetime | None]], *, soonest: float) -> list[int]:
        """Copies can be read where they lie, until their storage takes them back; ids of those that were ours still.

        ``soonest``: seconds after which the storage is asked again to keep one, at the earliest.
        """
        lease, ids = held[0][0].lease, [one.restore_id for one, _ in held]
        rows = await self._database.fetch(
            _RESTORED, lease, ids, [until for _, until in held], datetime.timedelta(seconds=soonest)
        )
        return [row["restore_id"] for row in rows]

    async def publish(self, held: Held, kept: Kept) -> Literal["done", "not ours", "other file"]:
        """A copy can be read in the cache, unless it is ours no more, or its file is another one by now, or gone."""
        stat = kept.stat
        with contextlib.suppress(_RolledBackError):
            async with self._database.transaction() as connection:
                until = await connection.fetchval(_PUBLISHED, held.lease, held.restore_id)
                if until is None or await connection.fetchval(READY, kept.entry_id, kept.lease) is None:
                    return_value: Literal["not ours", "other file"] = "not ours"
                    raise _RolledBackError
                written = await connection.fetchval(
                    CACHED,
                    *(kept.entry_id, stat.size, stat.modified, stat.version, until, held.algorithm, held.checksum),
                )
                if written is None:
                    return_value = "other file"
                    raise _RolledBackError
                await connection.execute(_PIN, held.restore_id, self._pin)
                return "done"
        return return_value

    async def released(self, held: Sequence[Held]) -> None:
        """The storage was told that it needs to keep nothing more of what lies in the cache."""
        await self._database.fetch(_RELEASED, held[0].lease, _ids(held))

    async def extend_cached(self, held: Sequence[Held]) -> None:
        """What lies in the cache stays as long as it is wanted. In hand is still what the storage is to be told of."""
        await self._database.fetch(_EXTEND_CACHED, held[0].lease, _ids(held))

    async def not_extended(self, held: Sequence[Held], error: str) -> None:
        """The storage keeps it no longer than it said."""
        await self._database.fetch(_NOT_EXTENDED, held[0].lease, _ids(held), error)

    async def gone(self, held: Sequence[Held], error: str) -> None:
        """What was restored is not any more, before its time."""
        await self._database.fetch(_GONE, held[0].lease, _ids(held), error)

    async def failed(
        self,
        held: Held,
        error: str,
        *,
        pause: float | None,
        others: Sequence[str] = (),
        copy: Literal["lost", "broken"] | None = None,
    ) -> Failure:
        """It did not come.

        Args:
            held: what did not.
            error: why, for operators.
            pause: seconds after which the same is tried again; None if that is not worth it.
            others: storages, the best first, of which another copy is restored then, if there is one.
            copy: what is wrong with the copy for ever.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_LOCK, held.lease, held.restore_id)
            if row is None:
                return "not ours"
            if copy is not None:
                mark = _LOST if copy == "lost" else _BROKEN
                await connection.execute(mark, held.copy_id, held.storage, held.location)
            if pause is not None:
                await connection.execute(_TRY_AGAIN, held.restore_id, error, datetime.timedelta(seconds=pause))
                return "again"
            tried = [*row["tried"], row["copy_id"]]
            other = await connection.fetchrow(_OTHER_COPY, row["file_id"], list(others), tried) if others else None
            if other is not None:
                place = (other["copy_id"], other["storage"], other["location"])
                await connection.execute(_TAKE_OTHER, held.restore_id, *place, error)
                return "other copy"
            await connection.execute(_FAIL, held.restore_id, error)
            return "failed"


class _RolledBackError(Exception):
    """Nothing is written."""


def _ids(held: Sequence[Held]) -> list[int]:
    return [one.restore_id for one in held]


def _held(lease: uuid.UUID, row: asyncpg.Record) -> Held:
    return Held(
        lease=lease,
        restore_id=row["restore_id"],
        tenant=row["tenant"],
        file_id=row["file_id"],
        copy_id=row["copy_id"],
        storage=row["storage"],
        location=row["location"],
        state=row["state"],
        order=(row["priority"], row["tape"] or "", row["position"] or 0, row["restore_id"]),
        tries=row["tries"],
        asked=row["asked"],
        roomed=row["roomed"],
        was_held=row["was_held"],
        age=row["age"],
        ended_for=row["ended_for"],
        seconds=row["seconds"],
        has_file=row["has_file"],
        size=row["whole"],
        checksum=row["checksum"],
        algorithm=row["checksum_algorithm"],
    )
