"""An identity provider on a loopback port, which answers as a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from gateway.config import Issuer
from tests.identity.forge import EC_KEYS, PrivateKey, claims, jwk, token

AUDIENCE = "downloads"
KEY = EC_KEYS["ES256"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclasses.dataclass
class Provider:
    """What is published, and what was asked."""

    url: str = ""
    keys: list[Any] = dataclasses.field(default_factory=lambda: [jwk(KEY.public_key(), kid="first")])
    headers: dict[str, str] = dataclasses.field(default_factory=lambda: {"Cache-Control": "max-age=300"})
    discovery: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Members that replace those of the true discovery document."""
    answer: Handler | None = None
    """Answers for the keys instead."""
    fetches: int = 0
    """How often the keys were asked for."""
    requests: list[web.Request] = dataclasses.field(default_factory=list)
    tls: ssl.SSLContext | None = None
    """Speaks HTTPS by it."""
    held: asyncio.Event | None = None
    """While it is not set, the keys are not answered."""

    @property
    def issuer(self) -> str:
        return f"{self.url}/realm"

    def setting(self, **changes: Any) -> Issuer:
        """The settings of a gateway that trusts it."""
        values = {
            "issuer": self.issuer,
            "audience": AUDIENCE,
            "algorithms": ["ES256", "RS256"],
            "insecure_http": True,
            "timeout": 5,
        }
        return Issuer.model_validate(values | changes)

    def token(self, kid: str | None = "first", key: PrivateKey = KEY, signed_as: str = "ES256", **changes: Any) -> str:
        """A token as it signs them."""
        header = {"alg": signed_as, "kid": kid} if kid is not None else {"alg": signed_as}
        payload = claims(**{"iss": self.issuer, "aud": AUDIENCE, **changes})
        return token(payload, header, signed_as=signed_as, key=key)

    async def _discover(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        document = {"issuer": self.issuer, "jwks_uri": f"{self.url}/keys", **self.discovery}
        return web.json_response(document)

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.fetches += 1
        if self.held is not None:
            await self.held.wait()
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(text=json.dumps({"keys": self.keys}), headers=self.headers)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It accepts requests; again on the port that it had before."""
        app = web.Application()
        app.router.add_get("/realm/.well-known/openid-configuration", self._discover)
        app.router.add_get("/keys", self._keys)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=self.tls).start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            if self.held is not None:
                self.held.set()
            await runner.cleanup()


@contextlib.asynccontextmanager
async def provider(tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    it = Provider(tls=tls)
    async with it.running():
        yield it
