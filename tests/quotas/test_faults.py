"""Redis goes away, answers late or loses answers: a download is charged once, or the caller is told 503."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
import redis.asyncio

from gateway.errors import GatewayError
from gateway.quotas.service import Quotas
from tests.quotas.support import USER, FaultyProxy, faulty_proxy, file, open_quotas, until

TIMEOUT = 0.4
"""Seconds that a call may take here."""


@pytest.fixture
async def direct(redis_url: str) -> AsyncIterator[Quotas]:
    """To see what Redis holds, past the proxy."""
    async with open_quotas(redis_url) as quotas:
        yield quotas


@pytest.fixture
async def behind(redis_url: str, direct: Quotas) -> AsyncIterator[tuple[Quotas, FaultyProxy]]:
    """Quotas that reach Redis through the proxy; the scripts are loaded."""
    async with faulty_proxy(redis_url) as (proxy, url), open_quotas(url, timeout=TIMEOUT) as quotas:
        warm = await quotas.reserve(USER, file("warm"), 1)
        await quotas.settle(warm, sent=0, delivered=False)
        proxy.calls = proxy.relayed = 0
        yield quotas, proxy


async def unavailable(quotas: Quotas) -> None:
    """A reservation is refused with 503 and when to come back, within a second."""
    before = time.monotonic()
    with pytest.raises(GatewayError) as caught:
        await quotas.reserve(USER, file("a"), 10)
    assert time.monotonic() - before < 1
    assert caught.value.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert "redis" not in caught.value.detail.lower()


class TestLostReplies:
    async def test_a_reservation_whose_reply_is_lost_is_charged_once(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        proxy.replies_to_swallow = 1
        lease = await quotas.reserve(USER, file("a"), 10)
        assert proxy.calls == 2
        assert await direct.usage(USER) == (1, 10)
        await quotas.settle(lease, sent=10, delivered=True)
        assert await direct.usage(USER) == (1, 10)

    async def test_a_settlement_whose_reply_is_lost_counts_once(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        running = await quotas.reserve(USER, file("a"), 100)
        lease = await quotas.reserve(USER, file("a"), 10)
        proxy.calls, proxy.replies_to_swallow = 0, 1
        await quotas.settle(lease, sent=3, delivered=False)
        assert proxy.calls == 2
        assert await direct.usage(USER) == (1, 103)
        proxy.replies_to_swallow = 3
        await quotas.settle(running, sent=0, delivered=False)
        await until(lambda: _settled(quotas))
        assert proxy.calls == 6
        assert await direct.usage(USER) == (0, 3)

    async def test_a_reservation_of_which_nothing_is_ever_heard_is_given_back(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        proxy.replies_to_swallow = 2
        await unavailable(quotas)
        assert proxy.calls >= 2
        await until(lambda: _settled(quotas))
        assert await direct.usage(USER) == (0, 0)

    async def test_many_lost_replies_at_random_leave_the_count_true(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        chance = random.Random(10)
        granted = 0
        for number in range(60):
            proxy.replies_to_swallow = chance.choice([0, 0, 1, 2])
            try:
                lease = await quotas.reserve(USER, file(str(number)), 10)
            except GatewayError:
                continue
            proxy.replies_to_swallow = chance.choice([0, 0, 1])
            delivered = chance.random() < 0.7
            await quotas.settle(lease, sent=10 * delivered, delivered=delivered)
            granted += delivered
        proxy.replies_to_swallow = 0
        await until(lambda: _settled(quotas))
        assert 10 < granted < 60
        assert await direct.usage(USER) == (granted, 10 * granted)

    async def test_a_reservation_that_arrives_after_it_was_given_up_is_not_charged(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        proxy.calls_to_hold = 1
        await unavailable(quotas)
        await until(lambda: _settled(quotas))
        assert proxy.relayed == proxy.calls - 1
        proxy.released.set()
        await until(lambda: _relayed(proxy))
        await asyncio.sleep(0.1)
        assert await direct.usage(USER) == (0, 0)


async def _relayed(proxy: FaultyProxy) -> bool:
    return proxy.relayed == proxy.calls


async def _settled(quotas: Quotas) -> bool:
    return not quotas._settling


class TestRedisGone:
    async def test_503_in_time_and_all_is_well_when_it_is_back(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        proxy.shut = True
        proxy.cut()
        for _ in range(3):
            await unavailable(quotas)
        with pytest.raises(GatewayError, match="does not answer"):
            await quotas.ping()
        proxy.shut = False
        await quotas.ping()
        lease = await quotas.reserve(USER, file("b"), 10)
        await quotas.settle(lease, sent=10, delivered=True)
        await until(lambda: _settled(quotas))
        assert await direct.usage(USER) == (1, 10)

    async def test_503_in_time_when_it_hangs(self, behind: tuple[Quotas, FaultyProxy], direct: Quotas) -> None:
        quotas, proxy = behind
        proxy.deaf = True
        await asyncio.gather(*(unavailable(quotas) for _ in range(40)))
        proxy.deaf = False
        await until(lambda: _settled(quotas))
        assert await direct.usage(USER) == (0, 0)

    async def test_a_settlement_is_tried_until_it_arrives(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        lease = await quotas.reserve(USER, file("a"), 100)
        proxy.shut = True
        proxy.cut()
        before = time.monotonic()
        await quotas.settle(lease, sent=42, delivered=True)
        assert time.monotonic() - before < 3
        assert await direct.usage(USER) == (1, 100)
        await asyncio.sleep(0.5)
        proxy.shut = False
        await until(lambda: _settled(quotas))
        assert await direct.usage(USER) == (1, 42)

    async def test_a_settlement_that_never_arrives_is_logged(
        self,
        behind: tuple[Quotas, FaultyProxy],
        direct: Quotas,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("gateway.quotas.service._SETTLE_PAUSE", 0.001)
        quotas, proxy = behind
        lease = await quotas.reserve(USER, file("a"), 100)
        proxy.shut = True
        proxy.cut()
        await quotas.settle(lease, sent=42, delivered=True)
        await until(lambda: _settled(quotas))
        assert "stays charged in full: 100 bytes promised, 42 sent" in caplog.text
        assert await direct.usage(USER) == (1, 100)

    async def test_scripts_that_redis_forgot_are_loaded_again(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas, redis_url: str
    ) -> None:
        quotas, _ = behind
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.script_flush()
            lease = await quotas.reserve(USER, file("a"), 10)
            await client.script_flush()
            await quotas.settle(lease, sent=4, delivered=True)
        assert await direct.usage(USER) == (1, 4)

    async def test_a_redis_that_is_full_grants_nothing_but_takes_settlements(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas, redis_url: str
    ) -> None:
        quotas, _ = behind
        lease = await quotas.reserve(USER, file("a"), 100)
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            before = str((await client.config_get("maxmemory"))["maxmemory"])
            await client.config_set("maxmemory", "1")
            try:
                await unavailable(quotas)
                await quotas.settle(lease, sent=42, delivered=True)
                await until(lambda: _settled(quotas))
                assert await direct.usage(USER) == (1, 42)
            finally:
                await client.config_set("maxmemory", before)


class TestCancellation:
    async def test_what_was_granted_to_a_caller_who_left_is_given_back(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        proxy.replies_to_hold = 1
        task = asyncio.create_task(quotas.reserve(USER, file("a"), 10))
        await until(lambda: _is(direct, (1, 10)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.released.set()
        await until(lambda: _settled(quotas))
        assert await direct.usage(USER) == (0, 0)

    async def test_what_was_charged_whole_to_a_caller_who_left_is_given_back(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        proxy.replies_to_hold = 1
        task = asyncio.create_task(quotas.charge(USER, file("a"), 10))
        await until(lambda: _is(direct, (1, 10)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.released.set()
        await until(lambda: _settled(quotas))
        assert await direct.usage(USER) == (0, 0)

    async def test_whoever_stops_waiting_for_a_settlement_does_not_stop_it(
        self, behind: tuple[Quotas, FaultyProxy], direct: Quotas
    ) -> None:
        quotas, proxy = behind
        lease = await quotas.reserve(USER, file("a"), 10)
        proxy.calls_to_hold, proxy.calls = 1, 0
        task = asyncio.create_task(quotas.settle(lease, sent=3, delivered=True))
        await until(lambda: _called(proxy))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await direct.usage(USER) == (1, 10)
        proxy.released.set()
        await until(lambda: _settled(quotas))
        assert await direct.usage(USER) == (1, 3)


async def _is(quotas: Quotas, expected: tuple[int, int]) -> bool:
    return await quotas.usage(USER) == expected


async def _called(proxy: FaultyProxy) -> bool:
    return proxy.calls > 0


class TestClosing:
    async def test_it_waits_for_settlements_on_their_way(self, redis_url: str, direct: Quotas) -> None:
        async with faulty_proxy(redis_url) as (proxy, url), open_quotas(url, timeout=TIMEOUT) as quotas:
            lease = await quotas.reserve(USER, file("a"), 10)
            proxy.shut = True
            proxy.cut()
            await quotas.settle(lease, sent=3, delivered=True)
            proxy.shut = False
        assert await direct.usage(USER) == (1, 3)

    async def test_it_does_not_wait_for_ever_and_says_what_is_lost(
        self, redis_url: str, direct: Quotas, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.ERROR)
        async with faulty_proxy(redis_url) as (proxy, url):
            async with open_quotas(url, timeout=TIMEOUT) as quotas:
                lease = await quotas.reserve(USER, file("a"), 10)
                proxy.shut = True
                proxy.cut()
                await quotas.settle(lease, sent=3, delivered=True)
                before = time.monotonic()
            assert time.monotonic() - before < 4
        assert not quotas._settling
        assert "1 downloads stay charged in full" in caplog.text
        assert await direct.usage(USER) == (1, 10)
