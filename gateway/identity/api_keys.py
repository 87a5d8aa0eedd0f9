"""API keys: ``gdk_<key id>_<secret>``, in ``X-API-Key``, as a bearer token, or in Basic.

The secret is 256 random bits. So its SHA-256 is kept and nothing slower: a slow hash protects secrets that can be
guessed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import AsyncIterator, Callable, Sequence

import asyncpg

from gateway.batching import batching
from gateway.db import Database, is_of_server
from gateway.delivery.policy import API_KEY
from gateway.errors import GatewayError, unauthorized
from gateway.http.forwarded import Network, is_listed
from gateway.identity.principal import Principal
from gateway.identity.shown import API_KEY_PREFIX, Shown
from gateway.notifications import Notifications, Payload
from gateway.remembered import Remembered

USES_SECONDS = 60.0
"""How often it is written down which keys were used."""
_LANES = 2
"""Look-ups of keys at a time: however many unknown keys are shown, PostgreSQL is asked for few."""
_ID_CHARACTERS = string.ascii_letters + string.digits
_FORM = re.compile(rf"{API_KEY_PREFIX}([0-9A-Za-z]{{12}})_([0-9A-Za-z_-]{{43}})", re.ASCII)

_LOOK_UP = """
SELECT asked.number, k.key_id, tenant.name AS tenant, k.secret_sha256, k.subject, k.email, k.role, k.groups, k.scopes,
       k.networks, least(k.expires_at, k.created_at + make_interval(secs => $2)) AS until
FROM unnest($1::text[]) WITH ORDINALITY AS asked(key_id, number)
JOIN api_keys k ON k.key_id = asked.key_id AND k.revoked_at IS NULL
JOIN tenants tenant USING (tenant_id)"""

# Several processes may have seen the same key in the same minute.
_USED = """
UPDATE api_keys k SET last_used_at = used.at
FROM unnest($1::text[], $2::timestamptz[]) AS used(key_id, at)
WHERE k.key_id = used.key_id AND (k.last_used_at IS NULL OR k.last_used_at < used.at - interval '1 minute')"""


def new_id() -> str:
    """A name that nobody has: 12 characters."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(12))


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def whole_key(key_id: str, secret: str) -> str:
    """The key as its owner shows it."""
    return f"{API_KEY_PREFIX}{key_id}_{secret}"


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


@dataclasses.dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes = dataclasses.field(repr=False)
    principal: Principal
    networks: Sequence[Network] | None


class ApiKeys:
    """Verifies API keys. Made by `api_keys`."""

    def __init__(self, database: Database, known: Remembered[_Key], clock: Callable[[], datetime.datetime]) -> None:
        self._database = database
        self._known = known
        self._clock = clock
        self._used: dict[str, datetime.datetime] = {}

    def find(self, shown: Shown) -> str | None:
        """The key of ``X-API-Key``, ``Bearer``, or ``Basic`` (as password, or as user without password).

        Raises:
            GatewayError: 401; X-API-Key is there more than once, or not alone.
        """
        fields = shown.headers.getall(API_KEY, [])
        if fields:
            if len(fields) > 1 or "Authorization" in shown.headers:
                raise unauthorized("more than one credential", error="invalid_request")
            return fields[0].strip()
        scheme, credentials = shown.authorization
        if scheme == "bearer" and credentials.startswith(API_KEY_PREFIX):
            return credentials
        return _in_basic(credentials) if scheme == "basic" else None

    async def identify(self, credential: str, shown: Shown) -> Principal:
        """Whose key it is. The answer to one that does not hold is always the same, whyever.

        Raises:
            GatewayError: 401 it is unknown, revoked, expired, or of other networks; 503 nobody can tell.
        """
        form = _FORM.fullmatch(credential)
        if form is None:
            raise _invalid()
        key_id, secret = form.groups()
        key = await self._known.get(key_id)
        if key is None or not hmac.compare_digest(digest_of(secret), key.digest):
            raise _invalid()
        principal, now = key.principal, self._clock()
        if principal.until is not None and now >= principal.until:
            raise _invalid()
        if key.networks is not None and not is_listed(shown.address, key.networks):
            raise _invalid()
        self._used[key_id] = now
        return principal

    def changed(self, topic: str, payload: Payload) -> None:
        """As `Subscriber`."""
        if topic == "api_keys" and payload.id is not None:
            self._known.forget(payload.id)
        elif topic == "tenants":
            self._known.forget_all()

    def missed(self) -> None:
        """As `Subscriber`."""
        self._known.forget_all()

    async def write_uses(self) -> None:
        """Write down when each key was used last, of those that were since it was written before.

        Raises:
            GatewayError: 503; the next time tells it.
        """
        # In one order, so that two processes do not wait for each other.
        used = dict(sorted(self._used.items()))
        if used:
            await self._database.fetch(_USED, list(used), list(used.values()))
        for key_id, at in used.items():
            if self._used.get(key_id) == at:
                del self._used[key_id]

    async def keep_writing_uses(self) -> None:
        """Do so now and then, until cancelled."""
        while True:
            await asyncio.sleep(USES_SECONDS)
            with contextlib.suppress(GatewayError):
                await self.write_uses()


@contextlib.asynccontextmanager
async def api_keys(
    database: Database,
    notifications: Notifications,
    max_lifetime: float | None,
    clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> AsyncIterator[ApiKeys]:
    """API keys of ``database``, which work for at most ``max_lifetime`` seconds."""

    async def look_up(ids: Sequence[str]) -> list[_Key | None]:
        found: list[_Key | None] = [None] * len(ids)
        for row in await database.fetch(_LOOK_UP, list(ids), max_lifetime):
            found[row["number"] - 1] = _key(row)
        return found

    async with batching(look_up, seconds=database.timeout, lanes=_LANES, of_all=is_of_server) as questions:
        keys = ApiKeys(database, Remembered(questions.ask, notifications), clock)
        notifications.subscribe(keys)
        writing = asyncio.create_task(keys.keep_writing_uses(), name="API keys: last uses")
        try:
            yield keys
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            with contextlib.suppress(GatewayError):
                await keys.write_uses()


def _key(row: asyncpg.Record) -> _Key:
    principal = Principal(
        tenant=row["tenant"],
        subject=row["subject"],
        email=row["email"],
        role=row["role"],
        groups=tuple(row["groups"]),
        credential="api key",
        scopes=frozenset(row["scopes"]),
        api_key=row["key_id"],
        until=row["until"],
    )
    return _Key(row["secret_sha256"], principal, row["networks"])


def _in_basic(credentials: str) -> str | None:
    try:
        user, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if not colon:
        return None
    if not password:
        return user if user.startswith(API_KEY_PREFIX) else None
    return password if password.startswith(API_KEY_PREFIX) else None


def _invalid() -> GatewayError:
    return unauthorized("the API key is not valid", error="invalid_token")
