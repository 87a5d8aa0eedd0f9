"""What an ingest leaves of restored copies: they stay while the file is the same, and go when it is another one."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from storage_plugins.local import LocalStorage
from tests.catalog.ingest.conftest import Ingesting, everyones

Item = dict[str, Any]
SUM, OTHER = "1220" + "ab" * 32, "1220" + "cd" * 32
ASSET: Item = {"href": "s3://tape/a", "file:checksum": SUM, "file:size": 100}


async def restored(ingesting: Ingesting, item: Item, **asset: object) -> None:
    """An item whose file has a restored copy in the cache and one in place."""
    item["assets"] = {"a": {**ASSET, **asset}}
    await ingesting.of(item)
    await ingesting.connection.execute(
        "UPDATE copies SET state = 'NEARLINE', restored_until = now() + interval '1 day'"
    )
    await ingesting.connection.execute(
        """INSERT INTO copies (file_id, storage, location, state, size, version, restored_until, entry_id)
           SELECT file_id, 'cache', 'esa/00/00/1-1', 'NEARLINE', 100, 'v', now() + interval '1 day', 7 FROM files"""
    )


async def left(ingesting: Ingesting) -> set[str]:
    """Storages of copies that can be read."""
    rows = await ingesting.rows("SELECT storage FROM copies WHERE restored_until > now()")
    return {str(row["storage"]) for row in rows}


@pytest.mark.parametrize(
    "changes",
    [{}, {"title": "new"}, {"file:checksum": SUM.upper()}, {"type": "image/tiff"}],
)
async def test_they_stay_while_checksum_and_size_do(ingesting: Ingesting, item: Item, changes: Item) -> None:
    await restored(ingesting, item)
    item["assets"]["a"] |= changes
    await ingesting.of(item)
    assert await left(ingesting) == {"s3", "cache"}


async def test_they_stay_when_the_catalogue_says_less(ingesting: Ingesting, item: Item) -> None:
    await restored(ingesting, item)
    del item["assets"]["a"]["file:size"]
    await ingesting.of(item)
    assert await left(ingesting) == {"s3", "cache"}


@pytest.mark.parametrize("changes", [{"file:checksum": OTHER}, {"file:size": 101}, {"file:checksum": None}])
async def test_they_go_when_the_file_is_another_one(ingesting: Ingesting, item: Item, changes: Item) -> None:
    await restored(ingesting, item)
    item["assets"]["a"] |= changes
    item["assets"]["a"] = {name: value for name, value in item["assets"]["a"].items() if value is not None}
    await ingesting.of(item)
    assert await left(ingesting) == set()
    assert await ingesting.rows("SELECT storage FROM copies") == [{"storage": "s3"}]


async def test_without_a_checksum_they_stay_only_while_nothing_changes(ingesting: Ingesting, item: Item) -> None:
    await restored(ingesting, item)
    await ingesting.connection.execute("DELETE FROM products")
    del item["assets"]["a"]["file:checksum"]
    await ingesting.of(item)
    await ingesting.connection.execute(
        """INSERT INTO copies (file_id, storage, location, state, size, version, restored_until, entry_id)
           SELECT file_id, 'cache', 'esa/00/00/1-1', 'NEARLINE', 100, 'v', now() + interval '1 day', 7 FROM files"""
    )
    await ingesting.of(item)
    assert await left(ingesting) == {"cache"}
    item["assets"]["a"]["title"] = "new"
    await ingesting.of(item)
    assert await left(ingesting) == set()


async def test_they_go_with_their_file(ingesting: Ingesting, item: Item) -> None:
    await restored(ingesting, item)
    item["assets"] = {"b": ASSET}
    await ingesting.of(item)
    assert await ingesting.rows("SELECT storage FROM copies") == [{"storage": "s3"}]


async def test_they_stay_when_the_original_moves(ingesting: Ingesting, item: Item) -> None:
    await restored(ingesting, item)
    item["assets"]["a"]["href"] = "s3://tape/elsewhere"
    await ingesting.of(item)
    assert await left(ingesting) == {"cache"}


async def test_in_place_it_is_restored_no_more_when_its_version_changes(
    ingesting: Ingesting, item: Item, disk: LocalStorage
) -> None:
    path = ingesting.directory / "data"
    path.write_bytes(b"x" * 100)
    ingesting.locations = [everyones(disk)]
    await restored(ingesting, item, href=str(path))
    await ingesting.of(item)
    assert await left(ingesting) == {"disk", "cache"}
    path.unlink()
    path.write_bytes(b"x" * 100)
    await ingesting.of(item)
    # The bytes in the cache are those of the checksum, whatever became of the original.
    assert await left(ingesting) == {"cache"}


async def test_who_writes_a_restored_copy_down_goes_before_or_finds_the_change(
    ingesting: Ingesting, item: Item
) -> None:
    await restored(ingesting, item)
    await ingesting.connection.execute("DELETE FROM copies WHERE entry_id IS NOT NULL")
    worker = await asyncpg.connect(ingesting.dsn, timeout=10)
    try:
        async with worker.transaction():
            await worker.execute("SELECT FROM files FOR SHARE")
            item["assets"]["a"]["file:checksum"] = OTHER
            going = asyncio.create_task(ingesting.of(item))
            async with asyncio.timeout(30):
                while not await worker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    assert not going.done()
                    await asyncio.sleep(0.01)
            await worker.execute(
                """INSERT INTO copies (file_id, storage, location, state, size, version, restored_until, entry_id)
                   SELECT file_id, 'cache', 'x', 'NEARLINE', 100, 'v', now() + interval '1 day', 8 FROM files"""
            )
        await going
    finally:
        await worker.close(timeout=10)
    assert await left(ingesting) == set()
