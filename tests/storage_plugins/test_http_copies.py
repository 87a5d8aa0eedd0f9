"""Of a copy behind a server come the bytes that were asked for, of the version that was asked for, or an error."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import os
import ssl
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.conditional import parse_entity_tag
from gateway.storage import (
    ByteStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    OnSocket,
    Stat,
    StorageError,
)
from storage_plugins.http.client import HttpClient
from storage_plugins.http.copies import describe, stat, stream_range
from tests.storage_plugins.support import CONTENT, until
from tests.storage_plugins.test_http_message import chunked
from tests.storage_plugins.web import WebServer, answer, head, holding, saying, serving

Tls = ssl.SSLContext | None
TAG = 'ETag: "abc-1"'
DATE = "Last-Modified: Sat, 21 Nov 2026 08:00:00 GMT"
MODIFIED = datetime.datetime(2026, 11, 21, 8, tzinfo=datetime.UTC)
WEAK_VERSION = f"W/W%2F%22abc%22/Sat%2C%2021%20Nov%202026%2008%3A00%3A00%20GMT/{len(CONTENT)}"


async def body_of(stream: ByteStream) -> bytes:
    body = b""
    while piece := await stream.read():
        body += piece
    return body


async def fetch(client: HttpClient, web: WebServer, start: int, stop: int, version: str | None = None) -> bytes:
    with contextlib.closing(await stream_range(client, web.url(), start, stop, version, name="it")) as stream:
        return await body_of(stream)


class TestStat:
    async def test_it_tells_size_date_and_strong_tag(self, client: HttpClient, tls: Tls) -> None:
        async with serving(holding(CONTENT, TAG, DATE), tls=tls) as web:
            assert await stat(client, web.url(), name="it") == Stat(len(CONTENT), MODIFIED, "abc-1")
            assert web.asked[0].method == "HEAD"

    async def test_fields_are_sent_along(self, client: HttpClient) -> None:
        async with serving(holding(CONTENT)) as web:
            await stat(client, web.url(), name="it", headers={"Authorization": "Bearer x"})
            assert web.asked[0].fields["authorization"] == "Bearer x"

    async def test_without_a_size_it_cannot_be_told(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(head("200 OK", TAG)), tls=tls) as web:
            with pytest.raises(CopyUnavailableError, match=r"^it: the server does not tell its size$"):
                await stat(client, web.url(), name="it")

    async def test_an_encoded_copy_is_refused_unless_that_means_nothing(self, client: HttpClient) -> None:
        async with serving(holding(CONTENT, "Content-Encoding: aws-chunked")) as web:
            with pytest.raises(CopyUnavailableError, match=r"^it: the server encodes the bytes"):
                await stat(client, web.url(), name="it")
            assert (await stat(client, web.url(), name="it", any_coding=True)).size == len(CONTENT)

    async def test_a_head_answered_206_or_204_is_refused(self, client: HttpClient) -> None:
        for status in ("206 Partial Content", "204 No Content"):
            async with serving(saying(head(status, "Content-Length: 5"))) as web:
                with pytest.raises(CopyUnavailableError):
                    await stat(client, web.url(), name="it")


fields = st.lists(
    st.sampled_from(
        [
            TAG,
            DATE,
            'ETag: "b"',
            'ETag: W/"b"',
            'ETag: "W/b"',
            'ETag: ""',
            "ETag: b",
            "ETag: \xe9",
            "Last-Modified: now",
        ]
    ),
    max_size=3,
    unique=True,
)


def proxied(lines: list[str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict((line.partition(": ")[0], line.partition(": ")[2]) for line in lines))


def by_name(lines: list[str]) -> list[str]:
    """Lines of different fields may change places, those of the same field may not."""
    return sorted(lines, key=lambda line: line.partition(":")[0])


class TestVersions:
    @pytest.mark.parametrize(
        ("lines", "version"),
        [
            ([TAG, DATE], "abc-1"),
            (['ETag: "a b"', DATE], "W/%22a%20b%22/Sat%2C%2021%20Nov%202026%2008%3A00%3A00%20GMT/5"),
            (['ETag: W/"b"'], "W/W%2F%22b%22//5"),
            (['ETag: "W/b"'], "W/%22W%2Fb%22//5"),
            (['ETag: ""'], "W/%22%22//5"),
            ([], "W///5"),
        ],
    )
    def test_it_is_the_strong_tag_or_else_all_that_is_told(self, lines: list[str], version: str) -> None:
        assert describe(proxied(lines), 5).version == version

    @given(fields, st.integers(1, 3), fields, st.integers(1, 3))
    def test_what_differs_without_a_strong_tag_has_another_version(
        self, first: list[str], first_size: int, second: list[str], second_size: int
    ) -> None:
        found = [describe(proxied(first), first_size), describe(proxied(second), second_size)]
        assert all(parse_entity_tag(f'"{one.version}"') is not None for one in found)
        if all(one.version.startswith("W/") for one in found):
            told = [(by_name(first), first_size), (by_name(second), second_size)]
            assert (found[0].version == found[1].version) == (told[0] == told[1])

    def test_a_date_that_is_none_is_no_date_but_still_part_of_the_version(self) -> None:
        found = describe(proxied(["Last-Modified: yesterday"]), 5)
        assert (found.modified, found.version) == (None, "W//yesterday/5")


class TestRanges:
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.data())
    async def test_the_bytes_asked_for_come(self, client: HttpClient, tls: Tls, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(CONTENT) - 1))
        stop = data.draw(st.integers(start + 1, len(CONTENT)))
        async with serving(holding(CONTENT, TAG), tls=tls) as web:
            assert await fetch(client, web, start, stop) == CONTENT[start:stop]
            assert web.asked[0].fields["range"] == f"bytes={start}-{stop - 1}"
            assert "if-match" not in web.asked[0].fields

    async def test_a_server_without_ranges_will_do_for_the_whole(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(answer("200 OK", CONTENT, TAG)), tls=tls) as web:
            assert await fetch(client, web, 0, len(CONTENT), "abc-1") == CONTENT
            assert await fetch(client, web, 0, len(CONTENT)) == CONTENT
            assert web.connections == 1

    async def test_a_range_among_the_fields_is_replaced(self, client: HttpClient) -> None:
        async with serving(holding(CONTENT)) as web:
            given = {"range": "bytes=7-9", "X-Own": "x"}
            stream = await stream_range(client, web.url(), 1, 3, None, name="it", headers=given)
            assert await body_of(stream) == CONTENT[1:3]
            stream.close()
            assert (web.asked[0].fields["range"], web.asked[0].fields["x-own"]) == ("bytes=1-2", "x")

    @pytest.mark.parametrize(
        ("raw", "complaint"),
        [
            (answer("200 OK", CONTENT), "bytes 10-19 were asked for, the server sends 0-"),
            (answer("206 Partial Content", bytes(10)), "does not tell which bytes it sends"),
            (answer("206 Partial Content", bytes(10), "Content-Range: bytes 9-18/99"), "the server sends 9-18"),
            (answer("206 Partial Content", bytes(9), "Content-Range: bytes 10-18/99"), "the server sends 10-18"),
            (answer("206 Partial Content", bytes(11), "Content-Range: bytes 10-20/99"), "the server sends 10-20"),
            (
                answer("206 Partial Content", bytes(9), "Content-Range: bytes 10-19/99"),
                "sends 9 bytes as those",
            ),
            (answer("206 Partial Content", bytes(11), "Content-Range: bytes 10-19/99"), "sends 11 bytes as those"),
            (answer("206 Partial Content", bytes(10), "Content-Range: bytes 10-19/19"), "sends 10 bytes as those"),
            (answer("206 Partial Content", bytes(10), "Content-Range: bytes 10-19/*"), "does not tell which"),
            (answer("206 Partial Content", bytes(10), "Content-Range: 10-19/99"), "does not tell which"),
            (answer("206 Partial Content", bytes(10), "Content-Range: bytes 10-19/99, x"), "does not tell which"),
            (answer("206 Partial Content", bytes(10), *["Content-Range: bytes 10-19/99"] * 2), "does not tell which"),
            (answer("206 Partial Content", bytes(10), "Content-Type: multipart/byteranges; boundary=x"), "which bytes"),
            (head("206 Partial Content", "Content-Range: bytes 10-19/99") + bytes(10), "how many bytes it sends"),
            (answer("200 OK", b""), "how many bytes it sends, or sends none"),
            (
                head("206 Partial Content", "Content-Range: bytes 10-19/99", "Transfer-Encoding: chunked")
                + chunked(bytes(10), []),
                "how many bytes it sends",
            ),
            (
                answer("206 Partial Content", bytes(10), "Content-Range: bytes 10-19/99", "Content-Encoding: gzip"),
                "encodes the bytes",
            ),
            (answer("204 No Content", b""), "the server answers 204"),
        ],
    )
    async def test_an_answer_with_anything_else_is_refused(
        self, client: HttpClient, tls: Tls, raw: bytes, complaint: str
    ) -> None:
        async with serving(saying(raw), tls=tls) as web:
            with pytest.raises(CopyUnavailableError, match=rf"^it: .*{complaint}"):
                await stream_range(client, web.url(), 10, 20, None, name="it")
            await until(lambda: web.open == 0 or not raw.endswith(b"\0"))

    @pytest.mark.parametrize("coding", ["identity", "Identity", "identity, ", ""])
    async def test_bytes_that_are_not_encoded_may_say_so(self, client: HttpClient, coding: str) -> None:
        async with serving(holding(CONTENT, f"Content-Encoding: {coding}")) as web:
            assert await fetch(client, web, 0, 9) == CONTENT[:9]

    async def test_encoded_bytes_come_as_they_are_where_that_means_nothing(self, client: HttpClient) -> None:
        content = gzip.compress(b"x" * 100)
        async with serving(holding(content, "Content-Encoding: gzip")) as web:
            stream = await stream_range(client, web.url(), 0, len(content), None, name="it", any_coding=True)
            assert await body_of(stream) == content
            stream.close()

    @pytest.mark.parametrize(
        "raw",
        [
            answer("206 Partial Content", bytes(5), "Content-Range: bytes 10-14/15"),
            answer("200 OK", bytes(15)),
        ],
    )
    async def test_a_copy_that_ends_too_soon_has_changed(self, client: HttpClient, raw: bytes) -> None:
        async with serving(saying(raw)) as web:
            with pytest.raises(CopyChangedError, match=r"^it: has 15 bytes, at least 20 were expected$"):
                await stream_range(client, web.url(), 10, 20, None, name="it")

    async def test_a_body_that_ends_early_is_an_error(self, client: HttpClient, tls: Tls) -> None:
        raw = head("206 Partial Content", "Content-Range: bytes 0-9/10", "Content-Length: 10") + bytes(9)
        async with serving(saying(raw, close=True), tls=tls) as web:
            with pytest.raises(CopyUnavailableError, match="1 bytes early"):
                await fetch(client, web, 0, 10)


class TestVersionsOfRanges:
    async def test_a_strong_version_is_asked_for(self, client: HttpClient, tls: Tls) -> None:
        async with serving(holding(CONTENT, TAG), tls=tls) as web:
            assert await fetch(client, web, 5, 9, "abc-1") == CONTENT[5:9]
            assert web.asked[0].fields["if-match"] == '"abc-1"'
            with pytest.raises(CopyChangedError, match=r"^it: the server answers 412"):
                await fetch(client, web, 5, 9, "abc-2")
            assert web.connections == 1

    async def test_a_tag_with_any_letters_is_sent_back_as_it_came(self, client: HttpClient) -> None:
        tag = f'ETag: "\xe9\xff!{chr(92)}"'
        async with serving(holding(CONTENT, tag)) as web:
            found = await stat(client, web.url(), name="it")
            assert await fetch(client, web, 5, 9, found.version) == CONTENT[5:9]
            assert web.asked[1].fields["if-match"] == tag.removeprefix("ETag: ")

    async def test_a_weak_version_is_compared_afterwards(self, client: HttpClient, tls: Tls) -> None:
        async with serving(holding(CONTENT, 'ETag: W/"abc"', DATE), tls=tls) as web:
            assert (await stat(client, web.url(), name="it")).version == WEAK_VERSION
            assert await fetch(client, web, 5, 9, WEAK_VERSION) == CONTENT[5:9]
            assert "if-match" not in web.asked[1].fields

    @pytest.mark.parametrize("version", ["abc-1", WEAK_VERSION])
    @pytest.mark.parametrize(
        "changed",
        [
            ['ETag: "abc-2"', DATE],
            ['ETag: W/"abd"', DATE],
            ['ETag: W/"abc"', DATE.replace("08:00", "08:01")],
            ['ETag: W/"abc"'],
            [DATE],
            [],
            ['ETag: W/"abc-1"'],
            ['ETag: "abc-1"', 'ETag: "abc-1"'],
        ],
    )
    async def test_a_server_that_ignores_conditions_is_found_out(
        self, client: HttpClient, version: str, changed: list[str]
    ) -> None:
        part = answer("206 Partial Content", bytes(4), f"Content-Range: bytes 5-8/{len(CONTENT)}", *changed)
        for raw in (part, answer("200 OK", CONTENT, *changed)):
            async with serving(saying(raw)) as web:
                with pytest.raises(CopyChangedError, match=r"^it: has the version "):
                    await fetch(client, web, 5, 9, version)
                await until(lambda web=web: web.open == 0)  # type: ignore[misc]

    async def test_another_size_is_another_weak_version(self, client: HttpClient) -> None:
        async with serving(holding(CONTENT[:-1], 'ETag: W/"abc"', DATE)) as web:
            with pytest.raises(CopyChangedError, match=r"^it: has the version "):
                await fetch(client, web, 5, 9, WEAK_VERSION)

    async def test_the_stream_tells_what_came_with_it(self, client: HttpClient, tls: Tls) -> None:
        async with serving(holding(CONTENT, TAG, DATE), tls=tls) as web:
            stream = await stream_range(client, web.url(), 5, 9, None, name="it")
            assert stream.stat == Stat(len(CONTENT), MODIFIED, "abc-1")
            stream.close()


REFUSALS = [
    (301, CopyUnavailableError, "301; redirects are not followed"),
    (302, CopyUnavailableError, "302; redirects are not followed"),
    (304, CopyUnavailableError, "304"),
    (307, CopyUnavailableError, "307; redirects are not followed"),
    (400, CopyUnavailableError, "400"),
    (401, CopyUnavailableError, "401, it may not be read"),
    (403, CopyUnavailableError, "403, it may not be read"),
    (404, CopyNotFoundError, "404"),
    (410, CopyNotFoundError, "410"),
    (412, CopyChangedError, "412"),
    (416, CopyChangedError, "416"),
    (418, CopyUnavailableError, "418"),
    (429, CopyUnavailableError, "429"),
    (500, CopyUnavailableError, "500"),
    (503, CopyUnavailableError, "503"),
    (999, CopyUnavailableError, "999"),
]


class TestRefusals:
    @pytest.mark.parametrize(("status", "kind", "words"), REFUSALS)
    async def test_each_status_has_its_meaning(
        self, client: HttpClient, tls: Tls, status: int, kind: type[StorageError], words: str
    ) -> None:
        body = b"" if status == 304 else b"because"
        async with serving(saying(answer(f"{status} No", body, "Location: /b")), tls=tls) as web:
            with pytest.raises(kind, match=f"^it: the server answers {words}") as caught:
                await stream_range(client, web.url("/a?secret"), 0, 9, None, name="it")
            assert type(caught.value) is kind
            assert len(web.asked) == 1
            (await client.request("GET", web.url(), {})).close()
            assert web.connections == 1

    @pytest.mark.parametrize(("status", "kind", "words"), REFUSALS)
    async def test_each_status_has_its_meaning_for_head(
        self, client: HttpClient, status: int, kind: type[StorageError], words: str
    ) -> None:
        async with serving(saying(head(f"{status} No", "Content-Length: 7"))) as web:
            with pytest.raises(kind, match=f"^it: the server answers {words}"):
                await stat(client, web.url(), name="it")

    @pytest.mark.parametrize("framing", ["length", "chunks", "end"])
    async def test_who_knows_better_sees_the_beginning_of_the_body(
        self, client: HttpClient, tls: Tls, framing: str
    ) -> None:
        body = b"<Error><Code>InvalidObjectState</Code></Error>" + bytes(100_000)
        seen: list[tuple[int, str, bytes]] = []

        def explain(status: int, headers: Mapping[str, str], body: bytes) -> StorageError | None:
            seen.append((status, headers["x-storage"], body))
            return CopyOfflineError("it: is on tape")

        raw = {
            "length": answer("403 Forbidden", body, "X-Storage: own"),
            "chunks": head("403 Forbidden", "X-Storage: own", "Transfer-Encoding: chunked") + chunked(body, [9]),
            "end": head("403 Forbidden", "X-Storage: own") + body,
        }[framing]
        async with serving(saying(raw, close=framing == "end"), tls=tls) as web:
            with pytest.raises(CopyOfflineError, match="it: is on tape"):
                await stream_range(client, web.url(), 0, 9, None, name="it", explain=explain)
            assert seen == [(403, "own", body[:4096])]
            await until(lambda: web.open == 0)

    async def test_who_knows_no_better_leaves_it_to_the_rule(self, client: HttpClient) -> None:
        async with serving(saying(answer("404 Not Found", b"no"))) as web:
            with pytest.raises(CopyNotFoundError):
                await stream_range(client, web.url(), 0, 9, None, name="it", explain=lambda *_: None)
        async with serving(saying(head("404 Not Found"))) as web:
            with pytest.raises(CopyNotFoundError):
                await stat(client, web.url(), name="it", explain=lambda *_: None)

    async def test_an_explanation_that_does_not_come_is_not_waited_for(self) -> None:
        client = HttpClient(header_timeout=0.1)
        for script in (
            saying(head("503 Busy", "Content-Length: 9") + b"beca"),
            saying(head("503 Busy", "Content-Length: 9") + b"beca", close=True),
            saying(head("503 Busy", "Transfer-Encoding: chunked") + b"4\r\nbeca\r\nzz\r\n"),
        ):
            seen: list[bytes] = []
            async with serving(script) as web:
                with pytest.raises(CopyUnavailableError, match="503"):
                    await stream_range(
                        client, web.url(), 0, 9, None, name="it", explain=lambda *told, seen=seen: seen.append(told[2])
                    )
                await until(lambda web=web: web.open == 0)  # type: ignore[misc]
            assert seen[0] in (b"beca", b"")
        await client.close()

    async def test_a_refusal_that_nobody_waits_for_any_more_leaves_nothing(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(head("503 Busy", "Content-Length: 9")), tls=tls) as web:
            asking = asyncio.ensure_future(stream_range(client, web.url(), 0, 9, None, name="it"))
            await until(lambda: len(web.asked) == 1)
            await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            await until(lambda: web.open == 0)


class TestSockets:
    async def test_over_plain_http_the_kernel_can_pass_bytes_on(self, client: HttpClient) -> None:
        async with serving(holding(CONTENT, TAG)) as web:
            for _ in range(2):
                stream = await stream_range(client, web.url(), 5, 2_000_005, "abc-1", name="it")
                assert isinstance(stream, OnSocket)
                body = await stream.read()
                into, outof = os.pipe()[::-1]
                while len(body) < 2_000_000:
                    try:
                        moved = os.splice(stream.socket().number, into, min(65536, 2_000_000 - len(body)))
                    except BlockingIOError:
                        await asyncio.sleep(0.001)
                        continue
                    stream.took(moved)
                    body += os.read(outof, moved)
                os.close(into)
                os.close(outof)
                assert body == CONTENT[5:2_000_005]
                assert await stream.read() == b""
                stream.close()
            assert web.connections == 1

    async def test_over_tls_it_cannot(self, client: HttpClient, tls: Tls) -> None:
        async with serving(holding(CONTENT, TAG), tls=tls) as web:
            stream = await stream_range(client, web.url(), 0, 9, None, name="it")
            assert isinstance(stream, OnSocket) == (tls is None)
            stream.close()

    async def test_an_aborted_splice_closes_the_connection(self, client: HttpClient) -> None:
        async with serving(holding(CONTENT, TAG)) as web:
            stream = await stream_range(client, web.url(), 0, len(CONTENT), None, name="it")
            assert isinstance(stream, OnSocket)
            await stream.read()
            stream.socket()
            stream.took(5)
            stream.close()
            await until(lambda: web.open == 0)
