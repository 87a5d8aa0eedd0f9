"""Browser sessions: a cookie that stands for a caller who logged in at an identity provider."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from http import HTTPStatus
from typing import Final

from gateway.batching import batching
from gateway.db import Database, is_of_server
from gateway.errors import GatewayError, unauthorized
from gateway.identity.principal import Principal
from gateway.identity.shown import Shown
from gateway.notifications import Notifications, Payload
from gateway.remembered import Remembered

COOKIE: Final = "__Host-session"
"""The prefix has browsers keep it only if it came over TLS, from this very host, for all paths (RFC 6265bis §4.1.3)."""
_LANES = 2
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

# Whoever begins a session clears some of those away that ended by themselves.
_BEGIN = """
WITH ended AS (
    DELETE FROM sessions WHERE hash IN (
        SELECT hash FROM sessions WHERE expires_at < now() LIMIT 100 FOR UPDATE SKIP LOCKED))
INSERT INTO sessions (hash, tenant_id, subject, email, role, groups, expires_at, address)
SELECT $1, tenant_id, $3, $4, $5, $6::text[], now() + $7 * interval '1 second', $8 FROM tenants WHERE name = $2
RETURNING tenant_id"""

_LOOK_UP = """
SELECT asked.number, t.name AS tenant, s.subject, s.email, s.role, s.groups,
       extract(epoch FROM s.expires_at)::float8 AS expires
FROM unnest($1::text[]) WITH ORDINALITY AS asked(hash, number)
JOIN sessions s ON s.hash = asked.hash JOIN tenants t USING (tenant_id)"""

_END = "DELETE FROM sessions WHERE hash = $1"


@dataclasses.dataclass(frozen=True, slots=True)
class _Session:
    principal: Principal
    expires: float


class Sessions:
    """Begins, finds and ends sessions. Made by `open_sessions`."""

    def __init__(
        self,
        database: Database,
        known: Remembered[_Session],
        *,
        origins: Collection[str],
        lifetime: float,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._known = known
        self._origins = frozenset(origins)
        self.lifetime = lifetime
        """Seconds from log-in to the end."""
        self._clock = clock

    def find(self, shown: Shown) -> str | None:
        """The value of the cookie."""
        return cookie(shown, COOKIE)

    async def identify(self, credential: str, shown: Shown) -> Principal:
        """Who logged in.

        A browser sends the cookie whoever's page had it send a request: one that changes something must come from a
        page of this site, which Origin tells.

        Raises:
            GatewayError: 401 the session has ended, or there never was one; 403 a request that changes something comes
                from another site's page; 503 nobody can tell.
        """
        if shown.method not in _SAFE_METHODS:
            self.check_origin(shown)
        session = await self._known.get(_hash(credential))
        if session is None or self._clock() >= session.expires:
            raise unauthorized("the session has ended; log in again", error="invalid_token")
        return session.principal

    def check_origin(self, shown: Shown) -> None:
        """See that a page of this site has the browser send the request.

        Raises:
            GatewayError: 403; it is that of another site, or nobody tells.
        """
        if shown.headers.get("Origin") not in self._origins:
            raise GatewayError(HTTPStatus.FORBIDDEN, "With a session only pages of this site change something.")

    async def begin(self, principal: Principal, address: str) -> str:
        """Begin a session of ``principal``, who came from ``address``: the value of its cookie.

        Raises:
            GatewayError: 403 there is no such tenant; 503 PostgreSQL does not answer.
        """
        value = secrets.token_urlsafe(32)
        rows = await self._database.fetch(
            _BEGIN,
            _hash(value),
            principal.tenant,
            principal.subject,
            principal.email,
            principal.role,
            list(principal.groups),
            self.lifetime,
            address,
        )
        if not rows:
            raise GatewayError(HTTPStatus.FORBIDDEN, f"There is no tenant {principal.tenant!r}.")
        return value

    async def end(self, value: str) -> None:
        """End a session, if there is one.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        await self._database.fetch(_END, _hash(value))
        self._known.forget(_hash(value))

    def changed(self, topic: str, payload: Payload) -> None:
        """As `Subscriber`."""
        if topic == "sessions" and payload.id is not None:
            self._known.forget(payload.id)
        elif topic == "tenants":
            self._known.forget_all()

    def missed(self) -> None:
        """As `Subscriber`."""
        self._known.forget_all()


@contextlib.asynccontextmanager
async def open_sessions(
    database: Database,
    notifications: Notifications,
    *,
    origins: Collection[str],
    lifetime: float,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Sessions]:
    """Sessions that are kept in ``database``; a cookie holds nothing but a name.

    Args:
        database: their truth.
        notifications: of its changes.
        origins: of our own pages, like ``https://data.example.org``.
        lifetime: seconds from log-in to the end.
        clock: seconds since the epoch.
    """

    async def look_up(hashes: Sequence[str]) -> list[_Session | None]:
        found: list[_Session | None] = [None] * len(hashes)
        for row in await database.fetch(_LOOK_UP, list(hashes)):
            principal = Principal(
                row["tenant"], row["subject"], row["email"], row["role"], tuple(row["groups"]), credential="session"
            )
            found[row["number"] - 1] = _Session(principal, row["expires"])
        return found

    async with batching(look_up, seconds=database.timeout, lanes=_LANES, of_all=is_of_server) as questions:
        known = Remembered(questions.ask, notifications)
        sessions = Sessions(database, known, origins=origins, lifetime=lifetime, clock=clock)
        notifications.subscribe(sessions)
        yield sessions


def cookie(shown: Shown, name: str) -> str | None:
    """The value of a cookie (RFC 6265 §4.2); None if the request has none of this name, or two."""
    pairs = (
        pair.strip(" \t").partition("=") for field in shown.headers.getall("Cookie", []) for pair in field.split(";")
    )
    found = [value for key, equals, value in pairs if equals and key == name]
    return found[0] if len(found) == 1 else None


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
