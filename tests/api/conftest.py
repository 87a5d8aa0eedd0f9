"""What tests of the API stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.ops import audit
from tests.harness import FAR, SCIENCE, RunningGateway, config_for, running_gateway
from tests.stac.doors import Doors


@pytest.fixture
async def every_way(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """Storages ``disk`` (streams), ``far`` (redirects) and ``proxied`` (for a proxy in front, which the client is)."""
    proxied = {"delivery": "accel", "offload": "X-Accel-Redirect", "offload_prefix": "/_archive"}
    local = {"plugin": "local", "tenants": ["*"], "root": str(tmp_path)}
    config = config_for(
        database,
        redis_url,
        tmp_path,
        server={"port": 0, "shutdown_timeout": 1, "trusted_proxies": ["127.0.0.1"]},
        storage=[{"name": "disk", **local}, {"name": "proxied", **local, **proxied}, FAR],
    )
    async with running_gateway(config, tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of downloads are written soon after the answer."""
    monkeypatch.setattr(audit, "GATHER_SECONDS", 0.02)


@pytest.fixture
def doors(database: str, redis_url: str, tmp_path: Path) -> Doors:
    return Doors(database, redis_url, tmp_path)
