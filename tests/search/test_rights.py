"""A search shows each caller what the rules of rights say that he may see, and of it the files that he may have."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from gateway.db import Database
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.search.products import Order, ProductSearch
from gateway.search.query import Everything
from tests.rights.model import World
from tests.rights.test_predicate import POLICIES, callers, filled, worlds

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
_FILES = """
INSERT INTO files (product_id, asset_key, data_type, file_name, body)
SELECT product_id, kind, kind, 'n', '{}' FROM products, unnest(ARRAY['RAWDATA', 'THUMBNAIL']) kind
ON CONFLICT DO NOTHING"""


class OneConnection:
    """Runs what a `Database` would, on a connection in a transaction."""

    most = 1
    timeout = 5.0

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        yield self._connection


async def check(connection: asyncpg.Connection[Any], world: World, who: Principal) -> None:
    searching = ProductSearch(cast("Database", OneConnection(connection)), POLICIES, ["THUMBNAIL"])
    verdicts = {product.urn: world.verdict(who, product) for product in world.products}
    told = {urn: verdict for urn, verdict in verdicts.items() if verdict is not None}
    # Whether files may be had is asked of products that are seen.
    undecided = any(
        verdict.visible is None or (verdict.visible and verdict.downloadable is None) for verdict in told.values()
    )
    search = searching.find(who, Everything(), [Order("id")], 0, 100)
    if undecided:
        with pytest.raises(GatewayError) as refused:
            await search
        assert refused.value.status == 503
        return
    page = await search
    assert {product.urn: [file.data_type for file in product.files] for product in page.products} == {
        urn: ["RAWDATA", "THUMBNAIL"] if verdict.downloadable else ["THUMBNAIL"]
        for urn, verdict in told.items()
        if verdict.visible
    }
    assert page.total == len(page.products)


@pytest.mark.timeout(900 if FULL else 60)
def test_random_callers_find_what_random_rights_let_them_see(database: str) -> None:
    async def run(connection: asyncpg.Connection[Any], world: World, who: list[Principal]) -> None:
        async with filled(connection, world):
            await connection.execute(_FILES)
            for one in who:
                await check(connection, world, one)

    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database, timeout=10))

        @settings(
            max_examples=500 if FULL else 30,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(worlds, callers)
        def random_ones(world: World, who: list[Principal]) -> None:
            runner.run(run(connection, world, who))

        try:
            random_ones()
        finally:
            runner.run(connection.close(timeout=10))
