"""Who really asks, behind proxies."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.http.forwarded import MOST_HOPS, find_client, is_host, parse_address

PROXIES = [ipaddress.ip_network(network) for network in ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")]


@pytest.mark.parametrize(
    ("fields", "address", "scheme", "host"),
    [
        ([], "127.0.0.1", "http", "inner:80"),
        ([("X-Forwarded-For", "203.0.113.9")], "203.0.113.9", "http", "inner:80"),
        ([("X-Forwarded-For", "6.6.6.6, 203.0.113.9")], "203.0.113.9", "http", "inner:80"),
        ([("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 10.1.2.3")], "203.0.113.9", "http", "inner:80"),
        ([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9", "http", "inner:80"),
        ([("X-Forwarded-For", "10.1.1.1, 10.2.2.2")], "10.1.1.1", "http", "inner:80"),
        ([("X-Forwarded-For", "unknown")], "", "http", "inner:80"),
        ([("X-Forwarded-For", "203.0.113.9, unknown, 10.1.2.3")], "", "http", "inner:80"),
        ([("X-Forwarded-For", "203.0.113.9:5000")], "203.0.113.9", "http", "inner:80"),
        (
            [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "data.example")],
            "203.0.113.9",
            "https",
            "data.example",
        ),
        ([("X-Forwarded-Proto", "HTTPS"), ("X-Forwarded-Host", "a.example:1")], "127.0.0.1", "https", "a.example:1"),
        ([("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Host", "a/../b")], "127.0.0.1", "http", "inner:80"),
        ([("Forwarded", "for=203.0.113.9;proto=https;host=data.example")], "203.0.113.9", "https", "data.example"),
        ([("Forwarded", 'for="[2001:DB9::1]:4711"; Proto=https')], "2001:db9::1", "https", "inner:80"),
        ([("Forwarded", "for=6.6.6.6, for=203.0.113.9;host=a, for=10.0.0.7;proto=https")], "203.0.113.9", "https", "a"),
        ([("Forwarded", "for=_hidden")], "", "http", "inner:80"),
        ([("Forwarded", "for=203.0.113.9, for=unknown;proto=https")], "", "https", "inner:80"),
        ([("Forwarded", "proto=https")], "127.0.0.1", "https", "inner:80"),
        ([("Forwarded", 'for="203.0.113.9;host=evil, x"')], "", "http", "inner:80"),
        ([("Forwarded", "for=203.0.113.9,!!!")], "", "http", "inner:80"),
        ([("Forwarded", "for=6.6.6.6," * 1000 + "for=203.0.113.9")], "", "http", "inner:80"),
        ([("X-Forwarded-For", "6.6.6.6," * 1000 + "203.0.113.9")], "203.0.113.9", "http", "inner:80"),
        ([("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9", "http", "inner:80"),
        ([("X-Forwarded-For", "::ffff:10.0.0.1, ::ffff:203.0.113.9")], "203.0.113.9", "http", "inner:80"),
    ],
)  # fmt: skip
def test_a_listed_proxy_is_believed_up_to_the_first_that_is_not(
    fields: list[tuple[str, str]], address: str, scheme: str, host: str
) -> None:
    client = find_client("127.0.0.1", "http", "inner:80", CIMultiDict(fields), PROXIES)
    assert (client.address, client.scheme, client.host, client.by_proxy) == (address, scheme, host, True)
    other = find_client("203.0.113.50", "http", "inner:80", CIMultiDict(fields), PROXIES)
    assert (other.address, other.scheme, other.host, other.by_proxy) == ("203.0.113.50", "http", "inner:80", False)


@pytest.mark.parametrize(
    "fields",
    [
        [("Forwarded", "for=10.0.0.1"), ("X-Forwarded-For", "203.0.113.9")],
        [("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "6.6.6.6")],
        [("Forwarded", "for=203.0.113.9;host=evil.example"), ("X-Forwarded-For", "203.0.113.9")],
        [("Forwarded", "!!!"), ("X-Forwarded-For", "203.0.113.9")],
        [("Forwarded", "for=203.0.113.9;proto=https"), ("X-Forwarded-Proto", "http")],
    ],
)
def test_of_what_a_proxy_writes_and_what_it_passes_on_nobody_can_tell_which_is_which(
    fields: list[tuple[str, str]],
) -> None:
    with pytest.raises(ValueError, match="Forwarded"):
        find_client("127.0.0.1", "http", "inner:80", CIMultiDict(fields), PROXIES)
    stranger = find_client("203.0.113.50", "http", "inner:80", CIMultiDict(fields), PROXIES)
    assert stranger.address == "203.0.113.50"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"]),
            st.text(st.sampled_from('for=host;proto,"\\ 10.203.[]:_abhttps/@'), max_size=80),
        ),
        max_size=4,
    )
)
def test_no_text_gives_a_host_that_is_none(fields: list[tuple[str, str]]) -> None:
    try:
        client = find_client("10.1.1.1", "http", "inner", CIMultiDict(fields), PROXIES)
    except ValueError:
        names = {name for name, _ in fields}
        assert "Forwarded" in names
        assert len(names) > 1
        return
    assert is_host(client.host)
    assert client.scheme in ("http", "https")
    if client.address:
        ipaddress.ip_address(client.address)


@pytest.mark.parametrize(
    "fields",
    [
        [("X-Forwarded-For", "10.1.1.1," * 1000)] * 30,
        [("Forwarded", "for=10.1.1.1," * 300)],
        [("Forwarded", "for=10.1.1.1," * 1000)] * 30,
    ],
)
def test_no_more_entries_are_read_than_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, fields: list[tuple[str, str]]
) -> None:
    """A client behind a proxy that adds to these fields could have the loop read thousands."""
    read = []

    def counted(text: str) -> object:
        read.append(text)
        return parse_address(text)

    monkeypatch.setattr("gateway.http.forwarded.parse_address", counted)
    find_client("127.0.0.1", "http", "inner:80", CIMultiDict(fields), PROXIES)
    # Each is read once, and once more to see whether it is a listed proxy.
    assert len(read) <= 2 * MOST_HOPS + 1


@pytest.mark.parametrize(
    "text", ["", "a b", "a,b", "user@host", "host/path", "host:port", "host:123456", "[::1", "ho\u00e9"]
)
def test_what_is_no_host(text: str) -> None:
    assert not is_host(text)


def test_hosts() -> None:
    assert all(map(is_host, ["localhost", "data.example.org:8443", "127.0.0.1:80", "[::1]:80", "a_b"]))
