"""API keys as their owners and administrators make, see and revoke them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from http import HTTPStatus

from gateway.administration.changes import Actor
from gateway.administration.work import Work, changing, conflict, missing, unacceptable
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.http.forwarded import Network
from gateway.identity.api_keys import digest_of, new_id, new_secret, whole_key
from gateway.identity.principal import Scope
from gateway.rights.roles import HIERARCHY, is_at_least
from gateway.text import is_storable

MOST_KEYS = 100
"""That one user has in a tenant at a time."""
MOST_LISTED = 1000
Place = tuple[bool | None, datetime.datetime | None, str]
"""Of a key in a list: whether it is revoked, when it was made, its id."""
FIRST: Place = (None, None, "")
"""Before all of them."""

_RECORDED = ("label", "email", "role", "groups", "scopes", "networks", "expires")
"""Of a new key."""

_COLUMNS = """k.key_id, k.label, k.subject, k.email, k.role, k.groups, k.scopes, k.networks, k.created_at, k.created_by,
k.expires_at, k.last_used_at, k.revoked_at"""

_PARENT = "SELECT parent FROM roles WHERE tenant_id = $1 AND name = $2"

_IN_USE = """
SELECT count(*) FROM api_keys
WHERE tenant_id = $1 AND email = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""

_CREATE = f"""
INSERT INTO api_keys AS k (tenant_id, secret_sha256, key_id, label, subject, email, role, groups, scopes, networks,
                           expires_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING {_COLUMNS}"""  # noqa: S608 - made of constants

_LIST = f"""
SELECT {_COLUMNS} FROM api_keys k JOIN tenants t USING (tenant_id)
WHERE t.name = $1 AND ($2::text IS NULL OR k.email = $2) AND ($3::boolean IS NULL
    OR (k.revoked_at IS NOT NULL) > $3 OR (k.revoked_at IS NOT NULL) = $3 AND (k.created_at, k.key_id) < ($4, $5))
ORDER BY k.revoked_at IS NOT NULL, k.created_at DESC, k.key_id DESC LIMIT $6"""  # noqa: S608 - as above

_FIND = """
SELECT revoked_at IS NOT NULL AS revoked FROM api_keys
WHERE tenant_id = $1 AND key_id = $2 AND ($3::text IS NULL OR email = $3) FOR UPDATE"""
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

    @property
    def place(self) -> Place:
        """In a list."""
        return self.revoked is not None, self.created, self.key_id

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
        creator_role: the key may have this role, or one of REGARDS' hierarchy below it; None for whoever may do
            everything.
        max_lifetime: seconds that it may work at most; then is when it ends if nobody says.

    Raises:
        GatewayError: 400 there is no such role, the key would work for too long, or a value makes no sense; 403 the
            role is above ``creator_role``; 404 there is no such tenant; 409 the user has too many keys; 503.
    """
    secret, expires = new_secret(), _end(new.expires, max_lifetime)
    # One at a time in a tenant: nobody makes more keys than are counted.
    async with changing(database, tenant, actor, lock="FOR NO KEY UPDATE") as work:
        await _check_role(work, new.role, creator_role)
        if await work.connection.fetchval(_IN_USE, work.tenant_id, new.email) >= MOST_KEYS:
            raise conflict(f"There are {MOST_KEYS} keys already: revoke one first.")
        row = await work.connection.fetchrow(
            _CREATE,
            work.tenant_id,
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
        assert row is not None  # noqa: S101 - it was written
        key = ApiKey(*row)
        told = key.told()
        await work.record("key.create", key.key_id, **{name: told[name] for name in _RECORDED})
    return key, whole_key(key.key_id, secret)


async def list_keys(
    database: Database, tenant: str, email: str | None = None, *, after: Place = FIRST, limit: int = MOST_LISTED
) -> list[ApiKey]:
    """At most ``limit`` keys of a tenant, of one user where ``email`` is given, that come after ``after``.

    Good ones come before revoked ones, so that of a user none is missing that is good; each the newest first.

    Raises:
        GatewayError: 503.
    """
    return [ApiKey(*row) for row in await database.fetch(_LIST, tenant, email, *after, limit)]


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
    async with changing(database, tenant, actor) as work:
        row = await work.connection.fetchrow(_FIND, work.tenant_id, key_id, email) if is_storable(key_id) else None
        if row is None:
            raise missing("There is no such key.")
        if not row["revoked"]:
            await work.connection.execute(_REVOKE, key_id)
            await work.record("key.revoke", key_id)


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
        raise unacceptable(f"'expires' is too far away: a key works for at most {max_lifetime} seconds.")
    return wanted or last


async def _check_role(work: Work, role: str, most: str | None) -> None:
    """See that there is such a role, at most ``most``. A role of the tenant's own counts as its parent."""
    if role == most:
        return
    known = role if role in HIERARCHY else await work.connection.fetchval(_PARENT, work.tenant_id, role)
    if known is None:
        raise unacceptable(f"There is no role {role!r}.")
    if most is not None and not is_at_least(most, known):
        raise GatewayError(HTTPStatus.FORBIDDEN, f"Your role may not make keys with the role {role!r}.")
