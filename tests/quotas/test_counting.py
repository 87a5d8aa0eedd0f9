"""Arithmetic of the scripts: months, large numbers, odd names, rolling windows."""

from __future__ import annotations

import asyncio
import bisect
import datetime
import itertools
from collections.abc import Iterator
from importlib.resources import files

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.delivery.transfer import Transfer
from gateway.errors import GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.quotas.accounts import month_number
from gateway.quotas.keys import Keys
from gateway.quotas.limits import Limit
from gateway.quotas.reservation import MOST_BYTES
from tests.quotas.support import OWN, USER, Process, download, file, opened_database, process, set_clock, usage, user

DAY = 86_400_000_000
LATER = 25_000 * DAY


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as found:
        yield found


def test_months_are_those_of_the_calendar(client: redis.Redis) -> None:
    """For all days from 1970 to 2200: the number of the month, and the first day of the next."""
    common = files("gateway.quotas").joinpath("lua", "common.lua").read_text(encoding="utf-8")
    script = "local answer = {} for day = ARGV[1], ARGV[2] do answer[#answer + 1] = {month_of(day)} end return answer"
    first = datetime.date(1970, 1, 1)
    last = (datetime.date(2201, 1, 1) - first).days
    days = [first + datetime.timedelta(days=number) for number in range(last)]
    begins = [(day - first).days for day in (*days, datetime.date(2201, 1, 1)) if day.day == 1]
    expected = [[month_number(day), begins[bisect.bisect(begins, number)]] for number, day in enumerate(days)]
    assert client.eval(f"{common}\n{script}", 0, 0, last - 1) == expected


ODD_NAMES = [
    "a",
    "a:user:b",
    "tenant",
    "{a}",
    "}:1:account:{",
    "{}",
    'a"b',
    '","k":"end","d":-1,"x":"',
    '"r":"x"',
    "a\\",
    '\\"',
    "\\u0041",
    "%1",
    "%%",
    "100%25",
    "a b\n\t\x01\x7f",
    "a/b",
    "null",
    "Île",
    "I\u0302le",
    "北京",
    "🛰",
    "\u2028\u200b",
    "*[a]?",
    "x" * 500,
]


async def test_odd_names_are_counted_each_by_itself(redis_url: str, database: str) -> None:
    async with opened_database(database, *ODD_NAMES) as opened, process(redis_url, opened) as one:
        for tenant, names in zip(ODD_NAMES, itertools.cycle([ODD_NAMES[first::6] for first in range(6)]), strict=False):
            for number, name in enumerate(names):
                bound = (Limit(f"group:{name}", "bytes", "60s", 1000),)
                await download(one.quotas, user(name, tenant), file(name, bound), 10 + number, number)
            await one.quotas.reserve(anonymous(tenant, names[0]), file("same"), Transfer(7))
        await one.upkeep.drain_ours()
        for tenant, names in zip(ODD_NAMES, itertools.cycle([ODD_NAMES[first::6] for first in range(6)]), strict=False):
            accounts = [f"{kind}:{name}" for name in names for kind in ("user", "group")]
            count = len(names)
            expected = {
                **{f"{kind}:{name}": number for number, name in enumerate(names) for kind in ("user", "group")},
                f"network:{names[0]}": 7,
                "anonymous": 7,
                "tenant": 7 + count * (count - 1) // 2,
            }
            found = await one.quotas.usage(tenant, list(expected))
            assert {account: usage.octets for account, usage in found.items()} == expected
            for account in (*accounts, "tenant", "anonymous"):
                assert await one.compared(tenant, account) == []


async def test_accounts_with_odd_names_are_loaded_with_what_waits_for_the_ledger(
    redis_url: str, database: str, client: redis.Redis
) -> None:
    async with opened_database(database, *ODD_NAMES) as opened, process(redis_url, opened) as one:
        for tenant, name in zip(ODD_NAMES, reversed(ODD_NAMES), strict=True):
            await download(one.quotas, user(name, tenant), file(name), 5)
            await one.upkeep.drain_ours()
            await download(one.quotas, user(name, tenant), file("more"), 6, 2)
            key = one.epochs.keys(tenant).account(f"user:{name}")
            client.delete(key)
            found = await one.quotas.usage(tenant, [f"user:{name}"])
            assert found == {f"user:{name}": usage(2, 7, 0)}


def bytes_limit(value: int, period: str = "total") -> tuple[Limit, ...]:
    return (Limit(OWN, "bytes", period, value),)


async def refused(one: Process, limits: tuple[Limit, ...], promised: int, content: str = "b") -> bool:
    try:
        await one.quotas.charge(USER, file(content, limits), promised)
    except GatewayError as error:
        return int(error.status) == 429
    return False


