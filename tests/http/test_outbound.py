"""Which URLs the gateway calls."""

from __future__ import annotations

import pytest
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.outbound import parse_authority, parse_target


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://idp.example.org", "idp.example.org:443"),
        ("https://idp.example.org:443/", "idp.example.org:443"),
        ("https://idp.example.org:8443/realms/science", "idp.example.org:8443"),
        ("https://idp.example.org/keys?kind=sig&b", "idp.example.org:443"),
        ("https://192.0.2.1/keys", "192.0.2.1:443"),
        ("https://[2001:db8::1]:8443/", "[2001:db8::1]:8443"),
    ],
)
def test_https_may_be_called(url: str, authority: str) -> None:
    target = parse_target(url)
    assert (target.url, target.authority) == (url, authority)
    assert target.has_query == ("?" in url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.example.org",
        "//idp.example.org/",
        "http://idp.example.org/",
        "http://127.0.0.1/",
        "ftp://idp.example.org/",
        "file:///etc/passwd",
        "data:application/json,{}",
        "HTTPS://idp.example.org/",
        "https://IDP.example.org/",
        "https://user@idp.example.org/",
        "https://user:password@idp.example.org/",
        "https://idp.example.org@evil.example/",
        "https://idp.example.org\\@evil.example/",
        "https://idp.example.org#@evil.example/",
        "https://idp.example.org/#fragment",
        "https://idp.example.org/\n",
        " https://idp.example.org/",
        "https://idp.example.org/a b",
        "https://idp%2eexample.org/",
        "https://①②⑦.0.0.1/",
        "https://idp.exämple.org/",
        "https://idp.example.org:/",
        "https://idp.example.org:123456/",
        "https://idp.example.org:65536/",
        "https://idp.example.org:0/",
        "https:///keys",
        "https://-/",
    ],
)
def test_nothing_else_may(url: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_target(url)


def test_http_may_be_called_on_this_machine_for_tests() -> None:
    for url in ("http://127.0.0.1:8080/", "http://127.1.2.3/", "http://[::1]:8080/keys"):
        assert parse_target(url, insecure_http=True).url == url
    for url in ("http://localhost/", "http://127.1/", "http://0.0.0.0/", "http://10.0.0.1/", "http://idp.example.org/"):
        with pytest.raises(ValueError, match="http to a loopback address"):
            parse_target(url, insecure_http=True)


@settings(deadline=None)
@given(st.from_regex(r"https?://[a-z0-9._:@\\#?/\[\]-]{0,40}", fullmatch=True))
def test_the_client_reads_the_same_host_as_we_do(url: str) -> None:
    try:
        target = parse_target(url, insecure_http=True)
    except ValueError:
        return
    try:
        read = yarl.URL(url, encoded=True)
    except ValueError:
        return
    assert read.user is None
    assert target.authority.rpartition(":")[0].strip("[]") == read.host


@pytest.mark.parametrize(
    ("text", "authority"),
    [("idp.example.org", "idp.example.org:443"), ("idp:8443", "idp:8443"), ("[::1]:8443", "[::1]:8443")],
)
def test_a_host_is_written_with_its_port(text: str, authority: str) -> None:
    assert parse_authority(text) == authority


@pytest.mark.parametrize(
    "text", ["", "https://idp", "idp/", "idp?", "*.example.org", "idp:", "IDP", "u@idp", "idp:65536"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a host"):
        parse_authority(text)
