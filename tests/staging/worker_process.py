"""A process that restores, for tests that kill it: ``python -m tests.staging.worker_process DSN FOLDER SIZE``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.staging.library import open_library
from tests.staging.robot import Robot


async def work(dsn: str, folder: Path, size: int) -> None:
    robot = Robot(folder / "library", seconds=0.1, fetch_seconds=0.1)
    async with open_library(dsn, folder / "cache", cache_size=size) as library, library.working(robot, tries=5):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
