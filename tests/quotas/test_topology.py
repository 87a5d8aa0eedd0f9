"""A single Redis, one behind Sentinels and a cluster: the same calls; and slots that move, primaries that go."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import ClusterCrossSlotError

from gateway.config import Redis
from gateway.doctor.redis_server import look_at_redis
from gateway.errors import ConfigurationError
from gateway.redis.scripts import Scripts
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


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> RedisCluster:
    """The cluster, emptied."""
    for node in redis_cluster.primaries:
        node.ask("FLUSHALL")
    return redis_cluster


@pytest.fixture(params=["single", "sentinels", "cluster"])
def neighbourhood(request: pytest.FixtureRequest) -> Neighbourhood:
    if request.param == "single":
        server: RedisServer = request.getfixturevalue("redis_server")()
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

    async def test_the_doctor_looks_at_each_primary(self, neighbourhood: Neighbourhood) -> None:
        settings = Redis.model_validate({"url": neighbourhood.url, **neighbourhood.settings})
        found = [finding async for finding in look_at_redis(settings)]
        texts = [finding.text for finding in found]
        assert [finding for finding in found if finding.level == "problem"] == []
        for part in ("reachable, Valkey", "appendonly no", "scripts run and may write"):
            assert sum(part in text for text in texts) == len(neighbourhood.servers)
        if len(neighbourhood.servers) > 1:
            assert all(any(f":{server.port}: " in text for text in texts) for server in neighbourhood.servers)
        async with neighbourhood.opened() as scripts:
            assert [key async for key in scripts.scan("*")] == []

    async def test_an_error_about_one_call_is_its_own(self, neighbourhood: Neighbourhood) -> None:
        async with neighbourhood.opened() as scripts:
            await scripts.call("SET", "gateway:{tenant-0}:usage", "no hash")
            calls = [count(scripts, tenant, "a") for tenant in TENANTS]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(answer, Exception) for answer in answers] == [True] + [False] * 7
            for _ in range(10):
                with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                    await count(scripts, "tenant-0", "a")


class TestCluster:
    async def test_a_node_of_a_cluster_is_refused_as_single_server(self, cluster: RedisCluster) -> None:
        with pytest.raises(ConfigurationError, match="cluster = true"):
            async with opened(cluster.nodes[0].url):
                pass

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
                # Nothing is left there: one key is answered ASK. The script wants a new key beside one that moved, and
                # is answered TRYAGAIN as long as the slot is on its way.
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
