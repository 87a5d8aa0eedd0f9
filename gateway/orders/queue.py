"""Sub-orders that wait for workers, in PostgreSQL: taken by one at a time, kept by a lease, finished once.

Locks are taken in one order everywhere: the order, then its sub-orders, then its files. A claim locks sub-orders alone,
and only such as nobody else has locked; a sign of life locks them by their ids, as does everybody.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import uuid
from collections.abc import Mapping, Sequence

from gateway.db import Connection, Database
from gateway.orders.lifecycle import Status, settled
from gateway.orders.model import Nearline, Staged
from gateway.orders.rows import COUNTS, counts_of

TOPIC = "order_work"
"""What workers are woken by."""
WAKE = f"SELECT pg_notify('gateway', '{json.dumps({'topic': TOPIC, 'tenant': None, 'id': None})}')"
_MOST_FILES = 5000
_MOST_PARTS = 500
STAGING_SECONDS = 120.0
"""After which nearline files are looked at again, if nobody tells before that they are restored."""

# An array is made once. By the plan of workers that asked while nothing waited, each sub-order that there is would be
# looked for in ``taken``, which would be made for each again.
_TAKE = """
UPDATE suborders SET state = 'RUNNING', lease = $1, due_at = now() + $2::interval
WHERE suborder_id = ANY (ARRAY(SELECT suborder_id FROM taken))
RETURNING suborder_id, order_id, number, first_file, files_count"""

# What a dead worker had, and what may be restored by now.
_CLAIM_DUE = f"""
WITH taken AS (
    SELECT s.suborder_id FROM suborders s
    WHERE s.state IN ('RUNNING', 'STAGING') AND s.due_at <= now()
    ORDER BY s.due_at LIMIT 1 FOR UPDATE SKIP LOCKED
) {_TAKE}"""  # noqa: S608 - made of constants

# The next one, and with it small ones of the same order, so that there is one transaction for many small parts.
_CLAIM_NEXT = f"""
WITH next AS (
    SELECT order_id, number FROM suborders WHERE state = 'WAITING'
    ORDER BY turn, suborder_id LIMIT 1 FOR UPDATE SKIP LOCKED
), locked AS (
    SELECT s.suborder_id, s.number, s.files_count FROM suborders s JOIN next USING (order_id)
    WHERE s.state = 'WAITING' AND s.number >= next.number
    ORDER BY s.number LIMIT {_MOST_PARTS} FOR UPDATE OF s SKIP LOCKED
), taken AS (
    SELECT suborder_id FROM (
        SELECT suborder_id, number, min(number) OVER () AS first,
               sum(files_count) OVER (ORDER BY number) AS files FROM locked
    ) counted WHERE files <= {_MOST_FILES} OR number = first
) {_TAKE}"""  # noqa: S608 - made of constants

_PROLONG = """
UPDATE suborders SET due_at = now() + $2::interval
WHERE suborder_id IN (
    SELECT suborder_id FROM suborders WHERE suborder_id = ANY ($1::bigint[]) AND lease = $3
    ORDER BY suborder_id FOR NO KEY UPDATE
) RETURNING suborder_id"""

_ONLINE = """
(SELECT true FROM copies c
 WHERE c.file_id = o.file_id AND c.state = 'ONLINE' AND c.storage <> ALL ($3::text[]) LIMIT 1)"""
"""Whether a copy is online for good: its storage is none of the nearline ones. Looked up file by file: to join all
copies that there are would take longer, whatever the planner thinks."""
_RESTORED = "(SELECT true FROM copies c WHERE c.file_id = o.file_id AND c.restored_until > now() LIMIT 1)"

_NOT_ONLINE = f"""
SELECT o.order_file_id, o.file_id, coalesce({_RESTORED}, false) AS restored,
       (SELECT json_agg(json_build_array(c.storage, c.location) ORDER BY c.copy_id)::text FROM copies c
        WHERE c.file_id = o.file_id AND c.entry_id IS NULL
          AND (c.state = 'NEARLINE' OR (c.state = 'ONLINE' AND c.storage = ANY ($3::text[])))) AS nearline
FROM order_files o
WHERE o.order_file_id BETWEEN $1 AND $2 AND o.state = 'PENDING' AND {_ONLINE} IS NULL"""  # noqa: S608 - as above

_LOCK_ORDER = f"SELECT status, {COUNTS} FROM orders WHERE order_id = $1 FOR NO KEY UPDATE"  # noqa: S608 - as above
_HELD = """
SELECT suborder_id, number, first_file, files_count FROM suborders
WHERE suborder_id = ANY ($1::bigint[]) AND lease = $2 ORDER BY suborder_id FOR NO KEY UPDATE"""

_KNOWN = """
UPDATE order_files o SET state = known.state, error = known.error
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS known(order_file_id, state, error)
WHERE o.order_file_id = known.order_file_id AND o.state = 'PENDING' AND known.state <> 'PENDING'"""
_AVAILABLE = f"""
UPDATE order_files o SET state = 'AVAILABLE', error = NULL
WHERE o.order_file_id BETWEEN $1 AND $2 AND o.state = 'PENDING' AND ({_ONLINE} OR {_RESTORED})"""  # noqa: S608 - as above

_PUT_BACK = """
UPDATE suborders
SET lease = NULL,
    state = CASE WHEN files_pending = 0 THEN 'ENDED' WHEN $3 THEN 'STAGING' ELSE 'HELD' END,
    due_at = CASE WHEN files_pending > 0 AND $3 THEN now() + $2::interval END
