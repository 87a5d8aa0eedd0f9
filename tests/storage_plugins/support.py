"""What is looked at in this process, and the files that lie there."""

from __future__ import annotations

import asyncio
import fcntl
import random
import time
from collections.abc import Callable
from pathlib import Path

CONTENT = random.Random(5).randbytes(3 * 1024 * 1024 + 11)
OUTSIDE = b"not for you"


def descriptors() -> set[int]:
    """The numbers that are open, without that of the listing itself."""
    return {number for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()] if is_open(number)}


def is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
