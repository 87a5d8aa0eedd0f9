"""Answers come byte for byte or not at all, connections are used again only when nothing is left on them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigurationError
from gateway.storage import CopyUnavailableError, Descriptor
from storage_plugins.http.addresses import IPAddress
from storage_plugins.http.client import PIECE_BYTES, HttpAnswer, HttpClient
from storage_plugins.http.connection import PlainConnection
from tests.storage_plugins.support import CONTENT, descriptors, until
from tests.storage_plugins.test_http_message import chunked, paths, queries
from tests.storage_plugins.web import Asked, Authority, Script, answer, head, make_authority, saying, serving

Tls = ssl.SSLContext | None
OK = answer("200 OK", b"bytes")
MANY = 1000 if os.environ.get("GATEWAY_TEST_FULL") else 200
"""Answers that are given up."""


async def body_of(answer: HttpAnswer) -> bytes:
    body = b""
    while piece := await answer.read():
        assert len(piece) <= PIECE_BYTES
        body += piece
    return body


async def fetch(client: HttpClient, url: str) -> bytes:
    with contextlib.closing(await client.request("GET", url, {})) as answer:
        return await body_of(answer)


class TestBodies:
    async def test_a_body_comes_whole(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(answer("200 OK", CONTENT)), tls=tls) as web:
            assert await fetch(client, web.url()) == CONTENT

    async def test_a_body_of_small_pieces_comes_as_they_come(self, client: HttpClient, tls: Tls) -> None:
        taken = asyncio.Event()

        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(head("200 OK", "Content-Length: 3"))
            for byte in (b"a", b"b", b"c"):
                writer.write(byte)
                await taken.wait()
                taken.clear()

        async with serving(script, tls=tls) as web:
            with contextlib.closing(await client.request("GET", web.url(), {})) as answer:
                for byte in (b"a", b"b", b"c"):
                    assert await answer.read() == byte
                    taken.set()
                assert await answer.read() == b""
                assert await answer.read() == b""

    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    async def test_an_answer_without_body_has_none(self, client: HttpClient, tls: Tls, method: Any) -> None:
        status = "200 OK" if method == "HEAD" else "304 Not Modified"
        async with serving(saying(head(status, "Content-Length: 5")), tls=tls) as web:
            for _ in range(2):
                with contextlib.closing(await client.request(method, web.url(), {})) as answer:
                    assert await answer.read() == b""
                    assert answer.headers["content-length"] == "5"
            assert web.connections == 1

    @pytest.mark.parametrize("cuts", [[], [1, 2, 3], [100_000, 2_000_000]])
    async def test_a_chunked_body_comes_without_its_chunks(self, client: HttpClient, tls: Tls, cuts: list[int]) -> None:
        raw = head("400 Bad Request", "Transfer-Encoding: chunked") + chunked(CONTENT, cuts)
        async with serving(saying(raw), tls=tls) as web:
            assert await fetch(client, web.url()) == CONTENT
            assert await fetch(client, web.url()) == CONTENT
            assert web.connections == 1

    async def test_a_body_without_length_ends_with_the_connection(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(head("200 OK"), CONTENT, close=True), tls=tls) as web:
            assert await fetch(client, web.url()) == CONTENT

    @pytest.mark.parametrize("chunks", [False, True])
    async def test_a_body_that_ends_early_is_an_error(self, client: HttpClient, tls: Tls, chunks: bool) -> None:
        framing = "Transfer-Encoding: chunked" if chunks else "Content-Length: 4"
        raw = chunked(b"abc", [2])[:-2] if chunks else b"abc"
        async with serving(saying(head("200 OK", framing) + raw, close=True), tls=tls) as web:
            with contextlib.closing(await client.request("GET", web.url("/a?secret"), {})) as found:
                with pytest.raises(CopyUnavailableError, match=r"^https?://127.0.0.1:[0-9]+/a: ") as caught:
                    await body_of(found)
                assert "secret" not in str(caught.value)
                with pytest.raises(CopyUnavailableError, match="cannot be read any further"):
                    await found.read()

    async def test_a_reset_in_the_body_is_an_error(self, client: HttpClient, tls: Tls) -> None:
        taken = asyncio.Event()

        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(head("200 OK", "Content-Length: 9") + b"abc")
            await taken.wait()
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

        async with serving(script, tls=tls) as web:
            with contextlib.closing(await client.request("GET", web.url(), {})) as found:
                assert await found.read() == b"abc"
                taken.set()
                with pytest.raises(CopyUnavailableError):
                    await found.read()

    async def test_tls_that_is_cut_does_not_pass_for_the_end(self, client: HttpClient, authority: Authority) -> None:
        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(head("200 OK") + b"half")
            await writer.drain()
            writer.transport.abort()  # without the close_notify of TLS

        async with serving(script, tls=authority.server) as web:
            with pytest.raises(CopyUnavailableError, match=r"^https.*/file: "):
                await fetch(client, web.url())


class TestTargets:
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.lists(st.tuples(paths, queries), min_size=10, max_size=10))
    async def test_a_url_arrives_byte_for_byte(
        self, client: HttpClient, tls: Tls, targets: list[tuple[str, str]]
    ) -> None:
        async with serving(saying(OK), tls=tls) as web:
            for path, query in targets:
                await fetch(client, web.url(f"{path}{query}"))
            assert [asked.target for asked in web.asked] == [f"{path}{query}" for path, query in targets]

    @pytest.mark.parametrize(
        "target",
        [
            "//a",
            "/a//b/",
            "/%2F/%2f",
            "/a/../b/./c",
            "/%2E%2e/~/%7E",
            "/a+b%20c%2B?+%2b&&=",
            "/?",
            "/a?",
            "/%zz%?%",
            "/[]{}|\\^",
        ],
    )
    async def test_nothing_is_normalised(self, client: HttpClient, tls: Tls, target: str) -> None:
        async with serving(saying(OK), tls=tls) as web:
            await fetch(client, f"{web.url(target)}#fragment")
            assert web.asked[0].target == target
            assert web.asked[0].fields["host"] == f"127.0.0.1:{web.port}"
            assert web.asked[0].fields["accept-encoding"] == "identity"


class TestConnections:
    async def test_a_connection_is_used_again_after_a_whole_answer(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(OK), tls=tls) as web:
            for _ in range(5):
                assert await fetch(client, web.url()) == b"bytes"
            assert web.connections == 1

    @pytest.mark.parametrize(
        "raw",
        [
            answer("200 OK", b"bytes", "Connection: close"),
            OK + b"X",
            OK.replace(b"/1.1", b"/1.0"),
            head("200 OK", "Transfer-Encoding: chunked") + chunked(b"bytes", []) + b"X",
        ],
    )
    async def test_one_with_something_left_on_it_is_closed(self, client: HttpClient, tls: Tls, raw: bytes) -> None:
        async with serving(saying(raw), tls=tls) as web:
            assert await fetch(client, web.url()) == b"bytes"
            assert await fetch(client, web.url()) == b"bytes"
            assert web.connections == 2
            await until(lambda: web.open == 0)

    async def test_one_that_was_not_taken_to_its_end_is_closed(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(answer("200 OK", CONTENT)), tls=tls) as web:
            (await client.request("GET", web.url(), {})).close()
            found = await client.request("GET", web.url(), {})
            await found.read()
            found.close()
            found.close()
            with pytest.raises(CopyUnavailableError, match="cannot be read any further"):
                await found.read()
            await until(lambda: web.connections == 2 and web.open == 0)

    async def test_one_that_the_server_closed_meanwhile_is_not_used(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(OK, close=True), tls=tls) as web:
            assert await fetch(client, web.url()) == b"bytes"
            await until(lambda: web.open == 0)
            assert await fetch(client, web.url()) == b"bytes"
            assert web.connections == 2

    async def test_one_on_which_bytes_came_that_nobody_asked_for_is_not_used(
        self, client: HttpClient, tls: Tls
    ) -> None:
        late = asyncio.Event()

        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(OK)
            if asked.connection == 1:
                await late.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
                await writer.drain()
                late.clear()

        async with serving(script, tls=tls) as web:
            assert await fetch(client, web.url()) == b"bytes"
            late.set()
            await until(lambda: not late.is_set())
            assert await fetch(client, web.url()) == b"bytes"
            assert web.connections == 2

    @pytest.mark.parametrize("pieces", [[b"bytesX"], [b"bytes", b"X"]])
    async def test_one_on_which_more_came_than_was_promised_is_not_used(
        self, client: HttpClient, tls: Tls, pieces: list[bytes]
    ) -> None:
        taken = asyncio.Event()

        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(head("200 OK", "Content-Length: 5"))
            await taken.wait()
            writer.writelines(pieces)

        async with serving(script, tls=tls) as web:
            for turn in (1, 2):
                found = await client.request("GET", web.url(), {})
                taken.set()
                assert await body_of(found) == b"bytes"
                found.close()
                taken.clear()
                assert web.connections == turn

    async def test_one_that_breaks_before_an_answer_is_replaced(self, client: HttpClient, tls: Tls) -> None:
        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            if len(web.asked) == 2:
                writer.transport.abort()
            else:
                writer.write(OK)

        async with serving(script, tls=tls) as web:
            assert await fetch(client, web.url()) == b"bytes"
            assert await fetch(client, web.url()) == b"bytes"
            assert [asked.connection for asked in web.asked] == [1, 1, 2]

    async def test_a_fresh_one_is_not_replaced(self, client: HttpClient, tls: Tls) -> None:
        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            if len(web.asked) > 1:
                writer.transport.abort()
            else:
                writer.write(OK)

        async with serving(script, tls=tls) as web:
            assert await fetch(client, web.url()) == b"bytes"
            with pytest.raises(CopyUnavailableError, match="closed the connection instead of an answer"):
                await fetch(client, web.url())
            assert [asked.connection for asked in web.asked] == [1, 1, 2]

    async def test_one_that_breaks_within_an_answer_is_not_replaced(self, client: HttpClient, tls: Tls) -> None:
        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(OK if len(web.asked) == 1 else b"HTTP/1.1 200")
            if len(web.asked) == 2:
                writer.close()

        async with serving(script, tls=tls) as web:
            assert await fetch(client, web.url()) == b"bytes"
            with pytest.raises(CopyUnavailableError, match="ended within its head"):
                await fetch(client, web.url())
            assert len(web.asked) == 2

    async def test_idle_ones_are_closed_after_their_time(self, authority: Authority, tls: Tls) -> None:
        client = HttpClient(ca_file=authority.ca_file, idle_seconds=0.01)
        async with serving(saying(OK), tls=tls) as web:
            await asyncio.gather(*(fetch(client, web.url()) for _ in range(3)))
            await until(lambda: web.open == 0)
            assert await fetch(client, web.url()) == b"bytes"
            await client.close()

    @pytest.mark.parametrize("most", [0, 2])
    async def test_no_more_than_so_many_are_kept(self, authority: Authority, tls: Tls, most: int) -> None:
        client = HttpClient(ca_file=authority.ca_file, max_idle=most)
        async with serving(saying(OK), tls=tls) as web:
            answers = [await client.request("GET", web.url(), {}) for _ in range(5)]
            for found in answers:
                await body_of(found)
                found.close()
            await until(lambda: web.open == most)
            await client.close()
            await until(lambda: web.open == 0)

    async def test_one_serves_its_own_origin_only(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(OK), tls=tls) as first, serving(saying(OK), tls=tls) as second:
            for web in (first, second, first, second):
                await fetch(client, web.url())
            await fetch(client, first.url(host="localhost"))
            assert (first.connections, second.connections) == (2, 1)

    async def test_an_answer_that_ends_after_the_client_is_not_kept(self, authority: Authority, tls: Tls) -> None:
        client = HttpClient(ca_file=authority.ca_file)
        async with serving(saying(OK), tls=tls) as web:
            found = await client.request("GET", web.url(), {})
            await client.close()
            assert await body_of(found) == b"bytes"
            found.close()
            await until(lambda: web.open == 0)

    async def test_many_aborted_answers_leave_nothing(self, authority: Authority, tls: Tls) -> None:
        async def abort(turn: int) -> None:
            found = await client.request("GET", web.url(), {})
            if turn % 4 == 0:
                await found.read()
            elif turn % 4 == 1:
                reading = asyncio.ensure_future(body_of(found))
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait([reading])
            elif turn % 4 == 2 and found.is_on_socket:
                await found.read()
                found.socket()
            found.close()

        client = HttpClient(ca_file=authority.ca_file)
        async with serving(saying(head("200 OK", "Content-Length: 999999") + bytes(100_000)), tls=tls) as web:
            await abort(0)
            await until(lambda: web.open == 0)
            before = descriptors()
            for start in range(0, MANY, 20):
                await asyncio.gather(*(abort(turn) for turn in range(start, start + 20)))
            # The server, too, closes a little after the last of its handlers ended.
            await until(lambda: web.open == 0 and descriptors() == before)
            assert web.connections == 1 + MANY
        await client.close()


class TestFailures:
    @pytest.mark.parametrize(
        ("script", "complaint"),
        [
            (saying(close=True), "closed the connection instead of an answer"),
            (saying(b"HTTP/1.1 200 OK\r\n", close=True), "ended within its head"),
            (saying(b"220 mail.example.org ESMTP\r\n\r\n"), "status line"),
            (saying(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n"), "status line"),
            (saying(head("200 OK", "X: y\r\n folded")), "field"),
            (saying(head("200 OK", "Content-Length: 1", "Content-Length: 2")), "Content-Length"),
            (saying(head("101 Switching Protocols", "Upgrade: h2c")), "another protocol"),
            (saying(head("200 OK", f"X: {'x' * 65536}")), "longer than 65536 bytes"),
            (saying(*[b"X" * 1024] * 80), "longer than 65536 bytes"),
            (saying(*[head("102 Processing", f"X: {'x' * 1000}")] * 80), "longer than 65536 bytes"),
        ],
    )
    async def test_a_malformed_answer_is_refused(
        self, client: HttpClient, tls: Tls, script: Script, complaint: str
    ) -> None:
        async with serving(script, tls=tls) as web:
            with pytest.raises(CopyUnavailableError, match=complaint) as caught:
                await client.request("GET", web.url("/a?signature=secret"), {"Authorization": "secret"})
            assert str(caught.value).startswith(web.url("/a: "))
            assert "secret" not in str(caught.value)
            await until(lambda: web.open == 0)

    async def test_interim_answers_are_skipped(self, client: HttpClient, tls: Tls) -> None:
        interim = head("103 Early Hints", "Link: </a>") + head("100 Continue")
        async with serving(saying(interim + OK[:9], OK[9:]), tls=tls) as web:
            assert await fetch(client, web.url()) == b"bytes"
            assert await fetch(client, web.url()) == b"bytes"
            assert web.connections == 1

    async def test_a_head_has_its_time(self, authority: Authority, tls: Tls) -> None:
        client = HttpClient(ca_file=authority.ca_file, header_timeout=0.2)
        dribbling = threading.Event()

        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                writer.write(b"x")
                dribbling.set()
                await asyncio.sleep(0.01)
                await writer.drain()

        async with serving(script, tls=tls) as web:
            with pytest.raises(CopyUnavailableError, match=r"no answer in time$"):
                await client.request("GET", web.url(), {})
            assert dribbling.is_set()
            await until(lambda: web.open == 0)
        await client.close()

    async def test_a_connection_has_its_time(self, authority: Authority) -> None:
        client = HttpClient(ca_file=authority.ca_file, connect_timeout=0.1)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            with pytest.raises(CopyUnavailableError, match=r"no answer in time$"):
                await client.request("GET", f"https://127.0.0.1:{mute.getsockname()[1]}/", {})
            with mute.accept()[0] as accepted:
                assert accepted.recv(1) == b"\x16"
        await client.close()

    async def test_a_look_up_has_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hanging, end = threading.Event(), threading.Event()

        def hang(*args: object, **options: object) -> list[Any]:
            hanging.set()
            end.wait(10)
            return []

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        client = HttpClient(connect_timeout=0.1)
        with pytest.raises(CopyUnavailableError, match=r"^http://slow.example/: no answer in time$"):
            await client.request("GET", "http://slow.example/", {})
        assert hanging.is_set()
        end.set()
        await client.close()

    async def test_a_port_where_nobody_listens_is_told(self, client: HttpClient) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(CopyUnavailableError, match=r"/a: Connection refused$"):
                await client.request("GET", f"http://127.0.0.1:{taken.getsockname()[1]}/a", {})

    @pytest.mark.parametrize("host", ["absent.invalid", f"{'a' * 64}.invalid", "a..invalid"])
    async def test_a_host_that_does_not_exist_is_told(self, client: HttpClient, host: str) -> None:
        with pytest.raises(CopyUnavailableError, match=rf"^http://{host}/a: "):
            await client.request("GET", f"http://{host}/a", {})

    async def test_a_url_that_cannot_be_sent_asks_nobody(self, client: HttpClient) -> None:
        with pytest.raises(ValueError, match="is no http or https URL"):
            await client.request("GET", "ftp://127.0.0.1/", {})


def resolving_to(*addresses: tuple[str, int]) -> Callable[..., list[Any]]:
    def getaddrinfo(host: bytes, port: int, **options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    return getaddrinfo


class TestAddresses:
    async def test_all_addresses_are_tried(self, client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serving(saying(OK)) as web:
            monkeypatch.setattr(socket, "getaddrinfo", resolving_to(("127.0.0.2", web.port), ("127.0.0.1", web.port)))
            assert await fetch(client, web.url(host="two.example")) == b"bytes"

    async def test_one_that_does_not_answer_leaves_time_for_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = HttpClient(connect_timeout=1)
        with socket.socket() as full:
            full.bind(("127.0.0.2", 0))
            full.listen(0)
            port = full.getsockname()[1]
            with contextlib.ExitStack() as waiting:
                for _ in range(4):  # From some on the kernel does not answer any more.
                    sock = waiting.enter_context(socket.socket())
                    sock.setblocking(False)
                    sock.connect_ex(("127.0.0.2", port))
                async with serving(saying(OK)) as web:
                    addresses = ("127.0.0.2", port), ("127.0.0.1", web.port)
                    monkeypatch.setattr(socket, "getaddrinfo", resolving_to(*addresses))
                    assert await fetch(client, web.url(host="two.example")) == b"bytes"
        await client.close()

    async def test_only_permitted_addresses_are_connected_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[IPAddress] = []

        def permits(address: IPAddress) -> bool:
            asked.append(address)
            return address == ipaddress.ip_address("127.0.0.1")

        client = HttpClient(permits=permits)
        async with serving(saying(OK)) as web:
            with socket.create_server(("127.0.0.2", web.port)) as other:
                addresses = ("127.0.0.2", web.port), ("127.0.0.1", web.port)
                monkeypatch.setattr(socket, "getaddrinfo", resolving_to(*addresses))
                assert await fetch(client, web.url(host="two.example")) == b"bytes"
                assert asked == [ipaddress.ip_address("127.0.0.2"), ipaddress.ip_address("127.0.0.1")]
                other.setblocking(False)
                with pytest.raises(BlockingIOError):
                    other.accept()
        await client.close()

    async def test_none_permitted_is_told(self, tls: Tls, authority: Authority) -> None:
        client = HttpClient(permits=lambda address: False, ca_file=authority.ca_file)
        async with serving(saying(OK), tls=tls) as web:
            with pytest.raises(CopyUnavailableError, match=r"/file: its address 127.0.0.1 is in no permitted network$"):
                await client.request("GET", web.url(), {})
            assert web.connections == 0
        await client.close()


class TestCertificates:
    async def test_a_host_is_taken_by_its_name_too(self, client: HttpClient, authority: Authority) -> None:
        async with serving(saying(OK), tls=authority.server) as web:
            assert await fetch(client, web.url(host="localhost")) == b"bytes"

    @pytest.mark.parametrize("trusted", ["the system", "another authority"])
    async def test_one_of_another_authority_is_refused(
        self, authority: Authority, tmp_path: Path, trusted: str
    ) -> None:
        another = make_authority(tmp_path / "another", "127.0.0.1")
        client = HttpClient(ca_file=another.ca_file if trusted == "another authority" else None)
        async with serving(saying(OK), tls=authority.server) as web:
            with pytest.raises(CopyUnavailableError, match="the certificate of the server is not trusted: "):
                await client.request("GET", web.url(), {})
            assert web.asked == []
        await client.close()

    async def test_one_for_another_host_is_refused(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path / "ca", "data.example.org", "127.0.0.2")
        client = HttpClient(ca_file=authority.ca_file)
        async with serving(saying(OK), tls=authority.server) as web:
            for host in ("127.0.0.1", "localhost"):
                with pytest.raises(CopyUnavailableError, match=r"is not trusted: .*mismatch"):
                    await client.request("GET", web.url(host=host), {})
            assert web.asked == []
        await client.close()

    async def test_plain_http_is_no_tls(self, client: HttpClient) -> None:
        def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(head("400 Bad Request", "Content-Length: 0"))
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            with pytest.raises(CopyUnavailableError, match=r": TLS failed: "):
                await client.request("GET", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", {})

    @pytest.mark.parametrize("text", [None, "", "no certificate"])
    def test_a_file_without_certificates_is_named(self, tmp_path: Path, text: str | None) -> None:
        file = tmp_path / "ca.pem"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigurationError, match=r"^ca_file: .*ca\.pem"):
            HttpClient(ca_file=file)


class TestCancelledReads:
    async def test_after_one_there_is_nothing_to_do_but_to_close(self, client: HttpClient, tls: Tls) -> None:
        more = asyncio.Event()

        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            writer.write(head("200 OK", "Content-Length: 6") + b"abc")
            await more.wait()
            writer.write(b"def")

        async with serving(script, tls=tls) as web:
            found = await client.request("GET", web.url(), {})
            assert await found.read() == b"abc"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await found.read()
            more.set()
            with pytest.raises(CopyUnavailableError, match="cannot be read any further"):
                await found.read()
            found.close()
            await until(lambda: web.open == 0)

    async def test_closing_ends_a_read_that_waits(self, client: HttpClient, tls: Tls) -> None:
        async with serving(saying(head("200 OK", "Content-Length: 6") + b"abc"), tls=tls) as web:
            found = await client.request("GET", web.url(), {})
            assert await found.read() == b"abc"
            reading = asyncio.ensure_future(found.read())
            await asyncio.sleep(0)
            found.close()
            with pytest.raises(CopyUnavailableError):
                await reading
            await until(lambda: web.open == 0)

    async def test_the_loop_forgets_a_connection_that_is_closed_before_its_reader_knows(self) -> None:
        async def receiving(end: socket.socket, sending: socket.socket) -> bytes:
            end.setblocking(False)
            connection = PlainConnection(end)
            reading = asyncio.ensure_future(connection.receive(9))
            await asyncio.sleep(0)
            if sending is silent:
                reading.cancel()
                connection.close()
                await asyncio.wait([reading])
                assert reading.cancelled()
                return b""
            sending.send(b"bytes")
            async with asyncio.timeout(5):
                received = await reading
            connection.close()
            return received

        one, silent = socket.socketpair()
        number = one.fileno()
        assert await receiving(one, silent) == b""
        other, talking = socket.socketpair()
        with silent, talking:
            assert other.fileno() == number
            assert await receiving(other, talking) == b"bytes"

    async def test_a_request_that_is_cancelled_closes_its_connection(self, client: HttpClient, tls: Tls) -> None:
        async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0)

        async with serving(silent, tls=tls) as web:
            asking = asyncio.ensure_future(client.request("GET", web.url(), {}))
            await until(lambda: len(web.asked) == 1)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            await until(lambda: web.open == 0)

    @pytest.mark.parametrize("turns", range(12))
    async def test_a_request_can_be_cancelled_anywhere(self, authority: Authority, tls: Tls, turns: int) -> None:
        client = HttpClient(ca_file=authority.ca_file)
        async with serving(saying(OK), tls=tls) as web:
            before = descriptors()
            asking = asyncio.ensure_future(client.request("GET", web.url(), {}))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled():
                asking.result().close()
            await until(lambda: web.open == 0)
            await until(lambda: descriptors() == before)
        await client.close()

    async def test_a_fast_server_leaves_others_their_turn(self, client: HttpClient) -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        receiving, sending = socket.socketpair()
        with sending:
            receiving.setblocking(False)
            sending.setblocking(False)
            counting = asyncio.ensure_future(count())
            connection = PlainConnection(receiving)
            received = 0
            while received < 8 * 1024 * 1024:
                with contextlib.suppress(BlockingIOError):
                    sending.send(bytes(100_000))
                received += len(await connection.receive(PIECE_BYTES))
            connection.close()
            counting.cancel()
        assert turns >= 7


def receive(descriptor: Descriptor, most: int) -> bytes:
    """What a pump does: take bytes from the descriptor as they come."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return os.read(descriptor.number, most)


