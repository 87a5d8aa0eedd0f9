"""The fixtures of conftest.py, which the tests of all other packages stand on."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import redis.asyncio

from gateway.db import SCHEMA_VERSION
from gateway.embedded import Services


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_its_own_database_with_the_schema(database: str, turn: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT version FROM schema_version") == SCHEMA_VERSION
        assert await connection.fetchval("SELECT count(*) FROM tenants") == 0
        await connection.execute("INSERT INTO tenants (name) VALUES ('ours')")
    finally:
        await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_redis(redis_url: str, turn: int) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("key", turn)


async def test_a_database_is_dropped_though_a_connection_is_left_open(
    request: pytest.FixtureRequest, services: Services, template_database: str
) -> None:
    left_open: list[asyncpg.Connection] = []

    def check() -> None:
        left_open[0].terminate()
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            asyncio.run(asyncpg.connect(database))

    request.addfinalizer(check)  # before the fixture's own, hence run after it
    database = request.getfixturevalue("database")  # from within a running loop, which is the harder way
    left_open.append(await asyncpg.connect(database))
    assert await left_open[0].fetchval("SELECT 1") == 1
