"""The cache in any order of events, with two processes, deaths, a full disk and an operator who meddles.

Whatever happens it never has more bytes than it may, nobody reads what is not whole, and nothing is left in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.staging import cache_tidying
from gateway.staging.cache import Cache, Kept
from gateway.staging.pins import Readers
from gateway.storage import CopyBrokenError, StorageError
from tests.staging.stock import Stock, Wanted, stock_of

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
SEEDS, STEPS = (range(60), 150) if FULL else (range(4), 60)
LIMIT = 10_000
_STATE = "SELECT state FROM restores WHERE restore_id = $1"


class _DeathError(BaseException):
    """The process is gone: nothing of its own cleaning up happens."""


class World:
    """The cache as two processes have it, and what is known of it."""

    def __init__(self, stock: Stock, chance: random.Random) -> None:
        self.stock = stock
        self.chance = chance
        self.caches = [stock.cache(LIMIT), stock.cache(LIMIT)]
        self.wanted: list[Wanted] = []
        self.filled: dict[int, Kept] = {}
        self.harmed: set[str] = set()
        """Locations where the operator meddled."""

    @property
    def cache(self) -> Cache:
        return self.chance.choice(self.caches)

    def some(self, most: int = 3) -> Sequence[Wanted]:
        return self.chance.sample(self.wanted, min(len(self.wanted), self.chance.randint(1, most)))

    async def ask(self) -> None:
        for _ in range(self.chance.randint(1, 4)):
            self.wanted.append(await self.stock.restore(self.chance.choice((0, 1, 900, 1700, 3100, 6000, 12_000))))

    async def reserve(self) -> None:
        await self.cache.reserve([one.room for one in self.some(6)])

    async def fill(self) -> None:
        for one in self.some():
            with contextlib.suppress(StorageError):
                self.filled[one.room.restore_id] = await self.stock.fill(self.cache, one)

    async def fill_in_vain(self) -> None:
        for one in self.some(2):
            wrong = self.chance.choice((b"", one.content[:-1], one.content + b"x", bytes(len(one.content))))
            if wrong == one.content:
                continue
            with pytest.raises(StorageError) as caught:
                await self.stock.fill(self.cache, one, wrong)
            assert isinstance(caught.value, CopyBrokenError) or "no room" in str(caught.value)

    async def fill_a_full_disk(self) -> None:
        async def fetch(path: Path) -> None:
            path.write_bytes(b"x")
            raise OSError(errno.ENOSPC, "full")

        for one in self.some(1):
            with pytest.raises(StorageError):
                await self.cache.fill(one.room.restore_id, one.sha256, "SHA-256", fetch)

    async def die(self) -> None:
        """In the middle of a fill, or just after it."""
        cache, late = self.cache, self.chance.random() < 0.5
        keep, undo = self.stock.storage.keep, cache._filling._leave_nothing

        async def fetch(path: Path) -> None:
            path.write_bytes(one.content if late else one.content[: len(one.content) // 2])
            if not late:
                raise _DeathError

        async def kept_and_gone(file: Path, location: str) -> None:
            await keep(file, location)
            raise _DeathError

        async def nothing(*_: object, **__: object) -> None: ...

        for one in self.some(1):
            with pytest.MonkeyPatch.context() as patched, contextlib.suppress(_DeathError, StorageError):
                patched.setattr(cache._filling, "_leave_nothing", nothing)
                patched.setattr(self.stock.storage, "keep", kept_and_gone)
                await cache.fill(one.room.restore_id, one.sha256, "SHA-256", fetch)
        assert cache._filling._leave_nothing == undo

    async def die_while_removing(self) -> None:
        cache = self.cache

        async def gone(_: object) -> None:
            raise _DeathError

        with pytest.MonkeyPatch.context() as patched, contextlib.suppress(_DeathError):
            patched.setattr(cache._rows, "removed", gone)
            await cache.upkeep()

    async def finish(self) -> None:
        for one in self.wanted:
            if one.room.restore_id in self.filled and self.chance.random() < 0.8:
                await self.stock.finish(one, self.filled.pop(one.room.restore_id), self.chance.choice((24, 24, -1)))

    async def give_back(self) -> None:
        ids = [one.room.restore_id for one in self.some()]
        if self.chance.random() < 0.7:  # A worker ends the restores, and may die before it says so.
            await self.stock.connection.execute(
                "UPDATE restores SET state = 'CANCELED', ended_at = now() "
                "WHERE restore_id = ANY ($1) AND ended_at IS NULL",
                ids,
            )
        else:  # Or he gives back what failed and is to be tried again.
            ids = [one for one in ids if await self.stock.connection.fetchval(_STATE, one) == "STAGING"]
        if self.chance.random() < 0.7:
            await self.cache.give_back(ids)

    async def read(self) -> None:
        rows = await self.stock.connection.fetch("SELECT location FROM cache_entries")
        if rows:
            await self.readers._pin([self.chance.choice(rows)["location"]])

    async def order(self) -> None:
        for one in self.some():
            await self.stock.pin(one, self.chance.choice(("PENDING", "AVAILABLE", "DOWNLOADED")))

    async def downloaded(self) -> None:
        await self.stock.connection.execute("UPDATE order_files SET state = 'DOWNLOADED'")

    async def pass_time(self) -> None:
        """Leases and pins of readers end."""
        await self.stock.connection.execute(
            "UPDATE cache_entries SET read_until = now(), created_at = created_at - interval '1 hour'"
        )

    async def meddle(self) -> None:
        files = [name for name in self.stock.files() if not name.startswith(".scratch")]
        if files:
            path = self.stock.root / (name := self.chance.choice(files))
            self.harmed.add(name)
            if self.chance.random() < 0.5:
                path.unlink()
            else:
                os.truncate(path, path.stat().st_size // 2)

    async def ingest(self) -> None:
        one = self.some(1)
        if one:
            await self.stock.connection.execute(
                "DELETE FROM copies WHERE entry_id IS NOT NULL AND file_id = $1", one[0].room.file_id
            )

    async def upkeep(self) -> None:
        await self.cache.upkeep()

    async def step(self) -> None:
        """One thing, or several at once."""
        things: list[Callable[[], Awaitable[None]]] = [
            self.ask, self.reserve, self.reserve, self.fill, self.fill, self.finish, self.finish, self.give_back,
            self.read, self.order, self.downloaded, self.pass_time, self.upkeep, self.ingest, self.fill_in_vain,
        ]  # fmt: skip
        alone = (self.die, self.die_while_removing, self.meddle, self.fill_a_full_disk)
        if self.chance.random() < 0.2:
            await self.chance.choice(alone)()
        elif self.chance.random() < 0.5:
            await self.chance.choice(things)()
        else:
            together = [self.reserve(), self.reserve(), self.fill(), self.caches[0].upkeep(), self.caches[1].upkeep()]
            await asyncio.gather(*self.chance.sample(together, 3), *[])
            for unused in together:
                unused.close()

    async def look(self) -> None:
        """What must hold at any time."""
        rows = await self.stock.connection.fetch(
            """SELECT c.used, e.state, e.location, e.size, e.entry_id, f.checksum, p.version
               FROM caches c LEFT JOIN cache_entries e ON e.cache = c.name LEFT JOIN files f USING (file_id)
               LEFT JOIN copies p USING (entry_id)"""
        )
        used, entries = rows[0]["used"], [row for row in rows if row["entry_id"] is not None]
        assert used == sum(row["size"] for row in entries) <= LIMIT
        for row in entries:
            assert row["version"] is None or row["state"] == "READY"
            if row["version"] is not None and row["location"] not in self.harmed:
                content = (self.stock.root / row["location"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == row["checksum"]
                assert (await self.stock.storage.stat(row["location"])).version == row["version"]
        orphans = await self.stock.connection.fetchval(
            "SELECT count(*) FROM copies c WHERE entry_id IS NOT NULL AND NOT EXISTS "
            "(SELECT FROM cache_entries e WHERE e.entry_id = c.entry_id)"
        )
        assert orphans == 0
        kept = {name: size for name, size in self.stock.files().items() if not name.startswith(".scratch")}
        assert sum(kept.values()) <= LIMIT
        assert kept.keys() <= {row["location"] for row in entries}

    async def end(self) -> None:
        """After some upkeep all that is there is whole; and nothing is left once all is given back."""
        for _ in range(2):
            await self.pass_time()
            await self.cache.upkeep()
        rows = await self.stock.connection.fetch("SELECT location, size FROM cache_entries WHERE state = 'READY'")
        ready = {row["location"]: row["size"] for row in rows}
        found = {name: size for name, size in self.stock.files().items() if name in ready}
        assert found == ready
        assert await self.stock.copies() == len(ready)
        states = await self.stock.connection.fetch("SELECT restore_id FROM restores WHERE state = 'RESTORED'")
        entries = await self.stock.entries()
        assert {row["restore_id"] for row in states} == {one for one, state in entries.items() if state == "READY"}
        await self.cache.give_back([one.room.restore_id for one in self.wanted])
        await self.pass_time()
        await self.cache.upkeep()
        assert (self.stock.files(), await self.stock.used(), await self.stock.entries()) == ({}, 0, {})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.readers = Readers(self.stock.database, "cache")
        yield
        for cache in self.caches:
            await cache.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_sequence(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(cache_tidying, "SWEEP_SECONDS", 0.0)
    monkeypatch.setattr(cache_tidying, "LEFT_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    async with stock_of(database, tmp_path / "cache") as stock:
        world = World(stock, random.Random(seed))
        async with world.running():
            await world.ask()
            for _ in range(STEPS):
                with contextlib.suppress(GatewayError):
                    await world.step()
                await world.look()
            await world.end()
