"""All ways of being someone that the settings allow, opened and closed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hmac
import time
from collections.abc import AsyncIterator, Callable

from gateway.config import Config
from gateway.db import Database
from gateway.errors import unauthorized
from gateway.http.origin import origin_of
from gateway.identity.api_keys import api_keys
from gateway.identity.chain import IdentityChain
from gateway.identity.compact import parse_token
from gateway.identity.discovery import fetch_endpoints, key_client, trust
from gateway.identity.endpoints import endpoints
from gateway.identity.jwt import BearerTokens, open_tokens
from gateway.identity.login import LoginFlow
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal
from gateway.identity.sealing import Seal
from gateway.identity.sessions import Sessions, open_sessions
from gateway.identity.shown import Way
from gateway.identity.signed_links import Signer, signed_links
from gateway.notifications import Notifications


@dataclasses.dataclass(frozen=True, slots=True)
class Logins:
    """How browsers log in, and what they are known by afterwards."""

    flow: LoginFlow
    sessions: Sessions


@dataclasses.dataclass(frozen=True, slots=True)
class Identities:
    """Who callers are, and how they become it."""

    chain: IdentityChain
    logins: Logins | None
    """None: nobody logs in here."""


class IdTokens:
    """Verifies the ID tokens that one identity provider makes for us."""

    def __init__(self, tokens: BearerTokens, client_id: str) -> None:
        self._tokens = tokens
        self._client_id = client_id

    async def verify(self, token: str, nonce: str) -> Principal:
        """Who logged in (OpenID Connect Core 1.0 §3.1.3.7).

        Raises:
            GatewayError: 401 the token is not good, or made for another log-in; 503 its keys cannot be fetched.
        """
        verified = await self._tokens.verify(token)
        if verified.is_public:
            raise unauthorized("the ID token names nobody", error="invalid_token")
        claims = parse_token(token).claims
        shown = str(claims.get("nonce", "")).encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(shown, nonce.encode()):
            raise unauthorized("the ID token was made for another log-in", error="invalid_token")
        if claims.get("azp", self._client_id) != self._client_id:
            raise unauthorized("the ID token was made for somebody else", error="invalid_token")
        return verified.principal


OpenIdentities = Callable[[Database, Notifications], contextlib.AbstractAsyncContextManager[Identities]]


def identities(config: Config) -> OpenIdentities:
    """What opens all that the settings allow, given a database and what tells of its changes.

    Raises:
        ConfigurationError: a key or a ``ca_file`` cannot be used; at once, before anything is opened.
    """
    networks = Networks(config.quotas.anonymous_ipv4_prefix, config.quotas.anonymous_ipv6_prefix)
    return functools.partial(_opened, config, open_tokens(config.identity, networks), networks)


@contextlib.asynccontextmanager
async def _opened(
    config: Config,
    opening_tokens: contextlib.AbstractAsyncContextManager[BearerTokens],
    networks: Networks,
    database: Database,
    notifications: Notifications,
) -> AsyncIterator[Identities]:
    settings = config.identity
    async with contextlib.AsyncExitStack() as stack:
        tokens = await stack.enter_async_context(opening_tokens)
        keys = await stack.enter_async_context(api_keys(database, notifications, settings.api_keys.max_lifetime))
        ways: list[Way] = [tokens, keys]
        if settings.links is not None:
            signer = Signer(settings.links.secret.get_secret_value().encode())
            ways.append(await stack.enter_async_context(signed_links(signer, database, notifications)))
        logins, ambient = None, list[Way]()
        if settings.login is not None:
            assert config.api.public_url is not None  # noqa: S101 - Config sees to it
            public_url = config.api.public_url
            sessions = await stack.enter_async_context(
                open_sessions(
                    database, notifications, origins=[origin_of(public_url)], lifetime=settings.login.lifetime
                )
            )
            issuer = next(one for one in settings.issuers if one.issuer == settings.login.issuer)
            client = await stack.enter_async_context(key_client(trust(issuer)))
            found = await stack.enter_async_context(endpoints(functools.partial(fetch_endpoints, client, issuer)))
            flow = LoginFlow(
                settings.login,
                redirect_uri=f"{public_url}/login/callback",
                seal=Seal(settings.login.secret.get_secret_value().encode(), "login", time.time),
                endpoints=found.find,
                id_tokens=IdTokens(tokens.made_for(issuer.issuer, settings.login.client_id), settings.login.client_id),
                session=client,
            )
            logins = Logins(flow, sessions)
            ambient.append(sessions)
        yield Identities(IdentityChain(ways, ambient, networks), logins)
