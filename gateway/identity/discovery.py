"""Fetches the keys of identity providers: from places that the settings name, never from one that a token names."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp
import yarl

from gateway.config import Issuer
from gateway.errors import ConfigurationError
from gateway.http.outbound import Target, parse_target
from gateway.identity.jwks import UnusableError, fresh_seconds, parse_discovery, parse_key_set
from gateway.identity.keys import VerificationKey

MOST_BYTES = 256 * 1024
"""Of a document."""
_CONNECTIONS = 8
_WELL_KNOWN = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0 §4."""


_FAILURES = (TimeoutError, UnusableError, aiohttp.ClientError, OSError, ValueError)


class NotFetchedError(Exception):
    """The keys could not be fetched. The message says why, and quotes nothing that was answered but a host's name."""


@dataclasses.dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer as they are published now."""

    keys: tuple[VerificationKey, ...]
    fresh: float
    """Seconds for which they need not be fetched again."""


async def fetch_keys(session: aiohttp.ClientSession, setting: Issuer) -> KeySet:
    """Fetch the keys of an issuer, from its ``jwks_url`` or by discovery.

    Raises:
        NotFetchedError: within ``timeout`` nothing came that can be used.
    """
    asked = parse_target(setting.jwks_url or setting.issuer, insecure_http=setting.insecure_http)
    try:
        async with asyncio.timeout(setting.timeout):
            if setting.jwks_url is None:
                (asked,) = await _discover(session, setting, asked, "jwks_uri")
            body, headers = await _get(session, asked.url)
            keys = await asyncio.to_thread(parse_key_set, body, setting.algorithms)
    except _FAILURES as error:
        raise _not_fetched(error, asked, setting) from error
    return KeySet(keys, fresh_seconds(headers))


async def fetch_endpoints(session: aiohttp.ClientSession, setting: Issuer) -> Mapping[str, str]:
    """Where an issuer takes log-ins: ``authorization_endpoint`` and ``token_endpoint``.

    Raises:
        NotFetchedError: within ``timeout`` nothing came that can be used.
    """
    asked = parse_target(setting.issuer, insecure_http=setting.insecure_http)
    try:
        async with asyncio.timeout(setting.timeout):
            names = ("authorization_endpoint", "token_endpoint")
            found = await _discover(session, setting, asked, *names)
    except _FAILURES as error:
        raise _not_fetched(error, asked, setting) from error
    return {name: target.url for name, target in zip(names, found, strict=True)}


async def _discover(session: aiohttp.ClientSession, setting: Issuer, issuer: Target, *names: str) -> Sequence[Target]:
    body, _ = await _get(session, issuer.url.rstrip("/") + _WELL_KNOWN)
    hosts = setting.hosts or [issuer.authority]
    return await asyncio.to_thread(
        parse_discovery, body, setting.issuer, hosts, names, insecure_http=setting.insecure_http
    )


def _not_fetched(error: Exception, asked: Target, setting: Issuer) -> NotFetchedError:
    match error:
        case TimeoutError():
            return NotFetchedError(f"{asked.authority} did not answer within {setting.timeout:g} s")
        case UnusableError():
            return NotFetchedError(f"{asked.authority} {error}")
        case aiohttp.ClientConnectorCertificateError():
            return NotFetchedError(
                f"{asked.authority} has a certificate that this machine does not trust: {error.certificate_error}"
            )
    # The messages of others may quote what was answered.
    return NotFetchedError(f"{asked.authority} gave no answer: {type(error).__name__}")


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[bytes, Mapping[str, str]]:
    async with session.get(yarl.URL(url, encoded=True), allow_redirects=False) as response:
        if response.status != 200:
            raise UnusableError(f"answered {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MOST_BYTES:
                raise UnusableError(f"gave more than {MOST_BYTES} bytes")
        return bytes(body), response.headers


def trust(setting: Issuer) -> ssl.SSLContext:
    """Whose certificates the hosts of an issuer may show.

    Raises:
        ConfigurationError: its ``ca_file`` cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=setting.ca_file)
    except (OSError, ValueError) as error:
        reason = f"identity.issuers: ca_file {setting.ca_file}: cannot be read as certificates in PEM: {error}"
        raise ConfigurationError(reason) from error


@contextlib.asynccontextmanager
async def key_client(trusted: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without cookies, credentials or proxies of the environment. Certificates are verified."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=trusted),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "download-gateway"},
    ) as session:
        yield session
