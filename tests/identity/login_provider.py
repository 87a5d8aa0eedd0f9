"""An identity provider that people log in at, on a loopback port."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import web

from tests.identity.forge import EC_KEYS, claims, jwk, token

CLIENT_ID = "gateway:esa"
CLIENT_SECRET = "the client's s:cret &"
KEY = EC_KEYS["ES256"]


@dataclasses.dataclass
class LoginProvider:
    """What it says of the next user, and how it misbehaves."""

    url: str = ""
    says: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Claims that replace the usual ones in ID tokens."""
    answer: web.Response | None = None
    """What the token endpoint answers instead."""
    tls: ssl.SSLContext | None = None
    """Speaks HTTPS by it."""
    discoveries: int = 0
    """How often it was asked where everything is."""
    key_fetches: int = 0
    logins: dict[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    """Queries of log-ins by the code that was given for them."""

    @property
    def issuer(self) -> str:
        return f"{self.url}/realm"

    def log_in(self, url: str) -> str:
        """The user types in his password on the page at ``url``: where his browser is sent."""
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.url}/authorize"
        query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT_ID)
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(8)
        self.logins[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    async def _discover(self, _: web.Request) -> web.Response:
        self.discoveries += 1
        return web.json_response(
            {
                "issuer": self.issuer,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        self.key_fetches += 1
        return web.json_response({"keys": [jwk(KEY.public_key(), kid="first")]})

    async def _token(self, request: web.Request) -> web.Response:
        if self.answer is not None:
            return self.answer
        form = await request.post()
        query = self.logins.pop(str(form["code"]), None)
        pair = base64.b64encode(b"gateway%3Aesa:the+client%27s+s%3Acret+%26").decode()
        assert request.headers["Authorization"] == f"Basic {pair}"
        assert form["grant_type"] == "authorization_code"
        if query is None or form["redirect_uri"] != query["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != query["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        said = claims(**{"iss": self.issuer, "aud": CLIENT_ID, "nonce": query["nonce"], **self.says})
        id_token = token(said, {"alg": "ES256", "kid": "first"}, signed_as="ES256", key=KEY)
        return web.Response(text=json.dumps({"access_token": "x", "token_type": "Bearer", "id_token": id_token}))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/realm/.well-known/openid-configuration", self._discover)
        app.router.add_get("/keys", self._keys)
        app.router.add_post("/token", self._token)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def login_provider(tls: ssl.SSLContext | None = None) -> AsyncIterator[LoginProvider]:
    it = LoginProvider(tls=tls)
    async with it.running():
        yield it
