"""What is in hand: whoever works on it is stopped when nothing of it is his any more, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.staging.leases import Leases
from gateway.staging.queue import Queue
from tests.staging.library import Library, open_library
from tests.staging.robot import Robot

SECONDS = 1.0


@pytest.fixture
async def library(database: str, tmp_path: Path) -> AsyncIterator[Library]:
    async with open_library(database, tmp_path / "cache") as opened:
        yield opened


async def test_whoever_lets_go_of_some_goes_on_with_the_rest(library: Library, tmp_path: Path) -> None:
    robot = Robot(tmp_path / "library")
    await library.ask(*await library.files(robot, 3))
    queue = Queue(library.database, lease=SECONDS, pin_hours=1)
    leases = Leases(queue, SECONDS)
    held = await queue.claim_queued("tape", most=3, busy=3, roomed=True)
    beats = 0
    prolong = queue.prolong

    async def counted(*arguments: object) -> object:
        nonlocal beats
        found = await prolong(*arguments)  # type: ignore[arg-type]
        beats += 1
        return found

    queue.prolong = counted  # type: ignore[method-assign,assignment]
    done = asyncio.Event()

    async def work() -> None:
        await queue.leave(held[:1])  # there is no room for it, for instance
        seen = beats
        while beats < seen + 3:
            await asyncio.sleep(0.02)
        done.set()
        await queue.leave(held[1:])
        await asyncio.Event().wait()

    beat = asyncio.create_task(leases.beat())
    try:
        async with asyncio.timeout(30):
            assert not await leases.keep(held, work())
    finally:
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
    assert done.is_set()
    assert not any(map(leases.holds, held))
