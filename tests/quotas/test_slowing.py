"""Soft limits: who is over one is slowed down, not refused."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from gateway.quotas.limits import Rule
from tests.harness import SCIENCE, SCIENTIST, RunningGateway, config_for, running_gateway

RATE = 200_000


async def prepared(gateway: RunningGateway) -> None:
    await gateway.catalogue.grant("restricted", await gateway.catalogue.group(SCIENCE))
    assert SCIENTIST.email is not None
    await gateway.catalogue.rule(Rule("user", SCIENTIST.email, False, "bytes", "day", 1000, slow_rate=RATE))


async def test_downloads_over_a_soft_limit_share_its_rate(database: str, redis_url: str, tmp_path: Path) -> None:
    async with running_gateway(config_for(database, redis_url, tmp_path), tmp_path) as gateway:
        await prepared(gateway)
        small = await gateway.catalogue.file(b"s" * 500, item="small")
        large = [await gateway.catalogue.file(bytes([number]) * 100_000, item=f"{number}") for number in range(2)]
        response, _ = await gateway.get(small.stac, SCIENTIST)
        assert response.headers["RateLimit"].startswith('"user-bytes-day";r=500')

        began = time.monotonic()
        answers = await asyncio.gather(*(gateway.get(entry.stac, SCIENTIST) for entry in large))
        elapsed = time.monotonic() - began
        for entry, (answer, body) in zip(large, answers, strict=True):
            assert (answer.status, body) == (200, entry.content)
        # Both together at the rate, but for what may leave at once; how much slower is the machine's business.
        assert elapsed > (200_000 - RATE / 4) / RATE * 0.95
        assert await gateway.usage(SCIENTIST) == (3, 200_500)
        assert "r=0" in answers[0][0].headers["RateLimit"]


async def test_processes_share_the_rate_of_an_account(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path, quotas={"lease_ttl": 3})
    async with running_gateway(config, tmp_path) as one, running_gateway(config, tmp_path) as other:
        await prepared(one)
        entries = [await one.catalogue.file(bytes([number]) * 600_000, item=f"{number}") for number in range(2)]
        began = time.monotonic()
        answers = await asyncio.gather(one.get(entries[0].stac, SCIENTIST), other.get(entries[1].stac, SCIENTIST))
        elapsed = time.monotonic() - began
        assert [answer.status for answer, _ in answers] == [200, 200]
        # Each begins with all of the rate, and has its half as of its first heartbeat, after a second or so.
        assert elapsed > 1_200_000 / (2 * RATE) * 1.2
