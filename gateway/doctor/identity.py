"""Looks at the keys of bearer tokens."""

from __future__ import annotations

from gateway.config import Identity, Issuer
from gateway.doctor.findings import Findings, ok, problem
from gateway.errors import ConfigurationError
from gateway.identity.discovery import NotFetchedError, fetch_keys, key_client, trust
from gateway.identity.keys import describe, load_key


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
            yield ok(f"{name}: {describe(key)}")


async def look_at_issuer(setting: Issuer) -> Findings:
    """The keys of an identity provider can be fetched."""
    try:
        trusted = trust(setting)
    except ConfigurationError as error:
        yield problem(str(error), "put the certificates of its authority there as PEM, readable by the gateway")
        return
    async with key_client(trusted) as session:
        try:
            published = await fetch_keys(session, setting)
        except NotFetchedError as error:
            place = "'jwks_url' is the address of its JWK Set" if setting.jwks_url else "'issuer' is its exact name"
            yield problem(
                f"its keys cannot be fetched: {error}",
                f"see that {place}, that this machine reaches it, and that 'algorithms' are those it signs with",
            )
        else:
            keys = ", ".join(f"{describe(key.key)} ({'/'.join(key.algorithms)})" for key in published.keys)
            yield ok(f"its keys, fresh for {published.fresh:.0f} s: {keys}")
