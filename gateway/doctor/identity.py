"""Looks at the keys of bearer tokens."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.config import Identity
from gateway.doctor.findings import Findings, ok, problem
from gateway.errors import ConfigurationError
from gateway.identity.jwt import load_key


async def look_at_keys(settings: Identity) -> Findings:
    """Each key can be read and used."""
    for number, setting in enumerate(settings.jwt, start=1):
        name = f"key {number} ({', '.join(setting.algorithms)})"
        try:
            key = load_key(setting).key
        except ConfigurationError as error:
            remedy = (
                "put the issuer's public key there as PEM, readable by the gateway"
                if setting.public_key_file
                else ("take the secret that the token issuer signs with (openssl rand -base64 48 makes one)")
            )
            yield problem(f"{name}: {error}", remedy)
        else:
            kind = f"RSA of {key.key_size} bits" if isinstance(key, RSAPublicKey) else "a secret"
            yield ok(f"{name}: {kind}")
