"""Bearer tokens: signed JWTs of any issuer that the settings name."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

import jwt

from gateway.config import Identity
from gateway.errors import GatewayError, unauthorized
from gateway.identity.claims import REGARDS, ClaimError, ClaimMapping, check_audience, check_times
from gateway.identity.compact import Token, parse_token
from gateway.identity.discovery import fetch_keys, key_client, trust
from gateway.identity.keys import Keys, StaticKeys, load_key
from gateway.identity.networks import Networks
from gateway.identity.principal import Principal, anonymous
from gateway.identity.rotation import rotating_keys
from gateway.identity.shown import API_KEY_PREFIX, Shown

LONGEST_TOKEN = 8192
"""Bytes; a longer one is refused before any work is spent on it."""
MOST_REMEMBERED = 10_000
"""Verified tokens that are remembered."""
_PUBLIC = ("PUBLIC", "public@regards.com")
"""Role and e-mail address in the tokens that REGARDS makes for callers without a name."""


@dataclasses.dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Who may sign tokens, and what they must say."""

    issuer: str | None
    """The exact value of ``iss``; None takes any that no other one takes."""
    audience: str | Literal[False] | None
    """Required in ``aud``; False: there must be none; not looked at when None."""
    algorithms: tuple[str, ...]
    keys: Keys
    mapping: ClaimMapping = REGARDS


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What a good token says, and how long that may be believed."""

    principal: Principal
    is_public: bool
    """Whether REGARDS made it for a caller without a name."""
    until: float
    """Seconds since the epoch."""
    keys: Keys
    generation: int
    """Of the keys, when it was verified."""


class BearerTokens:
    """Verifies bearer tokens. Made by `open_tokens`."""

    def __init__(
        self,
        issuers: Sequence[TokenIssuer],
        leeway: float,
        networks: Networks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Trust ``issuers``, whose clocks may differ by ``leeway`` seconds from ``clock`` (seconds since the epoch)."""
        self._issuers: dict[str | None, list[TokenIssuer]] = {None: []}
        for issuer in issuers:
            self._issuers.setdefault(issuer.issuer, []).append(issuer)
        self._leeway = leeway
        self._networks = networks
        self._clock = clock
        self._verified: dict[bytes, Verified] = {}

    def made_for(self, issuer: str, audience: str) -> BearerTokens:
        """What verifies tokens of one issuer, by the same keys, that are made for another audience."""
        issuers = [dataclasses.replace(one, audience=audience) for one in self._issuers[issuer]]
        return BearerTokens(issuers, self._leeway, self._networks, self._clock)

    def find(self, shown: Shown) -> str | None:
        """The token of ``Authorization: Bearer``, unless it is an API key."""
        scheme, token = shown.authorization
        return token if scheme == "bearer" and token and not token.startswith(API_KEY_PREFIX) else None

    async def identify(self, credential: str, shown: Shown) -> Principal:
        """Whom the token names; an anonymous caller for the token that REGARDS makes for such.

        Raises:
            GatewayError: 401, 503; as `verify`.
        """
        verified = self._recall(credential) or await self._learn(credential)
        if verified.is_public:
            return anonymous(verified.principal.tenant, self._networks.of(shown.address))
        return verified.principal

    async def verify(self, token: str) -> Verified:
        """What ``token`` says.

        Its ``iss`` chooses the issuer, and ``kid`` the key among those of the issuer, which the settings pin to
        algorithms: a token cannot choose how it is verified. A token that was verified is remembered by its hash until
        it expires, a key of its issuer is withdrawn, or the keys are too old to be used.

        Raises:
            GatewayError: 401 the token is too long, malformed, wrongly signed, expired, or lacks a claim; 503 the keys
                of its issuer cannot be fetched.
        """
        return self._recall(token) or await self._learn(token)

    def _recall(self, token: str) -> Verified | None:
        if len(token) > LONGEST_TOKEN:
            raise _invalid("the token is too long")
        known = self._verified.get(_digest(token))
        if known is None or self._clock() >= known.until or known.keys.generation != known.generation:
            return None
        return known

    async def _learn(self, token: str) -> Verified:
        verified = await self._verify(token)
        while len(self._verified) >= MOST_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[_digest(token)] = verified
        return verified

    async def _verify(self, text: str) -> Verified:
        try:
            token = parse_token(text)
        except ValueError as error:
            raise _invalid(str(error)) from None
        issuers = self._trusted(token)
        able = [issuer for issuer in issuers if token.algorithm in issuer.algorithms]
        problem = "the token's signature is not valid"
        for number, issuer in enumerate(able):
            if number:
                await asyncio.sleep(0)
            try:
                verified = await self._verify_by(issuer, token)
            except ClaimError as error:
                problem = str(error)
            else:
                if verified is not None:
                    return verified
        if not issuers:
            problem = "the token was made by or for somebody else"
        elif not able:
            problem = "the token is signed with an algorithm that is not accepted here"
        raise _invalid(problem)

    def _trusted(self, token: Token) -> Sequence[TokenIssuer]:
        named = token.claims.get("iss")
        return (isinstance(named, str) and self._issuers.get(named)) or self._issuers[None]

    async def _verify_by(self, issuer: TokenIssuer, token: Token) -> Verified | None:
        """What an issuer's token says; None if it is not his.

        Raises:
            ClaimError: it is his, and is not good.
            GatewayError: 503.
        """
        generation = issuer.keys.generation
        for number, trusted in enumerate(await issuer.keys.find(token.kid, token.algorithm)):
            # One key takes up to half a millisecond (ES384, ES512), in which the interpreter's lock is held: a thread
            # would gain nothing. Others have their turn between two keys.
            if number:
                await asyncio.sleep(0)
            if trusted.key.verifies(token.algorithm, token.message, token.signature):
                now = self._clock()
                expires = check_times(token.claims, now, self._leeway)
                if issuer.audience is not None:
                    check_audience(token.claims, issuer.audience)
                principal = issuer.mapping.principal(token.claims)
                is_public = (principal.role, principal.email) == _PUBLIC
                return Verified(principal, is_public, min(expires, now + trusted.seconds), issuer.keys, generation)
        return None


