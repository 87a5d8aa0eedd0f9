"""A script for tests of the way to Redis, and callers that ask for it all the time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from gateway.config import Redis
from gateway.redis.scripts import NEIGHBOUR_ERRORS, Scripts, open_scripts
from gateway.redis.server import Script

COUNT = Script.of("""#!lua
-- Add ARGV[1] to a sum, once for each lease; give the sum, and ARGV[2] as it came.
if redis.call('SET', KEYS[2], ARGV[2], 'NX') then
    redis.call('HINCRBY', KEYS[1], 'sum', ARGV[1])
end
return {tonumber(redis.call('HGET', KEYS[1], 'sum')), redis.call('GET', KEYS[2])}
""")
FREE = Script.of("""#!lua flags=allow-oom
redis.call('DEL', KEYS[1])
return 1
""")
SCRIPTS = {"count": COUNT, "free": FREE}
TENANTS = [f"tenant-{number}" for number in range(8)]


def keys_of(tenant: str, lease: str) -> tuple[str, str]:
    return f"gateway:{{{tenant}}}:usage", f"gateway:{{{tenant}}}:lease:{lease}"


async def count(scripts: Scripts, tenant: str, lease: str, amount: int = 1) -> tuple[int, bytes]:
    total, text = await scripts.run("count", keys_of(tenant, lease), (amount, f"für {lease}"))
    return total, text


async def total(scripts: Scripts, tenant: str) -> int:
    usage, _ = keys_of(tenant, "")
    return int(await scripts.call("HGET", usage, "sum") or 0)


@contextlib.asynccontextmanager
async def opened(url: str, *, timeout: float = 5, pool_size: int = 4, **more: object) -> AsyncIterator[Scripts]:
    settings = Redis.model_validate({"url": url, "timeout": timeout, "pool_size": pool_size, **more})
    async with open_scripts(settings, SCRIPTS) as scripts:
        yield scripts


async def until(holds: Callable[[], Awaitable[object]], seconds: float = 15) -> float:
    """Wait until it holds; Redis' errors do not count. Seconds that it took."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(*NEIGHBOUR_ERRORS):
            if await holds():
                return time.monotonic() - began
        assert time.monotonic() - began < seconds, "it never came to hold"
        await asyncio.sleep(0.01)


class Callers:
    """One caller for each tenant, who counts one lease after the other and tries each until it is counted."""

    def __init__(self, scripts: Scripts, run: str) -> None:
        self._scripts = scripts
        self._run = run
        self._stopped = False
        self.counted = dict.fromkeys(TENANTS, 0)
        self.errors: list[Exception] = []

    async def call(self, tenant: str) -> None:
        """One caller."""
        while not self._stopped:
            lease = f"{self._run}-{self.counted[tenant]}"
            try:
                _, text = await count(self._scripts, tenant, lease)
            except NEIGHBOUR_ERRORS as error:
                self.errors.append(error)
                await asyncio.sleep(0.01)
            else:
                assert text.decode() == f"für {lease}"
                self.counted[tenant] += 1

    async def go_on(self, more: int = 20, tenants: Sequence[str] = TENANTS) -> None:
        """Let every caller of these tenants count ``more``."""
        goals = {tenant: self.counted[tenant] + more for tenant in tenants}

        async def done() -> bool:
            return all(self.counted[tenant] >= goal for tenant, goal in goals.items())

        await until(done)

    def stop(self) -> None:
        self._stopped = True


@contextlib.asynccontextmanager
async def calling(scripts: Scripts, run: str) -> AsyncIterator[Callers]:
    """Callers at work; they have stopped, and what they counted is in Redis, when the block ends."""
    before = {tenant: await total(scripts, tenant) for tenant in TENANTS}
    callers = Callers(scripts, run)
    async with asyncio.TaskGroup() as group:
        for tenant in TENANTS:
            group.create_task(callers.call(tenant))
        try:
            yield callers
        finally:
            callers.stop()
    for tenant, counted in callers.counted.items():
        assert await total(scripts, tenant) == before[tenant] + counted, tenant


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Let ``work`` block elsewhere."""
    return await asyncio.to_thread(work, *arguments)
