"""What happens to orders by time: they end, their files are forgotten, and at last they are removed."""

from __future__ import annotations

import datetime

from gateway.config import Orders as Settings
from gateway.db import Connection, Database
from gateway.orders.lifecycle import Status, outdated
from gateway.orders.model import ID_BITS
from gateway.orders.rows import COUNTS, counts_of

_MOST = 100
"""Orders at a time."""
_PIECE = 50_000
"""Files that are forgotten in one transaction."""

_OUTDATED = f"""
SELECT order_id, status, {COUNTS} FROM orders
WHERE expires_at <= now() AND (
    status IN ('PENDING', 'RUNNING', 'PAUSED') OR (status IN ('DONE', 'DONE_WITH_WARNING') AND files_available > 0))
ORDER BY expires_at LIMIT {_MOST} FOR NO KEY UPDATE SKIP LOCKED"""  # noqa: S608 - made of constants
_TO_CLEAN = """
SELECT order_id FROM orders WHERE has_files AND status IN ('EXPIRED', 'DELETED')
ORDER BY order_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED"""
_FORGET = """
DELETE FROM order_files WHERE order_file_id = ANY (ARRAY(
    SELECT order_file_id FROM order_files WHERE order_file_id BETWEEN $1 AND $2 LIMIT $3
))"""
_FORGET_SUBORDERS = """
DELETE FROM suborders WHERE suborder_id IN (
    SELECT suborder_id FROM suborders WHERE order_id = $1 ORDER BY suborder_id FOR UPDATE
)"""
_FORGET_ARCHIVES = "DELETE FROM order_archives WHERE order_id = $1"
_CLEANED = "UPDATE orders SET has_files = false WHERE order_id = $1"
_PAST = f"""
SELECT order_id FROM orders
WHERE status IN ('DONE', 'DONE_WITH_WARNING', 'FAILED', 'EXPIRED', 'DELETED') AND status_at < now() - $1::interval
ORDER BY status_at LIMIT {_MOST} FOR UPDATE SKIP LOCKED"""  # noqa: S608 - as above

_CLOSE = """
UPDATE orders
SET status = $2, status_at = now(), files_available = 0, files_downloaded = 0, files_download_error = 0,
    suborders_waiting = 0
WHERE order_id = $1"""


async def run(database: Database, settings: Settings) -> None:
    """Do all there is to do now. It may run in several processes at once.

    Raises:
        GatewayError: 503.
    """
    while await _expire(database):
        pass
    while await _clean(database):
        pass
    while await _remove_past(database, datetime.timedelta(days=settings.keep_days)):
        pass


async def close(connection: Connection, order_id: int, status: Status) -> None:
    """Make an order, whose row is locked, one without files. The rows of its files go by and by."""
    await connection.execute(_CLOSE, order_id, status)
    await connection.execute(_FORGET_ARCHIVES, order_id)
    await connection.execute(_FORGET_SUBORDERS, order_id)


async def remove(connection: Connection, order_id: int) -> None:
    """Leave nothing of an order, whose row is locked."""
    await connection.execute(_FORGET_SUBORDERS, order_id)
    await connection.execute("DELETE FROM orders WHERE order_id = $1", order_id)


async def _expire(database: Database) -> bool:
    async with database.transaction() as connection:
        rows = await connection.fetch(_OUTDATED)
        for row in rows:
            becomes = outdated(Status(row["status"]), counts_of(row))
            assert becomes is Status.EXPIRED, row  # noqa: S101 - the statement asks for these alone
            await close(connection, row["order_id"], becomes)
    return len(rows) == _MOST


async def _clean(database: Database) -> bool:
    """Forget a piece of an order's files; whether there may be more to do."""
    async with database.transaction() as connection:
        order_id = await connection.fetchval(_TO_CLEAN)
        if order_id is None:
            return False
        done = await connection.execute(_FORGET, *_range(order_id), _PIECE)
        if int(done.rpartition(" ")[2]) < _PIECE:
            await connection.execute(_CLEANED, order_id)
    return True


async def _remove_past(database: Database, age: datetime.timedelta) -> bool:
    async with database.transaction() as connection:
        rows = await connection.fetch(_PAST, age)
        for row in rows:
            await remove(connection, row["order_id"])
    return len(rows) == _MOST


def _range(order_id: int) -> tuple[int, int]:
    return order_id << ID_BITS, ((order_id + 1) << ID_BITS) - 1
