"""API keys as their owners and administrators make, see and revoke them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from gateway.administration.changes import Actor, Change, record
from gateway.db import Connection, Database
from gateway.errors import GatewayError
from gateway.http.forwarded import Network
from gateway.identity.api_keys import digest_of, new_id, new_secret, whole_key
from gateway.identity.principal import Scope
from gateway.rights.roles import HIERARCHY
from gateway.text import is_storable

MOST_KEYS = 100
"""That one user has in a tenant at a time."""
MOST_LISTED = 1000

_COLUMNS = """k.key_id, k.label, k.subject, k.email, k.role, k.groups, k.scopes, k.networks, k.created_at, k.created_by,
k.expires_at, k.last_used_at, k.revoked_at"""

_PARENT = "SELECT r.parent FROM roles r JOIN tenants t USING (tenant_id) WHERE t.name = $1 AND r.name = $2"

_IN_USE = """
SELECT count(*) FROM api_keys k JOIN tenants t USING (tenant_id)
WHERE t.name = $1 AND k.email = $2 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())"""

_CREATE = f"""
INSERT INTO api_keys AS k (tenant_id, secret_sha256, key_id, label, subject, email, role, groups, scopes, networks,
                           expires_at, created_by)
SELECT tenant_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM tenants WHERE name = $1
RETURNING {_COLUMNS}"""  # noqa: S608 - made of constants; values are bound

_LIST = f"""
SELECT {_COLUMNS} FROM api_keys k JOIN tenants t USING (tenant_id)
WHERE t.name = $1 AND ($2::text IS NULL OR k.email = $2) ORDER BY k.created_at DESC, k.key_id LIMIT {MOST_LISTED}
"""  # noqa: S608 - as above

_FIND = """
SELECT k.revoked_at IS NOT NULL AS revoked FROM api_keys k JOIN tenants t USING (tenant_id)
WHERE t.name = $1 AND k.key_id = $2 AND ($3::text IS NULL OR k.email = $3) FOR UPDATE OF k"""
_REVOKE = "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1"


@dataclasses.dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is to be."""

    label: str
    subject: str
    email: str
    role: str
    groups: Sequence[str] = ()
    scopes: Sequence[Scope] = ("download",)
    networks: Sequence[Network] | None = None
    expires: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is, without its secret."""

    key_id: str
    label: str
    subject: str
    email: str
    role: str
    groups: Sequence[str]
    scopes: Sequence[str]
    networks: Sequence[Network] | None
    created: datetime.datetime
    created_by: str
    expires: datetime.datetime | None
    last_used: datetime.datetime | None
    revoked: datetime.datetime | None

    def told(self) -> dict[str, object]:
        """As JSON."""
        return {
            "id": self.key_id,
            "label": self.label,
            "subject": self.subject,
            "email": self.email,
            "role": self.role,
            "groups": list(self.groups),
            "scopes": list(self.scopes),
            "networks": None if self.networks is None else [str(network) for network in self.networks],
            "created": time_of(self.created),
            "createdBy": self.created_by,
            "expires": time_of(self.expires),
            "lastUsed": time_of(self.last_used),
            "revoked": time_of(self.revoked),
        }


async def create(
    database: Database, actor: Actor, tenant: str, new: NewKey, *, creator_role: str | None, max_lifetime: int | None
) -> tuple[ApiKey, str]:
    """Make a key; gives it, and the text that its owner shows, which nobody can tell again.

    Args:
        database: that it is written to.
        actor: who makes it.
        tenant: name of the tenant.
        new: what it is to be.
        creator_role: the key may have no role above this one; None for whoever may do everything.
        max_lifetime: seconds that it may work at most; then is when it ends if nobody says.

    Raises:
        GatewayError: 400 there is no such role, or the key would work for too long; 403 the role is above
            ``creator_role``; 404 there is no such tenant; 409 the user has too many keys; 503.
    """
    secret, expires = new_secret(), _end(new.expires, max_lifetime)
    async with database.transaction() as connection:
        await _check_role(connection, tenant, new.role, creator_role)
        if await connection.fetchval(_IN_USE, tenant, new.email) >= MOST_KEYS:
            raise GatewayError(HTTPStatus.CONFLICT, f"There are {MOST_KEYS} keys already: revoke one first.")
        row = await connection.fetchrow(
            _CREATE,
            tenant,
            digest_of(secret),
            new_id(),
            new.label,
            new.subject,
            new.email,
            new.role,
            list(new.groups),
            sorted(new.scopes),
            new.networks,
            expires,
            actor.name,
        )
        if row is None:
            raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {tenant!r}.")
        key = ApiKey(*row)
        await record(connection, actor, Change(tenant, "key.create", key.key_id, _recorded(key)))
    return key, whole_key(key.key_id, secret)


async def list_keys(database: Database, tenant: str, email: str | None = None) -> list[ApiKey]:
    """The keys of a tenant, of one user where ``email`` is given; revoked ones, too. The newest `MOST_LISTED`.

    Raises:
        GatewayError: 503.
    """
    return [ApiKey(*row) for row in await database.fetch(_LIST, tenant, email)]


async def revoke(database: Database, actor: Actor, tenant: str, key_id: str, email: str | None = None) -> None:
    """Have nobody be taken for its owner any more who shows the key. Again changes nothing.

    Args:
        database: that it is written to.
        actor: who revokes it.
        tenant: name of the tenant.
        key_id: of the key.
        email: whose key it must be; None for anybody's.

    Raises:
        GatewayError: 404 there is no such key there; 503.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(_FIND, tenant, key_id, email) if is_storable(key_id) else None
        if row is None:
            raise GatewayError(HTTPStatus.NOT_FOUND, "There is no such key.")
        if not row["revoked"]:
            await connection.execute(_REVOKE, key_id)
            await record(connection, actor, Change(tenant, "key.revoke", key_id, {}))


def time_of(when: datetime.datetime | None) -> str | None:
    """A time as text (RFC 3339, UTC)."""
    if when is None:
        return None
    return when.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _end(wanted: datetime.datetime | None, max_lifetime: int | None) -> datetime.datetime | None:
    if max_lifetime is None:
        return wanted
    last = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=max_lifetime)
    if wanted is not None and wanted > last:
        raise GatewayError(
            HTTPStatus.BAD_REQUEST, f"'expires' is too far away: a key works for at most {max_lifetime} seconds."
        )
    return wanted or last


async def _check_role(connection: Connection, tenant: str, role: str, creator_role: str | None) -> None:
    rank = await _rank(connection, tenant, role)
    if rank is None and role != creator_role:
        raise GatewayError(HTTPStatus.BAD_REQUEST, f"There is no role {role!r}.")
    if creator_role is None or role == creator_role:
        return
    most = await _rank(connection, tenant, creator_role)
    if rank is None or most is None or rank > most:
        raise GatewayError(HTTPStatus.FORBIDDEN, f"Your role may not make keys with the role {role!r}.")


async def _rank(connection: Connection, tenant: str, role: str) -> int | None:
    """How much a role may; that of its parent for a role of the tenant's own. None if there is no such role."""
    if role not in HIERARCHY:
        role = await connection.fetchval(_PARENT, tenant, role)
    return HIERARCHY.index(role) if role in HIERARCHY else None


def _recorded(key: ApiKey) -> Mapping[str, object]:
    told = key.told()
    return {name: told[name] for name in ("label", "email", "role", "groups", "scopes", "networks", "expires")}
