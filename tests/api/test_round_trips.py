"""How long an answer takes tells nothing either: what others have costs PostgreSQL as much as what is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.api.openapi import routes_of
from gateway.app import create_app
from tests.api.matrix import Row, rows
from tests.api.stage import Stage, running_stage
from tests.proxy import CountingProxy, counting_proxy

OF_USERS = {"/me/keys/{id}", "/links/{id}"}
OF_TENANTS = {
    "/downloads/{aip_id}/files/{checksum}",
    "/collections/{collectionId}/items/{itemId}/download/{assetId}",
}


@pytest.fixture
async def counted(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[tuple[Stage, CountingProxy]]:
    async with counting_proxy(database) as (proxy, dsn), running_stage(dsn, redis_url, tmp_path) as stage:
        yield stage, proxy


async def trips(stage: Stage, proxy: CountingProxy, row: Row, caller: str, *, missing: bool) -> int:
    """Round trips of one request, which is 404."""
    parts = (stage.missing if missing else stage.parts) | row.own(missing=missing)
    before = proxy.round_trips
    assert (await stage.ask(row, caller, parts)).status == 404, (row, caller, missing)
    return proxy.round_trips - before


@pytest.mark.usefixtures("no_background")
@pytest.mark.parametrize(
    ("caller", "least"),
    [("B", OF_USERS), ("C", OF_USERS | OF_TENANTS), ("far", OF_USERS | OF_TENANTS | {"/admin/keys/{id}"})],
)
async def test_what_others_have_takes_as_many_round_trips_as_what_is_not_there(
    counted: tuple[Stage, CountingProxy], caller: str, least: set[str]
) -> None:
    stage, proxy = counted
    asked = [row for row in rows() if row.names and row.statuses[caller] == 404]
    headed = {route.path for route in routes_of(create_app(stage.gateway.config)) if route.method == "HEAD"}
    asked += [Row("HEAD", row.path, row.statuses) for row in asked if row.method == "GET" and row.path in headed]
    assert least <= {row.path for row in asked}
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for row in asked:
        # The first request prepares statements on the connection.
        await trips(stage, proxy, row, caller, missing=False)
        present = await trips(stage, proxy, row, caller, missing=False)
        found[row.method, row.path] = present, await trips(stage, proxy, row, caller, missing=True)
    assert {key: counts for key, counts in found.items() if counts[0] != counts[1]} == {}
    # Another tenant's root is known by its name.
    assert all(counts[0] > 0 for (_, path), counts in found.items() if "{tenant}" not in path)
