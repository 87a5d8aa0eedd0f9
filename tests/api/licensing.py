"""Licences that tests make, and what they ask of them."""

from __future__ import annotations

from typing import Any

import aiohttp
import asyncpg

from gateway.identity.principal import Principal
from tests.harness import RunningGateway

LICENCE = "https://example.org/licence"
OF_TENANT = "https://example.org/terms"


async def tenant_licence(gateway: RunningGateway, *, public: bool = False, tenant: str = "esa") -> int:
    made = gateway.catalogue
    licence: int = await made.connection.fetchval(
        "INSERT INTO licences (tenant_id, name, url, title, is_public) VALUES ($1, 'terms', $2, 'Terms', $3) "
        "RETURNING licence_id",
        await made.tenant(tenant),
        OF_TENANT,
        public,
    )
    await made.connection.execute("UPDATE tenants SET licence_id = $1 WHERE name = $2", licence, tenant)
    return licence


async def acceptances(gateway: RunningGateway) -> list[asyncpg.Record]:
    return await gateway.catalogue.connection.fetch("SELECT * FROM licence_acceptances ORDER BY accepted_at")


async def send(
    gateway: RunningGateway, method: str, path: str, who: Principal | None, **fields: str
) -> tuple[aiohttp.ClientResponse, Any]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    response, body = await gateway.request(method, path, who, **headers)
    return response, (await response.json() if body and "json" in response.content_type else body)
