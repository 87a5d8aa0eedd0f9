"""Restores that wait for workers, in PostgreSQL: taken by one at a time, kept by a lease, each step written once.

Whatever a worker writes it writes only while the lease is his. One that died leaves a lease that ends; one that lets go
ends it himself, and whoever comes next goes on as after a death: he asks the storage again for the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from typing import Literal

import asyncpg

from gateway.db import Database
from gateway.staging.cache import CACHED, READY, Kept
from gateway.staging.model import RestoreState
from gateway.staging.statements import (
    BEGIN,
    BROKEN,
    CLAIM_DUE,
    CLAIM_ENDED,
    CLAIM_QUEUED,
    CLEANED,
    EXPECT,
    EXTEND_CACHED,
    FAIL,
    GONE,
    LEAVE,
    LEAVE_ENDED,
    LET_GO,
    LOCK,
    LOST,
    NOT_EXTENDED,
    ONE_BY_ONE,
    OTHER_COPY,
    PIN,
    PLACE,
    POLL,
    PROLONG,
    PUBLISHED,
    RELEASED,
    REQUEUE,
    RESTORED,
    TAKE_OTHER,
    TRY_AGAIN,
    UNPLACED,
    WAKE,
)
from gateway.storage import ToStage


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
            await connection.execute(ONE_BY_ONE, storage)
            # The planner cannot know how few are taken: it would rather sort all that wait.
            await connection.execute("SET LOCAL enable_sort = off")
            rows = await connection.fetch(CLAIM_QUEUED, storage, lease, self._lease, roomed, most, busy)
        return [_held(lease, row) for row in rows]

    async def claim_due(self, storage: str, *, most: int) -> list[Held]:
        """Take what is to be looked at again."""
        lease = uuid.uuid4()
        rows = await self._database.fetch(CLAIM_DUE, storage, lease, self._lease, False, most)
        return [_held(lease, row) for row in rows]

    async def unplaced(self, storage: str) -> list[tuple[int, str]]:
        """Id and location of what waits, and nobody asked yet where on tape it lies."""
        return [(row["restore_id"], row["location"]) for row in await self._database.fetch(UNPLACED, storage)]

    async def place(self, places: Sequence[tuple[int, str, int | None]]) -> None:
        """Write down where copies lie: id, tape (empty if nobody knows) and position."""
        await self._database.fetch(PLACE, *map(list, zip(*places, strict=True)))

    async def claim_ended(self, storage: str, *, most: int) -> list[Held]:
        """Take what has ended and is to be given back."""
        lease = uuid.uuid4()
        rows = await self._database.fetch(CLAIM_ENDED, storage, lease, self._lease, False, most)
        return [_held(lease, row) for row in rows]

    async def cleaned(self, held: Sequence[Held]) -> None:
        """All is given back; those who wait for room are woken."""
        await self._database.fetch(CLEANED, held[0].lease, _ids(held))
        if any(one.roomed for one in held):
            await self._database.fetch(WAKE)

    async def prolong(self, held: Sequence[Held]) -> dict[tuple[int, uuid.UUID], bool]:
        """Show a sign of life; ids and leases of what is held still, and whether it has ended meanwhile."""
        ids, leases = [one.restore_id for one in held], [one.lease for one in held]
        rows = await self._database.fetch(PROLONG, ids, leases, self._lease)
        return {(row["restore_id"], row["lease"]): row["ended"] for row in rows}

    async def begin(self, held: Sequence[Held]) -> set[int]:
        """Write down that the storage is asked from now on; ids of those that are ours still."""
        rows = await self._database.fetch(BEGIN, held[0].lease, _ids(held))
        return {row["restore_id"] for row in rows}

    async def leave(self, held: Sequence[Held]) -> None:
        """Leave what waits as it was; nobody is woken."""
        await self._database.fetch(LEAVE, held[0].lease, _ids(held))

    async def leave_ended(self, held: Sequence[Held]) -> None:
        """Let go of those that have ended meanwhile."""
        await self._database.fetch(LEAVE_ENDED, held[0].lease, _ids(held))

    async def let_go(self, held: Sequence[Held], seconds: float = 0, error: str | None = None) -> None:
        """Have somebody else ask for it again, in ``seconds``."""
        ids, leases = [one.restore_id for one in held], [one.lease for one in held]
        await self._database.fetch(LET_GO, ids, leases, datetime.timedelta(seconds=seconds), error)

    async def requeue(self, held: Sequence[Held], seconds: float, error: str) -> None:
        """Have it wait again; that is no failure of its own."""
        await self._database.fetch(REQUEUE, held[0].lease, _ids(held), datetime.timedelta(seconds=seconds), error)

    async def poll(self, held: Sequence[tuple[Held, float, datetime.datetime | None]]) -> None:
        """Have the storage asked again in so many seconds; it says that the copy will be ready then."""
        lease, ids = held[0][0].lease, [one.restore_id for one, _, _ in held]
        if any(ready is not None for _, _, ready in held):
            await self._database.fetch(EXPECT, lease, ids, [ready for _, _, ready in held])
        await self._database.fetch(POLL, lease, ids, [seconds for _, seconds, _ in held])

    async def restored(self, held: Sequence[tuple[Held, datetime.datetime | None]], *, soonest: float) -> list[int]:
        """Copies can be read where they lie, until their storage takes them back; ids of those that were ours still.

        ``soonest``: seconds after which the storage is asked again to keep one, at the earliest.
        """
        lease, ids = held[0][0].lease, [one.restore_id for one, _ in held]
        rows = await self._database.fetch(
            RESTORED, lease, ids, [until for _, until in held], datetime.timedelta(seconds=soonest)
        )
        return [row["restore_id"] for row in rows]

    async def publish(self, held: Held, kept: Kept) -> Literal["done", "not ours", "other file"]:
        """A copy can be read in the cache, unless it is ours no more, or its file is another one by now, or gone."""
        stat = kept.stat
        with contextlib.suppress(_RolledBackError):
            async with self._database.transaction() as connection:
                until = await connection.fetchval(PUBLISHED, held.lease, held.restore_id)
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
                await connection.execute(PIN, held.restore_id, self._pin)
                return "done"
        return return_value

    async def released(self, held: Sequence[Held]) -> None:
        """The storage was told that it needs to keep nothing more of what lies in the cache."""
        await self._database.fetch(RELEASED, held[0].lease, _ids(held))

    async def extend_cached(self, held: Sequence[Held]) -> None:
        """What lies in the cache stays as long as it is wanted. In hand is still what the storage is to be told of."""
        await self._database.fetch(EXTEND_CACHED, held[0].lease, _ids(held))

    async def not_extended(self, held: Sequence[Held], error: str) -> None:
        """The storage keeps it no longer than it said."""
        await self._database.fetch(NOT_EXTENDED, held[0].lease, _ids(held), error)

    async def gone(self, held: Sequence[Held], error: str) -> None:
        """What was restored is not any more, before its time."""
        await self._database.fetch(GONE, held[0].lease, _ids(held), error)

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
            row = await connection.fetchrow(LOCK, held.lease, held.restore_id)
            if row is None:
                return "not ours"
            if copy is not None:
                mark = LOST if copy == "lost" else BROKEN
                await connection.execute(mark, held.copy_id, held.storage, held.location)
            if pause is not None:
                await connection.execute(TRY_AGAIN, held.restore_id, error, datetime.timedelta(seconds=pause))
                return "again"
            tried = [*row["tried"], row["copy_id"]]
            other = await connection.fetchrow(OTHER_COPY, row["file_id"], list(others), tried) if others else None
            if other is not None:
                place = (other["copy_id"], other["storage"], other["location"])
                await connection.execute(TAKE_OTHER, held.restore_id, *place, error)
                return "other copy"
            await connection.execute(FAIL, held.restore_id, error)
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
