"""When a restore is looked at again, whatever the figures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.staging import rules
from gateway.staging.orders import priority_of

_SECONDS = st.floats(0.05, 3600)


@given(poll=_SECONDS, age=st.floats(0, 1e7), older=st.floats(0, 1e7), ready=st.none() | st.floats(-1e6, 1e7))
def test_polls_grow_rarer_within_bounds_and_come_when_it_is_ready(
    poll: float, age: float, older: float, ready: float | None
) -> None:
    pause = rules.next_poll(poll, age, ready)
    assert poll / 2 <= pause <= 10 * poll
    assert rules.next_poll(poll, age + older) >= rules.next_poll(poll, age) >= poll
    assert pause <= rules.next_poll(poll, age)
    if ready is not None and poll / 2 <= ready <= poll:
        assert pause == ready


@given(tries=st.integers(1, 100), retry=_SECONDS)
def test_pauses_after_failures_double_to_an_hour(tries: int, retry: float) -> None:
    due = min(3600.0, retry * 2.0 ** (tries - 1))
    assert 0.8 * due <= rules.pause_after(tries, retry) <= 1.2 * due


@given(order=st.integers(1, 2**29 - 1), number=st.integers(1, 2**24 - 1))
def test_first_files_of_an_order_come_before_later_ones_of_another(order: int, number: int) -> None:
    priority = priority_of(order << 24 | number)
    assert 5 <= priority <= 32767
    assert priority == priority_of(number)
    assert priority >= priority_of(1)


@given(st.none() | st.integers(0, 10**15), st.floats(0.05, 30 * 86400))
def test_a_fetch_may_wait_for_its_drive_and_take_a_second_for_each_megabyte(size: int | None, wait: float) -> None:
    assert rules.fetch_deadline(size, wait) >= wait
    assert rules.fetch_deadline(size, wait) >= (size or 0) / 1e6
