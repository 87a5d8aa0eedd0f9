"""Queries of baskets: the texts that are documented, and what they find."""

from __future__ import annotations

import contextlib
import datetime
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.search.composition import any_of, date_text, dated, listed, quoted, selection, union, within
from gateway.search.limits import COMPOSED
from gateway.search.query import And, Is, Match, Or, QueryError, Times
from gateway.search.reading import parse
from tests.search.test_limits import texts

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))

UTC = datetime.UTC
DATE = datetime.datetime(2018, 4, 3, 14, 20, 0, 383_000, tzinfo=UTC)
BEFORE = datetime.datetime(2018, 4, 2, 9, 0, tzinfo=UTC)


def test_a_selection_and_a_dataset_are_written_as_documented() -> None:
    item, previous = dated("properties.a:x", DATE), dated("properties.b:y", BEFORE)
    assert item == "(properties.a:x) AND creationDate:[* TO 2018-04-03T14:20:00.383Z]"
    assert union([previous]) == "((properties.b:y) AND creationDate:[* TO 2018-04-02T09:00:00.000Z])"
    assert union([item, previous]) == (
        "(((properties.a:x) AND creationDate:[* TO 2018-04-03T14:20:00.383Z])"
        " OR (((properties.b:y) AND creationDate:[* TO 2018-04-02T09:00:00.000Z])))"
    )
    assert union(["a", "b", "c"]) == "((a) OR ((b)) OR ((c)))"
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


def test_what_bounds_a_query_stands_beside_it() -> None:
    assert within("") == ""
    assert within("a:b") == "a:b"
    assert within("", dataset="URN:D") == 'tags:"URN:D"'
    assert within("a:b OR c:d", dataset="URN:D", ids=["A"], without=["B", "C"]) == (
        '(a:b OR c:d) AND tags:"URN:D" AND (ipId:"A") AND NOT(ipId:"B" OR ipId:"C")'
    )
    assert listed("providerId", ["a", 'b"']) == 'providerId:"a" OR providerId:"b\\""'
    assert (any_of(["a:b"]), any_of(["a:b", "c:d"])) == ("a:b", "(a:b) OR (c:d)")


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
    deep = "(" * 32 + "id:x" + ")" * 32
    assert parse(union([dated(deep, DATE)] * 100), COMPOSED)
    assert parse(union([dated(f"properties.a:{number}", DATE) for number in range(500)]), COMPOSED)


def test_all_ids_that_are_allowed_are_read_together() -> None:
    ids = [f"URN:FEATURE:DATA:some-project:{number:08x}-0000-0000-0000-000000000000:V1" for number in range(1000)]
    query = selection("tags:x", ids)
    assert query is not None
    assert parse(union([dated(query, DATE)]), COMPOSED)
    assert parse(dated(listed("providerId", [f"S2A_MSIL2A_{number:050}" for number in range(1000)]), DATE), COMPOSED)


@settings(max_examples=2000 if FULL else 200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3), st.sampled_from([[], ["A", 'B"']]))
def test_a_text_that_is_a_query_means_the_same_within_others(written: list[str], ids: list[str]) -> None:
    """Whatever is in it: none gets out of the bound of its date."""
    asked = []
    for text in written:
        with contextlib.suppress(QueryError):
            asked.append((text.strip(), parse(text.strip())))
    bound = parse(f"creationDate:[* TO {date_text(DATE)}]")
    without = parse(f"NOT({listed('ipId', ids)})") if ids else None
    items, meant = [], []
    for text, query in asked:
        chosen = selection(text, ids)
        assert chosen is not None
        items.append(dated(chosen, DATE))
        parts = (query, without) if text and without else (without or query,)
        inner = And(parts) if len(parts) > 1 else parts[0]
        meant.append(And((inner, bound)) if chosen else bound)
        assert parse(items[-1], COMPOSED) == meant[-1]
    if items:
        assert parse(union(items), COMPOSED) == (Or(tuple(meant)) if len(items) > 1 else meant[0])
    if any(text for text, _ in asked):
        texts_of = [text for text, _ in asked if text]
        queries = [query for text, query in asked if text]
        assert parse(any_of(texts_of), COMPOSED) == (Or(tuple(queries)) if len(queries) > 1 else queries[0])
