"""A process that fills the cache until it is killed: ``python -m tests.staging.filler DSN ROOT SIZE``."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.errors import GatewayError
from gateway.storage import StorageError
from tests.staging.stock import Stock, Wanted, stock_of

LEASE = 0.5


async def fill(dsn: str, root: Path, size: int) -> None:
    """Restore new files, again and again, each a little after the one before."""
    async with stock_of(dsn, root) as stock:
        cache = stock.cache(size, lease=LEASE)
        await cache.open()
        print("ready", flush=True)
        while True:
            wanted = await _next(stock)
            with contextlib.suppress(GatewayError, StorageError):
                if await cache.reserve([wanted.room]):
                    kept = await cache.fill(wanted.room.restore_id, wanted.sha256, "SHA-256", _slow(wanted))
                    await stock.finish(wanted, kept)
            if random.random() < 0.2:
                with contextlib.suppress(GatewayError):
                    await cache.upkeep()


async def _next(stock: Stock) -> Wanted:
    stock._number = random.randrange(10**9)
    return await stock.restore(random.choice((100, 1000, 3000)))


def _slow(wanted: Wanted) -> Callable[[Path], Awaitable[None]]:
    async def fetch(path: Path) -> None:
        with path.open("wb") as file:
            for start in range(0, len(wanted.content), 500):
                file.write(wanted.content[start : start + 500])
                file.flush()
                await asyncio.sleep(0.001)

    return fetch


if __name__ == "__main__":
    asyncio.run(fill(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
