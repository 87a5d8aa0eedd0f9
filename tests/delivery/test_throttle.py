"""The downloads of an account are slowed down to its rate together, and wait for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path

import pytest

from gateway.delivery.allowance import AllowanceEndedError
from gateway.delivery.pace import Pace
from gateway.delivery.throttle import Share, Throttled, Throttles
from gateway.http.evaluate import Span
from tests.delivery.answering import WAYS, Answering, Marks, answering
from tests.storage_plugins.conftest import authority
from tests.storage_plugins.web import Authority

__all__ = ["authority"]

KIBIBYTE = 1024
RATE = 256 * KIBIBYTE
BYTES = random.Random(23).randbytes(2 * 1024 * KIBIBYTE)
FAST = 10_000_000_000


async def settle() -> None:
    """Let everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_shares_wait_for_their_pieces_and_get_them_in_turn() -> None:
    throttles = Throttles()
    with throttles.throttle("a", FAST) as one, throttles.throttle("a", FAST) as other:
        assert (one.granted(), other.granted()) == (0, 0)
        for _ in range(4):
            await asyncio.gather(one.more(), other.more())
        assert one.granted() == other.granted() == 4 * (FAST // 16)
    assert not throttles.running


async def test_a_rate_can_be_changed_while_somebody_waits() -> None:
    throttles = Throttles()
    with throttles.throttle("a", 1) as share:
        waiting = asyncio.ensure_future(share.more())
        await settle()
        assert not waiting.done()
        throttles.running["a"].rate = FAST
        await asyncio.wait_for(waiting, 5)
        assert share.granted() == share.throttle.rate // 8


async def test_who_joins_brings_the_rate_of_today() -> None:
    throttles = Throttles()
    with throttles.throttle("a", 1) as share:
        waiting = asyncio.ensure_future(share.more())
        await settle()
        with throttles.throttle("a", FAST) as other:
            assert other.throttle is share.throttle
            await asyncio.wait_for(waiting, 5)
        assert share.throttle.rate == FAST


async def test_accounts_do_not_wait_for_each_other() -> None:
    throttles = Throttles()
    with throttles.throttle("slow", 1) as slow, throttles.throttle("fast", FAST) as fast:
        waiting = asyncio.ensure_future(slow.more())
        await asyncio.wait_for(fast.more(), 5)
        assert set(throttles.running) == {"slow", "fast"}
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_who_is_cancelled_while_it_waits_stands_in_nobodys_way() -> None:
    now = 0
    throttles = Throttles(lambda: now)
    with throttles.throttle("a", RATE) as one, throttles.throttle("a", RATE, most=100) as other:
        first = asyncio.ensure_future(one.more())
        await settle()
        second = asyncio.ensure_future(other.more())
        await settle()
        # Enough for the small wish of the second, but not for the first, whose turn it is.
        now = 1_000_000_000 * 200 // RATE
        first.cancel()
        await asyncio.wait_for(second, 5)
        assert (one.granted(), other.granted()) == (0, 100)
        now += 1_000_000_000
        await asyncio.wait_for(one.more(), 5)
        assert one.granted() > 0


async def test_a_share_that_is_closed_grants_no_more() -> None:
    throttles = Throttles()
    with contextlib.ExitStack() as stack:
        share = stack.enter_context(throttles.throttle("a", 1))
        waiting = asyncio.ensure_future(share.more())
        await settle()
    with pytest.raises(AllowanceEndedError):
        await waiting
    with pytest.raises(AllowanceEndedError):
        await share.more()


async def test_a_share_grants_no_more_than_it_said_it_wants() -> None:
    with Throttles().throttle("a", FAST, most=5000) as share:
        await share.more()
        assert share.granted() == 5000
        with pytest.raises(AllowanceEndedError):
            await share.more()


@pytest.mark.parametrize("rate", [0, -1])
async def test_a_rate_is_a_positive_number(rate: int) -> None:
    throttles = Throttles()
    with pytest.raises(ValueError, match=f"not {rate}"), throttles.throttle("a", rate):
        pass
    assert not throttles.running
    with throttles.throttle("a", 1) as share:
        with pytest.raises(ValueError, match=f"not {rate}"):
            share.throttle.rate = rate
        with pytest.raises(ValueError, match=f"not {rate}"), throttles.throttle("a", rate):
            pass
        assert (share.throttle.rate, share.throttle.downloads) == (1, 1)


class Scripted:
    """An allowance whose mark a test moves."""

    def __init__(self, mark: int = 0) -> None:
        self.mark = mark
        self.asked = 0
        self.moved = asyncio.Event()

    def granted(self) -> int:
        return self.mark

    async def more(self) -> None:
        self.asked += 1
        await self.moved.wait()
        self.moved.clear()

    def move(self, mark: int) -> None:
        self.mark = mark
        self.moved.set()


async def test_both_bound_what_is_sent() -> None:
    inner, share = Scripted(100), Scripted(40)
    both = Throttled(inner, share)
    assert both.granted() == 40
    waiting = asyncio.ensure_future(both.more())
    await settle()
    assert (inner.asked, share.asked) == (0, 1)
    share.move(1000)
    await waiting
    assert both.granted() == 100
    waiting = asyncio.ensure_future(both.more())
    await settle()
    assert (inner.asked, share.asked) == (1, 1)
    inner.move(100)  # woken in vain
    await settle()
    inner.move(5000)
    await waiting
    assert (both.granted(), inner.asked, share.asked) == (1000, 2, 1)


async def test_an_allowance_that_ends_takes_nothing_from_the_throttle() -> None:
    share = Scripted()
    with pytest.raises(AllowanceEndedError):
        await Throttled(Marks([]), share).more()
    assert share.asked == 0
    share.mark = 7
    assert Throttled(None, share).granted() == 7


async def download(server: Answering, throttles: Throttles, size: int, *, rate: int = RATE) -> float:
    """Seconds that ``size`` bytes take."""
    began = time.monotonic()
    with throttles.throttle("account", rate, most=size) as share:
        outcome = await server.get(Span(0, size), allowance=Throttled(None, share))
    assert outcome.body == BYTES[:size]
    return time.monotonic() - began


async def test_a_download_has_the_rate_of_its_account(tmp_path: Path, authority: Authority) -> None:
    """It is never faster; on a busy machine it may be slower, but not each time."""
    size = 300 * KIBIBYTE
    async with answering(WAYS["splice"], BYTES, tmp_path, authority) as (server, _):
        for _ in range(4):
            seconds = await download(server, Throttles(), size)
            assert seconds >= size / RATE
            if seconds < 1.15 * size / RATE:
                return
    pytest.fail(f"{size} bytes took {seconds:.2f} s at {RATE} bytes a second")


async def test_two_downloads_share_the_rate_of_their_account(tmp_path: Path, authority: Authority) -> None:
    """One begins later, and is of another kind; while both run each gets its half."""
    async with answering(WAYS["sendfile on the loop"], BYTES, tmp_path, authority) as (server, _):
        throttles = Throttles()
        began = time.monotonic()
        with (
            throttles.throttle("account", RATE) as one,
            throttles.throttle("account", RATE, most=130 * KIBIBYTE) as other,
        ):
            long = asyncio.ensure_future(server.get(Span(0, 2 * 1024 * KIBIBYTE), allowance=Throttled(None, one)))
            while one.granted() < 64 * KIBIBYTE:
                await asyncio.sleep(0.01)
            before = one.granted()
            outcome = await server.get(Span(0, 130 * KIBIBYTE), allowance=Throttled(None, other))
            meanwhile, seconds = one.granted() - before, time.monotonic() - began
            assert outcome.body == BYTES[: 130 * KIBIBYTE]
            assert abs(meanwhile - 130 * KIBIBYTE) <= 3 * RATE // 16
            assert one.granted() + other.granted() <= RATE * seconds
            throttles.running["account"].rate = FAST
            assert (await long).body == BYTES


@pytest.mark.parametrize("name", ["sendfile in threads", "relay", "file to TLS"])
async def test_a_download_that_is_slowed_down_is_not_taken_for_a_slow_client(
    name: str, tmp_path: Path, authority: Authority
) -> None:
    """The rate is far below what is asked of clients, and each piece later than they may be."""
    pace = Pace(send_timeout=0.4, min_rate=1e8, grace=0.4, storage_timeout=0.4)
    async with answering(WAYS[name], BYTES, tmp_path, authority) as (server, _):
        with Throttles().throttle("account", 8 * KIBIBYTE) as share:
            outcome = await server.get(Span(0, 70 * KIBIBYTE), allowance=Started(share, 66 * KIBIBYTE), pace=pace)
        assert outcome.transfer.problem is None
        assert outcome.body == BYTES[: 70 * KIBIBYTE]


class Started:
    """A share that has been granted ``start`` bytes more."""

    def __init__(self, share: Share, start: int) -> None:
        self._share = share
        self._start = start

    def granted(self) -> int:
        return self._start + self._share.granted()

    async def more(self) -> None:
        await self._share.more()