def open_tokens(settings: Identity, networks: Networks) -> contextlib.AbstractAsyncContextManager[BearerTokens]:
    """Bearer tokens by the settings; within the block keys are fetched.

    Raises:
        ConfigurationError: a key or a ``ca_file`` cannot be used; at once, before the block.
    """
    issuers = [
        TokenIssuer(key.issuer, key.audience, tuple(key.algorithms), StaticKeys((load_key(key),)))
        for key in settings.jwt
    ]
    return _opened(settings, networks, issuers, [trust(setting) for setting in settings.issuers])


@contextlib.asynccontextmanager
async def _opened(
    settings: Identity, networks: Networks, static: Sequence[TokenIssuer], trusts: Sequence[ssl.SSLContext]
) -> AsyncIterator[BearerTokens]:
    async with contextlib.AsyncExitStack() as stack:
        issuers = list(static)
        for setting, trusted in zip(settings.issuers, trusts, strict=True):
            session = await stack.enter_async_context(key_client(trusted))
            fetch = functools.partial(fetch_keys, session, setting)
            keys = await stack.enter_async_context(rotating_keys(setting, fetch))
            issuers.append(
                TokenIssuer(setting.issuer, setting.audience, tuple(setting.algorithms), keys, ClaimMapping.by(setting))
            )
        yield BearerTokens(issuers, settings.leeway, networks)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _invalid(reason: str) -> GatewayError:
    return unauthorized(reason, error="invalid_token")


def sign(
    key: str, algorithm: str, principal: Principal, *, now: datetime.datetime, lifetime: datetime.timedelta
) -> str:
    """Make a token for ``principal`` (of development and of the demo: real ones come from an identity provider)."""
    claims = {
        "tenant": principal.tenant,
        "sub": principal.subject,
        "role": principal.role,
        "email": principal.email,
        "groups": list(principal.groups),
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
    }
    return jwt.encode(claims, key, algorithm=algorithm)
