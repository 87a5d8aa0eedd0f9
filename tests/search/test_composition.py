"""Queries of baskets: the texts that are documented, and what they find."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.composition import added, date_text, dated, first, of_dataset, quoted, remaining, selection
from gateway.search.limits import COMPOSED
from gateway.search.query import Is, Match, Times
from gateway.search.reading import parse

UTC = datetime.UTC
DATE = datetime.datetime(2018, 4, 3, 14, 20, 0, 383_000, tzinfo=UTC)
BEFORE = datetime.datetime(2018, 4, 2, 9, 0, tzinfo=UTC)


def test_a_selection_and_a_dataset_are_written_as_documented() -> None:
    item, previous = dated("properties.a:x", DATE), dated("properties.b:y", BEFORE)
    assert item == "(properties.a:x) AND creationDate:[* TO 2018-04-03T14:20:00.383Z]"
    assert first(previous) == "((properties.b:y) AND creationDate:[* TO 2018-04-02T09:00:00.000Z])"
    assert added(first(previous), item) == (
        "(((properties.b:y) AND creationDate:[* TO 2018-04-02T09:00:00.000Z])"
        " OR ((properties.a:x) AND creationDate:[* TO 2018-04-03T14:20:00.383Z]))"
    )
    assert remaining([item, previous]) == f"(({item}) OR ({previous}))"
    assert remaining([previous]) == first(previous)
    assert dated("", DATE) == "creationDate:[* TO 2018-04-03T14:20:00.383Z]"


@pytest.mark.parametrize(
    ("query", "ids", "expected"),
    [
        ("q:x", [], "q:x"),
        (None, ["A", "B"], 'ipId:"A" OR ipId:"B"'),
        ("", ["A", "B"], 'NOT(ipId:"A" OR ipId:"B")'),
        ("q:x", ["A", "B"], '(q:x) AND NOT(ipId:"A" OR ipId:"B")'),
        ("", [], ""),
        (None, [], None),
    ],
)
def test_a_request_selects_as_documented(query: str | None, ids: list[str], expected: str | None) -> None:
    assert selection(query, ids) == expected


def test_an_order_adds_the_dataset_unless_it_is_there() -> None:
    assert of_dataset("(id:x)", "URN:AIP:DATASET:t:1:V1") == '((id:x) AND tags:"URN:AIP:DATASET:t:1:V1")'
    named = '(tags:"URN:AIP:DATASET:t:1:V1")'
    assert of_dataset(named, "URN:AIP:DATASET:t:1:V1") == named


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_an_id_stays_what_it_is_whatever_is_in_it(text: str) -> None:
    query = parse(f"ipId:{quoted(text)}")
    assert isinstance(query, Match)
    assert query.test == Is(text)


@given(st.integers(0, 2**48), st.integers(-14 * 60, 14 * 60))
def test_the_date_of_a_selection_includes_its_own_moment_and_none_after(micros: int, minutes: int) -> None:
    zone = datetime.timezone(datetime.timedelta(minutes=minutes))
    moment = datetime.datetime.fromtimestamp(0, zone) + datetime.timedelta(microseconds=micros)
    query = parse(dated("", moment))
    assert isinstance(query, Match)
    assert isinstance(query.test, Times)
    assert query.test.until is not None
    step = datetime.timedelta(microseconds=1 if moment.microsecond % 1000 else 1000)
    assert query.test.until == moment.astimezone(UTC) + step
    assert date_text(moment).endswith("Z")


def test_unions_of_many_selections_are_read_within_the_bounds_of_composed_queries() -> None:
    query = first(dated("properties.a:x", BEFORE))
    for number in range(60):
        query = added(query, dated(f"properties.a:{number}", DATE))
    assert parse(query, COMPOSED)
    assert parse(remaining([dated(f"properties.a:{number}", DATE) for number in range(500)]), COMPOSED)
