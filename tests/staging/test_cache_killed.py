"""Processes that fill the cache are killed at any moment: nothing is above its bound, half there or left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from pathlib import Path

import pytest

from gateway.staging import cache_tidying
from tests.staging.stock import Stock

KILLS = 50 if os.environ.get("GATEWAY_TEST_FULL") else 3
SIZE = 12_000
ROOT = Path(__file__).parents[2]


async def test_killed_fills(database: str, stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_tidying, "SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(cache_tidying, "LEFT_SECONDS", 0.0)
    cache = stock.cache(SIZE)
    left = [await _start(database, stock.root), await _start(database, stock.root)]
    try:
        for number in range(KILLS):
            await asyncio.sleep(random.uniform(0.05, 0.3))
            victim = left.pop(0)
            victim.kill()
            await victim.wait()
            await _look(stock)
            if number < KILLS - 2:
                left.append(await _start(database, stock.root))
    finally:
        for process in left:
            process.kill()
            await process.wait()
    await stock.connection.execute("UPDATE cache_entries SET read_until = now()")
    await stock.connection.execute(
        "UPDATE restores SET state = 'CANCELED', ended_at = now() WHERE state IN ('QUEUED', 'STAGING')"
    )
    await stock.connection.execute("UPDATE cache_entries SET created_at = now() - interval '1 hour'")
    await cache.upkeep()
    await _look(stock)
    entries = await stock.connection.fetch("SELECT location, size, state FROM cache_entries")
    assert stock.files() == {row["location"]: row["size"] for row in entries}
    assert {row["state"] for row in entries} == {"READY"}
    assert await stock.copies() == len(entries) > 0
    await cache.close()


async def _start(dsn: str, root: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.staging.filler",
        dsn,
        str(root),
        str(SIZE),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
    return process


async def _look(stock: Stock) -> None:
    row = await stock.connection.fetchrow(
        "SELECT used, (SELECT coalesce(sum(size), 0) FROM cache_entries) FROM caches WHERE name = 'cache'"
    )
    assert row is not None
    used, total = row
    assert used == total <= SIZE
    rows = await stock.connection.fetch(
        "SELECT c.copy_id, c.location, f.checksum FROM copies c JOIN files f USING (file_id) "
        "WHERE c.entry_id IS NOT NULL"
    )
    for row in rows:
        try:
            content = (stock.root / row["location"]).read_bytes()
        except FileNotFoundError:
            # Another process evicts all the while.
            gone = await stock.connection.fetchval("SELECT count(*) FROM copies WHERE copy_id = $1", row["copy_id"])
            assert gone == 0
        else:
            assert hashlib.sha256(content).hexdigest() == row["checksum"]
