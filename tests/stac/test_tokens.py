"""Tokens of pages: they lead back to their place, in their search, and cannot be made."""

from __future__ import annotations

import dataclasses
import datetime
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.stac.model import Direction, Interval, Search
from gateway.stac.search import LONGEST_TEXT
from gateway.stac.tokens import LIFETIME, OLDEST, Place, Tokens

SECRET = b"k" * 32
BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
SEARCH = Search(
    collections=("a", "b"), ids=("1",), bbox=(0, 1, 2, 3), datetime=Interval(BEGIN, None), newest_first=False
)
PLACE = Place(BEGIN, 7)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(SECRET, Clock())


def read(tokens: Tokens, token: str | None, search: Search = SEARCH, tenant: str = "esa") -> object:
    return tokens.read(tenant, dataclasses.replace(search, token=token))


def refused(tokens: Tokens, token: str, search: Search = SEARCH, tenant: str = "esa") -> bool:
    with pytest.raises(GatewayError, match="'token'") as error:
        read(tokens, token, search, tenant)
    return error.value.status is HTTPStatus.BAD_REQUEST


@given(
    st.datetimes(timezones=st.just(datetime.UTC)) | st.just(OLDEST),
    st.integers(0, 2**63 - 1),
    st.sampled_from(["next", "previous"]),
)
def test_a_token_leads_back_to_its_place(start: datetime.datetime, number: int, direction: Direction) -> None:
    tokens = Tokens(SECRET, Clock())
    token = tokens.make("esa", SEARCH, direction, Place(start, number))
    assert read(tokens, token) == (direction, Place(start, number))
    assert len(token) <= LONGEST_TEXT


def test_the_first_page_has_no_token(tokens: Tokens) -> None:
    assert read(tokens, None) is None


def test_another_process_with_the_same_secret_reads_it_and_one_with_another_does_not(tokens: Tokens) -> None:
    token = tokens.make("esa", SEARCH, "next", PLACE)
    assert read(Tokens(SECRET, Clock()), token) == ("next", PLACE)
    assert refused(Tokens(b"o" * 32, Clock()), token)


def test_a_token_is_good_for_its_search_alone_with_pages_of_any_size(tokens: Tokens) -> None:
    token = tokens.make("esa", SEARCH, "next", PLACE)
    assert read(tokens, token, dataclasses.replace(SEARCH, limit=500)) == ("next", PLACE)
    for changes in (
        {"collections": ("a",)},
        {"collections": None},
        {"ids": None},
        {"bbox": (0, 1, 2, 4)},
        {"datetime": None},
        {"newest_first": True},
        {"intersects": "{}"},
    ):
        assert refused(tokens, token, dataclasses.replace(SEARCH, **changes))
    assert refused(tokens, token, tenant="cnes")


def test_a_token_that_was_changed_anywhere_is_refused(tokens: Tokens) -> None:
    token = tokens.make("esa", SEARCH, "next", PLACE)
    for position in range(len(token)):
        other = "A" if token[position] != "A" else "g"  # of the last one, not all bits count
        assert refused(tokens, token[:position] + other + token[position + 1 :]), position


@given(st.text(min_size=1, max_size=200))
def test_a_token_that_was_made_up_is_refused(text: str) -> None:
    assert refused(Tokens(SECRET, Clock()), text)


def test_a_token_ends(tokens: Tokens) -> None:
    clock = Clock()
    tokens = Tokens(SECRET, clock)
    token = tokens.make("esa", SEARCH, "next", PLACE)
    clock.now += LIFETIME - 1
    assert read(tokens, token) == ("next", PLACE)
    clock.now += 2
    assert refused(tokens, token)


def test_a_token_does_not_tell_where_it_leads(tokens: Tokens) -> None:
    assert tokens.make("esa", SEARCH, "next", PLACE) != tokens.make("esa", SEARCH, "next", PLACE)
