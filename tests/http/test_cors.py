"""Which pages may read answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.cors import CrossOrigin, with_origin

PORTAL = "https://portal.example.org"
LISTED, ANYONE = CrossOrigin(frozenset({PORTAL})), CrossOrigin(frozenset({"*"}))
BOTH = CrossOrigin(frozenset({"*", PORTAL}))


@given(st.one_of(st.none(), st.text(max_size=40), st.sampled_from(["null", "*", PORTAL.upper(), f"{PORTAL}.evil"])))
def test_an_origin_that_is_not_listed_is_never_named(origin: str | None) -> None:
    for rules in (LISTED, ANYONE, BOTH):
        fields = rules.allowed(origin)
        if origin != PORTAL:
            assert fields.get("Access-Control-Allow-Origin") in (None, "*")
            assert "Access-Control-Allow-Credentials" not in fields


def test_credentials_are_for_listed_origins_alone() -> None:
    assert LISTED.allowed(PORTAL)["Access-Control-Allow-Origin"] == PORTAL
    assert BOTH.allowed(PORTAL)["Access-Control-Allow-Credentials"] == "true"
    assert "Access-Control-Allow-Credentials" not in ANYONE.allowed(PORTAL)
    assert LISTED.preflight("null") == {}
    assert (LISTED.varies, ANYONE.varies, BOTH.varies) == (True, False, True)


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (None, "Origin"),
        ("", "Origin"),
        ("Authorization", "Authorization, Origin"),
        ("Accept, origin", "Accept, origin"),
        ("*", "*"),
    ],
)
def test_vary_names_origin_once(vary: str | None, expected: str) -> None:
    assert with_origin(vary) == expected
