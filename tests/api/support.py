"""What the tests of the API ask, and how."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from gateway.identity.principal import Principal
from tests.harness import RunningGateway, bearer, principal

PROJECT_ADMIN = principal("project", role="PROJECT_ADMIN")
INSTANCE_ADMIN = principal("instance", role="INSTANCE_ADMIN")
PLAIN_ADMIN = principal("plain", role="ADMIN")
EXPLOIT = principal("exploit", role="EXPLOIT")
USER = principal("scientist", "science")
SCOPE = "scope=esa"


async def call(
    gateway: RunningGateway, method: str, path: str, who: Principal | None = None, body: object = None
) -> tuple[int, Any]:
    """Status and JSON of an answer; ``body`` is sent as JSON, bytes as they are."""
    response, received = await ask(gateway, method, path, who, body)
    return response.status, json.loads(received) if received else None


async def ask(
    gateway: RunningGateway, method: str, path: str, who: Principal | None = None, body: object = None
) -> tuple[aiohttp.ClientResponse, bytes]:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    fields = bearer(who) if who is not None else {}
    async with gateway.session.request(method, f"{gateway.url}{path}", headers=fields, data=data) as response:
        return response, await response.read()


def nested(depth: int) -> dict[str, Any]:
    """Objects in objects, so deep."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"deeper": value}
    return value
