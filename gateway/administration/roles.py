"""Roles of a tenant beside REGARDS' own."""

from __future__ import annotations

import dataclasses

from gateway.administration.changes import Actor
from gateway.administration.work import Outcome, changing, check_name, missing, tenant_id_of, unacceptable
from gateway.db import Database
from gateway.text import is_storable

PARENTS = ("PUBLIC", "REGISTERED_USER", "EXPLOIT", "ADMIN")
"""REGARDS' roles that others may be made of. A custom role never administers."""
OWN = (*PARENTS, "PROJECT_ADMIN", "INSTANCE_ADMIN")
"""REGARDS' own, which stay what they are."""

_LIST = """
SELECT name, parent FROM roles WHERE tenant_id = $1 AND name COLLATE "C" > $2 ORDER BY name COLLATE "C" LIMIT $3"""
_PUT = """
INSERT INTO roles (tenant_id, name, parent) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, name) DO UPDATE SET parent = $3 WHERE roles.parent <> $3 RETURNING xmax = 0"""
_DELETE = "DELETE FROM roles WHERE tenant_id = $1 AND name = $2 RETURNING true"


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """A role, which may what its parent may."""

    name: str
    parent: str


async def roles(database: Database, tenant: str, *, after: str = "", limit: int) -> list[Role]:
    """At most ``limit`` roles whose names come after ``after``, by name.

    Raises:
        GatewayError: 404 no such tenant; 503.
    """
    return [Role(*row) for row in await database.fetch(_LIST, await tenant_id_of(database, tenant), after, limit)]


async def role(database: Database, tenant: str, name: str) -> Role:
    """One role.

    Raises:
        GatewayError: 404 no such tenant or role; 503.
    """
    tenant_id = await tenant_id_of(database, tenant)
    statement = "SELECT name, parent FROM roles WHERE tenant_id = $1 AND name = $2"
    rows = await database.fetch(statement, tenant_id, name) if is_storable(name) else []
    if not rows:
        raise _no_role(name)
    return Role(*rows[0])


async def put_role(database: Database, tenant: str, name: str, parent: str, actor: Actor) -> Outcome:
    """Make a role, or give it another parent.

    Raises:
        GatewayError: 400 that is no name or no parent; 404 no such tenant; 503.
    """
    if check_name(name, "role") in OWN:
        raise unacceptable(f"{name} is REGARDS' own role, which stays what it is.")
    if parent not in PARENTS:
        raise unacceptable(f"The parent of a role is one of {', '.join(PARENTS)}.")
    async with changing(database, tenant, actor) as work:
        return await work.put("role", name, _PUT, work.tenant_id, name, parent, parent=parent)


async def delete_role(database: Database, tenant: str, name: str, actor: Actor) -> None:
    """Delete a role: whoever has it may nothing by it any more.

    Raises:
        GatewayError: 404 no such tenant or role; 503.
    """
    async with changing(database, tenant, actor) as work:
        if not is_storable(name) or not await work.connection.fetchval(_DELETE, work.tenant_id, name):
            raise _no_role(name)
        await work.record("role.delete", name)


def _no_role(name: str) -> Exception:
    return missing(f"There is no role {name!r}.")
