"""Keys that tokens are verified with, and the algorithms each of them fits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, HMACAlgorithm, get_default_algorithms

from gateway.config import JwtKey
from gateway.errors import ConfigurationError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA_BITS = range(2048, 8193)
"""RFC 7518 §3.3 for the shortest; a longer one takes milliseconds of the loop for each token."""
_RSA_EXPONENT_BITS = 64
"""Nearly all keys have 65537. One as long as the modulus takes milliseconds, too."""
_CURVES: Mapping[str, type[EllipticCurve]] = {"ES256": SECP256R1, "ES384": SECP384R1, "ES512": SECP521R1}
"""RFC 7518 §3.4."""
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_NAMES = ("HS256", "HS384", "HS512", *_RSA, *_CURVES, "EdDSA")
_ALGORITHMS: Mapping[str, Algorithm] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if name in _NAMES
}


@dataclasses.dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key, and the only algorithms that it verifies."""

    algorithms: tuple[str, ...]
    key: bytes | PublicKey = dataclasses.field(repr=False)
    kid: str | None = None
    """Its name within the keys of its issuer (RFC 7517 §4.5)."""

    def may_have_signed(self, kid: str | None, algorithm: str) -> bool:
        """Whether a token with these header members is to be verified with it; where one has no name, any will do."""
        return algorithm in self.algorithms and (kid is None or self.kid is None or kid == self.kid)

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``message`` was made with this key's counterpart by ``algorithm``."""
        if algorithm not in self.algorithms:
            return False
        try:
            return _ALGORITHMS[algorithm].verify(message, self.key, signature)
        except (ValueError, TypeError, jwt.PyJWTError):
            return False


@dataclasses.dataclass(frozen=True, slots=True)
class Trusted:
    """A key that may be used now."""

    key: VerificationKey
    seconds: float = math.inf
    """How long it may be used from now on, as far as is known."""


class Keys(Protocol):
    """The keys of one issuer."""

    @property
    def generation(self) -> int:
        """Rises when a key is withdrawn: what was verified before is to be verified again."""

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Trusted]:
        """The keys that a token with these header members may be verified with; none if it cannot be verified.

        Raises:
            GatewayError: 503; it is not known which keys there are.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class StaticKeys:
    """Keys that stay as they were configured."""

    keys: tuple[VerificationKey, ...]
    generation: int = 0

    async def find(self, kid: str | None, algorithm: str) -> Sequence[Trusted]:
        """Those that may have signed it."""
        return [Trusted(key) for key in self.keys if key.may_have_signed(kid, algorithm)]


def fits(algorithm: str, key: object) -> bool:
    """Whether ``key`` is a public key of the type, length or curve that ``algorithm`` asks for (RFC 7518 §3.1)."""
    if algorithm in _CURVES:
        return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, _CURVES[algorithm])
    if algorithm == "EdDSA":
        return isinstance(key, Ed25519PublicKey)
    if algorithm not in _RSA or not isinstance(key, RSAPublicKey):
        return False
    return key.key_size in _RSA_BITS and key.public_numbers().e.bit_length() <= _RSA_EXPONENT_BITS


def describe(key: bytes | PublicKey) -> str:
    """The kind of ``key``, for an operator."""
    if isinstance(key, bytes):
        return "a secret"
    if isinstance(key, RSAPublicKey):
        return f"RSA of {key.key_size} bits"
    return f"EC {key.curve.name}" if isinstance(key, EllipticCurvePublicKey) else "Ed25519"


def load_key(setting: JwtKey) -> VerificationKey:
    """The key that an ``[[identity.jwt]]`` table describes.

    Raises:
        ConfigurationError: the key file cannot be read, or holds no public key that fits the algorithms; the secret is
            a key of another kind.
    """
    key: bytes | PublicKey
    if setting.secret is not None:
        key = _check_secret(setting.secret.get_secret_value())
    else:
        assert setting.public_key_file is not None  # noqa: S101 - JwtKey holds one of the two
        key = _load_pem(setting.public_key_file, setting.algorithms)
    return VerificationKey(tuple(setting.algorithms), key)


def _check_secret(secret: str) -> bytes:
    """Refuse what everyone may know: a PEM, an SSH key or a JWK."""
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise ConfigurationError(
            "identity.jwt: secret: is a public key, a certificate or a JWK; must be random text that only the token "
            "issuer knows"
        ) from error


def _load_pem(file: Path, algorithms: Sequence[str]) -> PublicKey:
    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"identity.jwt: public_key_file {file}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"identity.jwt: public_key_file {file}: holds no PEM public key") from error
    for algorithm in algorithms:
        if not fits(algorithm, key):
            raise ConfigurationError(
                f"identity.jwt: public_key_file {file}: must be {_needed(algorithm)} for {algorithm}"
            )
    assert isinstance(key, PublicKey)  # noqa: S101 - it fits
    return key


def _needed(algorithm: str) -> str:
    if algorithm in _CURVES:
        return f"an EC key on the curve {_CURVES[algorithm].name}"
    if algorithm == "EdDSA":
        return "an Ed25519 key"
    return f"an RSA key of at least {_RSA_BITS.start} bits, and at most {_RSA_BITS.stop - 1}, with a short exponent,"
