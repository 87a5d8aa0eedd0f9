"""Keys that download links are signed with, and links that were revoked."""

from __future__ import annotations

import re

from gateway.administration.changes import Actor
from gateway.administration.work import changing, missing
from gateway.db import Database
from gateway.identity.api_keys import new_id
from gateway.identity.principal import Principal

_FORM = re.compile(r"[0-9A-Za-z]{12}-[0-9A-Za-z]{12}", re.ASCII)

_KEY = """
SELECT k.key_id FROM link_keys k JOIN tenants t USING (tenant_id)
WHERE t.name = $1 AND k.email = $2 AND k.api_key IS NOT DISTINCT FROM $3 AND k.revoked_at IS NULL"""

# Where another process was first, its key is taken.
_CREATE_KEY = """
INSERT INTO link_keys AS k (tenant_id, email, api_key, key_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, email, api_key) WHERE revoked_at IS NULL DO UPDATE SET email = k.email RETURNING key_id"""

_REVOKE_KEYS = """
UPDATE link_keys SET revoked_at = now()
WHERE tenant_id = $1 AND revoked_at IS NULL
    AND ($2::text IS NULL OR email = $2) AND ($3::text IS NULL OR key_id = $3)
RETURNING key_id, email"""

_REVOKE_LINK = """
INSERT INTO revoked_links (link_id, tenant_id)
SELECT $2, tenant_id FROM link_keys
WHERE tenant_id = $1 AND key_id = split_part($2, '-', 1) AND ($3::text IS NULL OR email = $3)
ON CONFLICT (link_id) DO UPDATE SET revoked_at = revoked_links.revoked_at
RETURNING xmax = 0 AS new"""

# No link lives longer than a week.
_TIDY = "DELETE FROM revoked_links WHERE revoked_at < now() - interval '8 days'"


async def key_for(database: Database, actor: Actor, principal: Principal) -> str:
    """The id of the key that links of a user are signed with, who is not anonymous; made if there is none in use.

    What he makes with an API key has a key of its own, which ends with that.

    Raises:
        GatewayError: 404 there is no such tenant; 503.
    """
    tenant, email, api_key = principal.tenant, principal.email, principal.api_key
    rows = await database.fetch(_KEY, tenant, email, api_key)
    if rows:
        found: str = rows[0]["key_id"]
        return found
    async with changing(database, tenant, actor) as work:
        new = new_id()
        key_id: str = await work.connection.fetchval(_CREATE_KEY, work.tenant_id, email, api_key, new)
        if key_id == new:
            await work.record("link-key.create", key_id, email=email, apiKey=api_key)
        return key_id


async def revoke_keys(
    database: Database, actor: Actor, tenant: str, *, email: str | None = None, key_id: str | None = None
) -> list[str]:
    """Revoke the keys of a user, one key, or all of the tenant, and with them all links that they signed.

    Gives their ids.

    Raises:
        GatewayError: 404 there is no such tenant; 503.
    """
    async with changing(database, tenant, actor) as work:
        rows = await work.connection.fetch(_REVOKE_KEYS, work.tenant_id, email, key_id)
        for row in rows:
            await work.record("link-key.revoke", row["key_id"], email=row["email"])
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
    if _FORM.fullmatch(link_id) is None:
        raise missing("There is no such link.")
    async with changing(database, tenant, actor) as work:
        await work.connection.execute(_TIDY)
        new = await work.connection.fetchval(_REVOKE_LINK, work.tenant_id, link_id, email)
        if new is None:
            raise missing("There is no such link.")
        if new:
            await work.record("link.revoke", link_id)
