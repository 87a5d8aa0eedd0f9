"""A token bucket never gives more than its rate, gives all of it, and to everyone the same."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.delivery.bucket import MIN_PIECE, SECOND, Member, TokenBucket

rates = st.one_of(
    st.integers(1, 10_000_000_000), st.sampled_from([1, 4095, 32_768, 32_769, 262_144, 10**7, 10_000_000_000])
)
unhurried = settings(max_examples=60, deadline=None)
gaps = st.one_of(st.integers(0, 3 * SECOND), st.integers(0, 1000), st.sampled_from([0, SECOND // 8, 10_000 * SECOND]))


@dataclasses.dataclass
class Given:
    """What was given: when, to whom, how much."""

    at: int
    member: Member
    count: int


def serve(bucket: TokenBucket, now: int) -> list[Given]:
    before = {member: member.granted for member in bucket.members}
    return [Given(now, member, member.granted - before[member]) for member in bucket.serve(now)]


def run(bucket: TokenBucket, keen: Sequence[Member], now: int, most: int = 1000) -> list[Given]:
    """What is given when ``keen`` always ask for more, and the bucket is served just when it says."""
    gifts: list[Given] = []
    while True:
        for member in keen:
            bucket.ask(member)
        gifts += serve(bucket, now)
        for member in keen:
            bucket.ask(member)
        wait = bucket.wait()
        assert wait is not None
        now += wait
        if len(gifts) > most:
            return gifts


@unhurried
@given(rates, st.lists(st.tuples(gaps, st.integers(0, 4), st.integers(1, 20_000_000)), max_size=60))
def test_over_any_interval_it_gives_at_most_its_rate_and_one_burst(
    rate: int, steps: list[tuple[int, int, int]]
) -> None:
    """Members ask and come and go as they like, and it is served at any times."""
    bucket, now = TokenBucket(rate, 0), 0
    members = [bucket.join() for _ in range(3)]
    gifts: list[Given] = []
    for gap, what, most in steps:
        now += gap
        if what == 3:
            members.append(bucket.join(most))
        elif what == 4:
            bucket.leave(members.pop(0))
            members.append(bucket.join())
        else:
            bucket.ask(members[what])
        for _ in range(4):  # keen ones come again at once
            gifts += serve(bucket, now)
            for member in members:
                if member.wants(1):
                    bucket.ask(member)
    for first, gift in enumerate(gifts):
        total = 0
        for last in gifts[first:]:
            total += last.count
            assert total * SECOND <= rate * (last.at - gift.at) + bucket.burst * SECOND
    # It began empty: not even the burst comes on top.
    assert sum(gift.count for gift in gifts) * SECOND <= rate * now
    assert bucket.burst == max(MIN_PIECE, rate // 4)


@unhurried
@given(rates, st.integers(1, 20))
def test_all_of_the_rate_is_given_while_somebody_asks(rate: int, count: int) -> None:
    bucket = TokenBucket(rate, 0)
    members = [bucket.join() for _ in range(count)]
    gifts = run(bucket, members, 0)
    end, total = gifts[-1].at, sum(gift.count for gift in gifts)
    # All but what was not yet a piece, and what serving a nanosecond late costs.
    assert total * SECOND > rate * end - (bucket.piece + 1) * SECOND
    assert all(gift.count == bucket.piece for gift in gifts)


@unhurried
@given(rates, st.integers(2, 20), st.integers(0, 300))
def test_those_who_keep_asking_get_the_same_but_for_a_piece(rate: int, count: int, most: int) -> None:
    bucket = TokenBucket(rate, 0)
    members = [bucket.join() for _ in range(count)]
    run(bucket, members, 0, most)
    granted = [member.granted for member in members]
    assert max(granted) - min(granted) <= bucket.piece


@unhurried
@given(st.lists(st.tuples(rates, st.integers(0, 40)), min_size=1, max_size=20), st.integers(2, 5), st.integers())
def test_pieces_of_different_sizes_make_nobody_richer(changes: list[tuple[int, int]], count: int, seed: int) -> None:
    """The rate, and so the piece, changes at the worst moments."""
    bucket, now, largest, dice = TokenBucket(changes[0][0], 0), 0, 0, random.Random(seed)
    members = [bucket.join() for _ in range(count)]
    for rate, services in changes:
        bucket.change_rate(rate, now)
        largest = max(largest, bucket.piece)
        for _ in range(services):
            for member in dice.sample(members, count):
                bucket.ask(member)
            now += bucket.wait() or 0
            bucket.serve(now)
            for member in members:
                bucket.ask(member)
            granted = [member.granted for member in members]
            assert max(granted) - min(granted) <= largest


@unhurried
@given(rates, st.integers(1, 10), st.integers(1, 300))
def test_who_comes_later_gets_its_share_at_once(rate: int, count: int, services: int) -> None:
    bucket = TokenBucket(rate, 0)
    members = [bucket.join() for _ in range(count)]
    gifts = run(bucket, members, 0, services)
    now, late = gifts[-1].at, bucket.join()
    before = {member: member.granted for member in members}
    later = run(bucket, [*members, late], now, 3 * count + 10)
    mine = [number for number, gift in enumerate(later) if gift.member is late]
    assert mine[0] <= count  # others may be level with it
    largest = max(gift.count for gift in gifts)
    for member in members:
        assert abs((member.granted - before[member]) - late.granted) <= 2 * largest


@unhurried
@given(rates, st.integers(1, 20))
def test_nobody_waits_longer_than_a_round(rate: int, count: int) -> None:
    bucket = TokenBucket(rate, 0)
    members = [bucket.join() for _ in range(count)]
    gifts = run(bucket, members, 0, 200)
    round_ = -(-count * bucket.piece * SECOND // rate) + count
    for member in members:
        times = [0, *(gift.at for gift in gifts if gift.member is member)]
        assert all(later - earlier <= 2 * round_ for earlier, later in itertools.pairwise(times))
    if rate >= 8 * MIN_PIECE * count:
        assert round_ <= SECOND // 8 + count


@unhurried
@given(rates, st.integers(1, 10_000_000))
def test_who_tells_what_it_wants_takes_no_more(rate: int, most: int) -> None:
    assume(most < 200 * max(MIN_PIECE, rate // 8))
    bucket, now = TokenBucket(rate, 0), 0
    member = bucket.join(most)
    while member.wants(1):
        bucket.ask(member)
        now += bucket.wait() or 0
        bucket.serve(now)
    assert member.granted == most
    # To the nanosecond, each piece rounded up.
    assert most * SECOND <= rate * now <= (most + 1) * SECOND + rate * (most // bucket.piece + 1)


def test_what_gathers_while_nobody_asks_is_one_burst() -> None:
    bucket = TokenBucket(1_000_000, 0)
    member = bucket.join()
    total = 0
    for _ in range(10):
        bucket.ask(member)
        total += sum(gift.count for gift in serve(bucket, 3600 * SECOND))
    assert total == 250_000


def test_what_one_did_not_ask_for_is_not_made_up_for() -> None:
    bucket = TokenBucket(1_000_000, 0)
    busy, idle = bucket.join(), bucket.join()
    now = run(bucket, [busy], 0, 100)[-1].at
    before = busy.granted
    run(bucket, [busy, idle], now, 20)
    assert abs(busy.granted - before - idle.granted) <= 2 * bucket.piece


def test_who_asks_no_more_is_passed_over() -> None:
    bucket = TokenBucket(80_000, 0)
    first, second = bucket.join(), bucket.join()
    bucket.ask(first)
    bucket.ask(second)
    bucket.withdraw(first)
    assert bucket.serve(SECOND) == [second]
    bucket.leave(second)
    bucket.leave(second)
    assert bucket.members == {first}
    assert bucket.wait() is None


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1_000_000, SECOND)
    member = bucket.join()
    bucket.ask(member)
    assert bucket.serve(SECOND) == []
    assert bucket.serve(0) == []
    assert bucket.wait() == SECOND // 8


@pytest.mark.parametrize(("rate", "members", "piece"), [(1, 1, 4096), (262_144, 1, 32_768), (262_144, 4, 8192)])
def test_a_piece_is_an_eighth_of_a_second_of_each_ones_part(rate: int, members: int, piece: int) -> None:
    bucket = TokenBucket(rate, 0)
    for _ in range(members):
        bucket.join()
    assert bucket.piece == piece
