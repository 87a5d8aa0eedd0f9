"""What the cache of restored copies promises, case by case; `test_cache_model` does so in any order."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.staging import cache_filling, cache_tidying
from gateway.staging.cache import Cache, CacheFullError
from gateway.staging.cache_names import is_entry, lease_of, location_of, prefix_of
from gateway.staging.pins import Readers
from gateway.storage import CopyBrokenError, CopyUnavailableError
from storage_plugins.local import LocalStorage
from tests.staging.stock import Stock, stock_of, writing
from tests.storage_plugins.support import until


@pytest.fixture
async def cache(stock: Stock) -> AsyncIterator[Cache]:
    """One with room for 10 entries of the usual size."""
    cache = stock.cache(10_000)
    yield cache
    await cache.close()


class TestRoom:
    async def test_what_has_room_has_it_once(self, stock: Stock, cache: Cache) -> None:
        rooms = [(await stock.restore(4000)).room for _ in range(3)]
        first = {rooms[0].restore_id, rooms[1].restore_id}
        assert await cache.reserve(rooms) == first
        assert await cache.reserve(rooms) == first
        assert await cache.reserve([*rooms, *rooms]) == first
        assert await stock.used() == 8000

    async def test_a_smaller_one_gets_what_a_larger_one_cannot(self, stock: Stock, cache: Cache) -> None:
        held = await stock.restore(6000)
        large, small = await stock.restore(5000), await stock.restore(4000)
        assert await cache.reserve([held.room]) == {held.room.restore_id}
        assert await cache.reserve([large.room, small.room]) == {small.room.restore_id}

    async def test_what_never_fits_evicts_nothing(self, stock: Stock, cache: Cache) -> None:
        kept = [await stock.put(cache, 5000) for _ in range(2)]
        huge = await stock.restore(10_001)
        assert not cache.can_hold(huge.room)
        assert await cache.reserve([huge.room]) == set()
        assert [await stock.state(one) for one in kept] == ["RESTORED", "RESTORED"]

    async def test_nothing_is_evicted_in_vain(self, stock: Stock, cache: Cache) -> None:
        kept, filling = await stock.put(cache, 5000), await stock.restore(5000)
        await cache.reserve([filling.room])
        assert await cache.reserve([(await stock.restore(6000)).room]) == set()
        assert await stock.state(kept) == "RESTORED"

    async def test_a_tenant_that_its_storage_is_not_for_gets_none(self, stock: Stock) -> None:
        cache = stock.cache(10_000, tenants=frozenset({"other"}))
        assert await cache.reserve([(await stock.restore()).room]) == set()
        await cache.close()

    async def test_many_at_once_from_two_processes_never_get_more_than_there_is(self, stock: Stock) -> None:
        caches = [stock.cache(10_000), stock.cache(10_000)]
        rooms = [(await stock.restore(900)).room for _ in range(30)]
        asked = [caches[number % 2].reserve(rooms[number : number + 5]) for number in range(0, 30, 5)]
        found = set().union(*await asyncio.gather(*asked))
        assert len(found) == 11
        assert await stock.used() == 9900
        for cache in caches:
            await cache.close()


class TestEviction:
    async def test_what_was_not_used_for_longest_goes(self, stock: Stock, cache: Cache) -> None:
        kept = [await stock.put(cache, 3000) for _ in range(3)]
        async with Readers(stock.database, "cache") as readers:
            with readers.reading("cache", (await stock.entry(kept[0]))["location"]):
                await until_pinned(stock)
        await stock.connection.execute("UPDATE cache_entries SET read_until = now()")
        path = await stock.path(kept[1])
        new = await stock.restore(3000)
        assert await cache.reserve([new.room]) == {new.room.restore_id}
        assert [await stock.state(one) for one in kept] == ["RESTORED", "EXPIRED", "RESTORED"]
        assert not path.exists()
        assert (await stock.used(), await stock.copies()) == (9000, 2)
        row = await stock.connection.fetchrow(
            "SELECT ended_at, expires_at, expires_at <= now() AS over FROM restores WHERE state = 'EXPIRED'"
        )
        assert row is not None
        assert row["ended_at"] == row["expires_at"]
        assert row["over"]

    async def test_what_has_expired_goes_first(self, stock: Stock, cache: Cache) -> None:
        kept = [await stock.put(cache, 3000, hours) for hours in (24, 24, -1)]
        assert len(await cache.reserve([(await stock.restore(3000)).room])) == 1
        assert [await stock.state(one) for one in kept] == ["RESTORED", "RESTORED", "EXPIRED"]

    async def test_room_for_many_is_made_at_once(self, stock: Stock, cache: Cache) -> None:
        for _ in range(10):
            await stock.put(cache)
        assert len(await cache.reserve([(await stock.restore()).room for _ in range(9)])) == 9
        assert await stock.copies() == 1

    @pytest.mark.parametrize(("state", "stays"), [("AVAILABLE", True), ("PENDING", True), ("DOWNLOADED", False)])
    async def test_what_an_order_waits_for_stays(self, stock: Stock, cache: Cache, state: str, *, stays: bool) -> None:
        await stock.pin(kept := await stock.put(cache, 10_000), state)
        assert (await cache.reserve([(await stock.restore()).room]) == set()) is stays
        assert (await stock.state(kept) == "RESTORED") is stays

    async def test_a_pin_of_an_order_ends(self, stock: Stock, cache: Cache) -> None:
        await stock.pin(await stock.put(cache, 10_000), seconds=-1)
        assert await cache.reserve([(await stock.restore()).room])

    async def test_what_is_read_stays(self, stock: Stock, cache: Cache) -> None:
        kept = await stock.put(cache, 10_000)
        async with Readers(stock.database, "cache") as readers:
            with readers.reading("cache", (await stock.entry(kept))["location"]):
                await until_pinned(stock)
                assert await cache.reserve([(await stock.restore()).room]) == set()
                assert await stock.state(kept) == "RESTORED"
        await stock.connection.execute("UPDATE cache_entries SET read_until = now()")
        assert await cache.reserve([(await stock.restore()).room])

    async def test_a_file_that_is_given_back_while_it_is_read_counts_until_it_is_gone(
        self, stock: Stock, cache: Cache
    ) -> None:
        kept = await stock.put(cache, 10_000)
        await stock.connection.execute("UPDATE cache_entries SET read_until = now() + interval '1 hour'")
        await cache.give_back([kept.room.restore_id])
        assert await stock.copies() == 0
        assert (await stock.used(), len(stock.files())) == (10_000, 1)
        await stock.connection.execute("UPDATE cache_entries SET read_until = now()")
        await cache.upkeep()
        assert (await stock.used(), len(stock.files())) == (0, 0)

    async def test_a_copy_that_an_ingest_has_in_hand_holds_nobody_up(self, stock: Stock, cache: Cache) -> None:
        kept = [await stock.put(cache, 5000) for _ in range(2)]
        async with stock.database.transaction() as other:
            await other.execute(
                "SELECT FROM copies WHERE file_id = $1 AND entry_id IS NOT NULL FOR UPDATE", kept[0].room.file_id
            )
            async with asyncio.timeout(20):
                await cache.reserve([(await stock.restore(5000)).room])
        assert await stock.state(kept[0]) == "RESTORED"

    async def test_a_cache_that_is_smaller_now_shrinks(self, stock: Stock, cache: Cache) -> None:
        for _ in range(10):
            await stock.put(cache)
        smaller, smallest = stock.cache(4500), stock.cache(2500)
        assert await smaller.reserve([(await stock.restore()).room])
        assert await stock.used() == 4000
        await smallest.upkeep()
        assert await stock.used() == 2000
        for one in (smaller, smallest):
            await one.close()


class TestFilling:
    async def test_bytes_are_kept_once_they_are_right(self, stock: Stock, cache: Cache) -> None:
        wanted = await stock.put(cache, 100_000 // 20)
        path = await stock.path(wanted)
        assert path.read_bytes() == wanted.content
        assert path.parent.parent.parent.name == "esa"
        assert path.name.startswith(f"{wanted.room.file_id}-")
        assert len(stock.files()) == 1
        row = await stock.connection.fetchrow("SELECT * FROM copies WHERE entry_id IS NOT NULL")
        assert row is not None
        assert (row["storage"], row["state"], row["size"]) == ("cache", "NEARLINE", len(wanted.content))
        assert row["version"] == row["verified_version"] == (await stock.storage.stat(row["location"])).version

    @pytest.mark.parametrize("bytes_", [b"", b"x" * 999, b"x" * 1000, b"x" * 1001])
    async def test_wrong_bytes_are_not_kept(self, stock: Stock, cache: Cache, bytes_: bytes) -> None:
        wanted = await stock.restore()
        await cache.reserve([wanted.room])
        with pytest.raises(CopyBrokenError):
            await stock.fill(cache, wanted, bytes_)
        assert stock.files() == {}
        # The room is still its own.
        assert await stock.finish(wanted, await stock.fill(cache, wanted))

    async def test_a_storage_that_writes_more_and_more_is_stopped(
        self, stock: Stock, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache_filling, "_WATCH_SECONDS", 0.01)
        wanted = await stock.restore()
        await cache.reserve([wanted.room])

        async def fetch(path: Path) -> None:
            with path.open("wb") as file:
                while True:
                    file.write(b"x" * 100)
                    file.flush()
                    await asyncio.sleep(0.001)

        with pytest.raises(CopyBrokenError, match="more than 1000 bytes"):
            async with asyncio.timeout(30):
                await cache.fill(wanted.room.restore_id, wanted.sha256, "SHA-256", fetch)
        assert stock.files() == {}

    async def test_nobody_fills_what_another_one_fills(self, stock: Stock, cache: Cache) -> None:
        wanted, other, going = await stock.restore(), stock.cache(10_000), asyncio.Event()
        await cache.reserve([wanted.room])

        async def slow(path: Path) -> None:
            path.write_bytes(wanted.content)
            await going.wait()

        first = asyncio.create_task(cache.fill(wanted.room.restore_id, wanted.sha256, "SHA-256", slow))
        await until(lambda: len(stock.files()) == 1)
        with pytest.raises(CopyUnavailableError):
            await stock.fill(other, wanted)
        await other.upkeep()
        assert len(stock.files()) == 1
        going.set()
        assert await stock.finish(wanted, await first)
        await other.close()

    async def test_what_a_dead_process_began_is_begun_anew(self, stock: Stock, cache: Cache) -> None:
        wanted, other = await stock.restore(), stock.cache(10_000)
        await cache.reserve([wanted.room])
        before = await stock.fill(cache, wanted)  # … and then it died: its file is there, and nobody knows.
        with pytest.raises(CopyUnavailableError):
            await stock.fill(other, wanted)
        await stock.connection.execute("UPDATE cache_entries SET read_until = now()")
        kept = await stock.fill(other, wanted)
        assert not await stock.finish(wanted, before)
        assert await stock.finish(wanted, kept)
        assert len(stock.files()) == 1
        await other.close()

    async def test_a_fill_that_lost_its_lease_ends_and_leaves_nothing(self, stock: Stock) -> None:
        cache, wanted, started = stock.cache(10_000, lease=0.3), await stock.restore(), asyncio.Event()
        await cache.reserve([wanted.room])

        async def slow(path: Path) -> None:
            path.write_bytes(b"some")
            started.set()
            await asyncio.Event().wait()

        going = asyncio.create_task(cache.fill(wanted.room.restore_id, wanted.sha256, "SHA-256", slow))
        await started.wait()
        await cache.give_back([wanted.room.restore_id])
        with pytest.raises(CopyUnavailableError, match="given back"):
            async with asyncio.timeout(30):
                await going
        await cache.upkeep()
        assert (stock.files(), await stock.used(), await stock.entries()) == ({}, 0, {})
        await cache.close()

    async def test_a_cancelled_fill_leaves_nothing(self, stock: Stock, cache: Cache) -> None:
        wanted, started = await stock.restore(), asyncio.Event()
        await cache.reserve([wanted.room])

        async def slow(path: Path) -> None:
            path.write_bytes(b"some")
            started.set()
            await asyncio.Event().wait()

        going = asyncio.create_task(cache.fill(wanted.room.restore_id, wanted.sha256, "SHA-256", slow))
        await started.wait()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert stock.files() == {}
        assert await stock.finish(wanted, await stock.fill(cache, wanted))

    async def test_without_a_checksum_the_size_must_do(self, stock: Stock, cache: Cache) -> None:
        wanted = await stock.restore()
        await cache.reserve([wanted.room])
        kept = await cache.fill(wanted.room.restore_id, None, None, writing(b"y" * 1000))
        assert (stock.root / kept.location).read_bytes() == b"y" * 1000

    async def test_a_file_that_is_another_one_by_now_gets_no_copy(self, stock: Stock, cache: Cache) -> None:
        wanted = await stock.restore()
        await cache.reserve([wanted.room])
        kept = await stock.fill(cache, wanted)
        await stock.connection.execute("UPDATE files SET checksum = $1", "0" * 64)
        assert not await stock.finish(wanted, kept)
        await cache.give_back([wanted.room.restore_id])
        await stock.connection.execute("UPDATE cache_entries SET read_until = now()")
        await cache.upkeep()
        assert (stock.files(), await stock.used(), await stock.copies()) == ({}, 0, 0)


class TestFullDisk:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of a megabyte."""
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root can mount")
        folder = tmp_path / "small"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False)
        if done.returncode:
            pytest.skip("nothing can be mounted here")
        yield folder
        subprocess.run(["umount", folder], check=True)

    async def test_a_disk_smaller_than_the_cache_is_an_alarm_and_no_more(
        self, database: str, small: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with stock_of(database, small) as stock:
            cache = stock.cache(10_000_000)
            kept = [await stock.put(cache, 300_000) for _ in range(3)]
            wanted = await stock.restore(300_000)
            await cache.reserve([wanted.room])
            with pytest.raises(CacheFullError):
                await stock.fill(cache, wanted)
            assert "alarm: the cache of restored copies cannot be written to" in caplog.text
            # What was used least made room, so that the next try succeeds.
            assert [await stock.state(one) for one in kept] == ["EXPIRED", "RESTORED", "RESTORED"]
            assert set(stock.files().values()) == {300_000}
            assert await stock.finish(wanted, await stock.fill(cache, wanted))
            assert await stock.used() == 900_000
            await cache.close()

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    async def test_full_while_it_is_kept(
        self, stock: Stock, cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        wanted = await stock.restore()
        await cache.reserve([wanted.room])

        def full(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, "link", full)
            with pytest.raises(CacheFullError):
                await stock.fill(cache, wanted)
        assert stock.files() == {}
        assert await stock.finish(wanted, await stock.fill(cache, wanted))

    async def test_a_disk_that_fails_is_no_full_one(
        self, stock: Stock, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted = await stock.restore()
        await cache.reserve([wanted.room])

        def broken(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", broken)
            with pytest.raises(CopyUnavailableError):
                await stock.fill(cache, wanted)
        assert stock.files() == {}


class TestUpkeep:
    @pytest.mark.parametrize("harm", ["deleted", "truncated", "replaced"])
    async def test_files_that_others_touched_are_dropped(self, stock: Stock, cache: Cache, harm: str) -> None:
        spoilt, whole = await stock.put(cache), await stock.put(cache)
        path = await stock.path(spoilt)
        if harm == "deleted":
            path.unlink()
        elif harm == "truncated":
            os.truncate(path, 10)
        else:
            path.write_bytes(bytes(1000))
        await cache.upkeep()
        assert [await stock.state(one) for one in (spoilt, whole)] == ["EXPIRED", "RESTORED"]
        assert (await stock.copies(), await stock.used()) == (1, 1000)
        assert set(stock.files()) == {(await stock.entry(whole))["location"]}

    async def test_what_killed_processes_left_is_removed(
        self, stock: Stock, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache_tidying, "LEFT_SECONDS", 0.0)
        kept, filling = await stock.put(cache), await stock.restore()
        await cache.reserve([filling.room])
        scratch = stock.root / ".scratch"
        (scratch / f"{(await stock.entry(filling))['entry_id']}-{'0' * 32}").write_bytes(b"dead")
        (scratch / "of nobody").write_bytes(b"")
        stray = stock.root / location_of("esa/", 7, 10**9)
        stray.parent.mkdir(parents=True)
        stray.write_bytes(b"stray")
        (stock.root / "of the operator").write_bytes(b"")
        await cache.upkeep()
        assert set(stock.files()) == {
            (await stock.entry(kept))["location"], ".scratch/of nobody", "of the operator"
        }  # fmt: skip

    async def test_entries_whose_restore_has_ended_are_given_back(self, stock: Stock, cache: Cache) -> None:
        filling, ready = await stock.restore(), await stock.put(cache)
        await cache.reserve([filling.room])
        await stock.connection.execute(
            "UPDATE restores SET state = 'EXPIRED', ended_at = now(), expires_at = now(), restored_at = now()"
        )
        await stock.connection.execute("UPDATE cache_entries SET created_at = now() - interval '1 hour'")
        await cache.upkeep()
        assert (stock.files(), await stock.used(), await stock.copies()) == ({}, 0, 0)
        del ready

    async def test_a_copy_that_an_ingest_deleted_ends_its_restore(self, stock: Stock, cache: Cache) -> None:
        kept = await stock.put(cache)
        await stock.connection.execute("DELETE FROM copies WHERE entry_id IS NOT NULL")
        await cache.upkeep()
        assert (await stock.state(kept), stock.files(), await stock.used()) == ("EXPIRED", {}, 0)

    async def test_a_file_that_cannot_be_removed_keeps_its_room(
        self, stock: Stock, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = await stock.put(cache, 10_000)

        async def refuse(_: str) -> None:
            raise CopyUnavailableError("no")

        with monkeypatch.context() as patched:
            patched.setattr(stock.storage, "remove", refuse)
            assert await cache.reserve([(await stock.restore()).room]) == set()
            assert (await stock.used(), await stock.state(kept)) == (10_000, "EXPIRED")
        await cache.upkeep()
        assert await stock.used() == 0

    async def test_two_removers_lower_what_is_used_once(self, stock: Stock) -> None:
        caches = [stock.cache(10_000) for _ in range(4)]
        for _ in range(5):
            await stock.put(caches[0])
        await stock.put(caches[0])
        await stock.connection.execute(
            "UPDATE cache_entries SET state = 'REMOVING' WHERE entry_id <> (SELECT max(entry_id) FROM cache_entries)"
        )
        await stock.connection.execute("DELETE FROM copies WHERE entry_id <> (SELECT max(entry_id) FROM cache_entries)")
        await asyncio.gather(*(cache.upkeep() for cache in caches))
        assert (await stock.used(), len(stock.files())) == (1000, 1)
        for cache in caches:
            await cache.close()


class TestNames:
    def test_locations_go_below_the_prefix_of_the_tenant(self) -> None:
        assert prefix_of("esa", ("",), "") == "esa/"
        assert prefix_of("esa", ("",), "bucket/") == "bucket/esa/"
        assert prefix_of("esa", ("{tenant}/",), "") == "esa/"
        assert prefix_of("esa", ("b/{tenant}/x/", "y/"), "b/") == "b/esa/x/"
        assert prefix_of("esa", ("b/c/",), "b/") == "b/c/esa/"

    def test_only_its_own_names_are_of_the_cache(self) -> None:
        location = location_of("esa/", 12, 345)
        assert is_entry(location)
        assert not is_entry(location.replace("-345", "-346"))
        assert not is_entry("esa/00/00/readme")
        assert lease_of("readme") is None
        assert lease_of("12-" + "0" * 31) is None


class TestStorage:
    async def test_nothing_is_written_over(self, stock: Stock) -> None:
        file = stock.root / ".scratch" / "new"
        file.write_bytes(b"new")
        (stock.root / "a").mkdir()
        (stock.root / "a" / "b").write_bytes(b"old")
        with pytest.raises(FileExistsError):
            await stock.storage.keep(file, "a/b")
        assert (stock.root / "a" / "b").read_bytes() == b"old"

    async def test_without_hard_links_it_renames(self, stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refused)
        file = stock.root / ".scratch" / "new"
        file.write_bytes(b"new")
        stat = await stock.storage.keep(file, "a/b/c")
        assert (stat, file.exists()) == (await stock.storage.stat("a/b/c"), False)

    @pytest.mark.parametrize("location", ["../out", "a/../b", "/etc/x", ""])
    async def test_nothing_is_kept_outside(self, stock: Stock, location: str) -> None:
        file = stock.root / ".scratch" / "new"
        file.write_bytes(b"new")
        with pytest.raises(CopyUnavailableError):
            await stock.storage.keep(file, location)
        await stock.storage.remove(location)
        assert file.exists()

    async def test_what_lies_there_is_listed(self, stock: Stock) -> None:
        assert isinstance(stock.storage, LocalStorage)
        for name in ("a/b", "a/c/d", ".scratch/x"):
            (stock.root / name).parent.mkdir(parents=True, exist_ok=True)
            (stock.root / name).write_bytes(b"")
        assert [sorted(page) async for page in stock.storage.kept(0)] == [["a/b", "a/c/d"]]
        assert [page async for page in stock.storage.kept(3600)] == []


async def until_pinned(stock: Stock) -> None:
    async with asyncio.timeout(30):
        while not await stock.connection.fetchval("SELECT count(*) FROM cache_entries WHERE read_until > now()"):
            await asyncio.sleep(0.01)