WHERE suborder_id = ANY ($1::bigint[])"""

_HAND_BACK = """
UPDATE suborders SET lease = NULL, due_at = NULL, state = CASE WHEN $3 THEN 'WAITING' ELSE 'HELD' END
WHERE suborder_id = ANY ($1::bigint[]) AND lease = $2"""

_END = """
UPDATE orders SET status = $2, status_at = now(), expires_at = greatest(expires_at, now() + $3::interval)
WHERE order_id = $1"""

_NO_COPY = Staged("ERROR", "No copy of the file can be served.")


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Sub-orders of one order that a worker has in hand."""

    lease: uuid.UUID
    order_id: int
    parts: Mapping[int, tuple[int, int]]
    """By id of the sub-order: the id of its first file, and how many it has."""

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last ids of its files; those of neighbours are one."""
        found: list[tuple[int, int]] = []
        for first, count in sorted(self.parts.values()):
            if found and found[-1][1] + 1 == first:
                found[-1] = found[-1][0], first + count - 1
            else:
                found.append((first, first + count - 1))
        return found


async def claim(database: Database, lease_seconds: float, *, due_first: bool = True) -> Claim | None:
    """Take what is to be done next; None if there is nothing.

    Args:
        database: for it.
        lease_seconds: how long it is kept without a sign of life.
        due_first: whether what is to be looked at again goes before what waits. Now one, now the other: else one would
            wait for ever while there is much of the other.

    Raises:
        GatewayError: 503.
    """
    lease, length = uuid.uuid4(), datetime.timedelta(seconds=lease_seconds)
    for statement in (_CLAIM_DUE, _CLAIM_NEXT) if due_first else (_CLAIM_NEXT, _CLAIM_DUE):
        rows = await database.fetch(statement, lease, length)
        if rows:
            parts = {row["suborder_id"]: (row["first_file"], row["files_count"]) for row in rows}
            return Claim(lease, rows[0]["order_id"], parts)
    return None


async def prolong(database: Database, held: Claim, lease_seconds: float) -> bool:
    """Show a sign of life; whether all of the claim is still held.

    Raises:
        GatewayError: 503.
    """
    length = datetime.timedelta(seconds=lease_seconds)
    rows = await database.fetch(_PROLONG, list(held.parts), length, held.lease)
    return len(rows) == len(held.parts)


async def not_online(
    database: Database, held: Claim, offline: Sequence[str] = ()
) -> tuple[list[Nearline], dict[int, Staged]]:
    """The pending files of a claim without a copy online: those that may be staged, and what is known of the others.

    Args:
        database: for it.
        held: what was claimed.
        offline: storages in which nothing is online, whatever a copy says.

    Raises:
        GatewayError: 503.
    """
    nearline, lost = list[Nearline](), dict[int, Staged]()
    for first, last in held.ranges:
        for row in await database.fetch(_NOT_ONLINE, first, last, offline):
            if row["nearline"] is None and not row["restored"]:
                lost[row["order_file_id"]] = _NO_COPY
            else:
                copies = [(storage, location) for storage, location in json.loads(row["nearline"] or "[]")]
                nearline.append(Nearline(row["order_file_id"], row["file_id"], copies, row["restored"]))
    return nearline, lost


async def finish(
    database: Database,
    held: Claim,
    known: Mapping[int, Staged],
    *,
    least: datetime.timedelta,
    offline: Sequence[str] = (),
) -> Status | None:
    """Write what has become of the files of a claim, and give it back; None if it is no longer held.

    Files that ``known`` does not name are available if they are online, else still pending.

    Args:
        database: for it.
        held: what was claimed.
        known: of files that are not online.
        least: how long an order that ends by this still lasts.
        offline: as for `not_online`.

    Raises:
        GatewayError: 503; nothing was written, or all.
    """
    async with database.transaction() as connection:
        order = await connection.fetchrow(_LOCK_ORDER, held.order_id)
        parts = await connection.fetch(_HELD, list(held.parts), held.lease)
        if order is None or len(parts) < len(held.parts):
            return None
        if known:
            found = list(known.items())
            columns = zip(*((one, staged.state, staged.error) for one, staged in found), strict=True)
            await connection.execute(_KNOWN, *map(list, columns))
        for first, last in held.ranges:
            await connection.execute(_AVAILABLE, first, last, offline)
        goes_on = Status(order["status"]) is Status.RUNNING
        pause = datetime.timedelta(seconds=STAGING_SECONDS)
        await connection.execute(_PUT_BACK, list(held.parts), pause, goes_on)
        return await settle(connection, held.order_id, least)


async def hand_back(database: Database, held: Claim) -> None:
    """Leave a claim to others as it was: what is still held of it waits again, and is next.

    Raises:
        GatewayError: 503; others begin it anew when the lease ends.
    """
    async with database.transaction() as connection:
        order = await connection.fetchrow(_LOCK_ORDER, held.order_id)
        if order is None:
            return
        await connection.fetch(_HELD, list(held.parts), held.lease)
        goes_on = Status(order["status"]) is Status.RUNNING
        await connection.execute(_HAND_BACK, list(held.parts), held.lease, goes_on)
        await connection.execute(WAKE)


async def settle(connection: Connection, order_id: int, least: datetime.timedelta) -> Status:
    """End an order whose last file is no longer pending. Its row is locked; gives its status."""
    order = await connection.fetchrow(_LOCK_ORDER, order_id)
    assert order is not None  # noqa: S101 - it is locked
    status = Status(order["status"])
    becomes = settled(status, counts_of(order))
    if becomes is not status:
        await connection.execute(_END, order_id, becomes, least)
    return becomes
