"""Roles that a tenant has beside REGARDS' own."""

from __future__ import annotations

from gateway.db import Database
from gateway.identity.principal import Principal
from gateway.rights.roles import HIERARCHY, is_at_least

_PARENT = "SELECT parent FROM roles JOIN tenants t USING (tenant_id) WHERE t.name = $1 AND roles.name = $2"


async def holds(database: Database, principal: Principal, least: str) -> bool:
    """Whether the role of ``principal``, or the parent of that role, is at least ``least``.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    if principal.role in HIERARCHY:
        return is_at_least(principal.role, least)
    rows = await database.fetch(_PARENT, principal.tenant, principal.role)
    return is_at_least(principal.role, least, rows[0]["parent"] if rows else None)
