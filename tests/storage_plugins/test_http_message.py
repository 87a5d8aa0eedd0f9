"""Messages are read strictly: where a body ends is known for sure, or the answer is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_plugins.http.message import Chunks, MessageError, parse_response_head, parse_url, request_head

path_characters = st.sampled_from([chr(code) for code in range(0x21, 0x7F) if chr(code) not in "?#"])
paths = st.text(path_characters).map(lambda text: f"/{text}")
queries = st.one_of(st.just(""), st.text(path_characters | st.just("?")).map(lambda text: f"?{text}"))


class TestUrls:
    @given(paths, queries, st.text())
    def test_path_and_query_stay_as_they_are_and_a_fragment_is_dropped(
        self, path: str, query: str, fragment: str
    ) -> None:
        target = parse_url(f"https://data.example.org{path}{query}#{fragment}")
        assert (target.path, target.query) == (path, query)
        assert request_head("GET", target, {}).startswith(f"GET {path}{query} HTTP/1.1\r\n".encode())

    @given(paths, queries.filter(bool))
    def test_a_url_is_shown_without_its_query(self, path: str, query: str) -> None:
        assert parse_url(f"http://h:81{path}{query}").shown == f"http://h:81{path}"

    @pytest.mark.parametrize(
        ("url", "origin", "authority", "path", "query"),
        [
            ("http://a", ("http", "a", 80), "a", "/", ""),
            ("HTTPS://A.Example.ORG", ("https", "a.example.org", 443), "A.Example.ORG", "/", ""),
            ("https://a?b", ("https", "a", 443), "a", "/", "?b"),
            ("https://a:8443/?", ("https", "a", 8443), "a:8443", "/", "?"),
            ("https://a:443/", ("https", "a", 443), "a:443", "/", ""),
            ("https://a:/b", ("https", "a", 443), "a", "/b", ""),
            ("http://[0:0:0:0:0:0:0:1]:81/", ("http", "::1", 81), "[0:0:0:0:0:0:0:1]:81", "/", ""),
            ("http://0x7f.1/", ("http", "0x7f.1", 80), "0x7f.1", "/", ""),
            ("http://a/b@c:d", ("http", "a", 80), "a", "/b@c:d", ""),
            ("http://a?b@c", ("http", "a", 80), "a", "/", "?b@c"),
        ],
    )
    def test_where_a_url_leads(
        self, url: str, origin: tuple[str, str, int], authority: str, path: str, query: str
    ) -> None:
        target = parse_url(url)
        assert (target.origin, target.authority, target.path, target.query) == (origin, authority, path, query)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "/a",
            "ftp://a/",
            "http:/a",
            "http://",
            "http:///a",
            "http://a:b/",
            "http://a:0/",
            "http://a:65536/",
            "http://a:123456/",
            "http://a b/",
            "http://a/b c",
            "http://a/b\r\nX: y",
            "http://a/\N{LATIN SMALL LETTER E WITH ACUTE}",
            "http://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher/",
            "http://a%2eb/",
            "http://[::1/",
            "http://[::g]/",
            "http://[1:2]/",
            "http://[fe80::1%25eth0]/",
            "http://a\\@b/",
            "http://a\n/",
            "http://a/\n",
        ],
    )
    def test_what_is_no_url_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"^(is|has) |At |Only |address"):
            parse_url(url)

    @pytest.mark.parametrize("url", ["http://me@a/", "http://me:word@a/", "http://a@b@c/", "http://@a/", "https://:@a"])
    def test_credentials_in_a_url_are_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"^has a user name or password in it$"):
            parse_url(url)


class TestRequests:
    def test_a_request_asks_for_the_bytes_as_they_are(self) -> None:
        head = request_head("HEAD", parse_url("http://A.b:80/c?d#e"), {"Range": "bytes=0-1"})
        assert head == (
            b"HEAD /c?d HTTP/1.1\r\nHost: A.b:80\r\nUser-Agent: download-gateway\r\n"
            b"Accept-Encoding: identity\r\nRange: bytes=0-1\r\n\r\n"
        )

    def test_a_given_field_replaces_ours_and_the_last_of_several_counts(self) -> None:
        head = request_head("GET", parse_url("http://a/"), {"hOST": "b", "range": "x", "Range": "y"})
        assert head.lower().split(b"\r\n")[1:-2] == [
            b"host: b",
            b"user-agent: download-gateway",
            b"accept-encoding: identity",
            b"range: y",
        ]

    @pytest.mark.parametrize(("name", "value"), [("a", "b\r\nc"), ("a", "\0"), ("a b", "c"), ("", "c"), ("a:", "c")])
    def test_a_field_that_cannot_be_sent_is_refused_and_its_value_not_shown(self, name: str, value: str) -> None:
        with pytest.raises(ValueError, match="characters that cannot be sent") as caught:
            request_head("GET", parse_url("http://a/"), {name: f"secret{value}"})
        assert "secret" not in str(caught.value)


class TestHeads:
    @pytest.mark.parametrize(
        ("lines", "method", "length", "chunked", "persistent"),
        [
            ("200 OK|Content-Length: 5", "GET", 5, False, True),
            ("200 OK|Content-Length: 5|content-length: 5", "GET", 5, False, True),
            ("200 OK|Content-Length: 5, 5", "GET", 5, False, True),
            ("200 OK|Content-Length:5", "HEAD", 0, False, True),
            ("200 OK", "HEAD", 0, False, True),
            ("200|Content-Length: 0", "GET", 0, False, True),
            ("204 No Content", "GET", 0, False, True),
            ("304 Not Modified|Content-Length: 5", "GET", 0, False, True),
            ("200 OK", "GET", None, False, False),
            ("200 OK|Transfer-Encoding: Chunked", "GET", None, True, True),
            ("200 OK|Transfer-Encoding: chunked", "HEAD", 0, False, True),
            ("200 OK|Content-Length: 5|Connection: x, Close", "GET", 5, False, False),
            ("200 OK|Content-Length: 5|Connection: keep-alive|Connection: close", "GET", 5, False, False),
        ],
    )
    def test_where_a_body_ends(
        self, lines: str, method: str, length: int | None, chunked: bool, persistent: bool
    ) -> None:
        head = parse_response_head(f"HTTP/1.1 {lines}".replace("|", "\r\n").encode(), method)
        assert (head.length, head.chunked, head.persistent) == (length, chunked, persistent)

    def test_a_connection_of_http_1_0_is_not_used_again(self) -> None:
        assert not parse_response_head(b"HTTP/1.0 200 OK\r\nContent-Length: 5", "GET").persistent

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"HTTP/2 200 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 099 Low",
            b"HTTP/1.1 20 Short",
            b"HTTP/1.1 2000 Long",
            b"HTTP/1.1 200 O\x00K",
            b"http/1.1 200 OK",
            b" HTTP/1.1 200 OK",
            b"\r\nHTTP/1.1 200 OK",
            b"ICY 200 OK",
            b"HTTP/1.1 101 Switching Protocols",
            b"HTTP/1.1 200 OK\nContent-Length: 5",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\nX: y",
            b"HTTP/1.1 200 OK\r\nX: y\rContent-Length: 5",
            b"HTTP/1.1 200 OK\r\nX: y\r\n folded",
            b"HTTP/1.1 200 OK\r\nX : y",
            b"HTTP/1.1 200 OK\r\n: y",
            b"HTTP/1.1 200 OK\r\nX",
            b"HTTP/1.1 200 OK\r\nX: \x00",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6",
            b"HTTP/1.1 200 OK\r\nContent-Length: +5",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0x5",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5 5",
            b"HTTP/1.1 200 OK\r\nContent-Length: \xb2",
            b"HTTP/1.1 200 OK\r\nContent-Length:",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        ],
    )
    def test_what_leaves_doubt_is_refused(self, head: bytes) -> None:
        with pytest.raises(MessageError):
            parse_response_head(head, "GET")

    @given(
        st.binary(max_size=80), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length:"])
    )
    def test_any_bytes_are_a_head_or_refused(self, noise: bytes, before: bytes) -> None:
        try:
            head = parse_response_head(before + noise, "GET")
        except MessageError:
            return
        assert 200 <= head.status <= 999 or 100 <= head.status < 200
        assert head.length is None or head.length >= 0


def chunked(body: bytes, cuts: list[int], trailer: bytes = b"") -> bytes:
    """``body`` in chunks that end at ``cuts``."""
    ends = sorted({cut for cut in cuts if 0 < cut < len(body)} | {len(body)})
    chunks = [body[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]
    return b"".join(b"%X;x=y\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"00\r\n" + trailer + b"\r\n"


class TestChunks:
    @given(st.binary(max_size=300), st.lists(st.integers(1, 300)), st.lists(st.integers(1, 600)), st.booleans())
    def test_a_body_comes_out_however_it_is_cut_and_received(
        self, body: bytes, cuts: list[int], received: list[int], surplus: bool
    ) -> None:
        raw = chunked(body, cuts, b"X: y\r\n") + (b"HTTP" if surplus else b"")
        chunks, found = Chunks(), b""
        places = [0, *sorted(place for place in received if place < len(raw)), len(raw)]
        for start, end in itertools.pairwise(places):
            found += chunks.feed(raw[start:end])
        assert (found, chunks.done, chunks.surplus) == (body, True, surplus)

    @given(st.binary(min_size=1, max_size=100), st.data())
    def test_a_body_that_ends_early_is_not_done(self, body: bytes, data: st.DataObject) -> None:
        raw = chunked(body, [50])
        chunks = Chunks()
        assert body.startswith(chunks.feed(raw[: data.draw(st.integers(0, len(raw) - 1))]))
        assert not chunks.done

    @pytest.mark.parametrize(
        "raw", [b"x\r\n", b"\r\n", b"-1\r\n", b"1\r\nab\r\n", b"0x1\r\n", b"1" * 16 + b"\r\n", b"1;" + b"x" * 5000]
    )
    def test_what_is_not_chunked_is_refused(self, raw: bytes) -> None:
        with pytest.raises(MessageError):
            Chunks().feed(raw)
