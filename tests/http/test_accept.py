"""What kind of answer a request would rather have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.http.accept import is_navigation, prefers, quality

FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "media_type", "expected"),
    [
        ("", "text/html", 1.0),
        ("*/*", "text/html", 1.0),
        ("text/*;q=0.3, */*;q=0.1", "text/html", 0.3),
        ("text/*;q=0.3, text/html;q=0.7", "text/html", 0.7),
        ("text/html;level=1;q=0.4", "text/html", 0.4),
        ("TEXT/HTML ; Q=0.5", "text/html", 0.5),
        ("text/html;q=0", "text/html", 0.0),
        ("text/html;q=2", "text/html", 1.0),
        ("application/json", "text/html", 0.0),
        (FIREFOX, "application/json", 0.8),
    ],
)
def test_the_most_specific_range_counts(accept: str, media_type: str, expected: float) -> None:
    assert quality([accept] if accept else [], media_type) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Accept": FIREFOX}, True),
        ({"Accept": CHROME, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, True),
        ({"Accept": FIREFOX, "Sec-Fetch-Mode": "cors"}, False),
        ({"Accept": FIREFOX, "Sec-Fetch-Site": "none"}, False),
        ({"Accept": "*/*", "Sec-Fetch-Mode": "navigate"}, False),
        ({"Accept": "*/*"}, False),
        ({}, False),
        ({"Accept": "application/json, text/html"}, False),
        ({"Accept": "application/json, text/html;q=0.9"}, False),
        ({"Accept": "text/html;q=0"}, False),
        ({"Accept": "text/*"}, False),
        ({"Accept": "application/geo+json, application/json"}, False),
    ],
)
def test_a_page_is_for_people_who_navigate(fields: dict[str, str], expected: bool) -> None:
    assert is_navigation(CIMultiDict(fields)) is expected


def test_several_lines_are_one_list() -> None:
    headers = CIMultiDict([("Accept", "application/json;q=0.1"), ("Accept", "text/html")])
    assert prefers(headers, "text/html", "application/json")


@given(st.lists(st.text(max_size=60), max_size=3))
def test_whatever_comes_has_a_weight(values: list[str]) -> None:
    assert 0 <= quality(values, "text/html") <= 1
