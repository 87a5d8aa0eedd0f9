"""Scripts in a single Redis that dies, hangs, loads, is full, is busy or becomes a replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import redis

from gateway.redis.scripts import NEIGHBOUR_ERRORS, CircuitOpenError, Scripts
from tests.quotas.redis_calls import count, in_thread, opened, total, until
from tests.redis_servers import MakeServer, RedisServer


@pytest.fixture
def single(redis_server: MakeServer) -> RedisServer:
    return redis_server()


async def stops_and_comes_back(
    scripts: Scripts, server: RedisServer, *, by: Callable[[], None], back: Callable[[], None]
) -> None:
    """While the server is gone calls fail at once; when it is back they work, within a second or so."""
    await count(scripts, "t", "before")
    by()

    async def refused() -> bool:
        try:
            await count(scripts, "t", "refused")
        except CircuitOpenError:
            return True
        return False

    await asyncio.gather(*(count(scripts, "t", f"lost-{number}") for number in range(4)), return_exceptions=True)
    await until(refused)
    began = time.monotonic()
    for number in range(200):
        with pytest.raises(CircuitOpenError):
            await count(scripts, "t", str(number))
        with pytest.raises(CircuitOpenError):
            await total(scripts, "t")
    # Less than what a single call would take to time out.
    assert time.monotonic() - began < scripts.timeout
    back()
    await in_thread(server.wait)
    assert await until(lambda: count(scripts, "t", "back")) < 3


class TestSingle:
    @pytest.mark.parametrize(("by", "back"), [("kill", "launch"), ("pause", "resume")])
    async def test_calls_fail_at_once_while_it_is_gone(self, single: RedisServer, by: str, back: str) -> None:
        async with opened(single.url, timeout=0.4) as scripts:
            await stops_and_comes_back(scripts, single, by=getattr(single, by), back=getattr(single, back))

    async def test_it_need_not_ask_to_find_out_that_it_is_back(self, single: RedisServer) -> None:
        async with opened(single.url, timeout=0.4) as scripts:
            single.kill()
            for number in range(4):
                with pytest.raises(NEIGHBOUR_ERRORS):
                    await count(scripts, "t", str(number))
            single.launch()
            await in_thread(single.wait)
            await asyncio.sleep(1)
            await count(scripts, "t", "back")

    async def test_a_ping_closes_the_circuit_at_once(self, single: RedisServer) -> None:
        async with opened(single.url, timeout=0.4) as scripts:
            single.kill()
            for number in range(4):
                with pytest.raises(NEIGHBOUR_ERRORS):
                    await count(scripts, "t", str(number))
            with pytest.raises(NEIGHBOUR_ERRORS):
                await scripts.ping()
            single.launch()
            await in_thread(single.wait)
            await scripts.ping()
            await count(scripts, "t", "back")

    async def test_a_slow_call_among_good_ones_does_not_open_the_circuit(self, single: RedisServer) -> None:
        async with opened(single.url, timeout=0.3) as scripts:
            for number in range(2):
                slow = asyncio.ensure_future(scripts.call("BLPOP", "{t}:nothing", 5))
                while not slow.done():
                    await count(scripts, "t", str(number))
                    await asyncio.sleep(0.01)
                with pytest.raises(TimeoutError):
                    await slow
            await count(scripts, "t", "after")

    async def test_a_caller_who_leaves_does_not_open_the_circuit(self, single: RedisServer) -> None:
        async with opened(single.url) as scripts:
            for _ in range(10):
                task = asyncio.ensure_future(scripts.call("BLPOP", "{t}:nothing", 5))
                await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await count(scripts, "t", "after")

    async def test_one_that_is_full_refuses_what_needs_memory_only(self, single: RedisServer) -> None:
        async with opened(single.url) as scripts:
            single.ask("CONFIG", "SET", "maxmemory", "1")
            try:
                for _ in range(5):
                    with pytest.raises(redis.OutOfMemoryError):
                        await count(scripts, "t", "full")
                assert await scripts.run("free", ["{t}"], []) == 1
            finally:
                single.ask("CONFIG", "SET", "maxmemory", "0")
            await count(scripts, "t", "full")

    async def test_one_that_is_busy_fails_calls_until_it_is_not(self, single: RedisServer) -> None:
        async with opened(single.url) as scripts:
            single.ask("CONFIG", "SET", "busy-reply-threshold", "10")
            endless = asyncio.ensure_future(in_thread(single.ask, "EVAL", "while true do end", 0))

            async def busy() -> bool:
                try:
                    await count(scripts, "t", "busy")
                except redis.ResponseError as error:
                    return "BUSY" in str(error)
                return False

            await until(busy)
            await in_thread(single.ask, "SCRIPT", "KILL")
            with pytest.raises(redis.ResponseError, match="script"):
                await endless
            await count(scripts, "t", "busy")

    async def test_one_that_becomes_a_replica_is_connected_anew(self, single: RedisServer) -> None:
        async with opened(single.url, pool_size=1) as scripts:
            await count(scripts, "t", "a")
            before = await scripts.call("CLIENT", "ID")
            single.ask("REPLICAOF", "127.0.0.1", "1")
            try:
                for _ in range(5):
                    with pytest.raises(redis.ReadOnlyError):
                        await count(scripts, "t", "replica")
            finally:
                single.ask("REPLICAOF", "NO", "ONE")
            await count(scripts, "t", "replica")
            assert await scripts.call("CLIENT", "ID") > before

    async def test_one_that_loads_its_data_fails_calls_until_it_has(self, redis_server: MakeServer) -> None:
        options = ("--appendonly", "yes", "--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024")
        server = redis_server(*options)
        async with opened(server.url) as scripts:
            await count(scripts, "t", "kept", 7)
            server.ask("EVAL", "for i = 1, 3000 do redis.call('SET', KEYS[1] .. i, i) end", 1, "filler")
            server.ask("BGREWRITEAOF")
            await until(lambda: in_thread(_has_rewritten, server))
            server.kill()
            server.launch()

            async def loading() -> bool:
                try:
                    await scripts.ping()
                except redis.BusyLoadingError:
                    return True
                return False

            await until(loading)
            with pytest.raises(redis.ConnectionError):
                await count(scripts, "t", "loading")
            await until(scripts_work(scripts))
            assert await total(scripts, "t") == 7


def _has_rewritten(server: RedisServer) -> bool:
    with server.client() as client:
        info = client.info("persistence")
        assert isinstance(info, dict)
        return not info["aof_rewrite_in_progress"] and bool(info["aof_rewrites"])


def scripts_work(scripts: Scripts) -> Callable[[], asyncio.Future[object]]:
    return lambda: asyncio.ensure_future(scripts.run("free", ["{t}"], []))
