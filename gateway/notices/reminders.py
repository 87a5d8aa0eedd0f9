"""Orders that end soon, with files that their owners have not fetched."""

from __future__ import annotations

import datetime

from gateway.db import Database

_MOST = 100
"""Orders at a time."""

# As the index orders_by_end has it. Who heard of the order since, with its end, needs no reminder.
_REMIND = f"""
UPDATE orders SET reminded_for = expires_at
WHERE order_id = ANY (ARRAY(
    SELECT order_id FROM orders
    WHERE expires_at > now() AND expires_at <= now() + $1::interval
      AND (status IN ('PENDING', 'RUNNING', 'PAUSED')
           OR (status IN ('DONE', 'DONE_WITH_WARNING') AND files_available > 0))
      AND files_available > 0 AND reminded_for IS DISTINCT FROM expires_at
      AND status_at <= expires_at - $1::interval
    ORDER BY expires_at LIMIT {_MOST} FOR NO KEY UPDATE SKIP LOCKED
)) RETURNING order_id"""  # noqa: S608 - made of constants


async def remind(database: Database, hours: float) -> int:
    """Note for each order that ends within ``hours`` that its owner is to be reminded, once for each end it gets.

    The notice is written by the trigger, in the same transaction. It may run in several processes at once.

    Raises:
        GatewayError: 503.
    """
    count = 0
    while True:
        rows = await database.fetch(_REMIND, datetime.timedelta(hours=hours))
        count += len(rows)
        if len(rows) < _MOST:
            return count
