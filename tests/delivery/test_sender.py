"""What the sender promises: every broken transfer looks broken, and nothing follows on its connection."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.app import create_app
from gateway.delivery.sender import SMALL_BYTES
from gateway.storage import CopyUnavailableError
from storage_plugins import local
from tests.harness import SCIENTIST, RunningGateway, bearer, config_for, running_gateway, token

MEBIBYTE = 1024 * 1024
LARGE = random.Random(3).randbytes(48 * MEBIBYTE)
SEND_TIMEOUT = 0.5


@pytest.fixture(params=["from memory", "from disk"], autouse=True)
def pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sender finds the bytes: every promise holds on both ways."""
    in_memory = request.param == "from memory"
    monkeypatch.setattr(local, "_bytes_in_memory", lambda _, __, count: count if in_memory else 0)


@pytest.fixture
async def impatient(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway that waits `SEND_TIMEOUT` for a client to take a byte, and holds one connection to Redis."""
    root = tmp_path / "archive"
    root.mkdir()
    config = config_for(
        database, redis_url, root, delivery={"send_timeout": SEND_TIMEOUT}, redis={"url": redis_url, "pool_size": 1}
    )
    async with running_gateway(config, root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group("science"))
        yield running


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    """Closes what the test opened."""
    with contextlib.ExitStack() as stack:
        yield stack


class RawClient:
    """A client that sees what really comes over the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.loop = asyncio.get_running_loop()

    @classmethod
    async def connect(
        cls, gateway: RunningGateway, stack: contextlib.ExitStack, *, receive_buffer: int | None = None
    ) -> RawClient:
        host, port = gateway.url.removeprefix("http://").split(":")
        connection = stack.enter_context(socket.socket())
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
        return cls(connection)

    async def ask(self, path: str, *fields: str) -> None:
        lines = [f"GET {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token(SCIENTIST)}", *fields, "", ""]
        await self.loop.sock_sendall(self.connection, "\r\n".join(lines).encode())

    async def read(self, at_least: int) -> bytes:
        received = bytearray()
        while len(received) < at_least and (piece := await self.loop.sock_recv(self.connection, MEBIBYTE)):
            received += piece
        return bytes(received)

    async def read_to_the_end(self) -> bytes:
        received = bytearray()
        try:
            while piece := await self.loop.sock_recv(self.connection, MEBIBYTE):
                received += piece
        except ConnectionResetError:
            pass
        return bytes(received)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _charged(gateway: RunningGateway, less_than: int) -> tuple[int, int]:
    """Usage once the running download is settled."""
    for _ in range(60):
        usage = await gateway.usage(SCIENTIST)
        if usage[1] < less_than:
            return usage
        await asyncio.sleep(0.1)
    return usage


async def test_a_file_cut_short_on_disk_while_it_is_sent_is_a_broken_transfer(
    gateway: RunningGateway, sockets: contextlib.ExitStack
) -> None:
    """The framework would answer the next request on this connection, and its bytes would become file content."""
    entry = await gateway.catalogue.file(LARGE)
    other = await gateway.catalogue.file(b"SECOND" * 1000, item="second")
    client = await RawClient.connect(gateway, sockets, receive_buffer=64 * 1024)
    await client.ask(entry.stac)
    await client.ask(other.stac)  # pipelined: waits for its turn
    start = await client.read(100_000)
    os.truncate(entry.path, 40 * MEBIBYTE)
    rest = await client.read_to_the_end()
    header, _, body = (start + rest).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(LARGE)}".encode() in header
    assert header.startswith(b"HTTP/1.1 200 ")
    assert len(body) <= 40 * MEBIBYTE
    assert body == LARGE[: len(body)]
    assert b"SECOND" not in body
    assert await _charged(gateway, len(LARGE)) == (1, len(body))


