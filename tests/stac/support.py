"""Searching a real PostgreSQL, without a server before it."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from gateway.config import Database, Rights
from gateway.db import connect
from gateway.rights.policies import Policies, open_policies
from gateway.stac.model import Box
from gateway.stac.searching import Bounds, Searching, searching
from tests.harness import TENANT, Catalogue

BEGIN = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


@contextlib.asynccontextmanager
async def opened(
    dsn: str,
    rights: Rights | None = None,
    policies: Policies | None = None,
    *,
    bounds: Bounds | None = None,
    timeout: float = 10,
    pool_size: int = 4,
) -> AsyncIterator[Searching]:
    settings = Database.model_validate({"dsn": dsn, "timeout": timeout, "pool_size": pool_size})
    async with (
        connect(settings, ()) as database,
        open_policies([]) as built_in,
        searching(database, policies or built_in, rights or Rights(), bounds=bounds or Bounds()) as found,
    ):
        yield found


async def item(
    made: Catalogue,
    collection: str,
    name: str,
    *,
    hour: float | None = 0,
    box: Box | None = None,
    geometry: Mapping[str, Any] | None = None,
    properties: Mapping[str, Any] | None = None,
    score: float | None = None,
    tenant: str = TENANT,
) -> int:
    """Write an item without files; gives its number."""
    start = None if hour is None else BEGIN + datetime.timedelta(hours=hour)
    number: int = await made.connection.fetchval(
        "INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, geometry, west, south, east, "
        "north, start_datetime, end_datetime, body, quality_score) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, '{}', $12) RETURNING product_id",
        await made.tenant(tenant),
        await made.dataset(collection, tenant=tenant),
        f"URN:FEATURE:DATA:{tenant}:{collection}-{name}:V1",
        name,
        json.dumps(properties or {}),
        None if geometry is None else json.dumps(geometry),
        *(box or (None,) * 4),
        start,
        score,
    )
    return number
