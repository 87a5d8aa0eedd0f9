"""Quotas on a single Redis, behind Sentinels, and on a cluster: the same counts; and primaries that change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.crc import key_slot

from gateway.errors import GatewayError
from gateway.quotas.keys import Keys
from gateway.quotas.leases import SLICE
from gateway.quotas.limits import Limit, own_account
from tests.quotas.holders import (
    Holder,
    add_tenants,
    assert_books_agree,
    assert_unavailable,
    file_of,
    open_holder,
    until,
    user,
)
from tests.redis_servers import SERVICE, RedisCluster, RedisSentinels, RedisServer

TENANTS = ("esa", "tenant-5")
"""They are on two nodes of the cluster."""


@pytest.fixture
async def ledger(database: str) -> str:
    """A ledger that knows both tenants."""
    await add_tenants(database, *TENANTS)
    return database


@pytest.fixture(params=["single", "sentinels", "cluster"])
async def holder(request: pytest.FixtureRequest, ledger: str) -> AsyncIterator[tuple[Holder, list[RedisServer]]]:
    """Quotas, and the servers that hold their counters."""
    settings: dict[str, object] = {}
    if request.param == "single":
        server: RedisServer = request.getfixturevalue("redis_server")()
        url, servers = server.url, [server]
    elif request.param == "sentinels":
        sentinels: RedisSentinels = request.getfixturevalue("redis_sentinels")
        url, servers, settings = sentinels.url, [sentinels.primary()], {"sentinel_service": SERVICE}
    else:
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        url, servers, settings = cluster.url, cluster.primaries, {"cluster": True}
        holders = {cluster.holder(Keys(tenant, 1).state).port for tenant in TENANTS}
        assert len(holders) == 2
    for one in servers:
        one.ask("FLUSHALL")
    async with open_holder(url, ledger, lease_ttl=2, **settings) as opened:  # type: ignore[arg-type]
        yield opened, servers


async def test_each_topology_counts_ends_sweeps_and_recovers(
    holder: tuple[Holder, list[RedisServer]], ledger: str
) -> None:
    quotas, servers = holder
    callers = [user("one", tenant) for tenant in TENANTS]
    others = [user("other", tenant) for tenant in TENANTS]
    limits = [Limit("tenant", "downloads", "total", 100), Limit(own_account(callers[0]), "concurrent", "now", 2)]
    running = []
    for who, other in zip(callers, others, strict=True):
        await quotas.settle(await quotas.reserve("a", 100, who, *limits), 60)
        running.append(await quotas.reserve("long", 4 * SLICE, who, *limits))
        await quotas.quotas.charge(other, file_of("b", 1000), 1000)
        assert await quotas.used(who) == (2, 60 + 4 * SLICE)
        assert await quotas.used(other) == (1, 1000)
        assert await quotas.running(who) == 1
        last = await quotas.reserve("last", 10, who, *limits)
        with pytest.raises(GatewayError) as caught:
            await quotas.reserve("too many", 10, who, *limits)
        assert caught.value.status == 429
        await quotas.settle(last, 10)
        # Its process forgets it: it runs out and is swept.
        lost = await quotas.reserve("lost", 500, who)
        quotas.upkeep.leases.drop(lost)

    async def only_one_runs() -> bool:
        return [await quotas.leases(tenant) for tenant in TENANTS] == [1, 1]

    await until(only_one_runs, "what has no heartbeat is swept, what has one goes on")
    for lease in running:
        lease.transfer.sent = SLICE
        await lease.more()
        assert lease.granted() > SLICE
    for server in servers:
        server.ask("FLUSHALL")
    for tenant in TENANTS:
        with pytest.raises(GatewayError) as caught:
            await quotas.reserve("closed", 1, user("one", tenant))
        assert caught.value.status == 503
    await until(lambda: _is_open_in(quotas, 2), "both are open in the second epoch")
    assert [await quotas.running(who) for who in callers] == [1, 1]
    for who, lease in zip(callers, running, strict=True):
        assert await quotas.used(who) == (4, 60 + 10 + 500 + 4 * SLICE)
        await quotas.settle(lease, SLICE + 1)
        assert await quotas.used(who) == (4, 60 + 10 + 500 + SLICE + 1)
    for tenant in TENANTS:
        # What was handed over whole has no end.
        await assert_books_agree(quotas, ledger, tenant, without_end=1)


async def _is_open_in(quotas: Holder, epoch: int, tenants: tuple[str, ...] = TENANTS) -> bool:
    return all([quotas.epoch(tenant) == epoch and await quotas.is_open(tenant) for tenant in tenants])


@contextlib.asynccontextmanager
async def downloading(quotas: Holder, tenant: str) -> AsyncIterator[list[int]]:
    """Downloads of 10 bytes all the time; how many were granted, in the only member of the list."""
    done, ended = [0], asyncio.Event()

    async def download() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            with contextlib.suppress(GatewayError):
                await quotas.download(f"{number}", 10, user("busy", tenant))
                done[0] += 1
            await asyncio.sleep(0.005)

    task = asyncio.create_task(download())
    try:
        yield done
    finally:
        ended.set()
        await task


async def test_a_primary_that_sentinels_replace_begins_an_epoch_with_the_right_counts(
    fragile_sentinels: RedisSentinels, ledger: str
) -> None:
    primary, replica = fragile_sentinels.primary(), fragile_sentinels.replica()
    async with open_holder(fragile_sentinels.url, ledger, sentinel_service=SERVICE, lease_ttl=20) as quotas:
        running = await quotas.reserve("running", 1000)
        async with downloading(quotas, "esa") as done:
            await until(lambda: _is(done, 20), "some are done")
            primary.kill()
            await assert_unavailable(quotas)
            await until(lambda: asyncio.to_thread(fragile_sentinels.takes_changes, replica), "the replica takes over")
            await until(lambda: _is_open_in(quotas, 2, ("esa",)), "the second epoch is open")
            before = done[0]
            await until(lambda: _is(done, before + 20), "downloads go on")
        assert await quotas.running() == 1
        await quotas.settle(running, 600)
        await until(quotas.is_settled, "all is settled")
        assert await quotas.used() == (1, 600)
        downloads, octets = await quotas.used(user("busy"))
        # One may have been granted in the instant of the kill: its answer is lost, but the ledger has it.
        assert done[0] <= downloads <= done[0] + 1
        assert octets == 10 * downloads
        # Who got no answer ends nothing; all others do.
        await assert_books_agree(quotas, ledger, perhaps_without=downloads - done[0])


async def test_a_slot_that_moves_to_another_node_begins_an_epoch_there_with_the_right_counts(
    redis_cluster: RedisCluster, ledger: str
) -> None:
    for node in redis_cluster.primaries:
        node.ask("FLUSHALL")
    tenant = TENANTS[0]
    slot = key_slot(Keys(tenant, 1).state.encode())
    source = redis_cluster.holder(Keys(tenant, 1).state)
    target = redis_cluster.other(source)
    try:
        async with open_holder(redis_cluster.url, ledger, cluster=True, lease_ttl=20) as quotas:
            running = await quotas.reserve("running", 1000)
            elsewhere = await quotas.reserve("elsewhere", 50, user("one", TENANTS[1]))
            async with downloading(quotas, tenant) as done:
                await until(lambda: _is(done, 20), "some are done")
                await asyncio.to_thread(redis_cluster.begin_move, slot, source, target)
                await asyncio.to_thread(_move_all, redis_cluster, slot, source, target)
                await asyncio.to_thread(redis_cluster.end_move, slot, target)
                await until(lambda: _is_open_in(quotas, 2, (tenant,)), "the second epoch is open")
                before = done[0]
                await until(lambda: _is(done, before + 20), "downloads go on")
            assert quotas.epoch(TENANTS[1]) == 1
            assert await quotas.running() == 1
            await quotas.settle(running, 600)
            await quotas.settle(elsewhere, 50)
            await until(quotas.is_settled, "all is settled")
            assert await quotas.used() == (1, 600)
            assert await quotas.used(user("busy")) == (done[0], 10 * done[0])
            for name in TENANTS:
                await assert_books_agree(quotas, ledger, name)
    finally:
        if redis_cluster.holder(Keys(tenant, 1).state) is target:
            redis_cluster.begin_move(slot, target, source)
            redis_cluster.move_keys(slot, target, source)
            redis_cluster.end_move(slot, source)


def _move_all(cluster: RedisCluster, slot: int, source: RedisServer, target: RedisServer) -> None:
    while cluster.move_keys(slot, source, target):
        pass


async def _is(done: list[int], at_least: int) -> bool:
    return done[0] >= at_least
