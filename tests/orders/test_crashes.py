"""Workers that are killed at random points: every order ends right, no file is lost or counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import principal
from tests.orders.support import Shop, fill, open_shop, selection

ORDERS, KILLS = (200, 60) if os.environ.get("GATEWAY_TEST_FULL") else (10, 3)
PROCESSES = 2
SEED = 7
_CONFIG = """
[database]
dsn = "{dsn}"
[redis]
url = "redis://127.0.0.1:1/0"
[[identity.jwt]]
algorithms = ["HS256"]
secret = "nobody shows a token to a worker, so this is never used at all"
[[storage]]
name = "disk"
plugin = "local"
tenants = ["*"]
root = "/"
[orders]
lease = 1
suborder_files = 3
"""


class Crew:
    """Worker processes, of which there are always so many."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._processes: list[tuple[asyncio.subprocess.Process, Path]] = []
        self._hired = 0

    async def hire(self) -> None:
        while len(self._processes) < PROCESSES:
            self._hired += 1
            log = self._config.with_name(f"worker-{self._hired}.log")
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "gateway", "worker", "--config", str(self._config)),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=output,
                )
            self._processes.append((process, log))

    async def kill(self, number: int) -> None:
        process, _ = self._processes.pop(number)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def ask_to_end(self, number: int) -> int:
        """The status that it ends with when it is told to, once it works."""
        process, log = self._processes.pop(number)
        async with asyncio.timeout(30):
            while b"prepare orders" not in log.read_bytes():
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            return await process.wait()

    async def dismiss(self) -> None:
        while self._processes:
            await self.kill(0)


@contextlib.asynccontextmanager
async def crew_of(config: Path) -> AsyncIterator[Crew]:
    crew = Crew(config)
    try:
        await crew.hire()
        yield crew
    finally:
        await crew.dismiss()


@pytest.mark.timeout(600)
async def test_killed_workers_lose_nothing_and_count_nothing_twice(database: str, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(_CONFIG.format(dsn=database))
    choice = random.Random(SEED)
    async with open_shop(database, suborder_files=3, lease=1) as shop, crew_of(config) as crew:
        await fill(shop.connection, products=60, files=1)
        await shop.connection.execute(
            "UPDATE copies SET state = CASE WHEN file_id % 7 = 0 THEN 'LOST' WHEN file_id % 11 = 0 THEN 'NEARLINE' "
            "ELSE 'ONLINE' END"
        )
        # Slow enough that a kill falls into the work, and not always between two pieces of it.
        await shop.connection.execute(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); "
            "RETURN NULL; END $$; CREATE TRIGGER slow AFTER UPDATE ON suborders "
            "FOR EACH STATEMENT EXECUTE FUNCTION slowly()"
        )
        for number in range(ORDERS):
            await shop.order(
                selection("many", f"from:{choice.randint(1, 55):07}"), who=principal(f"user{number % 5}", "science")
            )
        for _ in range(KILLS):
            await asyncio.sleep(choice.uniform(0, 1.2))
            await crew.kill(choice.randrange(PROCESSES))
            await shop.counts_agree()
            await crew.hire()
        await ended(shop)
        await shop.counts_agree()
        wrong = await shop.connection.fetch(
            "SELECT o.order_file_id, o.state, c.state AS copy FROM order_files o JOIN copies c USING (file_id) "
            "WHERE o.state <> CASE c.state WHEN 'ONLINE' THEN 'AVAILABLE' ELSE 'ERROR' END"
        )
        assert wrong == []
        wrong = await shop.connection.fetch(
            "SELECT order_id, status, percent FROM orders WHERE percent <> 100 OR status <> CASE files_error "
            "WHEN 0 THEN 'DONE' WHEN files_count THEN 'FAILED' ELSE 'DONE_WITH_WARNING' END"
        )
        assert wrong == []
        assert await shop.connection.fetchval("SELECT count(*) FROM suborders WHERE state <> 'ENDED'") == 0
        assert await crew.ask_to_end(0) == 0


async def ended(shop: Shop) -> None:
    async with asyncio.timeout(500):
        while await shop.connection.fetchval("SELECT count(*) FROM orders WHERE status = 'RUNNING'"):
            await asyncio.sleep(0.05)
