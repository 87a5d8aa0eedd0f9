"""A circuit opens after failures in a row, and at the first sign of life it closes."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from gateway.redis.breaker import FAILURES, Breaker


@dataclasses.dataclass(frozen=True)
class RoundTrip:
    began: int
    ended: int
    answered: bool


ROUND_TRIPS = st.lists(
    st.builds(
        lambda began, seconds, answered: RoundTrip(began, began + seconds, answered),
        st.integers(0, 50),
        st.integers(0, 20),
        st.booleans(),
    ),
    max_size=40,
).map(lambda trips: sorted(trips, key=lambda trip: trip.ended))


def after(trips: list[RoundTrip], failures: int = FAILURES) -> Breaker:
    breaker = Breaker(failures)
    for trip in trips:
        if trip.answered:
            breaker.succeeded(trip.ended)
        else:
            breaker.failed(trip.began)
    return breaker


@given(ROUND_TRIPS, st.integers(1, 5))
def test_it_is_open_when_enough_round_trips_failed_that_began_since_the_last_answer(
    trips: list[RoundTrip], failures: int
) -> None:
    answered = [number for number, trip in enumerate(trips) if trip.answered]
    since = trips[answered[-1] + 1 :] if answered else trips
    alive = trips[answered[-1]].ended if answered else 0
    assert after(trips, failures).is_open == (len([trip for trip in since if trip.began >= alive]) >= failures)


@given(ROUND_TRIPS)
def test_slow_round_trips_among_answered_ones_never_open_it(trips: list[RoundTrip]) -> None:
    slow = [RoundTrip(trip.began, trip.ended, answered=False) for trip in trips]
    breaker = Breaker()
    for trip in slow:
        breaker.succeeded(trip.ended)
        breaker.failed(min(trip.began, trip.ended - 1))
        assert not breaker.is_open


@given(ROUND_TRIPS)
def test_one_answer_closes_it_whatever_was_before(trips: list[RoundTrip]) -> None:
    breaker = after(trips)
    was_open = breaker.is_open
    assert breaker.succeeded(100) == was_open
    assert not breaker.is_open


@given(ROUND_TRIPS)
def test_it_tells_once_that_it_opened(trips: list[RoundTrip]) -> None:
    breaker = Breaker()
    told = 0
    for trip in trips:
        if trip.answered:
            told -= breaker.succeeded(trip.ended)
        else:
            told += breaker.failed(trip.began)
        assert told == breaker.is_open
