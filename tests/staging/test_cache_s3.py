"""The cache in a bucket, with a real Swift."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.staging import cache_tidying
from gateway.staging.cache_names import location_of
from storage_plugins.s3.plugin import S3Storage
from tests.s3.swift import Swift
from tests.staging.stock import Stock
from tests.storage_plugins.test_s3_strict import read_all
from tests.storage_plugins.test_s3_swift import storage_at


@pytest.fixture
async def bucket_stock(stock: Stock, swift: Swift, bucket: str, tmp_path: Path) -> AsyncIterator[Stock]:
    storage = storage_at(swift, bucket, scratch=str(tmp_path / "scratch"))
    storage.name = "cache"
    yield Stock(stock.database, stock.connection, storage, tmp_path / "scratch")
    await storage.close()


async def test_copies_are_kept_evicted_and_missed(bucket_stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    stock, storage = bucket_stock, bucket_stock.storage
    assert isinstance(storage, S3Storage)
    cache = stock.cache(10_000)
    await cache.open()
    first, second = await stock.put(cache, 4000), await stock.put(cache, 5000)
    entry = await stock.entry(second)
    assert entry["location"].startswith(f"{storage.base}esa/")
    stat = await storage.stat(entry["location"])
    assert await read_all(await storage.stream(entry["location"], 0, 5000, stat.version)) == second.content
    third = await stock.put(cache, 4500)
    assert [await stock.state(one) for one in (first, second, third)] == ["EXPIRED", "RESTORED", "RESTORED"]
    monkeypatch.setattr(cache_tidying, "LEFT_SECONDS", -60.0)
    stray = location_of(f"{storage.base}esa/", 1, 10**9)
    (stock.root / "stray").write_bytes(b"x")
    await storage.keep(stock.root / "stray", stray)
    await storage.remove(entry["location"])
    await cache.upkeep()
    assert await stock.state(second) == "EXPIRED"
    (left,) = [page async for page in storage.kept(-60)]
    assert left == [(await stock.entry(third))["location"]]
    assert (await stock.used(), list(stock.root.iterdir())) == (4500, [])
    await cache.close()
