"""Orders as those who ask for restores: their wishes, and what has become of them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from gateway.config.staging import Staging as Settings
from gateway.db import Database
from gateway.orders.model import ID_BITS, Nearline, Staged
from gateway.orders.queue import WAKE
from gateway.staging.model import ORDERED

_MOST = 5000
"""Files at a time."""
_TURN = 5000
"""Files of an order that are restored as they lie on tape, before those of other orders have their turn."""
_UNKNOWN = Staged("ERROR", "The file is nearline, and its storage cannot restore it.")
_FAILED = Staged("ERROR", "The file could not be restored.")

# What has become of the last wish of each. Without OFFSET all wishes there are would be gone through, the last first.
_FOUND = """
SELECT wanted.order_file_id, (
    SELECT r.state FROM restores r WHERE r.restore_id = (
        SELECT max(wished.restore_id) FROM (
            SELECT w.restore_id FROM restore_wishes w
            WHERE w.order_file_id = wanted.order_file_id AND w.order_file_id <> 0 OFFSET 0
        ) wished)
) AS state
FROM unnest($1::bigint[]) AS wanted(order_file_id)"""
_BEGIN = """
INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, size, priority, hours)
SELECT p.tenant_id, f.file_id, c.copy_id, c.storage, c.location, coalesce(f.size, c.size), wanted.priority,
       $4::double precision
FROM unnest($1::bigint[], $3::smallint[]) AS wanted(file_id, priority)
JOIN files f USING (file_id) JOIN products p USING (product_id)
CROSS JOIN LATERAL (
    SELECT copy_id, storage, location, size FROM copies
    WHERE file_id = f.file_id AND storage = ANY ($2::text[]) AND state IN ('NEARLINE', 'ONLINE') AND entry_id IS NULL
    ORDER BY array_position($2::text[], storage), copy_id LIMIT 1
) c
ORDER BY f.file_id
ON CONFLICT (file_id) WHERE state IN ('QUEUED', 'STAGING', 'RESTORED') DO NOTHING"""
_LOCK = """
SELECT restore_id, file_id FROM restores
WHERE file_id = ANY ($1::bigint[]) AND state IN ('QUEUED', 'STAGING', 'RESTORED')
ORDER BY restore_id FOR UPDATE"""
_WISH = """
INSERT INTO restore_wishes (restore_id, tenant_id, email, order_file_id, pinned_until)
SELECT r.restore_id, o.tenant_id, o.owner, wanted.order_file_id,
       CASE r.state WHEN 'RESTORED' THEN now() + $4::interval END
FROM unnest($1::bigint[], $2::bigint[]) AS wanted(order_file_id, file_id)
JOIN restores r ON r.file_id = wanted.file_id AND r.restore_id = ANY ($3::bigint[])
JOIN orders o ON o.order_id = wanted.order_file_id >> 24
ON CONFLICT DO NOTHING"""
# What others asked for stays as long as it is pinned for the order.
_LONGER = """
UPDATE restores SET hours = $2 WHERE restore_id = ANY ($1::bigint[]) AND state <> 'RESTORED' AND hours < $2"""
_KEEP = """
UPDATE restores SET wanted_until = now() + $2::interval, due_at = now()
WHERE restore_id = ANY ($1::bigint[]) AND state = 'RESTORED'
  AND greatest(expires_at, wanted_until) < now() + $2::interval"""

_WAKE = """
WITH waiting AS (
    SELECT DISTINCT w.order_file_id >> 24 AS order_id, f.suborder AS number
    FROM restore_wishes w JOIN order_files f USING (order_file_id)
    WHERE w.restore_id = ANY ($1::bigint[]) AND w.order_file_id <> 0
), known AS (
    SELECT s.suborder_id FROM suborders s JOIN waiting USING (order_id, number)
    WHERE s.state = 'STAGING' AND s.due_at > now() ORDER BY s.suborder_id FOR NO KEY UPDATE OF s
)
UPDATE suborders s SET due_at = now() FROM known WHERE s.suborder_id = known.suborder_id RETURNING s.order_id"""


def priority_of(order_file_id: int) -> int:
    """Of a file of an order. The first files of one come before the later ones of another, however large that is."""
    number = order_file_id & ((1 << ID_BITS) - 1)
    return ORDERED + number // _TURN


class RestoringStager:
    """As `gateway.orders.model.Stager`: has the files of orders restored."""

    def __init__(self, database: Database, settings: Settings, storages: Sequence[str]) -> None:
        """``storages``: names of those that can restore, the best first."""
        self._database = database
        self._settings = settings
        self._storages = list(storages)

    async def stage(self, files: Sequence[Nearline]) -> Mapping[int, Staged]:
        """As `Stager`.

        Raises:
            GatewayError: 503.
        """
        known: dict[int, Staged] = {}
        for first in range(0, len(files), _MOST):
            known.update(await self._stage(files[first : first + _MOST]))
        return known

    async def _stage(self, files: Sequence[Nearline]) -> dict[int, Staged]:
        rows = await self._database.fetch(_FOUND, [one.order_file_id for one in files])
        states = {row["order_file_id"]: row["state"] for row in rows}
        known, new = dict[int, Staged](), list[Nearline]()
        for one in files:
            state = states.get(one.order_file_id)
            if state in ("QUEUED", "STAGING", "RESTORED"):
                known[one.order_file_id] = Staged("AVAILABLE" if one.readable else "PENDING")
            elif state == "FAILED" and not one.readable:
                known[one.order_file_id] = _FAILED
            else:
                new.append(one)
        if new:
            begun = await self._begin(new)
            for one in new:
                if one.readable:
                    known[one.order_file_id] = Staged("AVAILABLE")
                else:
                    known[one.order_file_id] = Staged("PENDING") if one.file_id in begun else _UNKNOWN
        return known

    async def _begin(self, files: Sequence[Nearline]) -> set[int]:
        """Wish for files; ids of those that are restored, or will be."""
        ids, hours = [one.file_id for one in files], self._settings.order_pin_hours
        missing = [one for one in files if not one.readable]
        pin = datetime.timedelta(hours=hours)
        async with self._database.transaction() as connection:
            if missing:
                priorities = [priority_of(one.order_file_id) for one in missing]
                await connection.execute(_BEGIN, [one.file_id for one in missing], self._storages, priorities, hours)
            rows = await connection.fetch(_LOCK, ids)
            locked = [row["restore_id"] for row in rows]
            await connection.execute(_WISH, [one.order_file_id for one in files], ids, locked, pin)
            await connection.execute(_LONGER, locked, hours)
            await connection.execute(_KEEP, locked, pin)
        return {row["file_id"] for row in rows}


async def wake_orders(database: Database, restore_ids: Iterable[int]) -> None:
    """Have workers look at the sub-orders that wait for these restores. They would by and by anyway.

    Raises:
        GatewayError: 503.
    """
    if await database.fetch(_WAKE, sorted(restore_ids)):
        await database.fetch(WAKE)
