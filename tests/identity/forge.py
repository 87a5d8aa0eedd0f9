"""Tokens made by hand, byte by byte, so that no library stands between a test and what it wants to send."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "a secret of the identity provider, long enough for each of HS256, HS384, HS512"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


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


def signature(
    message: bytes, algorithm: str, secret: bytes = SECRET.encode(), rsa_key: rsa.RSAPrivateKey = RSA_KEY
) -> bytes:
    if algorithm == "RS256":
        return rsa_key.sign(message, padding.PKCS1v15(), SHA256())
    return hmac.new(secret, message, HASHES[algorithm]).digest()


def token(
    payload: dict[str, Any] | str | bytes | None = None,
    header: dict[str, Any] | str | bytes | None = None,
    *,
    signed_as: str = "HS256",
    secret: bytes = SECRET.encode(),
    rsa_key: rsa.RSAPrivateKey = RSA_KEY,
) -> str:
    """A token with a true signature over whatever header and payload (dict, or JSON text) are given."""
    header = {"typ": "JWT", "alg": signed_as} if header is None else header
    payload = claims() if payload is None else payload
    signing_input = f"{base64url(_encoded(header))}.{base64url(_encoded(payload))}"
    return f"{signing_input}.{base64url(signature(signing_input.encode(), signed_as, secret, rsa_key))}"


def with_claim(name: str, value: str) -> str:
    """A well signed token whose claim ``name`` is the raw JSON text ``value``, be it JSON or not."""
    rest = json.dumps(claims(**{name: ...}))
    return token(f'{rest[:-1]}, "{name}": {value}}}')


def with_header(**members: Any) -> str:
    return token(header={"typ": "JWT", "alg": "HS256", **members})


def _encoded(value: dict[str, Any] | str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")
