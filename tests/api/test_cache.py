"""REGARDS' question how full the cache of restored copies is."""

from __future__ import annotations

from pathlib import Path

from tests.api.support import EXPLOIT, USER, call
from tests.harness import RunningGateway, config_for, running_gateway


async def test_it_tells_size_and_use(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path, staging={"cache": "disk", "cache_size": 1000})
    async with running_gateway(config, tmp_path) as gateway:
        status, body = await call(gateway, "GET", "/cache", EXPLOIT)
        assert (status, body) == (200, {"sizeLimitInBytes": 1000, "occupedSizeInBytes": 0})
        await gateway.catalogue.connection.execute(
            "INSERT INTO caches (name, used) VALUES ('disk', 700), ('other', 1) "
            "ON CONFLICT (name) DO UPDATE SET used = EXCLUDED.used"
        )
        status, body = await call(gateway, "GET", "/cache", EXPLOIT)
        assert (status, body) == (200, {"sizeLimitInBytes": 1000, "occupedSizeInBytes": 700})


async def test_without_a_cache_there_is_no_room(gateway: RunningGateway) -> None:
    status, body = await call(gateway, "GET", "/cache", EXPLOIT)
    assert (status, body) == (200, {"sizeLimitInBytes": 0, "occupedSizeInBytes": 0})
    status, _ = await call(gateway, "GET", "/cache", USER)
    assert status == 403
