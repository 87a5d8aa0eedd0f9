"""What is told of an epoch that is over, and in which order: cases that the model found, or should have."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis.asyncio

from gateway.db import Database
from gateway.delivery.transfer import Transfer
from gateway.errors import GatewayError
from gateway.quotas.keys import Keys
from gateway.quotas.limits import Limit
from gateway.quotas.usage import Usage
from tests.quotas.support import OWN, USER, Process, download, file, process, set_clock, usage

LATER = 25_000 * 86_400_000_000
"""A time that has not come."""


@pytest.fixture
async def other(redis_url: str, opened: Database) -> AsyncIterator[Process]:
    async with process(redis_url, opened) as found:
        yield found


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as found:
        yield found


async def begin(*processes: Process) -> Keys:
    for found in processes:
        await found.upkeep.recovery.ensure("esa")
    return processes[0].epochs.keys("esa")


async def recover(*processes: Process) -> Keys:
    """Find out that Redis lost something, and begin anew."""
    with contextlib.suppress(GatewayError):
        await processes[0].quotas.usage("esa", ["tenant"])
    for _ in range(3):
        for found in processes:
            await found.upkeep.look()
    return processes[0].epochs.keys("esa")


async def used(found: Process, account: str = OWN) -> Usage:
    assert await found.compared("esa", account) == []
    return (await found.quotas.usage("esa", [account]))[account]


class TestTime:
    async def test_an_epoch_opens_no_earlier_than_what_was_told_since_it_began(
        self, one: Process, client: redis.asyncio.Redis
    ) -> None:
        await set_clock(client, await begin(one), LATER)
        await download(one.quotas, USER, file("a"), 1)
        await client.flushdb()
        keys = await recover(one)
        assert int(await client.hget(keys.state, "clock") or 0) == LATER

    async def test_time_never_runs_backwards(self, one: Process, client: redis.asyncio.Redis) -> None:
        keys = await begin(one)
        first = await one.quotas.reserve(USER, file("a"), Transfer(1))
        await client.hset(keys.state, "shift", "-5000000000")
        assert (await one.quotas.reserve(USER, file("b"), Transfer(1))).at >= first.at
        await client.hset(keys.state, "shift", "5000000000")
        assert (await one.quotas.reserve(USER, file("c"), Transfer(1))).at >= first.at + 5_000_000_000


async def lose_the_answer(found: Process, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of the next call of a script."""
    run = found.scripts.run

    async def lost(called: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        answer = await run(called, keys, arguments)
        if called == name:
            monkeypatch.setattr(found.scripts, "run", run)
            raise TimeoutError
        return answer

    monkeypatch.setattr(found.scripts, "run", lost)


class TestTold:
    async def test_a_grant_that_nobody_heard_of_is_told_with_its_end(
        self, one: Process, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else what it gave back would be less than nothing."""
        await begin(one)
        await download(one.quotas, USER, file("z"), 5)
        await lose_the_answer(one, monkeypatch, "reserve")
        with pytest.raises(GatewayError):
            await one.quotas.reserve(USER, file("a"), Transfer(10))
        await one.settled()
        assert await used(one) == usage(1, 5, 0)
        await client.flushdb()
        await recover(one)
        assert await used(one) == usage(1, 5, 0)

    async def test_what_gives_back_a_download_that_was_lost_is_passed_over(
        self, one: Process, other: Process, opened: Database, client: redis.asyncio.Redis
    ) -> None:
        await begin(one, other)
        first = await one.quotas.reserve(USER, file("a"), Transfer(10))
        second = await other.quotas.reserve(USER, file("a"), Transfer(10))
        await one.quotas.settle(first, delivered=False)
        await other.quotas.settle(second, delivered=False)
        assert await used(other) == usage(0, 0, 0)
        # The first process dies at the same moment as Redis.
        await opened.fetch("DELETE FROM quota_processes WHERE process = $1", one.upkeep.process)
        await client.flushdb()
        await recover(other)
        assert await used(other) == usage(0, 0, 0)


async def test_a_download_is_given_back_to_whom_it_was_charged(one: Process) -> None:
    """Even if the limits, and so the accounts, are others by then."""
    await begin(one)
    group = (Limit("group:g", "downloads", "3600s", 5),)
    first = await one.quotas.reserve(USER, file("a", group), Transfer(10))
    second = await one.quotas.reserve(USER, file("a"), Transfer(10))
    await one.quotas.settle(first, delivered=False)
    await one.quotas.settle(second, delivered=False)
    assert await used(one, "group:g") == usage(0, 0, 0)
    assert await used(one) == usage(0, 0, 0)
    first = await one.quotas.reserve(USER, file("b"), Transfer(10))
    second = await one.quotas.reserve(USER, file("b", group), Transfer(10))
    await one.quotas.settle(first, delivered=False)
    await one.quotas.settle(second, delivered=False)
    assert await used(one, "group:g") == usage(0, 0, 0)
    assert await used(one) == usage(0, 0, 0)


class TestRestoring:
    async def test_a_lease_that_another_process_ended_is_not_restored(
        self, one: Process, other: Process, client: redis.asyncio.Redis
    ) -> None:
        """Not even if that is told after it was put into the new epoch: its end would be charged twice."""
        keys = await begin(one, other)
        lease = await one.quotas.reserve(USER, file("a"), Transfer(100))
        await one.upkeep.drain_ours()
        await set_clock(client, keys, LATER)
        await other.upkeep._sweep("esa")
        await client.flushdb()
        with contextlib.suppress(GatewayError):
            await one.quotas.usage("esa", ["tenant"])
        for found in (one, one, other, one, other):
            await found.upkeep.look()
        lease.transfer.sent = 30
        assert await used(one) == usage(1, 100, 0)
        await one.quotas.settle(lease, delivered=True)
        assert await used(one) == usage(1, 100, 0)
