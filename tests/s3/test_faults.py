"""Each fault of the strict server, as a client meets it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import hashlib
from urllib.parse import urlsplit

import aiohttp
import pytest
import yarl

from tests.s3.strict import Pattern, StrictS3, strict_s3

CONTENT = bytes(range(256)) * 4096
SIZE = len(CONTENT)
ETAG = f'"{hashlib.md5(CONTENT).hexdigest()}"'


@dataclasses.dataclass(frozen=True)
class Received:
    """All that came over a connection."""

    head: str
    body: bytes
    was_reset: bool

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    def field(self, name: str) -> str | None:
        lines = (line.partition(": ") for line in self.head.split("\r\n"))
        return next((value for found, _, value in lines if found == name), None)


class Client:
    """Asks for one object on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def rest(self, *, with_head: bool = True) -> Received:
        """All until the server ends the connection."""
        got, was_reset = bytearray(), False
        try:
            while piece := await self.reader.read(1 << 20):
                got += piece
        except ConnectionResetError:
            was_reset = True
        self.writer.transport.abort()
        head, _, body = bytes(got).partition(b"\r\n\r\n") if with_head else (b"", b"", bytes(got))
        return Received(head.decode(), body, was_reset)


async def ask(strict: StrictS3, key: str = "key", method: str = "GET", *fields: str) -> Client:
    url = urlsplit(strict.account.presign(method, strict.url("bucket", key)))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    lines = [f"{method} {url.path}?{url.query} HTTP/1.1", f"Host: {url.netloc}", "Connection: close", *fields]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return Client(reader, writer)


async def get(strict: StrictS3, *fields: str, key: str = "key", method: str = "GET") -> Received:
    return await (await ask(strict, key, method, *fields)).rest()


@pytest.fixture
def filled(strict: StrictS3) -> StrictS3:
    strict.store.put("bucket", "key", CONTENT)
    strict.store.put("bucket", "other", CONTENT)
    return strict


async def test_all_is_well_without_a_fault(filled: StrictS3) -> None:
    got = await get(filled)
    assert (got.status, got.body, got.was_reset) == (200, CONTENT, False)
    assert got.field("Content-Length") == str(SIZE)


@pytest.mark.parametrize("sent", [0, 1, 300_000, SIZE])
async def test_a_reset_comes_after_exactly_so_many_bytes(filled: StrictS3, sent: int) -> None:
    fault = filled.faults.reset_after(sent)
    got = await get(filled)
    assert (got.status, got.body, got.was_reset) == (200, CONTENT[:sent], True)
    assert got.field("Content-Length") == str(SIZE)
    assert fault.hits == 1
    assert (await get(filled)).body == CONTENT


async def test_a_slow_reader_gets_all_that_was_sent_before_a_reset(strict: StrictS3) -> None:
    content = Pattern(64 << 20)
    strict.store.put("bucket", "key", content)
    fault = strict.faults.reset_after(content.size - 1)
    client = await ask(strict)
    # What the buffers take is far less, so it has not happened yet.
    assert b" 200 " in await client.reader.readuntil(b"\r\n\r\n")
    hits_before = fault.hits
    got = await client.rest(with_head=False)
    assert (hits_before, fault.hits) == (0, 1)
    assert got.was_reset
    assert len(got.body) == content.size - 1


async def test_a_reset_before_the_head(filled: StrictS3) -> None:
    filled.faults.reset_before_head()
    assert await get(filled) == Received("", b"", was_reset=True)


async def test_a_short_body_ends_in_order(filled: StrictS3) -> None:
    filled.faults.short_body(1000)
    got = await get(filled)
    assert (got.status, got.body, got.was_reset) == (200, CONTENT[:1000], False)
    assert got.field("Content-Length") == str(SIZE)


async def test_an_answer_stalls_until_its_release(filled: StrictS3) -> None:
    fault = filled.faults.stall_after(1000)
    client = await ask(filled)
    await fault.reached()
    await client.reader.readuntil(b"\r\n\r\n")
    assert await client.reader.readexactly(1000) == CONTENT[:1000]
    assert filled.requests[-1].sent == 1000
    fault.release()
    assert await client.reader.readexactly(SIZE - 1000) == CONTENT[1000:]
    assert (await client.rest()).body == b""


async def test_an_answer_stalls_before_its_head(filled: StrictS3) -> None:
    fault = filled.faults.stall_before_head(method="HEAD")
    client = await ask(filled, "key", "HEAD")
    await fault.reached()
    assert filled.requests[-1].status == 0
    fault.release()
    assert (await client.rest()).status == 200


async def test_a_client_that_leaves_ends_the_stall(filled: StrictS3) -> None:
    fault = filled.faults.stall_after(10)
    client = await ask(filled)
    await fault.reached()
    assert filled.open_connections == 1
    client.writer.transport.abort()
    async with asyncio.timeout(10):
        while filled.open_connections:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("by", [-10, 10])
async def test_a_length_may_be_wrong(filled: StrictS3, by: int) -> None:
    filled.faults.wrong_length(by)
    got = await get(filled)
    assert (got.field("Content-Length"), got.body) == (str(SIZE + by), CONTENT)


