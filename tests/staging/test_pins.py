"""Pins of what is read."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator

import pytest

from gateway.db import Database
from gateway.errors import unavailable
from gateway.staging import pins
from gateway.staging.cache import Cache
from gateway.staging.pins import Readers
from tests.staging.stock import Stock, Wanted


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "GATHER_SECONDS", 0.01)


@pytest.fixture
async def cache(stock: Stock) -> AsyncIterator[Cache]:
    cache = stock.cache(10_000)
    yield cache
    await cache.close()


async def pinned_until(stock: Stock, wanted: Wanted) -> datetime.datetime | None:
    found: datetime.datetime | None = (await stock.entry(wanted))["read_until"]
    return found


async def until_later(stock: Stock, wanted: Wanted, than: datetime.datetime | None) -> datetime.datetime:
    async with asyncio.timeout(30):
        while (found := await pinned_until(stock, wanted)) is None or found == than:
            await asyncio.sleep(0.01)
    return found


async def test_a_pin_is_renewed_while_somebody_reads(
    stock: Stock, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "RENEW_SECONDS", 0.05)
    read, other = await stock.put(cache), await stock.put(cache)
    location = (await stock.entry(read))["location"]
    async with Readers(stock.database, "cache") as readers:
        with readers.reading("cache", location), readers.reading("cache", location):
            first = await until_later(stock, read, None)
            again = await until_later(stock, read, first)
            assert again > first
        assert readers._reading == {}
    assert await pinned_until(stock, other) is None
    (row,) = await stock.connection.fetch(
        "SELECT used_at > created_at AS used FROM cache_entries WHERE read_until > now()"
    )
    assert row["used"]


async def test_who_was_sent_to_the_storage_is_a_reader_for_a_while(stock: Stock, cache: Cache) -> None:
    read = await stock.put(cache)
    now = 0.0
    async with Readers(stock.database, "cache", lambda: now) as readers:
        readers.handed_over("cache", (await stock.entry(read))["location"], 60)
        await until_later(stock, read, None)
        now = 61.0
        readers.handed_over("cache", "other", 60)
        async with asyncio.timeout(30):
            while set(readers._handed_over) != {"other"}:
                await asyncio.sleep(0.01)


async def test_other_storages_are_nobodys_business(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Readers, "_pin", never)
    for name in ("cache", None):
        async with Readers(stock.database, name) as readers:
            with readers.reading("disk", "a"):
                readers.handed_over("disk", "a", 60)
                assert (readers._reading, readers._handed_over, readers._new) == ({}, {}, set())


async def test_without_postgresql_it_is_written_down_later(
    stock: Stock, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "RENEW_SECONDS", 0.05)
    read, failed, fetch = await stock.put(cache), asyncio.Event(), Database.fetch

    async def down(*_: object) -> None:
        failed.set()
        raise unavailable("PostgreSQL is away")

    async with Readers(stock.database, "cache") as readers:
        with monkeypatch.context() as patched:
            patched.setattr(Database, "fetch", down)
            readers.handed_over("cache", (await stock.connection.fetchval("SELECT location FROM cache_entries")), 60)
            await failed.wait()
        assert Database.fetch is fetch
        await until_later(stock, read, None)


async def test_a_fill_is_not_taken_for_read(stock: Stock, cache: Cache) -> None:
    wanted = await stock.restore()
    await cache.reserve([wanted.room])
    readers = Readers(stock.database, "cache")
    await readers._pin([(await stock.entry(wanted))["location"]])
    assert await pinned_until(stock, wanted) is None
