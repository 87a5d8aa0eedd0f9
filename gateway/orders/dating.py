"""The date of a selection: a bound that leaves out what comes into the catalogue later."""

from __future__ import annotations

import asyncio
import datetime

from gateway.catalog.ingest.writing import is_written
from gateway.db import Connection

_WAIT = 0.01
"""Seconds. A date of whole milliseconds includes all of its last one; and who began to write before it has asked for
his turn by then."""
_NOW = "SELECT date_trunc('milliseconds', clock_timestamp())"
_NEWEST = """
SELECT date_trunc('milliseconds', created_at) FROM products
WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = $1) ORDER BY created_at DESC LIMIT 1"""


async def selection_date(connection: Connection, tenant: str) -> datetime.datetime:
    """A time, in whole milliseconds, not later than now: what ``tenant`` has with a ``created_at`` up to it is there.

    Products say that they were made when the transaction began that writes them. While somebody writes, which may take
    hours, the date is that of the newest product that can be seen: what he writes is newer. Statements after this one
    see all that belongs to the date.
    """
    date: datetime.datetime = await connection.fetchval(_NOW)
    await asyncio.sleep(_WAIT)
    if await is_written(connection, tenant):
        newest: datetime.datetime | None = await connection.fetchval(_NEWEST, tenant)
        if newest is not None:
            return min(date, newest)
    return date