async def test_a_body_may_be_longer_than_announced(filled: StrictS3) -> None:
    filled.faults.longer_body(5)
    got = await get(filled, "Range: bytes=10-19")
    assert got.field("Content-Length") == "10"
    assert got.field("Content-Range") == f"bytes 10-19/{SIZE}"
    assert got.body == CONTENT[10:20] + bytes(5)


async def test_errors_of_the_server(filled: StrictS3) -> None:
    filled.faults.internal_error()
    filled.faults.slow_down(times=2)
    answers = [await get(filled) for _ in range(4)]
    assert [answer.status for answer in answers] == [500, 503, 503, 200]
    assert b"<Code>InternalError</Code>" in answers[0].body
    assert b"<Code>SlowDown</Code>" in answers[1].body
    filled.faults.slow_down()
    assert (await get(filled, method="HEAD")).body == b""


async def test_an_object_is_replaced_under_a_reader(filled: StrictS3) -> None:
    filled.faults.replace_after(1000, b"new")
    got = await get(filled)
    assert (got.field("ETag"), got.body, got.was_reset) == (ETAG, CONTENT[:1000], True)
    assert (await get(filled, "Range: bytes=1-", f"If-Match: {ETAG}")).status == 412
    assert (await get(filled)).body == b"new"


async def test_an_answer_keeps_to_the_object_that_it_began_with(filled: StrictS3) -> None:
    filled.faults.replace_after(1000, b"new", then="go on")
    assert (await get(filled)).body == CONTENT
    assert (await get(filled)).body == b"new"


async def test_a_byte_is_wrong_with_the_right_length_and_etag(filled: StrictS3) -> None:
    filled.faults.corrupt(1000, times=2)
    wrong = CONTENT[:1000] + bytes([CONTENT[1000] ^ 0xFF]) + CONTENT[1001:]
    got = await get(filled)
    assert (got.field("ETag"), got.field("Content-Length"), got.body) == (ETAG, str(SIZE), wrong)
    assert (await get(filled, "Range: bytes=990-1009")).body == wrong[990:1010]
    assert (await get(filled)).body == CONTENT


async def test_a_body_is_packed_on_the_way(filled: StrictS3) -> None:
    filled.faults.gzip()
    got = await get(filled)
    assert (got.field("Content-Encoding"), got.field("ETag")) == ("gzip", ETAG)
    assert got.field("Content-Length") == str(len(got.body))
    assert gzip.decompress(got.body) == CONTENT


async def test_a_fault_waits_for_the_requests_that_it_is_for(filled: StrictS3) -> None:
    fault = filled.faults.short_body(0, key="other", times=2)
    assert (await get(filled)).body == CONTENT
    assert (await get(filled, key="other", method="HEAD")).status == 200
    for body in (b"", b"", CONTENT):
        assert (await get(filled, key="other")).body == body
    assert fault.hits == 2


async def test_cleared_faults_happen_no_more(filled: StrictS3) -> None:
    stalled = filled.faults.stall_before_head()
    client = await ask(filled)
    await stalled.reached()
    filled.faults.slow_down()
    filled.faults.clear()
    assert (await client.rest()).body == CONTENT
    assert (await get(filled)).status == 200


async def test_connections_are_refused_for_a_while(filled: StrictS3) -> None:
    url = yarl.URL(filled.account.presign("GET", filled.url("bucket", "key")), encoded=True)
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert await response.read() == CONTENT
        assert filled.open_connections == 1
        async with filled.refusing():
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url)
        async with session.get(url) as response:
            assert await response.read() == CONTENT
    assert filled.connections == 2


async def test_requests_are_on_record(filled: StrictS3) -> None:
    await get(filled, "Range: bytes=0-9", "X-Test:  a")
    (request,) = filled.requests
    assert (request.method, request.bucket, request.key) == ("GET", "bucket", "key")
    assert request.target.startswith("/bucket/key?X-Amz-Algorithm=")
    assert (request.field("range"), request.field("x-test")) == ("bytes=0-9", "a")
    assert (request.status, request.sent) == (206, 10)


async def test_a_client_that_sends_no_request_fails_the_test() -> None:
    async with contextlib.AsyncExitStack() as stack:
        strict = await stack.enter_async_context(strict_s3())
        url = urlsplit(strict.account.endpoint)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"hello\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(BaseExceptionGroup, match="the S3 server is broken"):
            await stack.pop_all().aclose()


async def test_faults_with_tls() -> None:
    async with strict_s3(tls=True) as strict:
        strict.store.put("bucket", "key", CONTENT)
        url = strict.account.presign("GET", strict.url("bucket", "key"))
        assert (await strict.account.send("GET", url)).body == CONTENT
        for fault in (strict.faults.reset_after(1000), strict.faults.short_body(1000)):
            with pytest.raises(aiohttp.ClientPayloadError):
                await strict.account.send("GET", url)
            assert fault.hits == 1
        strict.faults.reset_before_head(times=2)  # This client tries once more.
        with pytest.raises(aiohttp.ClientConnectionError):
            await strict.account.send("GET", url)
        with contextlib.suppress(aiohttp.ClientConnectorCertificateError):
            stranger = dataclasses.replace(strict.account, ca_file=None)
            await stranger.send("GET", url)
            pytest.fail("the certificate was trusted")
