"""What happens to restores by time: they expire, nobody wants them any more, and at last they are forgotten."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from gateway.db import Database
from gateway.staging.cache import Cache

_MOST = 500
"""Restores at a time."""
_MOST_WISHES = 5000
_LOST_AFTER = datetime.timedelta(hours=1)
"""That a restore of a storage which cannot restore waits for somebody who knows better."""

# By then nobody reads it any more: restored_until is over. The row of a copy in the cache goes first, its bytes after.
_EXPIRE = f"""
WITH over AS (
    SELECT restore_id FROM restores
    WHERE state = 'RESTORED' AND expires_at <= now() AND greatest(expires_at, wanted_until) <= now()
      AND coalesce(lease_until, '-infinity') <= now()
    ORDER BY expires_at LIMIT {_MOST} FOR NO KEY UPDATE SKIP LOCKED
), done AS (
    UPDATE restores r SET state = 'EXPIRED', ended_at = now(), due_at = NULL, lease = NULL, lease_until = NULL
    FROM over WHERE r.restore_id = over.restore_id RETURNING r.restore_id, r.copy_id
), in_cache AS (
    DELETE FROM copies c USING cache_entries e, done WHERE e.restore_id = done.restore_id AND c.entry_id = e.entry_id
), in_place AS (
    UPDATE copies c SET restored_until = NULL FROM done
    WHERE c.copy_id = done.copy_id AND c.restored_until IS NOT NULL
)
SELECT restore_id FROM done"""  # noqa: S608 - made of constants

_FORGET = f"""
DELETE FROM restores WHERE restore_id IN (
    SELECT restore_id FROM restores
    WHERE ended_at < now() - $1::interval AND NOT asked AND NOT roomed
    ORDER BY ended_at LIMIT {_MOST} FOR UPDATE SKIP LOCKED
) RETURNING restore_id"""  # noqa: S608 - as above

_WITHOUT_STORAGE = f"""
UPDATE restores SET state = 'FAILED', ended_at = now(), error = 'its storage restores nothing', due_at = NULL,
    asked = false, lease = NULL, lease_until = NULL
WHERE restore_id IN (
    SELECT restore_id FROM restores
    WHERE state IN ('QUEUED', 'STAGING') AND storage <> ALL ($1::text[]) AND requested_at < now() - $2::interval
      AND coalesce(lease_until, '-infinity') <= now()
    ORDER BY restore_id LIMIT {_MOST} FOR NO KEY UPDATE SKIP LOCKED
) RETURNING restore_id"""  # noqa: S608 - as above
_LEFT = f"""
SELECT restore_id FROM restores
WHERE ended_at < now() - $2::interval AND (asked OR roomed) AND storage <> ALL ($1::text[])
ORDER BY restore_id LIMIT {_MOST}"""  # noqa: S608 - as above
_NOT_LEFT = "UPDATE restores SET asked = false, roomed = false WHERE restore_id = ANY ($1::bigint[])"

# In place, and an ingest changed or replaced the copy since. What lies in the cache `Cache.upkeep` looks after.
_UNREADABLE = f"""
UPDATE restores SET state = 'EXPIRED', expires_at = least(expires_at, now()), ended_at = now(), due_at = NULL,
    lease = NULL, lease_until = NULL
WHERE restore_id IN (
    SELECT r.restore_id FROM restores r
    WHERE r.state = 'RESTORED' AND NOT r.roomed AND coalesce(r.lease_until, '-infinity') <= now() AND NOT EXISTS (
        SELECT FROM copies c WHERE c.copy_id = r.copy_id AND c.storage = r.storage AND c.location = r.location
        AND (c.restored_until IS NOT NULL OR c.state = 'ONLINE'))
    ORDER BY r.restore_id LIMIT {_MOST} FOR NO KEY UPDATE SKIP LOCKED
) RETURNING restore_id"""  # noqa: S608 - as above

# From one order to the next, past all wishes of each.
_ORDERS_OF_WISHES = """
WITH RECURSIVE wishing AS (
    (SELECT order_file_id >> 24 AS order_id FROM restore_wishes WHERE order_file_id <> 0
     ORDER BY order_file_id LIMIT 1)
    UNION ALL
    SELECT (SELECT w.order_file_id >> 24 FROM restore_wishes w
            WHERE w.order_file_id <> 0 AND w.order_file_id >= (wishing.order_id + 1) << 24
            ORDER BY w.order_file_id LIMIT 1)
    FROM wishing WHERE wishing.order_id IS NOT NULL
)
SELECT wishing.order_id, o.status = 'PAUSED' IS TRUE AS paused
FROM wishing LEFT JOIN orders o USING (order_id)
WHERE wishing.order_id IS NOT NULL AND (o.status IS NULL OR o.status IN ('PAUSED', 'EXPIRED', 'DELETED'))"""
_LOCK_WISHED = f"""
SELECT restore_id FROM restores WHERE restore_id IN (
    SELECT w.restore_id FROM restore_wishes w JOIN restores r USING (restore_id)
    WHERE w.order_file_id <> 0 AND w.order_file_id BETWEEN $1 AND $2
      AND ($3::boolean IS FALSE OR r.state IN ('QUEUED', 'STAGING'))
    LIMIT {_MOST_WISHES}
) ORDER BY restore_id FOR UPDATE"""  # noqa: S608 - as above
_WITHDRAW = """
DELETE FROM restore_wishes
WHERE restore_id = ANY ($3::bigint[]) AND order_file_id <> 0 AND order_file_id BETWEEN $1 AND $2"""
_CALL_OFF = """
UPDATE restores r SET state = 'CANCELED', ended_at = now()
WHERE r.restore_id = ANY ($1::bigint[]) AND r.state IN ('QUEUED', 'STAGING')
  AND NOT EXISTS (SELECT FROM restore_wishes w WHERE w.restore_id = r.restore_id)"""


async def expire(database: Database) -> list[int]:
    """End restores whose time is over; their ids.

    Raises:
        GatewayError: 503.
    """
    found: list[int] = []
    while True:
        rows = await database.fetch(_EXPIRE)
        found += [row["restore_id"] for row in rows]
        if len(rows) < _MOST:
            return found


async def withdraw(database: Database) -> None:
    """Orders that were paused, have ended or are gone wish for nothing any more.

    What a paused order has already stays there for it.

    Raises:
        GatewayError: 503.
    """
    for order in await database.fetch(_ORDERS_OF_WISHES):
        first, last = order["order_id"] << 24, ((order["order_id"] + 1) << 24) - 1
        while True:
            async with database.transaction() as connection:
                rows = await connection.fetch(_LOCK_WISHED, first, last, order["paused"])
                if not rows:
                    break
                ids = [row["restore_id"] for row in rows]
                await connection.execute(_WITHDRAW, first, last, ids)
                await connection.execute(_CALL_OFF, ids)


async def clean(database: Database, storages: Sequence[str], cache: Cache | None, keep: datetime.timedelta) -> None:
    """Forget what ended long ago, and end what nobody here can restore.

    Raises:
        GatewayError: 503.
    """
    while len(await database.fetch(_FORGET, keep)) == _MOST:
        pass
    names = list(storages)
    while len(await database.fetch(_WITHOUT_STORAGE, names, _LOST_AFTER)) == _MOST:
        pass
    while len(await database.fetch(_UNREADABLE)) == _MOST:
        pass
    while left := [row["restore_id"] for row in await database.fetch(_LEFT, names, _LOST_AFTER)]:
        if cache is not None:
            await cache.give_back(left)
        await database.fetch(_NOT_LEFT, left)
    if cache is not None:
        await cache.upkeep()
