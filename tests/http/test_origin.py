"""Origins as browsers write them."""

from __future__ import annotations

import pytest

from gateway.http.origin import origin_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://data.example.org", "https://data.example.org"),
        ("https://data.example.org/archive?x#y", "https://data.example.org"),
        ("HTTPS://Data.Example.ORG:443/", "https://data.example.org"),
        ("http://data.example.org:80", "http://data.example.org"),
        ("https://data.example.org:8443", "https://data.example.org:8443"),
        ("http://data.example.org:443", "http://data.example.org:443"),
        ("https://user@data.example.org", "https://data.example.org"),
        ("http://[2001:DB8::1]:8080/x", "http://[2001:db8::1]:8080"),
    ],
)
def test_it_is_scheme_host_and_a_port_that_is_not_the_usual_one(url: str, origin: str) -> None:
    assert origin_of(url) == origin