class TestSockets:
    """The bytes behind a head can be taken from the socket by somebody else."""

    async def taken(self, found: HttpAnswer, count: int) -> bytes:
        body = await found.read()
        while len(body) < count:
            piece = await asyncio.to_thread(receive, found.socket(), count - len(body))
            assert piece
            found.took(len(piece))
            body += piece
        return body

    async def test_it_gives_what_reads_did_not(self, client: HttpClient) -> None:
        async with serving(saying(answer("200 OK", CONTENT))) as web:
            for _ in range(3):
                with contextlib.closing(await client.request("GET", web.url(), {})) as found:
                    assert await self.taken(found, len(CONTENT)) == CONTENT
                    assert await found.read() == b""
            assert web.connections == 1

    async def test_reads_go_on_after_it(self, client: HttpClient) -> None:
        async with serving(saying(answer("200 OK", CONTENT))) as web:
            with contextlib.closing(await client.request("GET", web.url(), {})) as found:
                body = await self.taken(found, 1_000_000)
                assert body + await body_of(found) == CONTENT

    async def test_it_does_not_wait(self, client: HttpClient) -> None:
        async with serving(saying(head("200 OK", "Content-Length: 9") + b"abc")) as web:
            with contextlib.closing(await client.request("GET", web.url(), {})) as found:
                assert await found.read() == b"abc"
                with pytest.raises(BlockingIOError):
                    os.read(found.socket().number, 1)

    async def test_bytes_that_came_along_with_the_head_must_be_read_first(self, client: HttpClient) -> None:
        async with serving(saying(OK)) as web:
            with contextlib.closing(await client.request("GET", web.url(), {})) as found:
                with pytest.raises(RuntimeError, match="do not come from a socket"):
                    found.socket()
                assert await found.read() == b"bytes"
                found.socket()

    async def test_tls_and_bodies_without_length_have_none(self, client: HttpClient, authority: Authority) -> None:
        chunks = head("200 OK", "Transfer-Encoding: chunked")
        async with serving(saying(OK), tls=authority.server) as secure, serving(saying(chunks)) as plain:
            for web in (secure, plain):
                with contextlib.closing(await client.request("GET", web.url(), {})) as found:
                    assert not found.is_on_socket
                    with pytest.raises(RuntimeError, match="do not come from a socket"):
                        found.socket()

    @pytest.mark.parametrize("count", [-1, 7])
    async def test_more_than_there_is_cannot_have_been_taken(self, client: HttpClient, count: int) -> None:
        async with serving(saying(head("200 OK", "Content-Length: 9") + b"abc")) as web:
            found = await client.request("GET", web.url(), {})
            await found.read()
            with pytest.raises(ValueError, match=f"{count} bytes were taken, 6 are left"):
                found.took(count)
            with pytest.raises(CopyUnavailableError):
                await found.read()
            found.close()
            await until(lambda: web.open == 0)

    async def test_a_connection_is_not_used_again_once_too_much_was_taken_from_it(self, client: HttpClient) -> None:
        async with serving(saying(OK)) as web:
            found = await client.request("GET", web.url(), {})
            assert await body_of(found) == b"bytes"
            with pytest.raises(ValueError, match="1 bytes were taken, 0 are left"):
                found.took(1)
            found.close()
            await until(lambda: web.open == 0)

    async def test_a_thread_that_uses_it_sees_the_end_when_it_is_closed(self, client: HttpClient) -> None:
        async with serving(saying(head("200 OK", "Content-Length: 9") + b"abc")) as web:
            before = descriptors()
            found = await client.request("GET", web.url(), {})
            await found.read()
            shared = found.socket()
            waiting = asyncio.ensure_future(asyncio.to_thread(receive, shared, 9))
            shared.held_by(waiting)
            found.close()
            assert await waiting == b""
            await until(lambda: web.open == 0 and descriptors() <= before)
