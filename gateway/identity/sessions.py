"""Browser sessions: a cookie that stands for a caller who logged in at an identity provider."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from gateway.db import Database
from gateway.errors import GatewayError, unauthorized
from gateway.identity.principal import Principal
from gateway.identity.shown import Shown

COOKIE: Final = "__Host-session"
"""The prefix has browsers keep it only if it came over TLS, from this very host, for all paths (RFC 6265bis §4.1.3)."""
MOST_REMEMBERED = 10_000
REMEMBERED_SECONDS = 5.0
"""How long a session is believed without a look into the database: one that was ended elsewhere goes on for so long."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_BEGIN = """
INSERT INTO sessions (hash, tenant_id, subject, email, role, groups, expires_at, address)
SELECT $1, tenant_id, $3, $4, $5, $6::text[], now() + $7 * interval '1 second', $8 FROM tenants WHERE name = $2
RETURNING tenant_id"""

_FIND = """
SELECT t.name AS tenant, s.subject, s.email, s.role, s.groups, extract(epoch FROM s.expires_at)::float8 AS expires
FROM sessions s JOIN tenants t USING (tenant_id) WHERE s.hash = $1 AND s.expires_at > now()"""

_END = "DELETE FROM sessions WHERE hash = $1 OR expires_at < now()"


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until: float


class Sessions:
    """Begins, finds and ends sessions. A `gateway.identity.shown.Way`."""

    def __init__(
        self,
        database: Database,
        *,
        origins: Sequence[str],
        lifetime: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep sessions in ``database``.

        Args:
            database: the session's truth; a cookie holds nothing but a name.
            origins: of our own pages, like ``https://data.example.org``: requests that change something must come from
                one of them.
            lifetime: seconds from log-in to the end.
            clock: seconds since the epoch.
        """
        self._database = database
        self._origins = frozenset(origins)
        self.lifetime = lifetime
        self._clock = clock
        self._known: dict[bytes, _Known] = {}

    def find(self, shown: Shown) -> str | None:
        """The value of the cookie."""
        return cookie(shown, COOKIE)

    async def identify(self, credential: str, shown: Shown) -> Principal:
        """Who logged in.

        Raises:
            GatewayError: 401 the session has ended, or there never was one; 403 a request that changes something comes
                from another site's page; 503 PostgreSQL does not answer.
        """
        if shown.method not in _SAFE_METHODS and shown.headers.get("Origin") not in self._origins:
            raise GatewayError(
                HTTPStatus.FORBIDDEN,
                "A session of a browser changes things from pages of this site only: the Origin field is another.",
            )
        digest = _hash(credential)
        known = self._known.get(digest)
        if known is None or self._clock() >= known.until:
            known = await self._look_up(digest)
        return known.principal

    async def begin(self, principal: Principal, address: str) -> str:
        """Begin a session: the value of its cookie.

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
        """End a session, and clear those away that ended by themselves.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        self._known.pop(_hash(value), None)
        await self._database.fetch(_END, _hash(value))

    def forget(self) -> None:
        """Believe no session any more without a look into the database."""
        self._known.clear()

    async def _look_up(self, digest: bytes) -> _Known:
        self._known.pop(digest, None)
        rows = await self._database.fetch(_FIND, digest)
        if not rows:
            raise unauthorized("the session has ended; log in again", error="invalid_token")
        row = rows[0]
        principal = Principal(
            row["tenant"], row["subject"], row["email"], row["role"], tuple(row["groups"]), credential="session"
        )
        while len(self._known) >= MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        known = self._known[digest] = _Known(principal, min(row["expires"], self._clock() + REMEMBERED_SECONDS))
        return known


def cookie(shown: Shown, name: str) -> str | None:
    """The value of a cookie; None if the request has none of this name, or two."""
    fields = shown.headers.getall("Cookie", [])
    found = []
    for field in fields:
        for pair in field.split(";"):
            key, equals, value = pair.strip(" \t").partition("=")
            if equals and key == name:
                found.append(value)
    return found[0] if len(found) == 1 else None


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