@pytest.mark.parametrize("period", ["total", "month", "3600s"])
async def test_the_greatest_limit_is_exact(one: Process, period: str) -> None:
    limits = bytes_limit(MOST_BYTES, period)
    await one.quotas.charge(USER, file("a", limits), 1)
    assert await refused(one, limits, MOST_BYTES)
    assert not await refused(one, limits, MOST_BYTES - 1)
    assert (await one.quotas.usage("esa", [OWN]))[OWN].octets == MOST_BYTES
    assert await refused(one, limits, 1, "c")
    assert await one.compared("esa", OWN) == []


async def test_counts_are_exact_below_the_greatest(one: Process) -> None:
    lease = await one.quotas.reserve(USER, file("a"), Transfer(MOST_BYTES))
    assert (await one.quotas.usage("esa", [OWN]))[OWN].octets == MOST_BYTES
    lease.transfer.sent = lease.mark
    await one.quotas.settle(lease, delivered=True)
    assert (await one.quotas.usage("esa", [OWN]))[OWN].octets == lease.mark
    with pytest.raises(GatewayError, match="more than any quota can count"):
        await one.quotas.reserve(USER, file("b"), Transfer(MOST_BYTES + 1))


steps = st.lists(st.tuples(st.integers(0, 30 * 1_000_000), st.integers(1, 60)), min_size=1, max_size=25)


class TestRollingWindows:
    """Never more than the limit in any time so long; never refused what fits into that time and a sixtieth before."""

    @given(steps=steps, window=st.sampled_from([7, 60, 61, 100]))
    @example(steps=[(0, 60), (60_000_000, 60), (1_000_000, 60)], window=60)
    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    def test_what_is_granted(
        self, redis_url: str, database: str, client: redis.Redis, steps: list[tuple[int, int]], window: int
    ) -> None:
        asyncio.run(self.grant(redis_url, database, client, steps, window))

    async def grant(
        self, redis_url: str, database: str, client: redis.Redis, steps: list[tuple[int, int]], window: int
    ) -> None:
        limits, length = bytes_limit(100, f"{window}s"), window * 1_000_000
        tenant = f"tenant-{len(client.keys('*:state'))}"
        who = user("scientist@example.org", tenant)
        granted: list[tuple[int, int]] = []
        async with (
            opened_database(database, tenant) as opened,
            process(redis_url, opened) as one,
            redis.asyncio.Redis.from_url(redis_url) as other,
        ):
            await one.upkeep.recovery.ensure(tenant)
            keys: Keys = one.epochs.keys(tenant)
            now = LATER
            for number, (pause, amount) in enumerate(steps):
                now += pause
                await set_clock(other, keys, now)
                since = sum(octets for at, octets in granted if at > now - length)
                roughly = sum(octets for at, octets in granted if at > now - length - -(-length // 60))
                try:
                    await one.quotas.charge(who, file(str(number), limits), amount)
                except GatewayError as error:
                    assert roughly + amount > 100
                    wait = int(error.headers["Retry-After"]) * 1_000_000
                    await set_clock(other, keys, now + wait)
                    await one.quotas.charge(who, file(str(number), limits), amount)
                    now += wait
                else:
                    assert since + amount <= 100
                granted.append((now, amount))


async def test_every_kind_of_period_begins_anew(one: Process, redis_url: str) -> None:
    """At the last microsecond of a day, month or year it is full; at the first of the next it is empty."""
    await one.upkeep.recovery.ensure("esa")
    keys = one.epochs.keys("esa")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        for number, year in enumerate((2039, 2040, 2099)):
            midnight = (datetime.date(year + 1, 1, 1) - datetime.date(1970, 1, 1)).days * DAY
            for period in ("day", "month"):
                who: Principal = user(f"{period}-{number}")
                limits = (Limit(f"user:{who.email}", "downloads", period, 1),)
                await set_clock(client, keys, midnight - 1)
                await one.quotas.charge(who, file("a", limits), 1)
                with pytest.raises(GatewayError) as caught:
                    await one.quotas.charge(who, file("b", limits), 1)
                assert caught.value.headers["Retry-After"] == "1"
                await set_clock(client, keys, midnight)
                await one.quotas.charge(who, file("b", limits), 1)


@pytest.mark.parametrize(("again", "charged"), [(False, (0, 0)), (True, (1, 10))])
async def test_what_was_handed_over_a_second_time_for_nothing_is_paid_by_the_first(
    one: Process, *, again: bool, charged: tuple[int, int]
) -> None:
    """The answer to the first was lost, so that it is given back; unless somebody got the object on its account."""
    limits = (Limit("user:a@x.org", "bytes", "total", 1000),)
    lost = one.quotas._reservation(USER, wanted := file("a", limits), 10)
    await one.quotas._ask(lost, limits, "whole")
    if again:
        await one.quotas.charge(USER, wanted, 10)
    await one.quotas._give_back(lost)
    used = (await one.quotas.usage(USER.tenant, ["user:a@x.org"]))["user:a@x.org"]
    assert (used.downloads, used.octets) == charged
