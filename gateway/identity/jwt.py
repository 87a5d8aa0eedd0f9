"""Bearer tokens: signed JWTs with the claims of REGARDS."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from gateway.config import JwtKey
from gateway.errors import ConfigurationError, GatewayError, unauthorized
from gateway.identity.principal import Principal
from gateway.identity.shown import API_KEY_PREFIX, Shown
from gateway.text import is_storable

LONGEST_TOKEN = 8192
"""Bytes; a longer one is refused before any work is spent on it."""
LONGEST_CLAIM = 1024
"""Bytes: e-mail addresses are keys in PostgreSQL, whose indexes take no more than some 2700."""
MOST_GROUPS = 1000
MOST_REMEMBERED = 10_000
"""Verified tokens that are remembered."""
_SHORTEST_RSA_BITS = 2048
_LATEST = 253_402_300_799
"""Last second of the year 9999. A later time is a mistake (milliseconds, say) and would make a token for ever."""
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
"""A signed JWT (RFC 7515 §7.1): three parts of base64url without padding."""
_MALFORMED = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What hostile JSON (deep, infinite, of other types) raises in the library, beside the library's own errors."""


@dataclasses.dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key and all that a token must meet to be verified by it."""

    algorithms: tuple[str, ...]
    key: str | RSAPublicKey
    issuer: str | None
    audience: str | None


def load_key(setting: JwtKey) -> VerificationKey:
    """The key that an ``[[identity.jwt]]`` table describes.

    Raises:
        ConfigurationError: the key file cannot be read, or holds no RSA public key of at least 2048 bits; the secret
            is a key of another kind.
    """
    key: str | RSAPublicKey
    if setting.secret is not None:
        key = _check_secret(setting.secret.get_secret_value())
    else:
        assert setting.public_key_file is not None  # noqa: S101 - JwtKey holds one of the two
        key = _load_rsa_key(setting.public_key_file)
    return VerificationKey(tuple(setting.algorithms), key, setting.issuer, setting.audience)


def _check_secret(secret: str) -> str:
    """Refuse what the library takes no token with: a PEM, an SSH key or a JWK, which everyone may know."""
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise ConfigurationError(
            "identity.jwt: secret: is a public key, a certificate or a JWK; must be random text that only the token "
            "issuer knows"
        ) from error
    return secret


def _load_rsa_key(file: Path) -> RSAPublicKey:
    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"identity.jwt: public_key_file {file}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"identity.jwt: public_key_file {file}: holds no PEM public key") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < _SHORTEST_RSA_BITS:
        raise ConfigurationError(f"identity.jwt: public_key_file {file}: must be an RSA key of at least 2048 bits")
    return key


class BearerTokens:
    """Verifies bearer tokens against the configured keys."""

    def __init__(self, keys: Sequence[VerificationKey], leeway: float, clock: Callable[[], float] = time.time) -> None:
        self._keys = tuple(keys)
        self._leeway = datetime.timedelta(seconds=leeway)
        self._clock = clock
        self._verified: dict[bytes, tuple[Principal, float]] = {}

    def find(self, shown: Shown) -> str | None:
        """The token of ``Authorization: Bearer``, unless that is an API key."""
        scheme, token = shown.authorization
        return token if scheme == "bearer" and token and not token.startswith(API_KEY_PREFIX) else None

    async def identify(self, credential: str, shown: Shown) -> Principal:  # noqa: ARG002 - a token says it all
        """As `verify`."""
        return self.verify(credential)

    def verify(self, token: str) -> Principal:
        """The caller that ``token`` names.

        A key is tried only if it is pinned to the token's ``alg``, so that a token cannot choose how it is verified.
        A token that was verified is remembered by its hash until it expires.

        Raises:
            GatewayError: 401; the token is too long, malformed, wrongly signed, expired, or lacks a claim.
        """
        if len(token) > LONGEST_TOKEN:
            raise _invalid("the token is too long")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        principal, expires = self._verified.get(digest, (None, 0.0))
        if principal is None or self._clock() >= expires:
            if not _COMPACT.fullmatch(token):
                raise _invalid("the token is not a JWT")
            claims = self._verify(token)
            principal = _principal(claims)
            while len(self._verified) >= MOST_REMEMBERED:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = principal, claims["exp"]
        return principal

    def _verify(self, token: str) -> Mapping[str, Any]:
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
        except _MALFORMED as error:
            raise _invalid("the token is not a JWT") from error
        problem: Exception | None = None
        for key in self._keys:
            if algorithm not in key.algorithms:
                continue
            try:
                return self._decode(token, key)
            except jwt.ExpiredSignatureError as error:
                raise _invalid("the token has expired") from error
            except _MALFORMED as error:
                problem = error
        if problem is None:
            raise _invalid("the token is signed with an algorithm that is not accepted here")
        raise _invalid(_public_reason(problem)) from problem

    def _decode(self, token: str, key: VerificationKey) -> Mapping[str, Any]:
        claims = jwt.decode(
            token,
            key.key,
            algorithms=list(key.algorithms),
            audience=key.audience,
            issuer=key.issuer,
            leeway=self._leeway,
            options={"require": ["exp", "sub"], "verify_aud": key.audience is not None},
        )
        for name in ("exp", "nbf", "iat"):
            if name in claims and not _is_time(claims[name]):
                raise _invalid(f"the token's claim {name!r} is no time in seconds")
        return claims


def _public_reason(problem: Exception) -> str:
    """Say what is wrong in our words: a library's message may quote the token."""
    if isinstance(problem, jwt.MissingRequiredClaimError):
        return f"the token lacks the claim {problem.claim!r}"
    if isinstance(problem, jwt.ImmatureSignatureError):
        return "the token is not valid yet"
    if isinstance(problem, (jwt.InvalidAudienceError, jwt.InvalidIssuerError)):
        return "the token was made by or for somebody else"
    return "the token's signature or content is not valid"


def _principal(claims: Mapping[str, Any]) -> Principal:
    """Read REGARDS' claims: tenant, sub, role, email; groups, or REGARDS' accessGroups."""
    texts = {name: claims.get(name) for name in ("tenant", "sub", "role", "email")}
    for name, value in texts.items():
        if not _is_text(value):
            raise _invalid(f"the token's claim {name!r} is missing or is no plain text")
    groups = claims.get("groups", claims.get("accessGroups", []))
    if not isinstance(groups, list) or len(groups) > MOST_GROUPS or not all(_is_text(group) for group in groups):
        raise _invalid("the token's claim 'groups' is no list of names")
    return Principal(
        tenant=str(texts["tenant"]),
        subject=str(texts["sub"]),
        email=str(texts["email"]),
        role=str(texts["role"]),
        groups=tuple(groups),
    )


def _is_time(value: object) -> bool:
    """Whether ``value`` is a NumericDate (RFC 7519 §2); the library takes text and any number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LATEST


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_storable(value) and 0 < len(value.encode()) <= LONGEST_CLAIM


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
