"""Workers that are killed at random points: no restore is lost, none is done twice at a time, no part is ever seen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from tests.staging.library import Library, content, open_library
from tests.staging.robot import Robot

FILES, KILLS = (400, 50) if os.environ.get("GATEWAY_TEST_FULL") else (40, 3)
PROCESSES = 2
SEED = 11
SIZE = 4000


class Crew:
    """Processes that restore, of which there are always so many."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._command = (sys.executable, "-m", "tests.staging.worker_process", dsn, str(folder), str(10**9))
        self._log = folder / "workers.log"
        self._processes: list[asyncio.subprocess.Process] = []
        self.killed: dict[int, float] = {}

    async def hire(self) -> None:
        while len(self._processes) < PROCESSES:
            with self._log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *self._command, stdout=asyncio.subprocess.PIPE, stderr=log
                )
            assert process.stdout is not None
            async with asyncio.timeout(60):
                assert await process.stdout.readline() == b"ready\n"
            self._processes.append(process)

    async def kill(self, number: int) -> None:
        process = self._processes.pop(number)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        self.killed[process.pid] = time.time()

    async def dismiss(self) -> None:
        while self._processes:
            await self.kill(0)


@contextlib.asynccontextmanager
async def crew_of(dsn: str, folder: Path) -> AsyncIterator[Crew]:
    crew = Crew(dsn, folder)
    try:
        await crew.hire()
        yield crew
    finally:
        await crew.dismiss()


@pytest.mark.timeout(600)
async def test_killed_workers_lose_nothing_and_do_nothing_twice_at_a_time(database: str, tmp_path: Path) -> None:
    robot, choice = Robot(tmp_path / "library"), random.Random(SEED)
    async with open_library(database, tmp_path / "cache") as library:
        files = await library.files(robot, FILES, size=SIZE)
        async with crew_of(database, tmp_path) as crew:
            watching = asyncio.create_task(watch(library))
            waiting = list(files)
            for left in range(KILLS, 0, -1):
                share = max(1, len(waiting) // left)
                await library.ask(*waiting[:share])
                waiting = waiting[share:]
                await asyncio.sleep(choice.uniform(0.05, 0.6))
                await crew.kill(choice.randrange(PROCESSES))
                await crew.hire()
            with contextlib.suppress(TimeoutError):
                await library.all_become("RESTORED", seconds=120)
            rest = await library.pool.fetch("SELECT * FROM restores WHERE state <> 'RESTORED'")
            assert [dict(row) for row in rest] == []
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        assert await library.states() == {"RESTORED": FILES}
        for file in files:
            assert await library.readable(file) == [content(file, SIZE)]
        assert overlaps(robot, crew.killed) == []
        failures = await library.pool.fetchval("SELECT count(*) FROM restores WHERE tries > 0")
        assert failures == 0


async def watch(library: Library) -> None:
    """All that can be read at any moment is whole."""
    while True:
        for row in await library.pool.fetch(
            "SELECT file_id, location FROM copies WHERE entry_id IS NOT NULL AND restored_until > now()"
        ):
            path = library.folder / row["location"]
            assert path.read_bytes() == content(row["file_id"], SIZE)
        await asyncio.sleep(0.1)


def overlaps(robot: Robot, killed: dict[int, float]) -> Iterable[tuple[str, int, int]]:
    """Calls about one restore by two processes at a time. A call ends with its process."""
    calls: dict[str, list[tuple[float, float, int]]] = {}
    open_calls: dict[tuple[str, str, int], float] = {}
    for what, edge, key, process, at in robot.journal():
        if edge == "begin":
            open_calls[what, key, process] = at
        else:
            calls.setdefault(key, []).append((open_calls.pop((what, key, process)), at, process))
    for (_, key, process), began in open_calls.items():
        calls.setdefault(key, []).append((began, killed.get(process, float("inf")), process))
    return [
        (key, one[2], other[2])
        for key, found in calls.items()
        for number, one in enumerate(found)
        for other in found[number + 1 :]
        if one[2] != other[2] and one[0] < other[1] and other[0] < one[1]
    ]
