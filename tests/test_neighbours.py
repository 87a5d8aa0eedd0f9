"""What a download costs PostgreSQL and Redis, and what happens without them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.config import Config
from tests.harness import SCIENTIST, Entry, RunningGateway, bearer, config_for, running_gateway
from tests.proxy import CountingProxy, counting_proxy
from tests.quotas.holders import until

LARGE = random.Random(4).randbytes(64 * 1024 * 1024)


def _soon(config: Config) -> Config:
    """``config``, with a PostgreSQL that is not waited for long."""
    return config.model_copy(update={"database": config.database.model_copy(update={"timeout": 3})})


@pytest.fixture
async def proxied(
    database: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[tuple[RunningGateway, CountingProxy, CountingProxy]]:
    root = tmp_path / "archive"
    root.mkdir()
    async with (
        counting_proxy(database) as (postgres, dsn),
        counting_proxy(redis_url) as (redis, url),
        running_gateway(_soon(config_for(dsn, url, root)), root) as running,
    ):
        await running.catalogue.grant("restricted", await running.catalogue.group("science"))
        yield running, postgres, redis


@pytest.mark.usefixtures("no_background")
async def test_one_round_trip_each_before_the_first_byte(
    proxied: tuple[RunningGateway, CountingProxy, CountingProxy],
) -> None:
    gateway, postgres, redis = proxied
    entries = [await gateway.catalogue.file(b"%d" % number * 70_000, item=f"item-{number}") for number in range(12)]
    # The first makes the tenant and the caller's counters known to the process and to Redis.
    assert (await gateway.get(entries[0].stac, SCIENTIST))[0].status == 200
    for entry in entries[1:]:
        for path in (entry.stac, entry.regards):
            await asyncio.sleep(0.01)
            before = postgres.round_trips, redis.round_trips
            async with gateway.session.get(f"{gateway.url}{path}", headers=bearer(SCIENTIST)) as response:
                assert response.status == 200
                assert await response.read() == entry.content
            await asyncio.sleep(0.01)
            # Redis: the reservation before the first byte, the settlement after the last.
            assert (postgres.round_trips - before[0], redis.round_trips - before[1]) == (1, 2), path


@pytest.mark.usefixtures("no_background")
async def test_no_connection_is_held_while_bytes_flow(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path).model_copy(deep=True)
    small = config.model_copy(
        update={
            "database": config.database.model_copy(update={"pool_size": 1}),
            "redis": config.redis.model_copy(update={"pool_size": 1}),
        }
    )
    async with running_gateway(small, tmp_path) as gateway, contextlib.AsyncExitStack() as stack:
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group("science"))
        entry = await gateway.catalogue.file(LARGE)
        running = [
            await stack.enter_async_context(
                gateway.session.get(f"{gateway.url}{entry.stac}", headers=bearer(SCIENTIST))
            )
            for _ in range(5)
        ]
        assert [response.status for response in running] == [200] * 5
        assert (
            await gateway.catalogue.connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'download-gateway' AND state <> 'idle' "
                "AND datname = current_database()"
            )
            == 0
        )
        assert (await gateway.request("HEAD", entry.stac, SCIENTIST))[0].status == 200
        for response in running:
            assert await response.read() == LARGE


async def test_without_postgresql_the_answer_is_503_and_it_heals(
    proxied: tuple[RunningGateway, CountingProxy, CountingProxy], database: str
) -> None:
    gateway, postgres, _ = proxied
    entry = await gateway.catalogue.file(b"content")
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("BEGIN; LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        response, body = await gateway.get(entry.stac, SCIENTIST)
        assert time.monotonic() - started < 9
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert b"products" not in body
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    postgres.cut()
    statuses = [(await gateway.get(entry.stac, SCIENTIST))[0].status for _ in range(20)]
    assert set(statuses) <= {200, 503}
    assert statuses[-1] == 200


async def test_without_redis_the_answer_is_503_never_a_free_download(
    proxied: tuple[RunningGateway, CountingProxy, CountingProxy],
) -> None:
    gateway, _, redis = proxied
    entry = await gateway.catalogue.file(b"content")
    free = await gateway.catalogue.file(b"text", asset="text", data_type="DOCUMENT")

    redis.shut = True
    redis.cut()
    started = time.monotonic()
    response, body = await gateway.get(entry.stac, SCIENTIST)
    assert time.monotonic() - started < 5
    assert response.status == 503
    assert b"content" not in body
    assert int(response.headers["Retry-After"]) > 0
    assert (await gateway.get(free.stac, SCIENTIST))[0].status == 200
    health, _ = await gateway.get("/health")
    assert health.status == 503
    assert "redis" in (await health.json())["reasons"]
    redis.shut = False
    await until(lambda: _is_served(gateway, entry), "it is served again")
    # What the lost reservation may have left is given back.
    assert await gateway.usage(SCIENTIST) == (1, len(entry.content))


async def _is_served(gateway: RunningGateway, entry: Entry) -> bool:
    status = (await gateway.get(entry.stac, SCIENTIST))[0].status
    assert status in (200, 503)
    return status == 200
