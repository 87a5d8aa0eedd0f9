"""Signed download links, for clients that cannot send header fields: the URL of a download with ``?link=<token>``.

A token is ``<link id>.<payload>.<signature>``. The link id is the id of its owner's link key and a random part. The
payload is JSON in base64url: version, tenant, subject, e-mail, role, groups, expiry (seconds since 1970), network, most
downloads, most bytes. The signature is an HMAC-SHA-256 over both and the address of the file, which the URL tells
already; its key is derived from the configured secret and the key id (HKDF, RFC 5869). Nothing in a token is read
before its signature holds.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import hmac
import ipaddress
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.batching import batching
from gateway.catalog.model import Address
from gateway.db import Database, is_of_server
from gateway.errors import GatewayError, unauthorized
from gateway.http.forwarded import Network, is_listed
from gateway.identity.principal import Link, Principal, Scope
from gateway.identity.shown import Shown
from gateway.links import LINK
from gateway.notifications import Notifications, Payload
from gateway.remembered import Remembered

LONGEST_TOKEN = 4096
"""Characters; with it a URL still passes every server and proxy on its way."""
_VERSION = 1
_LANES = 2
_FORM = re.compile(r"([0-9A-Za-z]{12}-[0-9A-Za-z]{12})\.([0-9A-Za-z_-]+)\.([0-9A-Za-z_-]{43})", re.ASCII)
_SCOPES: frozenset[Scope] = frozenset({"download"})

_LOOK_UP = """
SELECT asked.number, tenant.name AS tenant, k.email, a.networks, a.expires_at
FROM unnest($1::text[]) WITH ORDINALITY AS asked(link_id, number)
JOIN link_keys k ON k.key_id = split_part(asked.link_id, '-', 1) AND k.revoked_at IS NULL
JOIN tenants tenant USING (tenant_id)
LEFT JOIN api_keys a ON a.key_id = k.api_key
WHERE a.revoked_at IS NULL AND NOT EXISTS (SELECT FROM revoked_links r WHERE r.link_id = asked.link_id)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """What a link gives, and to whom."""

    link_id: str
    tenant: str
    subject: str
    email: str
    role: str
    groups: tuple[str, ...]
    expires: int
    """Seconds since 1970."""
    network: str | None = None
    """That it may be used from, like ``192.0.2.0/24``; None for any."""
    downloads: int | None = None
    octets: int | None = None

    @property
    def principal(self) -> Principal:
        """The caller who comes by the link: its owner, for this file alone."""
        return Principal(
            tenant=self.tenant,
            subject=self.subject,
            email=self.email,
            role=self.role,
            groups=self.groups,
            credential="link",
            scopes=_SCOPES,
            link=Link(self.link_id, self.downloads, self.octets),
        )


class Signer:
    """Makes and reads tokens. Nothing else knows the secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, grant: Grant, address: Address) -> str:
        """The token of a link to the file at ``address``."""
        fields = (
            _VERSION,
            grant.tenant,
            grant.subject,
            grant.email,
            grant.role,
            grant.groups,
            grant.expires,
            grant.network,
            grant.downloads,
            grant.octets,
        )
        payload = _encoded(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode())
        return f"{grant.link_id}.{payload}.{self._signature(grant.link_id, payload, address)}"

    def read(self, token: str, address: Address) -> Grant | None:
        """What ``token`` gives, if it was made here for the file at ``address``; else None."""
        form = _FORM.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
        if form is None:
            return None
        link_id, payload, signature = form.groups()
        if not hmac.compare_digest(self._signature(link_id, payload, address), signature):
            return None
        version, tenant, subject, email, role, groups, *rest = json.loads(_decoded(payload))
        return Grant(link_id, tenant, subject, email, role, tuple(groups), *rest) if version == _VERSION else None

    def _signature(self, link_id: str, payload: str, address: Address) -> str:
        key_id = link_id.partition("-")[0]
        # Ten microseconds: to keep keys would need bounds, and saves nothing that shows.
        key = HKDF(SHA256(), 32, salt=None, info=f"download-gateway link {key_id}".encode()).derive(self._secret)
        # An address of another kind has another number of parts.
        signed = json.dumps([link_id, payload, *dataclasses.astuple(address)])
        return _encoded(hmac.digest(key, signed.encode(), "sha256"))


@dataclasses.dataclass(frozen=True, slots=True)
class _Owner:
    """Whose link it is. One that was made with an API key holds where and as long as that does."""

    tenant: str
    email: str
    networks: Sequence[Network] | None
    expires: datetime.datetime | None


class SignedLinks:
    """Verifies signed links. Made by `signed_links`."""

    def __init__(self, signer: Signer, known: Remembered[_Owner], clock: Callable[[], float]) -> None:
        self._signer = signer
        self._known = known
        self._clock = clock

    def find(self, shown: Shown) -> str | None:
        """The token in the query.

        Raises:
            GatewayError: 401; there is more than one credential.
        """
        tokens = shown.query.getall(LINK, [])
        if not tokens:
            return None
        if len(tokens) > 1 or "Authorization" in shown.headers:
            raise unauthorized("more than one credential", error="invalid_request")
        return tokens[0]

    async def identify(self, credential: str, shown: Shown) -> Principal:
        """Who made the link, if it holds for the file that is asked for. Forged ones cost PostgreSQL nothing.

        Raises:
            GatewayError: 401 it does not hold, has ended, or was revoked, or the API key that made it; 503 nobody can
                tell.
        """
        if shown.file is None or shown.method not in ("GET", "HEAD"):
            raise _invalid()
        grant = self._signer.read(credential, shown.file)
        if grant is None:
            raise _invalid()
        now = self._clock()
        if now >= grant.expires:
            raise unauthorized("the link has ended", error="invalid_token")
        if grant.network is not None and not is_listed(shown.address, [_network(grant.network)]):
            raise _invalid()
        owner = await self._known.get(grant.link_id)
        if owner is None or (owner.tenant, owner.email) != (grant.tenant, grant.email):
            raise _invalid()
        if owner.networks is not None and not is_listed(shown.address, owner.networks):
            raise _invalid()
        if owner.expires is not None and now >= owner.expires.timestamp():
            raise unauthorized("the link has ended", error="invalid_token")
        return grant.principal

    def changed(self, topic: str, payload: Payload) -> None:
        """As `Subscriber`."""
        if topic == "revoked_links" and payload.id is not None:
            self._known.forget(payload.id)
        elif topic in ("link_keys", "api_keys", "tenants"):
            self._known.forget_all()

    def missed(self) -> None:
        """As `Subscriber`."""
        self._known.forget_all()


@contextlib.asynccontextmanager
async def signed_links(
    signer: Signer, database: Database, notifications: Notifications, clock: Callable[[], float] = time.time
) -> AsyncIterator[SignedLinks]:
    """Links of ``signer``, unless ``database`` has them revoked."""

    async def look_up(ids: Sequence[str]) -> list[_Owner | None]:
        found: list[_Owner | None] = [None] * len(ids)
        for row in await database.fetch(_LOOK_UP, list(ids)):
            found[row["number"] - 1] = _Owner(row["tenant"], row["email"], row["networks"], row["expires_at"])
        return found

    async with batching(look_up, seconds=database.timeout, lanes=_LANES, of_all=is_of_server) as questions:
        links = SignedLinks(signer, Remembered(questions.ask, notifications), clock)
        notifications.subscribe(links)
        yield links


def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


def _encoded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _invalid() -> GatewayError:
    return unauthorized("the link is not valid here", error="invalid_token")
