"""The life cycle as rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.orders.lifecycle import (
    EVENTS,
    RULES,
    WITHOUT_FILES,
    Action,
    Counts,
    Event,
    RefusedError,
    Status,
    check,
    documentation,
    downloadable,
    outdated,
    possible,
    settled,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "orders.md"
STATUSES = st.sampled_from(Status)


@st.composite
def counted(draw: st.DrawFn) -> Counts:
    parts = [draw(st.integers(0, 3)) for _ in range(5)]
    return Counts(sum(parts), *parts)


def test_the_tables_of_the_documentation_are_those_of_the_code() -> None:
    assert documentation() in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("action", "statuses", "message"),
    [
        (Action.PAUSE, {"PENDING", "RUNNING"}, "ORDER_MUST_BE_PENDING_OR_RUNNING"),
        (Action.RESUME, {"PAUSED"}, "ONLY_PAUSED_ORDER_CAN_BE_RESUMED"),
        (
            Action.DELETE,
            {"PAUSED", "DONE", "DONE_WITH_WARNING", "FAILED", "EXPIRED"},
            "ORDER_MUST_BE_PAUSED_BEFORE_BEING_DELETED",
        ),
        (Action.REMOVE, set(Status) - {"RUNNING"}, "ORDER_MUST_NOT_BE_RUNNING"),
        (
            Action.RESTART,
            {"DONE", "DONE_WITH_WARNING", "FAILED"},
            "ORDER_MUST_BE_DONE_OR_DONE_WITH_WARNING_OR_FAILED",
        ),
        (Action.RETRY, {"DONE_WITH_WARNING", "FAILED"}, "ORDER_MUST_BE_DONE_WITH_WARNING_OR_FAILED"),
    ],
)
def test_each_action_is_possible_where_regards_has_it_and_refused_in_its_words(
    action: Action, statuses: set[str], message: str
) -> None:
    for status in Status:
        if status in statuses:
            check(action, status, Counts())
        else:
            with pytest.raises(RefusedError, match=f"^{message}$"):
                check(action, status, Counts())


def test_strictly_only_a_paused_order_is_deleted() -> None:
    able = [status for status in Status if Action.DELETE in possible(status, Counts(), strict_delete=True)]
    assert able == [Status.PAUSED]


@given(STATUSES, counted(), st.sampled_from(Action), st.booleans())
def test_what_is_offered_is_what_is_not_refused(status: Status, counts: Counts, action: Action, strict: bool) -> None:
    if action in possible(status, counts, strict_delete=strict):
        assert check(action, status, counts, strict_delete=strict) is RULES[action].becomes
    else:
        with pytest.raises(RefusedError):
            check(action, status, counts, strict_delete=strict)


@given(STATUSES, counted())
def test_a_download_needs_a_file_that_is_ready(status: Status, counts: Counts) -> None:
    ready = counts.available + counts.downloaded + counts.download_errors
    offered = Action.DOWNLOAD in possible(status, counts)
    assert offered == (ready > 0 and status not in (Status.PENDING, *WITHOUT_FILES))
    assert downloadable(counts) == ready


@given(STATUSES, counted())
def test_an_order_ends_with_its_last_pending_file_and_says_how(status: Status, counts: Counts) -> None:
    found = settled(status, counts)
    assert settled(found, counts) is found
    if status is Status.RUNNING and counts.pending == 0:
        assert found in EVENTS[Event.ENDED][status]
        assert (found is Status.FAILED) == (counts.errors == counts.files)
        assert (found is Status.DONE) == (counts.errors + counts.download_errors == 0 < counts.files)
    elif found is not status:
        assert found in EVENTS[Event.SPOILT][status]


@given(STATUSES, counted())
def test_time_ends_what_somebody_waits_for_and_nothing_else(status: Status, counts: Counts) -> None:
    found = outdated(status, counts)
    if status in (Status.PENDING, Status.RUNNING, Status.PAUSED):
        assert found is Status.EXPIRED
    elif status in (Status.DONE, Status.DONE_WITH_WARNING):
        assert found is (Status.EXPIRED if counts.available else status)
    else:
        assert found is status


def test_every_status_can_be_reached_and_left_but_for_the_end() -> None:
    """From the creation on, by actions and events."""
    moves = {(status, rule.becomes) for rule in RULES.values() if rule.becomes for status in rule.statuses}
    moves |= {(status, result) for by in EVENTS.values() for status, results in by.items() for result in results}
    reached, before = {Status.PENDING}, set[Status]()
    while reached != before:
        before = set(reached)
        reached |= {result for status, result in moves if status in reached}
    assert reached == set(Status)
    assert {status for status in Status if not any(one is status for one, _ in moves)} == {Status.DELETED}