async def test_a_client_library_sees_the_broken_transfer(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(LARGE)
    async with aiohttp.ClientSession() as session:
        response = await session.get(f"{gateway.url}{entry.stac}", headers=bearer(SCIENTIST))
        await response.content.readexactly(1000)
        os.truncate(entry.path, 2 * MEBIBYTE)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_an_unreadable_disk_before_the_first_byte_is_503_and_costs_nothing(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await gateway.catalogue.file(b"x" * 1000)

    def broken(*_: object) -> bytes:
        raise CopyUnavailableError("Input/output error on /secret/mount")

    monkeypatch.setattr(local, "_read", broken)
    monkeypatch.setattr(local, "_read_from_memory", lambda *_: None)
    response, body = await gateway.get(entry.stac, SCIENTIST)
    assert response.status == 503
    assert int(response.headers["Retry-After"]) > 0
    assert b"secret" not in body
    assert await gateway.usage(SCIENTIST) == (0, 0)


async def test_an_unreadable_disk_in_the_middle_cuts(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = await gateway.catalogue.file(LARGE)
    real = local._move

    def broken(number: int, offset: int, count: int, peer: int) -> int:
        if offset >= 10 * MEBIBYTE:
            raise CopyUnavailableError("Input/output error")
        return real(number, offset, min(count, MEBIBYTE), peer)

    monkeypatch.setattr(local, "_move", broken)
    async with gateway.session.get(f"{gateway.url}{entry.stac}", headers=bearer(SCIENTIST)) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    downloads, octets = await _charged(gateway, len(LARGE))
    assert downloads == 1
    assert 10 * MEBIBYTE <= octets < len(LARGE)


async def test_a_defect_in_the_middle_cuts_and_no_second_header_follows(
    gateway: RunningGateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sockets: contextlib.ExitStack,
) -> None:
    entry = await gateway.catalogue.file(LARGE)

    def defect(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(local, "_move", defect)
    client = await RawClient.connect(gateway, sockets)
    await client.ask(entry.stac)
    received = await client.read_to_the_end()
    assert received.count(b"HTTP/1.1") == 1
    assert b"500" not in received.partition(b"\r\n")[0]
    assert await _charged(gateway, len(LARGE)) == (0, 0)
    assert "a request failed" in caplog.text


async def test_a_client_that_stops_reading_is_cut_by_the_deadline(
    impatient: RunningGateway, sockets: contextlib.ExitStack
) -> None:
    entry = await impatient.catalogue.file(LARGE)
    client = await RawClient.connect(impatient, sockets, receive_buffer=16 * 1024)
    await client.ask(entry.stac)
    await client.read(1)
    started = asyncio.get_running_loop().time()
    _, octets = await _charged(impatient, len(LARGE))
    assert SEND_TIMEOUT - 0.1 < asyncio.get_running_loop().time() - started < 5
    received = await client.read_to_the_end()
    assert len(received) < len(LARGE)
    assert 0 < octets < len(LARGE)


async def test_a_client_that_resets_frees_the_download(
    impatient: RunningGateway, sockets: contextlib.ExitStack
) -> None:
    entry = await impatient.catalogue.file(LARGE)
    assert (await impatient.get(entry.stac, SCIENTIST, Range="bytes=0-0"))[0].status == 206
    before = _descriptors()
    for _ in range(10):
        client = await RawClient.connect(impatient, sockets, receive_buffer=16 * 1024)
        await client.ask(entry.stac)
        await client.read(1000)
        client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.connection.close()
    for _ in range(30):
        if _descriptors() <= before:
            break
        await asyncio.sleep(0.1)
    # Connections to PostgreSQL and Redis may have been opened meanwhile.
    assert _descriptors() < before + 10
    _, octets = await impatient.usage(SCIENTIST)
    assert 10 * 1000 < octets < 10 * len(LARGE)


@pytest.mark.parametrize("size", [1000, SMALL_BYTES + 1, 5 * MEBIBYTE])
async def test_a_client_that_leaves_after_the_last_byte_was_served_whole(
    gateway: RunningGateway, sockets: contextlib.ExitStack, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    entry = await gateway.catalogue.file(LARGE[:size])
    for _ in range(10):
        client = await RawClient.connect(gateway, sockets)
        await client.ask(entry.stac)
        received = await client.read(size)
        header, _, body = received.partition(b"\r\n\r\n")
        body += await client.read(size - len(body))
        client.connection.close()
        assert (header[:12], body) == (b"HTTP/1.1 200", entry.content)
    # Twice its bytes are one download.
    assert await _charged(gateway, 10 * size + 1) == (5, 10 * size)
    assert "cut after" not in caplog.text


async def test_one_connection_serves_many_answers_of_every_size(
    gateway: RunningGateway, sockets: contextlib.ExitStack
) -> None:
    sizes = [0, 1, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 5 * MEBIBYTE, 3]
    entries = [await gateway.catalogue.file(LARGE[:size], item=f"item-{size}") for size in sizes]
    client = await RawClient.connect(gateway, sockets)
    for entry in entries:
        await client.ask(entry.stac)  # all pipelined
    await client.ask(entries[-1].stac, "Connection: close")
    received = await client.read_to_the_end()
    for entry in [*entries, entries[-1]]:
        header, _, received = received.partition(b"\r\n\r\n")
        assert header.startswith(b"HTTP/1.1 200 ")
        assert received.startswith(entry.content)
        received = received[len(entry.content) :]
    assert received == b""


async def test_multipart_of_a_large_file_has_its_true_length(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(LARGE)
    middle = 20 * MEBIBYTE
    response, body = await gateway.get(
        entry.stac, SCIENTIST, Range=f"bytes=0-{MEBIBYTE - 1},{middle}-{middle + MEBIBYTE},-7"
    )
    assert response.status == 206
    assert int(response.headers["Content-Length"]) == len(body)
    assert LARGE[:MEBIBYTE] in body
    assert LARGE[middle : middle + MEBIBYTE + 1] in body
    assert LARGE[-7:] in body
    assert await gateway.usage(SCIENTIST) == (1, MEBIBYTE + MEBIBYTE + 1 + 7)


async def test_the_end_of_the_process_cuts_a_running_download_visibly(
    database: str, redis_url: str, tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    config = config_for(database, redis_url, tmp_path, server={"port": 0, "shutdown_timeout": 0.3})
    async with running_gateway(config, tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group("science"))
        entry = await running.catalogue.file(LARGE)
        client = await RawClient.connect(running, sockets, receive_buffer=16 * 1024)
        await client.ask(entry.stac)
        await client.read(1000)
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 3
    received = await client.read_to_the_end()
    assert len(received) < len(LARGE)


async def test_over_tls_the_bytes_are_the_same(gateway: RunningGateway, tmp_path: Path) -> None:
    """sendfile would send them in the clear: Python itself encrypts here."""
    entry = await gateway.catalogue.file(LARGE)
    server_side, client_side = _certificate(tmp_path)
    runner = web.AppRunner(create_app(gateway.config))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_side).start()
        url = f"https://localhost:{runner.addresses[0][1]}{entry.stac}"
        async with (
            aiohttp.ClientSession(headers=bearer(SCIENTIST)) as session,
            session.get(url, ssl=client_side) as response,
        ):
            assert hashlib.sha256(await response.read()).hexdigest() == entry.checksum
        assert await gateway.usage(SCIENTIST) == (1, len(LARGE))
    finally:
        await runner.cleanup()


async def test_over_tls_a_client_that_stops_reading_is_cut(impatient: RunningGateway, tmp_path: Path) -> None:
    entry = await impatient.catalogue.file(LARGE)
    server_side, client_side = _certificate(tmp_path)
    runner = web.AppRunner(create_app(impatient.config), shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_side).start()
        port = runner.addresses[0][1]
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client_side, limit=1000)
        fields = f"Host: localhost\r\nAuthorization: {bearer(SCIENTIST)['Authorization']}"
        writer.write(f"GET {entry.stac} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
        await reader.readexactly(1000)
        downloads, octets = await _charged(impatient, len(LARGE))
        assert downloads == 1
        assert 0 < octets < len(LARGE)
        writer.transport.abort()
    finally:
        await runner.cleanup()


def _certificate(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "certificate.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(pem)
    return server_side, ssl.create_default_context(cafile=str(pem))
