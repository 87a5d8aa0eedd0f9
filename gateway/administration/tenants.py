"""Tenants: who shares this gateway with others."""

from __future__ import annotations

import dataclasses
import datetime

from gateway.administration.changes import Actor, Change, record
from gateway.administration.work import changing, check_name, conflict, plain_refusals
from gateway.db import Database

CONTENT = ("datasets", "groups", "licences", "roles", "quota_limits", "quota_ledger", "orders")
"""Tables whose rows keep a tenant from being deleted. What other tables have of a tenant is made from these, or
lets its users in: credentials go with it."""

_LIST = """
SELECT t.name, t.created_at, l.name AS licence FROM tenants t LEFT JOIN licences l ON l.licence_id = t.licence_id
WHERE t.name COLLATE "C" > $1 ORDER BY t.name COLLATE "C" LIMIT $2"""
_FOUND = ", ".join(f"EXISTS (SELECT FROM {table} WHERE tenant_id = $1) AS {table}" for table in CONTENT)


@dataclasses.dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant."""

    name: str
    created_at: datetime.datetime
    licence: str | None
    """Name of the licence of the datasets that name none."""


async def tenants(database: Database, *, after: str = "", limit: int) -> list[Tenant]:
    """At most ``limit`` tenants whose names come after ``after``, by name (in order of code points).

    Raises:
        GatewayError: 503.
    """
    return [Tenant(*row) for row in await database.fetch(_LIST, after, limit)]


async def create_tenant(database: Database, name: str, actor: Actor) -> bool:
    """Make a tenant; whether it is new.

    Raises:
        GatewayError: 400 that is no name; 503.
    """
    check_name(name, "tenant")
    with plain_refusals():
        async with database.transaction() as connection:
            statement = "INSERT INTO tenants (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true"
            if not await connection.fetchval(statement, name):
                return False
            await record(connection, actor, Change(name, "tenant.create", name, {}))
            return True


async def delete_tenant(database: Database, name: str, actor: Actor) -> None:
    """Delete a tenant that has nothing. The record of its changes stays, as one of no tenant.

    Raises:
        GatewayError: 404 there is none; 409 it is not empty; 503.
    """
    async with changing(database, name, actor, lock="FOR UPDATE") as work:
        found = await work.connection.fetchrow(f"SELECT {_FOUND}", work.tenant_id)
        assert found is not None  # noqa: S101 - it has no FROM
        left = [table for table, exists in found.items() if exists]
        if left:
            raise conflict(f"The tenant is not empty: it has {', '.join(left)}.")
        await work.connection.execute("DELETE FROM tenants WHERE tenant_id = $1", work.tenant_id)
        await work.record("tenant.delete", name)
