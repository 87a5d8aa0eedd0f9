"""A single Redis, one behind Sentinels and a cluster: the same calls, and what happens when a server goes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import ClusterCrossSlotError

from gateway.errors import ConfigurationError
from gateway.quotas.scripts import NEIGHBOUR_ERRORS, CircuitOpenError, Scripts
from tests.quotas.redis_calls import TENANTS, calling, count, in_thread, keys_of, opened, total, until
from tests.redis_servers import SERVICE, RedisCluster, RedisSentinels, RedisServer

Open = Callable[..., contextlib.AbstractAsyncContextManager[Scripts]]


class Neighbourhood:
    """One of the three topologies."""

    def __init__(self, url: str, servers: list[RedisServer], **settings: object) -> None:
        self.url = url
        self.servers = servers
        """All that hold data; they stay primaries."""
        self.settings = settings

    def opened(self, **more: float) -> contextlib.AbstractAsyncContextManager[Scripts]:
        return opened(self.url, **self.settings, **more)  # type: ignore[arg-type]

    def ask_each(self, *command: str) -> None:
        for server in self.servers:
            server.ask(*command)


@pytest.fixture(scope="session")
def single_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("single") / "redis")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def single(single_redis: RedisServer) -> RedisServer:
    """The server, emptied."""
    single_redis.ask("FLUSHALL")
    return single_redis


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> RedisCluster:
    """The cluster, emptied."""
    for node in redis_cluster.primaries:
        node.ask("FLUSHALL")
    return redis_cluster


@pytest.fixture(params=["single", "sentinels", "cluster"])
def neighbourhood(request: pytest.FixtureRequest) -> Neighbourhood:
    if request.param == "single":
        server: RedisServer = request.getfixturevalue("single_redis")
        found = Neighbourhood(server.url, [server])
    elif request.param == "sentinels":
        sentinels: RedisSentinels = request.getfixturevalue("redis_sentinels")
        found = Neighbourhood(sentinels.url, [sentinels.primary()], sentinel_service=SERVICE)
    else:
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        found = Neighbourhood(cluster.url, cluster.primaries, cluster=True)
    found.ask_each("FLUSHALL")
    found.ask_each("SCRIPT", "FLUSH")
    return found


class TestEachTopology:
    async def test_many_calls_of_many_tenants_each_get_their_own_answer(self, neighbourhood: Neighbourhood) -> None:
        async with neighbourhood.opened() as scripts:
            calls = [(tenant, str(number)) for number in range(8) for tenant in TENANTS]
            answers = await asyncio.gather(*(count(scripts, tenant, lease, 5) for tenant, lease in calls))
            assert [text.decode() for _, text in answers] == [f"für {lease}" for _, lease in calls]
            for tenant in TENANTS:
                totals = [answer[0] for answer, call in zip(answers, calls, strict=True) if call[0] == tenant]
                assert sorted(totals) == [5, 10, 15, 20, 25, 30, 35, 40]
            # The same leases again: nothing is counted twice.
            again = await asyncio.gather(*(count(scripts, tenant, lease, 5) for tenant, lease in calls))
            assert {answer[0] for answer in again} == {40}

    async def test_scripts_that_are_forgotten_while_calls_run_are_loaded_again(
        self, neighbourhood: Neighbourhood
    ) -> None:
        async with neighbourhood.opened() as scripts, calling(scripts, "flush") as callers:
            for _ in range(5):
                await callers.go_on()
                await in_thread(neighbourhood.ask_each, "SCRIPT", "FLUSH")
            await callers.go_on()
            assert callers.errors == []

    async def test_connections_that_die_go_unnoticed(self, neighbourhood: Neighbourhood) -> None:
        async with neighbourhood.opened() as scripts, calling(scripts, "dying") as callers:
            for _ in range(5):
                await callers.go_on()
                await in_thread(neighbourhood.ask_each, "CLIENT", "KILL", "TYPE", "normal")
            await callers.go_on()
            assert callers.errors == []

    async def test_whoever_leaves_touches_nobody_else(self, neighbourhood: Neighbourhood) -> None:
        async with neighbourhood.opened() as scripts, calling(scripts, "leaving") as callers:
            for number in range(100):
                usage, _ = keys_of(TENANTS[number % 8], "")
                leaving = [
                    asyncio.ensure_future(count(scripts, TENANTS[number % 8], "gone", 0)),
                    asyncio.ensure_future(scripts.call("HGETALL", usage)),
                ]
                await asyncio.sleep(0.001 * (number % 3))
                for task in leaving:
                    task.cancel()
                await asyncio.gather(*leaving, return_exceptions=True)
            await callers.go_on()
            assert callers.errors == []

    async def test_commands_go_where_their_key_is_and_all_keys_can_be_listed(
        self, neighbourhood: Neighbourhood
    ) -> None:
        async with neighbourhood.opened() as scripts:
            for tenant in TENANTS:
                await count(scripts, tenant, "a", 3)
                assert await scripts.call("HGET", f"gateway:{{{tenant}}}:usage", "sum") == b"3"
                await scripts.call("ZADD", f"gateway:{{{tenant}}}:zset", 1, "one", 2, b"two")
            usage = [key async for key in scripts.scan("gateway:*:usage")]
            assert sorted(usage) == [f"gateway:{{{tenant}}}:usage" for tenant in TENANTS]
            assert [key async for key in scripts.scan("other:*")] == []
            await scripts.ping()

    async def test_an_error_about_one_call_is_its_own(self, neighbourhood: Neighbourhood) -> None:
        async with neighbourhood.opened() as scripts:
            await scripts.call("SET", "gateway:{tenant-0}:usage", "no hash")
            calls = [count(scripts, tenant, "a") for tenant in TENANTS]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(answer, Exception) for answer in answers] == [True] + [False] * 7
            for _ in range(10):
                with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                    await count(scripts, "tenant-0", "a")


async def stops_and_comes_back(
    scripts: Scripts, server: RedisServer, tenant: str, *, by: Callable[[], None], back: Callable[[], None]
) -> None:
    """While the server is gone calls fail at once; when it is back they work, within a second or so."""
    await count(scripts, tenant, "before")
    by()

    async def refused() -> bool:
        try:
            await count(scripts, tenant, "refused")
        except CircuitOpenError:
            return True
        return False

    await asyncio.gather(*(count(scripts, tenant, f"lost-{number}") for number in range(4)), return_exceptions=True)
    await until(refused)
    began = time.monotonic()
    for number in range(200):
        with pytest.raises(CircuitOpenError):
            await count(scripts, tenant, str(number))
        with pytest.raises(CircuitOpenError):
            await total(scripts, tenant)
    # Less than what a single call would take to time out.
    assert time.monotonic() - began < scripts.timeout
    back()
    await in_thread(server.wait)
    assert await until(lambda: count(scripts, tenant, "back")) < 3


class TestSingle:
    @pytest.mark.parametrize(("by", "back"), [("kill", "launch"), ("pause", "resume")])
    async def test_calls_fail_at_once_while_it_is_gone(self, single: RedisServer, by: str, back: str) -> None:
        async with opened(single.url, timeout=0.4) as scripts:
            await stops_and_comes_back(scripts, single, "t", by=getattr(single, by), back=getattr(single, back))

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
            for number in range(5):
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

    async def test_one_that_loads_its_data_fails_calls_until_it_has(self, tmp_path: Path) -> None:
        options = ("--appendonly", "yes", "--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024")
        server = RedisServer(tmp_path / "redis", *options)
        try:
            server.start()
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
        finally:
            server.kill()

    async def test_a_node_of_a_cluster_is_refused_as_single_server(self, cluster: RedisCluster) -> None:
        with pytest.raises(ConfigurationError, match="cluster = true"):
            async with opened(cluster.nodes[0].url):
                pass


def _has_rewritten(server: RedisServer) -> bool:
    with server.client() as client:
        info = client.info("persistence")
        assert isinstance(info, dict)
        return info["aof_rewrite_in_progress"] == 0 and info["aof_rewrites"] > 0


def scripts_work(scripts: Scripts) -> Callable[[], asyncio.Future[object]]:
    return lambda: asyncio.ensure_future(scripts.run("free", ["{t}"], []))


class TestCluster:
    async def test_a_slot_that_moves_while_calls_run_goes_unnoticed(self, cluster: RedisCluster) -> None:
        tenant = TENANTS[0]
        slot = key_slot(f"{{{tenant}}}".encode())
        others = [other for other in TENANTS if key_slot(f"{{{other}}}".encode()) != slot]
        source = cluster.holder(f"{{{tenant}}}")
        target = cluster.other(source)
        async with (
            opened(cluster.url, cluster=True) as scripts,
            calling(scripts, secrets.token_hex(4)) as callers,
        ):
            for giver, taker in ((source, target), (target, source)):
                await callers.go_on()
                await in_thread(cluster.begin_move, slot, giver, taker)
                await in_thread(cluster.move_keys, slot, giver, taker)
                # Nothing is left there: one key is answered ASK. The script wants a new key beside one that moved, which
                # is TRYAGAIN as long as the slot is on its way.
                assert await total(scripts, tenant) > 0
                await callers.go_on(tenants=others)
                await in_thread(cluster.end_move, slot, taker)
                await callers.go_on()
                assert await in_thread(cluster.holder, f"{{{tenant}}}") is taker
            assert callers.errors == []

    async def test_keys_of_two_tenants_in_one_call_are_refused(self, cluster: RedisCluster) -> None:
        async with opened(cluster.url, cluster=True) as scripts:
            with pytest.raises(ClusterCrossSlotError):
                await scripts.run("count", ["{a}", "{b}"], [1, "x"])

    async def test_calls_of_other_nodes_do_not_suffer(self, cluster: RedisCluster) -> None:
        async with opened(cluster.url, cluster=True, timeout=0.4) as scripts:
            gone = cluster.holder("{tenant-0}")
            unharmed = [tenant for tenant in TENANTS if cluster.holder(f"{{{tenant}}}") is not gone]
            run = secrets.token_hex(4)
            gone.pause()
            try:
                answers = await asyncio.gather(
                    *(count(scripts, tenant, run) for tenant in TENANTS), return_exceptions=True
                )
                failed = {tenant for tenant, answer in zip(TENANTS, answers, strict=True) if type(answer) is not tuple}
                assert failed.isdisjoint(unharmed)
                assert "tenant-0" in failed
                await scripts.ping()
            finally:
                gone.resume()
            await until(lambda: count(scripts, "tenant-0", run))
        await in_thread(cluster.wait_whole)

    async def test_a_primary_that_dies_is_replaced_by_its_replica(self, fragile_cluster: RedisCluster) -> None:
        primary = fragile_cluster.primaries[0]
        tenant = next(tenant for tenant in TENANTS if fragile_cluster.holder(f"{{{tenant}}}") is primary)
        async with opened(fragile_cluster.url, cluster=True, timeout=0.4) as scripts:
            await count(scripts, tenant, "before")
            primary.kill()
            await until(lambda: in_thread(fragile_cluster.has_replaced, primary))
            assert await until(lambda: count(scripts, tenant, "after")) < 3
            # It is not asked any more: no trace of it is left.
            await asyncio.sleep(0.6)
            assert await total(scripts, tenant) == 2


class TestSentinels:
    async def test_a_primary_that_dies_is_replaced_by_its_replica(self, fragile_sentinels: RedisSentinels) -> None:
        primary, replica = fragile_sentinels.primary(), fragile_sentinels.replica()
        async with opened(fragile_sentinels.url, sentinel_service=SERVICE, timeout=0.4) as scripts:
            await count(scripts, "t", "before")
            primary.kill()
            await until(lambda: in_thread(fragile_sentinels.takes_changes, replica))
            assert await until(lambda: count(scripts, "t", "after")) < 3
            assert await total(scripts, "t") == 2

    async def test_a_primary_that_hangs_is_replaced_and_stays_so(self, fragile_sentinels: RedisSentinels) -> None:
        primary, replica = fragile_sentinels.primary(), fragile_sentinels.replica()
        # One of the Sentinels hangs, too: two of three suffice.
        fragile_sentinels.sentinels[0].pause()
        async with opened(fragile_sentinels.url, sentinel_service=SERVICE, timeout=0.4) as scripts:
            primary.pause()
            await asyncio.gather(*(count(scripts, "t", str(number)) for number in range(4)), return_exceptions=True)
            await until(lambda: in_thread(fragile_sentinels.takes_changes, replica))
            assert await until(lambda: count(scripts, "t", "after")) < 3
            primary.resume()
            await count(scripts, "t", "later")
            assert replica.ask("HGET", "gateway:{t}:usage", "sum") == str(await total(scripts, "t")).encode()

    async def test_a_primary_that_is_demoted_is_left(self, fragile_sentinels: RedisSentinels) -> None:
        replica = fragile_sentinels.replica()
        async with (
            opened(fragile_sentinels.url, sentinel_service=SERVICE, timeout=0.4) as scripts,
            calling(scripts, "demoted") as callers,
        ):
            await callers.go_on()
            fragile_sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
            await until(lambda: in_thread(lambda: fragile_sentinels.primary() is replica))
            await callers.go_on(100)
            assert int(replica.ask("HGET", "gateway:{tenant-0}:usage", "sum")) >= 100

    async def test_a_service_that_nobody_knows_is_refused(self, redis_sentinels: RedisSentinels) -> None:
        with pytest.raises(ConfigurationError, match="do not tell the primary of 'other': they do not know it"):
            async with opened(redis_sentinels.url, sentinel_service="other"):
                pass
