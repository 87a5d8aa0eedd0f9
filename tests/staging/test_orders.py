"""Orders of nearline files: they are restored for them, as far as there is room, and none for ended ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

import gateway.db
from gateway.config import Database as DatabaseSettings
from gateway.db import Database
from gateway.notifications import listening
from gateway.orders import worker
from gateway.orders.lifecycle import FileState, Status
from gateway.staging.opening import BY_INDEX
from gateway.staging.orders import RestoringStager
from gateway.storage import StageState
from tests.orders.support import MINE, Shop, open_shop, selection
from tests.staging.library import Library, content, open_library
from tests.staging.robot import Robot

FILES = 10_000 if os.environ.get("GATEWAY_TEST_FULL") else 400
SIZE = 60


@pytest.fixture
async def library(database: str, tmp_path: Path) -> AsyncIterator[Library]:
    async with open_library(database, tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return Robot(tmp_path / "library")


@contextlib.asynccontextmanager
async def ordering(library: Library, robot: Robot, *, suborder_files: int = 100) -> AsyncIterator[Shop]:
    """Orders that workers prepare, and restores that workers make."""
    async with contextlib.AsyncExitStack() as stack:
        shop = await stack.enter_async_context(open_shop(library.dsn, suborder_files=suborder_files))
        neighbour = DatabaseSettings(dsn=SecretStr(library.dsn), pool_size=4, timeout=60)
        database: Database = await stack.enter_async_context(gateway.db.connect(neighbour, BY_INDEX))
        stager = RestoringStager(database, library.settings, [robot.name])
        notifications = await stack.enter_async_context(listening(neighbour))
        await stack.enter_async_context(worker.working(shop.database, notifications, shop.settings, stager, workers=1))
        yield shop


async def available(shop: Shop, order_id: int) -> list[tuple[int, int]]:
    rows = await shop.connection.fetch(
        "SELECT order_file_id, file_id FROM order_files WHERE order_file_id >> 24 = $1 AND state = 'AVAILABLE'",
        order_id,
    )
    return [(row["order_file_id"], row["file_id"]) for row in rows]


async def become(shop: Shop, order_id: int, *statuses: Status) -> None:
    async with asyncio.timeout(30):
        while (await shop.see(order_id)).status not in statuses:
            await asyncio.sleep(0.02)


@pytest.mark.timeout(900)
async def test_an_order_ten_times_the_cache_completes_while_its_files_are_downloaded(
    database: str, tmp_path: Path
) -> None:
    robot = Robot(tmp_path / "library", seconds=0.05)
    robot.stage_batch = 100
    began = time.monotonic()
    async with open_library(
        database, tmp_path / "cache", cache_size=FILES * SIZE // 10, fetches=8, lease=10
    ) as library:
        await library.files(robot, FILES, size=SIZE)
        async with library.working(robot), ordering(library, robot, suborder_files=FILES // 4) as shop:
            order_id = await shop.order(selection("many"))
            got = 0
            async with asyncio.timeout(800):
                while got < FILES:
                    some = await available(shop, order_id)
                    for _, file in some:
                        assert await library.readable(file) == [content(file, SIZE)]
                    if some:
                        got += len(some)
                        await shop.actions.mark_all(order_id, [one for one, _ in some], FileState.DOWNLOADED)
                    assert await shop.connection.fetchval("SELECT max(used) FROM caches") in (
                        None,
                        *range(library.settings.cache_size + 1),
                    )
                    await asyncio.sleep(0.02)
            await become(shop, order_id, Status.DONE)
            await shop.counts_agree()
    asked = robot.locations("stage")
    assert len(asked) == len(set(asked)) == FILES
    print(f"{FILES} files in {time.monotonic() - began:.1f} s, {len(asked)} asked for")


async def test_files_that_cannot_be_restored_are_in_error_until_the_order_is_tried_again(
    library: Library, robot: Robot
) -> None:
    files = await library.files(robot, 3)
    robot.answers = {str(files[0]): StageState("FAILED", error="/dev/tape0", retry=False)}
    await library.pool.execute("UPDATE copies SET storage = 'nobody' WHERE file_id = $1", files[1])
    async with library.working(robot), ordering(library, robot) as shop:
        order_id = await shop.order(selection("many"))
        await become(shop, order_id, Status.DONE_WITH_WARNING)
        rows = await shop.connection.fetch("SELECT state, error FROM order_files ORDER BY order_file_id")
        assert [tuple(row) for row in rows] == [
            ("ERROR", "The file could not be restored."),
            ("ERROR", "The file is nearline, and its storage cannot restore it."),
            ("AVAILABLE", None),
        ]
        robot.answers.clear()
        await library.pool.execute("UPDATE copies SET storage = 'tape' WHERE file_id = $1", files[1])
        await shop.actions.retry(MINE, order_id)
        await become(shop, order_id, Status.DONE)
        assert len(await available(shop, order_id)) == 3


async def test_many_orders_of_a_file_restore_it_once(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.seconds = 0.5
    async with library.working(robot), ordering(library, robot) as shop:
        orders = [await shop.order(selection("many")) for _ in range(20)]
        for order_id in orders:
            await become(shop, order_id, Status.DONE)
    assert robot.locations("stage") == [str(file)]
    wishes = await library.pool.fetch("SELECT email, pinned_until > now() AS pinned FROM restore_wishes")
    assert len(wishes) == 20
    assert {row["pinned"] for row in wishes} == {True}


async def test_what_others_had_restored_is_pinned_for_the_order_too(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    async with library.working(robot):
        (restore,) = await library.ask(file, hours=0.5)
        first = (await library.become(restore, "RESTORED"))["expires_at"]
        async with ordering(library, robot) as shop:
            order_id = await shop.order(selection("many"))
            await become(shop, order_id, Status.DONE)
            async with asyncio.timeout(10):
                while (await library.row(restore))["expires_at"] <= first:
                    await asyncio.sleep(0.02)
        pinned = await library.pool.fetchval("SELECT pinned_until FROM restore_wishes WHERE order_file_id <> 0")
        assert pinned is not None
    assert robot.locations("stage") == [str(file)]


async def test_a_paused_or_deleted_order_has_nothing_restored(library: Library, robot: Robot) -> None:
    files = await library.files(robot, 5)
    robot.seconds = 3600
    async with library.working(robot), ordering(library, robot) as shop:
        (mine,) = await library.ask(files[0], priority=1)
        order_id = await shop.order(selection("many"))
        async with asyncio.timeout(20):
            while (await library.states()).get("STAGING") != 5:
                await asyncio.sleep(0.02)
        await shop.actions.pause(MINE, order_id)
        async with asyncio.timeout(20):
            while await library.states() != {"STAGING": 1, "CANCELED": 4}:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(20):
            while len(robot.locations("release")) < 4:
                await asyncio.sleep(0.02)
        assert (await library.row(mine))["state"] == "STAGING"
        # It goes on when it is resumed.
        robot.seconds = 0
        await shop.actions.resume(MINE, order_id)
        await become(shop, order_id, Status.DONE)
        await shop.actions.delete(MINE, order_id)
        async with asyncio.timeout(20):
            while await library.pool.fetchval("SELECT count(*) FROM restore_wishes WHERE order_file_id <> 0"):
                await asyncio.sleep(0.02)
