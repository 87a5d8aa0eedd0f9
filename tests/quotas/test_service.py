"""What is charged, what is given back, what is refused: against a real Redis."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
import redis.asyncio
import redis.crc

from gateway.errors import ConfigurationError, GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.quotas.service import MOST_BYTES, Quotas
from tests.quotas.support import (
    UNLIMITED,
    USER,
    Limits,
    all_keys,
    file,
    open_quotas,
    run_reserve,
    run_settle,
    user,
)


@pytest.fixture
async def quotas(redis_url: str) -> AsyncIterator[Quotas]:
    async with open_quotas(redis_url) as quotas:
        yield quotas


async def refusal(
    quotas: Quotas, content: str, limits: Limits, promised: int = 1, who: Principal = USER
) -> GatewayError:
    before = await quotas.usage(who)
    with pytest.raises(GatewayError) as caught:
        await quotas.reserve(who, file(content, limits), promised)
    assert caught.value.status is HTTPStatus.TOO_MANY_REQUESTS
    assert await quotas.usage(who) == before
    return caught.value


async def download(quotas: Quotas, who: Principal, content: str | int, size: int, limits: Limits = UNLIMITED) -> None:
    lease = await quotas.reserve(who, file(content, limits), size)
    await quotas.settle(lease, sent=size, delivered=True)


class TestCharging:
    async def test_bytes_are_promised_first_and_charged_as_sent(self, quotas: Quotas) -> None:
        assert await quotas.usage(USER) == (0, 0)
        lease = await quotas.reserve(USER, file("a"), 1000)
        assert await quotas.usage(USER) == (1, 1000)
        await quotas.settle(lease, sent=300, delivered=True)
        assert await quotas.usage(USER) == (1, 300)

    async def test_what_delivered_nothing_costs_nothing(self, quotas: Quotas) -> None:
        lease = await quotas.reserve(USER, file("a"), 1000)
        await quotas.settle(lease, sent=0, delivered=False)
        assert await quotas.usage(USER) == (0, 0)
        await download(quotas, USER, "a", 5)
        assert await quotas.usage(USER) == (1, 5)

    async def test_an_empty_file_is_a_download(self, quotas: Quotas) -> None:
        await download(quotas, USER, "a", 0)
        assert await quotas.usage(USER) == (1, 0)

    async def test_the_same_content_in_the_window_is_one_download_and_all_its_bytes(self, quotas: Quotas) -> None:
        for size in (10, 20, 30):
            await download(quotas, USER, "a", size)
        await download(quotas, USER, "A", 40)
        assert await quotas.usage(USER) == (1, 100)
        await download(quotas, USER, "b", 1)
        assert await quotas.usage(USER) == (2, 101)

    async def test_files_without_checksum_are_told_apart_by_their_id(self, quotas: Quotas) -> None:
        for number in (7, 8, 7):
            await download(quotas, USER, number, 1)
        assert await quotas.usage(USER) == (2, 3)

    async def test_the_same_digits_of_another_algorithm_are_another_content(self, quotas: Quotas) -> None:
        lease = await quotas.reserve(USER, file("a"), 1)
        other = await quotas.reserve(USER, dataclasses.replace(file("a"), checksum_algorithm="MD5"), 1)
        assert await quotas.usage(USER) == (2, 2)
        for granted in (lease, other):
            await quotas.settle(granted, sent=1, delivered=True)

    async def test_callers_without_a_name_are_never_merged(self, quotas: Quotas) -> None:
        who = anonymous("esa")
        running = [await quotas.reserve(who, file("a"), 10) for _ in range(3)]
        assert await quotas.usage(who) == (3, 30)
        await quotas.settle(running[0], sent=10, delivered=True)
        await quotas.settle(running[1], sent=0, delivered=False)
        assert await quotas.usage(who) == (2, 20)
        await quotas.settle(running[2], sent=4, delivered=True)
        assert await quotas.usage(who) == (2, 14)

    async def test_counts_are_exact_up_to_the_most(self, quotas: Quotas) -> None:
        lease = await quotas.reserve(USER, file("a", Limits(-1, MOST_BYTES)), MOST_BYTES)
        assert await quotas.usage(USER) == (1, MOST_BYTES)
        await refusal(quotas, "b", Limits(-1, MOST_BYTES - 1))
        await quotas.settle(lease, sent=MOST_BYTES - 1, delivered=True)
        assert await quotas.usage(USER) == (1, MOST_BYTES - 1)
        await refusal(quotas, "b", UNLIMITED, MOST_BYTES + 1)

    async def test_what_somebody_else_sends_is_charged_whole_and_merged_like_all_else(self, quotas: Quotas) -> None:
        once = Limits(1, 100)
        for _ in range(2):
            await quotas.charge(USER, file("a", once), 30)
        await download(quotas, USER, "a", 10, once)
        assert await quotas.usage(USER) == (1, 70)
        with pytest.raises(GatewayError, match="Download quota of 1 exceeded"):
            await quotas.charge(USER, file("b", once), 1)
        with pytest.raises(GatewayError, match="would be exceeded"):
            await quotas.charge(USER, file("a", once), 31)
        assert await quotas.usage(USER) == (1, 70)


class TestGivingBack:
    async def test_the_download_is_kept_while_another_of_the_content_runs(self, quotas: Quotas) -> None:
        first = await quotas.reserve(USER, file("a"), 10)
        second = await quotas.reserve(USER, file("a"), 20)
        await quotas.settle(first, sent=0, delivered=False)
        assert await quotas.usage(USER) == (1, 20)
        await quotas.settle(second, sent=0, delivered=False)
        assert await quotas.usage(USER) == (0, 0)

    async def test_the_download_is_kept_once_anything_was_delivered(self, quotas: Quotas) -> None:
        first = await quotas.reserve(USER, file("a"), 10)
        second = await quotas.reserve(USER, file("a"), 20)
        await quotas.settle(first, sent=1, delivered=True)
        await quotas.settle(second, sent=0, delivered=False)
        assert await quotas.usage(USER) == (1, 1)
        third = await quotas.reserve(USER, file("a"), 30)
        await quotas.settle(third, sent=0, delivered=False)
        assert await quotas.usage(USER) == (1, 1)

    async def test_the_download_is_kept_while_another_was_handed_over(self, quotas: Quotas) -> None:
        lease = await quotas.reserve(USER, file("a"), 10)
        await quotas.charge(USER, file("a"), 20)
        await quotas.settle(lease, sent=0, delivered=False)
        assert await quotas.usage(USER) == (1, 20)

    async def test_what_is_given_back_can_be_had_again(self, quotas: Quotas) -> None:
        once = Limits(1, 10)
        for _ in range(3):
            lease = await quotas.reserve(USER, file("a", once), 10)
            await refusal(quotas, "b", once)
            await quotas.settle(lease, sent=0, delivered=False)
        await download(quotas, USER, "b", 10, once)
        await refusal(quotas, "a", once)


class TestTwice:
    async def test_the_same_lease_reserved_again_is_charged_once(self, quotas: Quotas) -> None:
        for who in (USER, anonymous("esa")):
            lease = await quotas.reserve(who, file("a"), 10)
            for _ in range(3):
                assert await run_reserve(quotas, lease) == (True, 1, 10)
            # What was granted stays granted, even if the limit would not allow it any more.
            assert await run_reserve(quotas, lease, Limits(0, 0)) == (True, 1, 10)
            assert await quotas.usage(who) == (1, 10)
            await quotas.settle(lease, sent=0, delivered=False)
            assert await quotas.usage(who) == (0, 0)

    async def test_the_same_lease_settled_again_changes_nothing(self, quotas: Quotas) -> None:
        for who in (USER, anonymous("esa")):
            running = await quotas.reserve(who, file("a"), 100)
            lease = await quotas.reserve(who, file("a"), 10)
            assert await run_settle(quotas, lease, 4, delivered=True)
            before = await quotas.usage(who)
            assert not await run_settle(quotas, lease, 4, delivered=True)
            assert not await run_settle(quotas, lease, 0, delivered=False)
            assert await quotas.usage(who) == before
            await quotas.settle(running, sent=0, delivered=False)

    async def test_a_lease_settled_before_it_is_reserved_is_refused(self, quotas: Quotas) -> None:
        lease = quotas._lease(USER, file("a"), 10)
        assert not await run_settle(quotas, lease, 0, delivered=False)
        assert await run_reserve(quotas, lease) == (False, 0, 0)
        assert await quotas.usage(USER) == (0, 0)

    async def test_a_reservation_that_was_given_up_meanwhile_is_503(
        self, quotas: Quotas, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("secrets.token_urlsafe", lambda _: "the same")
        lease = quotas._lease(USER, file("a"), 10)
        await run_settle(quotas, lease, 0, delivered=False)
        with pytest.raises(GatewayError, match="too late") as caught:
            await quotas.reserve(USER, file("a"), 10)
        assert caught.value.status is HTTPStatus.SERVICE_UNAVAILABLE
        assert int(caught.value.headers["Retry-After"]) > 0

    async def test_a_settled_lease_is_not_granted_again(self, quotas: Quotas) -> None:
        lease = await quotas.reserve(USER, file("a"), 10)
        await quotas.settle(lease, sent=10, delivered=True)
        assert (await run_reserve(quotas, lease))[0] is False
        assert await quotas.usage(USER) == (1, 10)


class TestLimits:
    async def test_downloads(self, quotas: Quotas) -> None:
        limits = Limits(2, -1)
        for content in ("a", "b", "a"):
            await download(quotas, USER, content, 10, limits)
        error = await refusal(quotas, "c", limits)
        assert error.code == "QuotaExceeded"
        assert error.detail.startswith("Download quota of 2 exceeded (by 0) for user scientist@example.org.")
        assert "Retry-After" not in error.headers
        await download(quotas, USER, "b", 10, limits)

    async def test_bytes(self, quotas: Quotas) -> None:
        limits = Limits(-1, 100)
        await download(quotas, USER, "a", 60, limits)
        error = await refusal(quotas, "b", limits, 41)
        assert error.detail.startswith("Download quota of 100 bytes would be exceeded (60 bytes used)")
        await refusal(quotas, "a", limits, 41)
        await download(quotas, USER, "b", 40, limits)
        await refusal(quotas, "c", limits, 1)
        await download(quotas, USER, "c", 0, limits)
        assert await quotas.usage(USER) == (3, 100)

    async def test_what_runs_counts(self, quotas: Quotas) -> None:
        limits = Limits(-1, 100)
        lease = await quotas.reserve(USER, file("a", limits), 100)
        await refusal(quotas, "b", limits, 1)
        await quotas.settle(lease, sent=30, delivered=True)
        await download(quotas, USER, "b", 70, limits)

    async def test_zero_forbids_and_minus_one_does_not_limit(self, quotas: Quotas) -> None:
        await download(quotas, USER, "a", 10)
        assert "quota of 0 exceeded (by 1)" in (await refusal(quotas, "a", Limits(0, -1))).detail
        await refusal(quotas, "a", Limits(-1, 0))
        await refusal(quotas, "b", Limits(0, 0), 0)
        for number in range(50):
            await download(quotas, USER, f"c{number}", MOST_BYTES // 100)

    async def test_a_limit_lowered_below_what_is_used(self, quotas: Quotas) -> None:
        for number in range(5):
            await download(quotas, USER, str(number), 10)
        assert "quota of 3 exceeded (by 2)" in (await refusal(quotas, "new", Limits(3, -1))).detail
        assert "(50 bytes used)" in (await refusal(quotas, "new", Limits(-1, 30))).detail
        await download(quotas, USER, "4", 10, Limits(3, -1))
        await download(quotas, USER, "new", 10, Limits(6, 70))
        assert await quotas.usage(USER) == (6, 70)

    async def test_all_or_nothing(self, quotas: Quotas, redis_url: str) -> None:
        await download(quotas, USER, "a", 10)
        before = await all_keys(redis_url)
        for limits in (Limits(1, -1), Limits(-1, 10), Limits(0, 0)):
            await refusal(quotas, "b", limits)
        assert set(await all_keys(redis_url)) == set(before)

    async def test_a_caller_without_a_name_is_called_public(self, quotas: Quotas) -> None:
        assert "for user public" in (await refusal(quotas, "a", Limits(0, -1), who=anonymous("esa"))).detail


class TestWindow:
    async def test_when_it_is_over_the_same_content_is_a_new_download(self, redis_url: str) -> None:
        async with open_quotas(redis_url, window=1) as quotas:
            await download(quotas, USER, "a", 1)
            await download(quotas, USER, "a", 1)
            assert await quotas.usage(USER) == (1, 2)
            await asyncio.sleep(1.1)
            await download(quotas, USER, "a", 1)
            assert await quotas.usage(USER) == (2, 3)
            await asyncio.sleep(1.1)
            await refusal(quotas, "a", Limits(2, -1))

    async def test_it_counts_from_the_end_of_the_last_download(self, redis_url: str) -> None:
        async with open_quotas(redis_url, window=1) as quotas:
            for _ in range(3):
                lease = await quotas.reserve(USER, file("a"), 1)
                await asyncio.sleep(0.6)
                await quotas.settle(lease, sent=1, delivered=True)
                await asyncio.sleep(0.2)
            assert await quotas.usage(USER) == (1, 3)

    async def test_a_download_that_outlives_it_does_not_end_the_next(self, quotas: Quotas, redis_url: str) -> None:
        old = await quotas.reserve(USER, file("a"), 10)
        await _end_window(redis_url, old.keys[2])
        new = await quotas.reserve(USER, file("a"), 10)
        assert await quotas.usage(USER) == (2, 20)
        await quotas.settle(old, sent=0, delivered=False)
        # The first stays charged, as nobody knows any more what else was delivered in its window.
        assert await quotas.usage(USER) == (2, 10)
        merged = await quotas.reserve(USER, file("a"), 10)
        assert await quotas.usage(USER) == (2, 20)
        await quotas.settle(merged, sent=0, delivered=False)
        await quotas.settle(new, sent=0, delivered=False)
        assert await quotas.usage(USER) == (1, 0)

    async def test_a_delivery_of_the_last_window_does_not_keep_the_next(self, quotas: Quotas, redis_url: str) -> None:
        old = await quotas.reserve(USER, file("a"), 10)
        await _end_window(redis_url, old.keys[2])
        new = await quotas.reserve(USER, file("a"), 10)
        await quotas.settle(old, sent=10, delivered=True)
        await quotas.settle(new, sent=0, delivered=False)
        assert await quotas.usage(USER) == (1, 10)


async def _end_window(url: str, key: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as client:
        assert await client.delete(key) == 1


async def test_all_but_the_usage_is_forgotten_in_time(redis_url: str) -> None:
    async with open_quotas(redis_url, window=100, lease_ttl=1000) as quotas:
        for who in (USER, anonymous("esa")):
            settled = await quotas.reserve(who, file("a"), 10)
            await quotas.settle(settled, sent=10, delivered=True)
            given_back = await quotas.reserve(who, file("b"), 10)
            await quotas.settle(given_back, sent=0, delivered=False)
            await quotas.reserve(who, file("c"), 10)
            await quotas.charge(who, file("d"), 10)
    for key, seconds in (await all_keys(redis_url)).items():
        if ":content:" in key:
            assert 0 < seconds <= 100
        elif ":lease:" in key or ":once:" in key:
            assert 0 < seconds <= 1000
        else:
            assert seconds == -1


async def test_a_lease_that_ran_out_stays_charged_in_full(quotas: Quotas, redis_url: str) -> None:
    lease = await quotas.reserve(USER, file("a"), 100)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.delete(lease.keys[1])
    await quotas.settle(lease, sent=1, delivered=True)
    assert await quotas.usage(USER) == (1, 100)


ODD_NAMES = [
    "a",
    "A",
    "a:user:b",
    "b",
    "user:b",
    "a:b",
    "{a}",
    "}",
    "{}",
    "}:user:{",
    "a b",
    "a+b",
    "a%20b",
    "%",
    "%25",
    "Île",
    "I\u0302le",
    "北京",
    "🛰",
    "a/b",
    "a@b",
    "a%40b",
    "*",
    "[a]",
    "a\nb",
    "anonymous",
    "user",
    "content",
    "\u200b",
    "x" * 1024,
]


class TestIsolation:
    async def test_tenants_and_users_share_nothing_whatever_their_names(self, redis_url: str) -> None:
        async with open_quotas(redis_url, pool_size=64) as quotas:
            callers = [user(email, tenant) for tenant, email in itertools.product(ODD_NAMES, ODD_NAMES[::3])]
            callers += [anonymous(tenant) for tenant in ODD_NAMES]
            random.Random(8).shuffle(callers)
            for number, who in enumerate(callers):
                await quotas.reserve(who, file("same"), number)
            for number, who in enumerate(callers):
                assert await quotas.usage(who) == (1, number), who

    async def test_keys_of_a_tenant_share_a_slot_of_a_cluster(self, quotas: Quotas) -> None:
        slots = {}
        for tenant in ODD_NAMES:
            keys = [key for email in ODD_NAMES for key in quotas._lease(user(email, tenant), file("c"), 1).keys]
            keys += quotas._lease(anonymous(tenant), file(5), 1).keys
            assert all(key.isascii() and key.isprintable() and " " not in key for key in keys)
            found = {redis.crc.key_slot(key.encode()) for key in keys}
            assert len(found) == 1
            slots[tenant] = found.pop()
        assert len(set(slots.values())) > len(slots) * 0.9

    async def test_the_limit_of_one_is_not_used_up_by_another(self, quotas: Quotas) -> None:
        one = Limits(1, 10)
        for who in (user("a"), user("b"), user("a", "cnes"), anonymous("esa"), anonymous("cnes")):
            await download(quotas, who, "a", 10, one)
            await refusal(quotas, "b", one, who=who)


class TestRaces:
    async def test_racing_reservations_admit_exactly_the_limit(self, redis_url: str) -> None:
        limits = Limits(37, -1)
        async with open_quotas(redis_url) as first, open_quotas(redis_url) as second:
            tries = [
                (first, second)[number % 2].reserve(USER, file(f"content {number}", limits), 1) for number in range(200)
            ]
            results = await asyncio.gather(*tries, return_exceptions=True)
            refused = [result for result in results if isinstance(result, GatewayError)]
            assert len(results) - len(refused) == 37
            assert all(error.status is HTTPStatus.TOO_MANY_REQUESTS for error in refused)
            assert await first.usage(USER) == (37, 37)

    async def test_five_thousand_at_once_admit_exactly_the_limit_of_a_thousand(self, redis_url: str) -> None:
        limits = Limits(1000, -1)
        async with open_quotas(redis_url, timeout=30) as quotas:
            tries = [quotas.reserve(USER, file(f"content {number}", limits), 1) for number in range(5000)]
            results = await asyncio.gather(*tries, return_exceptions=True)
            refused = [result for result in results if isinstance(result, BaseException)]
            assert len(results) - len(refused) == 1000
            assert {type(error) for error in refused} == {GatewayError}
            assert await quotas.usage(USER) == (1000, 1000)

    async def test_racing_bytes_admit_exactly_the_limit(self, quotas: Quotas) -> None:
        limits = Limits(-1, 1009)
        tries = [quotas.reserve(USER, file(str(number % 7), limits), 10) for number in range(200)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(not isinstance(result, BaseException) for result in results) == 100
        assert await quotas.usage(USER) == (7, 1000)

    async def test_racing_for_the_same_content_is_one_download(self, quotas: Quotas) -> None:
        leases = await asyncio.gather(*(quotas.reserve(USER, file("a", Limits(1, -1)), 1) for _ in range(200)))
        assert await quotas.usage(USER) == (1, 200)
        await asyncio.gather(*(quotas.settle(lease, sent=0, delivered=False) for lease in leases))
        assert await quotas.usage(USER) == (0, 0)

    async def test_each_answer_goes_to_whoever_asked(self, quotas: Quotas) -> None:
        """Answers of Redis that cross after cancellations would grant what was refused."""
        chance = random.Random(9)
        tries = [(number % 2, file(f"{number}", Limits(-(number % 2), -1))) for number in range(400)]
        tasks = [(may, asyncio.create_task(quotas.reserve(USER, wanted, 1))) for may, wanted in tries]
        for _, task in chance.sample(tasks, 200):
            await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        granted = 0
        for (may, _), result in zip(tasks, results, strict=True):
            if isinstance(result, asyncio.CancelledError):
                continue
            assert isinstance(result, GatewayError) is not bool(may)
            granted += may
        await asyncio.wait({*quotas._settling, asyncio.ensure_future(asyncio.sleep(0))})
        assert 0 < granted < 200
        assert await quotas.usage(USER) == (granted, granted)


async def test_a_redis_that_is_not_there_is_named_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"^redis\.url: Redis cannot be reached there") as caught:
        async with open_quotas("redis://user:hunter2@127.0.0.1:1/0", timeout=1):
            pass
    assert "hunter2" not in str(caught.value)
