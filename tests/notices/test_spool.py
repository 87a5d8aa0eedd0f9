"""Notices that wait, and who takes them."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest

import gateway.notices.sender
from gateway.notices import spool
from gateway.notices.model import Notice, Outcome, RejectedError, UndeliverableError, UnreachableError
from gateway.notices.sender import Sender
from tests.orders.support import Shop, open_shop

SOME = """
INSERT INTO notices (channel, tenant, order_id, kind, body)
SELECT 'mail', 'esa', n, 'done', '{}' FROM generate_series(1, $1) n"""


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with open_shop(database) as opened:
        yield opened


class Carrier:
    """Does with each notice what it is told to."""

    give_up_seconds = 3600.0

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.problem: Exception | None = None

    async def carry(self, notices: Sequence[Notice], outcome: Outcome) -> None:
        if isinstance(self.problem, UnreachableError):
            raise self.problem
        for notice in notices:
            if not await outcome.begin(notice):
                continue
            if isinstance(self.problem, RejectedError | UndeliverableError):
                await outcome.failed(notice, self.problem)
            else:
                self.taken.append(notice.order_id)
                await outcome.taken(notice)


async def test_no_notice_is_in_two_hands_and_the_oldest_goes_first(shop: Shop) -> None:
    await shop.connection.execute(SOME, 60)
    held = await asyncio.gather(*(spool.claim(shop.database, "mail", most=20, lease_seconds=60) for _ in range(4)))
    taken = [notice.notice_id for one in held for notice in one.notices]
    assert len(taken) == len(set(taken)) == 60
    assert not (await spool.claim(shop.database, "webhook:x", most=20, lease_seconds=60)).notices


async def test_what_is_sent_is_gone(shop: Shop) -> None:
    await shop.connection.execute(SOME, 50)
    carrier = Carrier()
    sender = Sender(shop.database, "mail", carrier)
    while await sender.step():
        pass
    assert carrier.taken == list(range(1, 51))
    assert await shop.connection.fetchval("SELECT count(*) FROM notices") == 0


@pytest.mark.parametrize("problem", [RejectedError("no"), UnreachableError("no")])
async def test_what_fails_is_tried_again_later_and_given_up_at_last(shop: Shop, problem: Exception) -> None:
    await shop.connection.execute(SOME, 1)
    carrier = Carrier()
    carrier.problem = problem
    sender = Sender(shop.database, "mail", carrier)
    for tries in range(1, 12):
        assert not await sender.step()
        row = await shop.connection.fetchrow("SELECT tries, error, given_up_at, due_at - now() AS pause FROM notices")
        assert row is not None
        longest = min(20 * 2 ** (tries - 1), 3600)
        assert (row["tries"], row["error"], row["given_up_at"]) == (tries, "no", None)
        assert longest * 0.74 <= row["pause"].total_seconds() <= longest
        await shop.connection.execute("UPDATE notices SET due_at = now()")
    await shop.connection.execute("UPDATE notices SET created_at = now() - interval '1 hour'")
    await sender.step()
    assert await shop.connection.fetchval("SELECT given_up_at IS NOT NULL FROM notices")
    await shop.connection.execute("UPDATE notices SET due_at = now()")
    assert not await sender.step()
    carrier.problem = None
    assert await spool.revive(shop.database) == 1
    await sender.step()
    assert carrier.taken == [1]


async def test_what_can_never_be_delivered_is_given_up_at_once_and_forgotten_long_after(shop: Shop) -> None:
    await shop.connection.execute(SOME, 1)
    carrier = Carrier()
    carrier.problem = UndeliverableError("a\x1b[31m\n" * 1000)
    await Sender(shop.database, "mail", carrier).step()
    (row,) = await spool.troubled(shop.database, 10)
    assert row["given_up_at"] is not None
    assert row["error"].isprintable()
    assert len(row["error"]) <= 500
    await spool.forget_old(shop.database)
    assert [one["given_up"] for one in await spool.tally(shop.database)] == [1]
    await shop.connection.execute("UPDATE notices SET given_up_at = now() - interval '91 days'")
    await spool.forget_old(shop.database)
    assert await spool.tally(shop.database) == []


async def test_others_do_not_wait_for_one_that_something_is_wrong_with(shop: Shop) -> None:
    await shop.connection.execute(SOME, 30)

    class Choosy(Carrier):
        async def carry(self, notices: Sequence[Notice], outcome: Outcome) -> None:
            for notice in notices:
                if await outcome.begin(notice):
                    if notice.order_id in (1, 7):
                        raise KeyError("label")
                    self.taken.append(notice.order_id)
                    await outcome.taken(notice)

    carrier = Choosy()
    sender = Sender(shop.database, "mail", carrier)
    while await sender.step():
        pass
    assert carrier.taken == [number for number in range(1, 31) if number not in (1, 7)]
    rows = await shop.connection.fetch("SELECT order_id, tries, error, lease FROM notices ORDER BY order_id")
    assert [tuple(row) for row in rows] == [(1, 1, "KeyError", None), (7, 1, "KeyError", None)]


async def test_a_server_that_is_down_is_asked_more_and_more_seldom(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.notices.sender, "FIRST_REST_SECONDS", 0.1)
    await shop.connection.execute(SOME, 500)
    carrier, asked = Carrier(), list[float]()
    carrier.problem = UnreachableError("no")

    class Counting(Carrier):
        async def carry(self, notices: Sequence[Notice], outcome: Outcome) -> None:
            asked.append(asyncio.get_running_loop().time())
            await carrier.carry(notices, outcome)

    sender = Sender(shop.database, "mail", Counting())
    work = asyncio.create_task(sender.work())
    for _ in range(20):
        sender.wake()
        await asyncio.sleep(0.05)
    carrier.problem = None
    assert 2 <= len(asked) <= 4
    async with asyncio.timeout(10):
        while len(carrier.taken) < 500 - 20 * len(asked[:4]):
            await asyncio.sleep(0.02)
    sender.end()
    await asyncio.wait_for(work, 5)
    pauses = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert pauses[1] > 1.5 * pauses[0] > 0.1


async def test_one_whose_lease_is_over_begins_nothing_and_writes_nothing(shop: Shop) -> None:
    await shop.connection.execute(SOME, 1)
    held = await spool.claim(shop.database, "mail", most=1, lease_seconds=0.001)
    await asyncio.sleep(0.01)
    again = await spool.claim(shop.database, "mail", most=1, lease_seconds=60)
    (notice,) = held.notices
    assert again.notices[0].message == notice.message
    assert not await spool.prolong(shop.database, notice, held.lease, 60)
    await spool.sent(shop.database, notice, held.lease)
    await spool.failed(shop.database, notice, held.lease, "late", for_ever=True, give_up_seconds=1)
    row = await shop.connection.fetchrow("SELECT error, given_up_at, tries FROM notices")
    assert row is not None
    assert tuple(row) == (None, None, 2)


async def test_no_index_is_left_out(shop: Shop) -> None:
    await shop.connection.execute(SOME, 5000)
    await shop.connection.execute("UPDATE notices SET due_at = now() + interval '1 day' WHERE order_id > 10")
    await shop.connection.execute("ANALYZE notices; SELECT pg_stat_force_next_flush()")
    scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'notices'"
    before = await shop.connection.fetchval(scans)
    held = await spool.claim(shop.database, "mail", most=5, lease_seconds=60)
    assert len(held.notices) == 5
    assert await spool.prolong(shop.database, held.notices[0], held.lease, 60)
    await spool.sent(shop.database, held.notices[0], held.lease)
    await spool.give_back(shop.database, held.notices[1:], held.lease)
    await spool.forget_old(shop.database)
    await shop.database.fetch("SELECT pg_stat_force_next_flush()")
    await asyncio.sleep(0.05)
    assert await shop.connection.fetchval(scans) == before


def test_pauses_grow_to_an_hour() -> None:
    pauses = [spool.pause_after(tries) for tries in range(1, 100)]
    assert 15 <= pauses[0] <= 20
    assert all(pause <= datetime.timedelta(hours=1).total_seconds() for pause in pauses)
    assert pauses[-1] >= 2700
