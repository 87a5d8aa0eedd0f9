"""Sessions of browsers, as administrators end them."""

from __future__ import annotations

from gateway.administration.changes import Actor, Change, record
from gateway.db import Database

_END = """
DELETE FROM sessions s USING tenants t
WHERE t.tenant_id = s.tenant_id AND t.name = $1 AND ($2::text IS NULL OR s.email = $2)
RETURNING s.email"""


async def end_sessions(database: Database, actor: Actor, tenant: str, email: str | None = None) -> int:
    """End all sessions of a user, or of the tenant; every gateway knows at once. Gives how many there were.

    Raises:
        GatewayError: 503.
    """
    async with database.transaction() as connection:
        rows = await connection.fetch(_END, tenant, email)
        for one in sorted({row["email"] for row in rows}):
            await record(connection, actor, Change(tenant, "session.end", one, {}))
    return len(rows)
