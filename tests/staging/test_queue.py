"""Restores as rows: several are locked in the order of their ids, whatever the order in which they are worked on."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from gateway.staging.queue import Held, Queue
from tests.staging.library import open_library
from tests.staging.robot import Robot

_BLOCKED = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query NOT LIKE '%pg_stat_activity%'"""

_SOON = datetime.datetime.now(datetime.UTC)
WRITES: dict[str, Callable[[Queue, list[Held]], Awaitable[object]]] = {
    "prolong": lambda queue, held: queue.prolong(held),
    "let go": lambda queue, held: queue.let_go(held, 1),
    "poll": lambda queue, held: queue.poll([(one, 1.0, _SOON) for one in held]),
    "place": lambda queue, held: queue.place([(one.restore_id, "a", 1) for one in held]),
    "leave ended": lambda queue, held: queue.leave_ended(held),
    "cleaned": lambda queue, held: queue.cleaned(held),
    "released": lambda queue, held: queue.released(held),
}


@pytest.mark.parametrize("write", WRITES)
async def test_several_are_locked_in_the_order_of_their_ids(write: str, database: str, tmp_path: Path) -> None:
    robot = Robot(tmp_path / "library")
    async with open_library(database, tmp_path / "cache") as library:
        files = await library.files(robot, 2)
        first, second = await library.ask(files[0], priority=5) + await library.ask(files[1], priority=1)
        queue = Queue(library.database, lease=600, pin_hours=1)
        held = await queue.claim_queued("tape", most=2, busy=2, roomed=True)
        assert [one.restore_id for one in held] == [second, first]
        if write in ("leave ended", "cleaned"):
            await library.pool.execute("UPDATE restores SET state = 'CANCELED', ended_at = now()")
        if write == "released":
            await library.pool.execute(
                "UPDATE restores SET state = 'RESTORED', restored_at = now(), expires_at = now() + interval '1 h'"
            )
        # So that the first of them lies behind the other one, too.
        await library.pool.execute("UPDATE restores SET error = 'x' WHERE restore_id = $1", first)
        async with library.pool.acquire() as connection, asyncio.timeout(30):
            async with connection.transaction():
                await lock(connection, first)
                writing = asyncio.ensure_future(WRITES[write](queue, held))
                while not await library.pool.fetchval(_BLOCKED):
                    await asyncio.sleep(0.02)
                await lock(connection, second)
            await writing


async def lock(connection: asyncpg.pool.PoolConnectionProxy, restore_id: int) -> None:
    await connection.fetch("SELECT FROM restores WHERE restore_id = $1 FOR UPDATE", restore_id)
