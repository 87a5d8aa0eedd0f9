"""Logging in at an identity provider: OpenID Connect's authorization code flow with PKCE (RFC 6749 §4.1, RFC 7636)."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlencode

import aiohttp

from gateway.config import Login
from gateway.errors import GatewayError, unavailable
from gateway.identity.endpoints import Endpoints
from gateway.identity.principal import Principal
from gateway.identity.sealing import Seal

LOGIN_SECONDS = 600
"""That a user may take at the identity provider."""
MOST_BYTES = 64 * 1024
"""Of the identity provider's answer."""


class IdTokens(Protocol):
    """Verifies ID tokens."""

    async def verify(self, token: str, nonce: str) -> Principal:
        """Who logged in (OpenID Connect Core 1.0 §3.1.3.7).

        Raises:
            GatewayError: 401 the token is not good, or made for another log-in; 503 its keys cannot be fetched.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Begun:
    """A log-in that began."""

    url: str = dataclasses.field(repr=False)
    """Where the browser goes."""
    state: str = dataclasses.field(repr=False)
    """What it keeps meanwhile, in a cookie."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A log-in that ended well."""

    principal: Principal
    then: str
    """The path that the user wanted."""


class LoginFlow:
    """Sends users to the identity provider, and learns who they are when they come back."""

    def __init__(
        self,
        settings: Login,
        *,
        redirect_uri: str,
        seal: Seal,
        endpoints: Callable[[], Awaitable[Endpoints]],
        id_tokens: IdTokens,
        session: aiohttp.ClientSession,
    ) -> None:
        """Log in by ``settings``.

        Args:
            settings: ``[identity.login]``.
            redirect_uri: where the identity provider sends users back to, absolute.
            seal: of what the browser keeps meanwhile.
            endpoints: finds those of the identity provider; raises GatewayError (503).
            id_tokens: verifies what it says.
            session: to call it with.
        """
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._seal = seal
        self._endpoints = endpoints
        self._id_tokens = id_tokens
        self._session = session

    async def begin(self, then: str) -> Begun:
        """Begin a log-in that leads to the path ``then``.

        Raises:
            GatewayError: 400 ``then`` is no path of this site; 503 the identity provider does not answer.
        """
        if not is_own_path(then):
            raise GatewayError(HTTPStatus.BAD_REQUEST, "'next' must be a path of this site, like '/me/usage'.")
        endpoints = await self._endpoints()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        mark = "&" if "?" in endpoints.authorization else "?"
        kept = self._seal.close({"s": state, "n": nonce, "v": verifier, "t": then}, LOGIN_SECONDS)
        return Begun(f"{endpoints.authorization}{mark}{urlencode(query)}", kept)

    async def end(self, query: Mapping[str, str], kept: str | None) -> Ended:
        """The user is back with ``query``; ``kept`` is what the browser kept.

        Raises:
            GatewayError: 400 this is no answer to a log-in of this browser, or it took too long; 403 the identity
                provider refused; 401 what it says is not good; 502, 503 it does not answer as it should.
        """
        login = self._seal.open(kept) if kept else None
        state = query.get("state", "")
        if login is None or not hmac.compare_digest(state.encode("utf-8", "surrogatepass"), login["s"].encode()):
            raise GatewayError(HTTPStatus.BAD_REQUEST, "This log-in did not begin in this browser, or took too long.")
        if "code" not in query:
            raise GatewayError(HTTPStatus.FORBIDDEN, "The identity provider did not let you in.")
        token = await self._exchange(query["code"], login["v"])
        return Ended(await self._id_tokens.verify(token, login["n"]), login["t"])

    async def _exchange(self, code: str, verifier: str) -> str:
        """The ID token for an authorization code (RFC 6749 §4.1.3)."""
        endpoints = await self._endpoints()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        secret, headers = self._settings.client_secret, {}
        if secret is None:
            form["client_id"] = self._settings.client_id
        else:
            # RFC 6749 §2.3.1: both are form-encoded before they become a Basic credential.
            pair = urlencode({self._settings.client_id: secret.get_secret_value()}).replace("=", ":", 1)
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                self._session.post(endpoints.token, data=form, headers=headers, allow_redirects=False) as response,
            ):
                body = await response.content.read(MOST_BYTES + 1)
                while len(body) <= MOST_BYTES and (more := await response.content.read(MOST_BYTES + 1)):
                    body += more
                return _id_token(response.status, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable("The identity provider does not answer at the moment; try again.") from error


def is_own_path(path: str) -> bool:
    """Whether a browser that is sent to ``path`` stays on this site: no other host, no control character."""
    return (
        path.startswith("/")
        and path[1:2] not in ("/", "\\")
        and "\\" not in path
        and all("!" <= character <= "~" for character in path)
        and len(path) <= 2048
    )


def _id_token(status: int, body: bytes) -> str:
    """The member ``id_token`` of a token response (OpenID Connect Core 1.0 §3.1.3.3)."""
    try:
        told = json.loads(body) if len(body) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        told = None
    if status == HTTPStatus.OK and isinstance(told, dict) and isinstance(told.get("id_token"), str):
        return str(told["id_token"])
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and isinstance(told, dict):
        # RFC 6749 §5.2. What the operator has to mend is logged; else the code is used up or too old.
        if told.get("error") in ("invalid_client", "unauthorized_client"):
            raise GatewayError(
                HTTPStatus.BAD_GATEWAY, "The identity provider does not take this gateway for its client."
            )
        raise GatewayError(HTTPStatus.FORBIDDEN, "The identity provider did not let you in; begin again.")
    raise GatewayError(HTTPStatus.BAD_GATEWAY, "The identity provider gave no answer that makes sense.")
