"""A browser that logs in, and settings that let it."""

from __future__ import annotations

from http.cookies import Morsel
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tests.harness import RunningGateway
from tests.identity.login_provider import CLIENT_ID, CLIENT_SECRET, LoginProvider

SECRET = "a secret that seals what browsers keep"
ORIGIN = "https://data.example.org"


def settings(idp: LoginProvider, **login: object) -> dict[str, Any]:
    issuer = {
        "issuer": idp.issuer,
        "audience": "downloads",
        "algorithms": ["ES256"],
        "insecure_http": True,
        "default_role": "REGISTERED_USER",
    }
    values = {"issuer": idp.issuer, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "secret": SECRET}
    return {"issuers": [issuer], "login": {**values, "timeout": 2, **login}}


class Browser:
    """Keeps cookies as a browser would that came over TLS."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.cookies: dict[str, str] = {}
        self.last: dict[str, Morsel[str]] = {}

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
        fields = dict(headers)
        if self.cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response, body = await self.gateway.request(method, path, None, **fields)
        self.last = dict(response.cookies)
        for name, morsel in response.cookies.items():
            if morsel["max-age"] == "0" or not morsel.value:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = morsel.value
        return response, body

    async def log_in(self, idp: LoginProvider, then: str = "/me") -> tuple[aiohttp.ClientResponse, bytes]:
        """All of it; gives the answer to the way back."""
        response, _ = await self.ask(f"/login?next={then}")
        assert response.status == 303
        back = urlsplit(idp.log_in(response.headers["Location"]))
        assert f"{back.scheme}://{back.netloc}" == ORIGIN
        return await self.ask(f"{back.path}?{back.query}")
