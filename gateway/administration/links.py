"""Keys that download links are signed with, and links that were revoked."""

from __future__ import annotations

import re
from http import HTTPStatus

from gateway.administration.changes import Actor, Change, record
from gateway.db import Connection, Database
from gateway.errors import GatewayError
from gateway.identity.api_keys import new_id

_FORM = re.compile(r"[0-9A-Za-z]{12}-[0-9A-Za-z]{12}", re.ASCII)

_KEY = """
SELECT k.key_id FROM link_keys k JOIN tenants t USING (tenant_id)
WHERE t.name = $1 AND k.email = $2 AND k.revoked_at IS NULL"""

_CREATE_KEY = """
INSERT INTO link_keys (key_id, tenant_id, email) SELECT $3, tenant_id, $2 FROM tenants WHERE name = $1
ON CONFLICT DO NOTHING RETURNING key_id"""

_REVOKE_KEYS = """
UPDATE link_keys k SET revoked_at = now() FROM tenants t
WHERE t.tenant_id = k.tenant_id AND t.name = $1 AND k.revoked_at IS NULL
    AND ($2::text IS NULL OR k.email = $2) AND ($3::text IS NULL OR k.key_id = $3)
RETURNING k.key_id, k.email"""

_REVOKE_LINK = """
INSERT INTO revoked_links (link_id, tenant_id)
SELECT $2, k.tenant_id FROM link_keys k JOIN tenants t USING (tenant_id)
WHERE t.name = $1 AND k.key_id = split_part($2, '-', 1) AND ($3::text IS NULL OR k.email = $3)
ON CONFLICT (link_id) DO UPDATE SET revoked_at = revoked_links.revoked_at
RETURNING xmax = 0 AS new"""

# No link lives longer than a week.
_TIDY = "DELETE FROM revoked_links WHERE revoked_at < now() - interval '8 days'"


async def key_for(database: Database, actor: Actor, tenant: str, email: str) -> str:
    """The id of the key that links of a user are signed with; made if there is none in use.

    Raises:
        GatewayError: 404 there is no such tenant; 503.
    """
    rows = await database.fetch(_KEY, tenant, email)
    if not rows:
        async with database.transaction() as connection:
            key_id = await connection.fetchval(_CREATE_KEY, tenant, email, new_id())
            if key_id is not None:
                await record(connection, actor, Change(tenant, "link-key.create", key_id, {"email": email}))
        # Where another process was first, its key is there now.
        rows = await database.fetch(_KEY, tenant, email)
    if not rows:
        raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {tenant!r}.")
    found: str = rows[0]["key_id"]
    return found


async def revoke_keys(
    database: Database, actor: Actor, tenant: str, *, email: str | None = None, key_id: str | None = None
) -> list[str]:
    """Revoke the keys of a user, one key, or all of the tenant, and with them all links that they signed.

    Gives their ids.

    Raises:
        GatewayError: 503.
    """
    async with database.transaction() as connection:
        rows = await connection.fetch(_REVOKE_KEYS, tenant, email, key_id)
        for row in rows:
            change = Change(tenant, "link-key.revoke", row["key_id"], {"email": row["email"]})
            await record(connection, actor, change)
    return [row["key_id"] for row in rows]


async def revoke_link(database: Database, actor: Actor, tenant: str, link_id: str, email: str | None = None) -> None:
    """Revoke one link. Again changes nothing.

    Args:
        database: that it is written to.
        actor: who revokes it.
        tenant: name of the tenant.
        link_id: of the link, which has the id of its owner's key in it.
        email: whose link it must be; None for anybody's.

    Raises:
        GatewayError: 404 nobody there can have made such a link; 503.
    """
    async with database.transaction() as connection:
        new = await _revoke_link(connection, tenant, link_id, email)
        if new is None:
            raise GatewayError(HTTPStatus.NOT_FOUND, "There is no such link.")
        if new:
            await record(connection, actor, Change(tenant, "link.revoke", link_id, {}))


async def _revoke_link(connection: Connection, tenant: str, link_id: str, email: str | None) -> bool | None:
    """Whether it was not yet; None if there is no such link."""
    if _FORM.fullmatch(link_id) is None:
        return None
    await connection.execute(_TIDY)
    new: bool | None = await connection.fetchval(_REVOKE_LINK, tenant, link_id, email)
    return new
