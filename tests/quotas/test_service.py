"""What is charged, what is given back, what is refused: against a real Redis and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from gateway.delivery.transfer import Transfer
from gateway.errors import ConfigurationError, GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.quotas.limits import Limit
from gateway.quotas.service import Quotas
from tests.quotas.support import OWN, USER, download, file, open_quotas, usage, user


@pytest.fixture
async def quotas(redis_url: str, database: str) -> AsyncIterator[Quotas]:
    async with open_quotas(redis_url, database, "esa", "cnes") as quotas:
        yield quotas


def own(who: Principal) -> str:
    return f"user:{who.email}" if who.email else f"network:{who.network}"


async def used(quotas: Quotas, who: Principal = USER) -> tuple[int, int]:
    found = (await quotas.usage(who.tenant, [own(who)]))[own(who)]
    return found.downloads, found.octets


def at_most(downloads: int = -1, octets: int = -1, who: Principal = USER) -> tuple[Limit, ...]:
    """Limits for a lifetime; -1 is none."""
    limits = Limit(own(who), "bytes", "total", octets), Limit(own(who), "downloads", "total", downloads)
    return tuple(limit for limit in limits if limit.value >= 0)


async def refusal(
    quotas: Quotas, content: str, limits: tuple[Limit, ...], promised: int = 1, who: Principal = USER
) -> GatewayError:
    before = await used(quotas, who)
    with pytest.raises(GatewayError) as caught:
        await quotas.reserve(who, file(content, limits), Transfer(promised))
    assert caught.value.status is HTTPStatus.TOO_MANY_REQUESTS
    assert await used(quotas, who) == before
    return caught.value


class TestCharging:
    async def test_bytes_are_promised_first_and_charged_as_sent(self, quotas: Quotas) -> None:
        lease = await quotas.reserve(USER, file("a"), Transfer(1000))
        assert await quotas.usage("esa", [OWN, "tenant"]) == {OWN: usage(1, 1000, 1), "tenant": usage(1, 1000, 1)}
        lease.transfer.sent = 300
        await quotas.settle(lease, delivered=True)
        assert await quotas.usage("esa", [OWN, "tenant"]) == {OWN: usage(1, 300, 0), "tenant": usage(1, 300, 0)}

    async def test_what_delivered_nothing_costs_nothing(self, quotas: Quotas) -> None:
        await download(quotas, USER, file("a"), 1000, 0)
        assert await used(quotas) == (0, 0)
        await download(quotas, USER, file("a"), 5)
        assert await used(quotas) == (1, 5)

    async def test_an_empty_file_is_a_download(self, quotas: Quotas) -> None:
        await download(quotas, USER, file("a"), 0)
        assert await used(quotas) == (1, 0)

    async def test_the_same_content_in_the_window_is_one_download_and_all_its_bytes(self, quotas: Quotas) -> None:
        for content, size in (("a", 10), ("a", 20), ("A", 40)):
            await download(quotas, USER, file(content), size)
        assert await used(quotas) == (1, 70)
        await download(quotas, USER, file("b"), 1)
        assert await used(quotas) == (2, 71)

    async def test_beyond_twice_the_size_of_the_file_it_is_another_download(self, quotas: Quotas) -> None:
        for _ in range(4):
            await download(quotas, USER, file("a", size=10), 10)
        assert await used(quotas) == (2, 40)

    async def test_files_without_checksum_are_told_apart_by_their_id(self, quotas: Quotas) -> None:
        for number in (7, 8, 7):
            await download(quotas, USER, file(number), 1)
        assert await used(quotas) == (2, 3)

    async def test_the_same_digits_of_another_algorithm_are_another_content(self, quotas: Quotas) -> None:
        await download(quotas, USER, file("a"), 1)
        await download(quotas, USER, dataclasses.replace(file("a"), checksum_algorithm="MD5"), 1)
        assert await used(quotas) == (2, 2)

    async def test_callers_without_a_name_are_never_merged(self, quotas: Quotas) -> None:
        who = anonymous("esa", "192.0.2.0/24")
        for sent in (10, 0, 4):
            await download(quotas, who, file("a"), 10, sent)
        await download(quotas, anonymous("esa", "198.51.100.0/24"), file("a"), 10)
        assert await used(quotas, who) == (2, 14)
        assert await quotas.usage("esa", ["anonymous"]) == {"anonymous": usage(3, 24, 0)}

    async def test_what_somebody_else_sends_is_charged_whole_and_once(self, quotas: Quotas) -> None:
        once = at_most(1, 100)
        for _ in range(3):
            await quotas.charge(USER, file("a", once), 30)
        await download(quotas, USER, file("a", once), 10)
        assert await used(quotas) == (1, 40)
        with pytest.raises(GatewayError, match="Download quota of 1 exceeded"):
            await quotas.charge(USER, file("b", once), 1)
        assert await used(quotas) == (1, 40)


class TestGivingBack:
    async def test_the_download_is_kept_while_another_of_the_content_runs(self, quotas: Quotas) -> None:
        first = await quotas.reserve(USER, file("a"), Transfer(10))
        second = await quotas.reserve(USER, file("a"), Transfer(20))
        await quotas.settle(first, delivered=False)
        assert await used(quotas) == (1, 20)
        await quotas.settle(second, delivered=False)
        assert await used(quotas) == (0, 0)

    async def test_the_download_is_kept_once_anything_was_delivered(self, quotas: Quotas) -> None:
        for sent in (1, 0, 0):
            await download(quotas, USER, file("a"), 10, sent)
        assert await used(quotas) == (1, 1)

    async def test_what_is_given_back_can_be_had_again(self, quotas: Quotas) -> None:
        once = at_most(1, 10)
        for _ in range(3):
            lease = await quotas.reserve(USER, file("a", once), Transfer(10))
            await refusal(quotas, "b", once)
            await quotas.settle(lease, delivered=False)
        await download(quotas, USER, file("b", once), 10)
        await refusal(quotas, "a", once)


class TestLimits:
    async def test_downloads(self, quotas: Quotas) -> None:
        limits = at_most(2)
        for content in ("a", "b", "a"):
            await download(quotas, USER, file(content, limits), 10)
        error = await refusal(quotas, "c", limits)
        assert error.code == "QuotaExceeded"
        assert error.detail.startswith("Download quota of 2 exceeded (by 0) for user scientist@example.org.")
        assert "Retry-After" not in error.headers
        await download(quotas, USER, file("b", limits), 10)

    async def test_bytes(self, quotas: Quotas) -> None:
        limits = at_most(octets=100)
        await download(quotas, USER, file("a", limits), 60)
        error = await refusal(quotas, "b", limits, 41)
        assert error.detail.startswith("Download quota of 100 bytes would be exceeded (60 bytes used)")
        await download(quotas, USER, file("b", limits), 40)
        await refusal(quotas, "c", limits, 1)
        await download(quotas, USER, file("c", limits), 0)
        assert await used(quotas) == (3, 100)

    async def test_zero_forbids_and_no_limit_does_not_limit(self, quotas: Quotas) -> None:
        await download(quotas, USER, file("a"), 10)
        assert "quota of 0 exceeded (by 1)" in (await refusal(quotas, "a", at_most(0))).detail
        await refusal(quotas, "a", at_most(octets=0))
        await refusal(quotas, "b", at_most(0, 0), 0)

    async def test_a_limit_lowered_below_what_is_used(self, quotas: Quotas) -> None:
        for number in range(5):
            await download(quotas, USER, file(str(number)), 10)
        assert "quota of 3 exceeded (by 2)" in (await refusal(quotas, "new", at_most(3))).detail
        assert "(50 bytes used)" in (await refusal(quotas, "new", at_most(octets=30))).detail
        await download(quotas, USER, file("4", at_most(3)), 10)
        await download(quotas, USER, file("new", at_most(6, 70)), 10)
        assert await used(quotas) == (6, 70)

    async def test_a_caller_without_a_name_is_called_public(self, quotas: Quotas) -> None:
        who = anonymous("esa")
        assert "for user public" in (await refusal(quotas, "a", at_most(0, who=who), who=who)).detail

    async def test_the_limit_of_one_is_not_used_up_by_another(self, quotas: Quotas) -> None:
        for who in (user("a"), user("b"), user("a", "cnes"), anonymous("esa"), anonymous("cnes")):
            once = at_most(1, 10, who)
            await download(quotas, who, file("a", once), 10)
            await refusal(quotas, "b", once, who=who)


class TestRaces:
    async def test_racing_reservations_admit_exactly_the_limit(self, redis_url: str, database: str) -> None:
        limits = at_most(37)
        async with open_quotas(redis_url, database) as first, open_quotas(redis_url, database) as second:
            tries = [
                (first, second)[number % 2].reserve(USER, file(f"content {number}", limits), Transfer(1))
                for number in range(200)
            ]
            results = await asyncio.gather(*tries, return_exceptions=True)
            refused = [result for result in results if isinstance(result, GatewayError)]
            assert len(results) - len(refused) == 37
            assert all(error.status is HTTPStatus.TOO_MANY_REQUESTS for error in refused)
            assert await used(first) == (37, 37)

    async def test_five_thousand_at_once_admit_exactly_the_limit_of_a_thousand(
        self, redis_url: str, database: str
    ) -> None:
        limits = at_most(1000)
        async with open_quotas(redis_url, database, timeout=30) as quotas:
            tries = [quotas.reserve(USER, file(f"content {number}", limits), Transfer(1)) for number in range(5000)]
            results = await asyncio.gather(*tries, return_exceptions=True)
            refused = [result for result in results if isinstance(result, BaseException)]
            assert len(results) - len(refused) == 1000
            assert {type(error) for error in refused} == {GatewayError}
            assert await used(quotas) == (1000, 1000)

    async def test_racing_for_the_same_content_is_one_download(self, quotas: Quotas) -> None:
        tries = [quotas.reserve(USER, file("a", at_most(1)), Transfer(1)) for _ in range(200)]
        leases = await asyncio.gather(*tries)
        assert await used(quotas) == (1, 200)
        await asyncio.gather(*(quotas.settle(lease, delivered=False) for lease in leases))
        assert await used(quotas) == (0, 0)

    async def test_each_answer_goes_to_whoever_asked(self, quotas: Quotas) -> None:
        """Answers of Redis that cross after cancellations would grant what was refused."""
        chance = random.Random(9)
        forbidden = at_most(0)
        tries = [(number % 2, file(f"{number}", forbidden if number % 2 == 0 else ())) for number in range(400)]
        await used(quotas)
        tasks = [(may, asyncio.create_task(quotas.reserve(USER, wanted, Transfer(1)))) for may, wanted in tries]
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
        assert await used(quotas) == (granted, granted)


async def test_a_redis_that_is_not_there_is_named_at_the_start(database: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^redis\.url: Redis cannot be reached there") as caught:
        async with open_quotas("redis://user:hunter2@127.0.0.1:1/0", database, timeout=1):
            pass
    assert "hunter2" not in str(caught.value)
