"""Which links are followed, how long a source is waited for, and what an API says it can do."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from gateway.catalog.ingest import SourceError
from gateway.catalog.ingest.model import JsonObject
from gateway.catalog.ingest.remote import stac_api
from gateway.catalog.ingest.remote.origin import root_of
from gateway.catalog.ingest.remote.patience import Patience, retry_after
from gateway.catalog.ingest.remote.stac_api import Request, next_request, request_of, with_query

ROOT, ORIGIN = root_of("https://Stac.example.org/v1/?x#f")
NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)


def test_a_root_is_a_url_without_user_and_fragment() -> None:
    assert (ROOT, str(ORIGIN)) == ("https://stac.example.org/v1/?x", "https://stac.example.org")
    assert str(root_of("http://[::1]:8080")[1]) == "http://[::1]:8080"
    for wrong in ("ftp://x/", "https://", "https://u@x/", "https://u:p@x/", "https://x:99999/", "http://[", "/path"):
        with pytest.raises(ValueError, match=r"."):
            root_of(wrong)


@pytest.mark.parametrize(
    ("href", "url"),
    [
        ("items?token=a b", "https://stac.example.org/v1/items?token=a%20b"),
        ("?page=2", "https://stac.example.org/v1/search?page=2"),
        ("/x", "https://stac.example.org/x"),
        ("https://STAC.example.org:443/x#f", "https://stac.example.org/x"),
        # By a server that does not know that a proxy in front speaks TLS.
        ("http://stac.example.org/x", "https://stac.example.org/x"),
        ("http://stac.example.org:80/x", "https://stac.example.org/x"),
        ("//stac.example.org/x", "https://stac.example.org/x"),
        ("x\r\nHost\t evil", "https://stac.example.org/v1/xHost%20evil"),
        ("ä", "https://stac.example.org/v1/%C3%A4"),
        ("%2F%41", "https://stac.example.org/v1/%2F%41"),
    ],
)
def test_links_within_the_source_are_resolved(href: str, url: str) -> None:
    assert ORIGIN.resolve(href, "https://stac.example.org/v1/search") == url


@pytest.mark.parametrize(
    "href",
    [
        "https://stac.example.org.evil.example/",
        "https://stac.example.org@evil.example/",
        "https://stac.example.org:8443/",
        "http://stac.example.org:8080/",
        "//evil.example/x",
        "\\\\evil.example/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://[",
        f"/{'x' * 9000}",
    ],
)
def test_links_to_elsewhere_are_not(href: str) -> None:
    try:
        found = ORIGIN.resolve(href, "https://stac.example.org/v1/search")
    except SourceError:
        return
    assert URL(found).host == "stac.example.org"
    assert href.startswith("\\")


@given(st.text(max_size=40))
def test_whatever_a_link_says_only_the_source_is_asked(href: str) -> None:
    for text in (href, f"//{href}", f"https://{href}", f"https://stac.example.org{href}"):
        try:
            found = URL(ORIGIN.resolve(text, "https://stac.example.org/v1/"), encoded=True)
        except SourceError:
            continue
        assert (found.scheme, found.host, found.port, found.user) == ("https", "stac.example.org", 443, None)
        assert str(found).isascii()
        assert not set(str(found)) & set(" \r\n\t")


def test_credentials_are_safe_by_https_and_on_this_machine_alone() -> None:
    urls = ("https://x/", "http://127.0.0.1:1/", "http://[::1]/", "http://x/", "http://localhost/", "http://10.0.0.1/")
    assert [root_of(url)[1].is_private for url in urls] == [True, True, True, False, False, False]


@given(st.integers(1, 20), st.none() | st.floats(0, 2000), st.floats(0, 1))
def test_pauses_are_as_long_as_asked_for_and_bounded(attempt: int, asked: float | None, chance: float) -> None:
    patience = Patience()
    pause = patience.pause(attempt, asked, chance)
    if attempt >= patience.attempts or (asked or 0) > patience.longest_wait:
        assert pause is None
    else:
        assert pause is not None
        assert (asked or 0) <= pause <= max(asked or 0, patience.longest_pause)
        assert pause >= patience.first_pause / 2


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (None, None),
        ("7", 7),
        (" 7 ", 7),
        ("Sat, 21 Nov 2026 12:01:00 GMT", 60),
        ("Sat, 21 Nov 2020 12:01:00 GMT", 0),
        ("-1", None),
        ("1e3", None),
        ("soon", None),
        ("9" * 50, None),
    ],
)
def test_retry_after_is_read(field: str | None, seconds: float | None) -> None:
    assert retry_after(field, NOW) == seconds


def test_next_by_post_merges_only_where_it_is_said() -> None:
    asked = Request("https://stac.example.org/search", "POST", {"limit": 3, "x": 1}, {"X-A": "1"})
    link: JsonObject = {"rel": "next", "href": "/search", "method": "post", "body": {"x": 2}, "headers": {"X-B": "2"}}
    merged = next_request({"links": [{**link, "merge": True}]}, asked, ORIGIN)
    assert merged == Request(asked.url, "POST", {"limit": 3, "x": 2}, {"X-A": "1", "X-B": "2"})
    assert next_request({"links": [link]}, asked, ORIGIN) == Request(asked.url, "POST", {"x": 2}, {"X-B": "2"})
    assert next_request({"links": [{"rel": "prev", "href": "/"}, 7]}, asked, ORIGIN) is None
    assert next_request({"links": {}}, asked, ORIGIN) is None
    wrongs: list[JsonObject] = [{"method": "DELETE"}, {"body": [1]}, {"href": None}]
    for wrong in wrongs:
        with pytest.raises(SourceError):
            next_request({"links": [{**link, **wrong}]}, asked, ORIGIN)
    assert merged is not None
    assert request_of(merged.to_json()) == merged


def test_a_query_keeps_what_it_has() -> None:
    assert with_query("https://x/i?f=json&limit=1", {"limit": "5"}) == "https://x/i?f=json&limit=5"


def test_what_is_no_landing_page_is_said_so() -> None:
    for document in ({}, {"type": "Collection", "conformsTo": []}, {"type": "Catalog", "links": []}):
        with pytest.raises(SourceError, match="is no landing page"):
            stac_api.describe(document, document, ROOT, ORIGIN)  # type: ignore[arg-type]
    api = stac_api.describe({"conformsTo": 7, "links": [{"rel": "data"}]}, {}, ROOT, ORIGIN)
    assert (api.collections, api.since_goes_by()) == ("https://stac.example.org/v1/collections", "datetime")
    assert stac_api.collection_url(api, "a/b") == "https://stac.example.org/v1/collections/a%2Fb"
