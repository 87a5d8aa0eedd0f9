"""API keys and links as tests make and show them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from yarl import URL

from gateway.identity.principal import Principal
from tests.canaries import CANARIES
from tests.harness import RunningGateway, bearer

LINK_SECRET = "l" * 32

Answer = tuple[int, dict[str, str], Any]
"""Status, header and JSON (or bytes) of an answer, without what names the request."""


async def send(
    gateway: RunningGateway,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: object = None,
) -> Answer:
    """Ask with exactly these header fields; ``path`` may be a whole URL."""
    url = path if path.startswith("http") else f"{gateway.url}{path}"
    data = json.dumps(body).encode() if body is not None else None
    async with gateway.session.request(
        method, URL(url, encoded=True), headers=headers or {}, data=data, allow_redirects=False
    ) as response:
        received = await response.read()
        CANARIES.search_answer(f"{method} {response.url.path}", response.headers, received)
        fields = {name: value for name, value in response.headers.items() if name not in ("Date", "X-Request-ID")}
        if "json" not in response.content_type:
            return response.status, fields, received
        told = json.loads(received) if received else None
        if isinstance(told, dict):
            told.pop("instance", None)
        return response.status, fields, told


async def new_key(gateway: RunningGateway, who: Principal, **body: object) -> dict[str, Any]:
    """A key of ``who``, as he is told."""
    status, _, told = await send(gateway, "POST", "/me/keys", bearer(who), {"label": "test", **body})
    assert status == 201, told
    assert isinstance(told, dict)
    CANARIES.hide(f"token of key {told['id']}", told["key"].split("_", 2)[2])
    return told


async def new_link(gateway: RunningGateway, who: Principal | dict[str, str], **body: object) -> dict[str, Any]:
    """A link of ``who``, or of who shows these fields."""
    headers = bearer(who) if isinstance(who, Principal) else who
    status, _, told = await send(gateway, "POST", "/links", headers, body)
    assert status == 201, told
    assert isinstance(told, dict)
    CANARIES.hide(f"token of link {told['id']}", told["url"].rpartition(".")[2])
    return told


def shown_key(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


async def seconds_until(status: int, ask: Callable[[], Awaitable[Answer]], most: float = 10) -> float:
    """How long it took until the answer had ``status``."""
    began = time.monotonic()
    while (await ask())[0] != status:
        assert time.monotonic() - began < most, f"no {status} within {most} s"
    return time.monotonic() - began
