"""Tokens made by hand, byte by byte, so that no library stands between a test and what it wants to send."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

SECRET = "a secret of the identity provider, long enough for each of HS256, HS384, HS512"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()

HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
_DIGESTS: dict[str, type[SHA256 | SHA384 | SHA512]] = {"256": SHA256, "384": SHA384, "512": SHA512}


def own_key(algorithm: str) -> PrivateKey:
    """The private key that tokens with an asymmetric ``algorithm`` are signed with."""
    return ED_KEY if algorithm == "EdDSA" else EC_KEYS.get(algorithm, RSA_KEY)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, and ``changes`` to them; a claim that is set to ``...`` is left out."""
    good = {
        "tenant": "esa",
        "sub": "scientist",
        "role": "REGISTERED_USER",
        "email": "scientist@example.org",
        "groups": ["science"],
        "iat": int(time.time()),
        "exp": int(time.time()) + 600,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def signature(message: bytes, algorithm: str, secret: bytes = SECRET.encode(), key: PrivateKey | None = None) -> bytes:
    if algorithm in HASHES:
        return hmac.new(secret, message, HASHES[algorithm]).digest()
    key = key or own_key(algorithm)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    digest: HashAlgorithm = _DIGESTS[algorithm[2:]]()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        length = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
        return r.to_bytes(length, "big") + s.to_bytes(length, "big")
    if algorithm.startswith("PS"):
        return key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return key.sign(message, padding.PKCS1v15(), digest)


def token(
    payload: dict[str, Any] | str | bytes | None = None,
    header: dict[str, Any] | str | bytes | None = None,
    *,
    signed_as: str = "HS256",
    secret: bytes = SECRET.encode(),
    key: PrivateKey | None = None,
) -> str:
    """A token with a true signature over whatever header and payload (dict, or JSON text) are given."""
    header = {"typ": "JWT", "alg": signed_as} if header is None else header
    payload = claims() if payload is None else payload
    signing_input = f"{base64url(_encoded(header))}.{base64url(_encoded(payload))}"
    return f"{signing_input}.{base64url(signature(signing_input.encode(), signed_as, secret, key))}"


def with_claim(name: str, value: str) -> str:
    """A well signed token whose claim ``name`` is the raw JSON text ``value``, be it JSON or not."""
    rest = json.dumps(claims(**{name: ...}))
    return token(f'{rest[:-1]}, "{name}": {value}}}')


def with_header(**members: Any) -> str:
    return token(header={"typ": "JWT", "alg": "HS256", **members})


def pem(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: PublicKey, **members: Any) -> dict[str, Any]:
    """The JWK of a public key (RFC 7518 §6, RFC 8037 §2), and other members."""
    if isinstance(key, rsa.RSAPublicKey):
        n, e = key.public_numbers().n, key.public_numbers().e
        own = {
            "kty": "RSA",
            "n": base64url(n.to_bytes((n.bit_length() + 7) // 8, "big")),
            "e": base64url(e.to_bytes(3, "big")),
        }
    elif isinstance(key, ec.EllipticCurvePublicKey):
        length = (key.curve.key_size + 7) // 8
        curve = {256: "P-256", 384: "P-384", 521: "P-521"}[key.curve.key_size]
        point = key.public_numbers()
        x, y = (base64url(value.to_bytes(length, "big")) for value in (point.x, point.y))
        own = {"kty": "EC", "crv": curve, "x": x, "y": y}
    else:
        own = {"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_bytes_raw())}
    return {**own, **members}


def _encoded(value: dict[str, Any] | str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")
