"""The server: connections, and what goes wrong on them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import fcntl
import http
import itertools
import re
import socket
import ssl
import struct
import termios
from collections.abc import AsyncIterator, Callable

from tests.s3.account import Account
from tests.s3.strict.answers import answer, place
from tests.s3.strict.faults import BEFORE_HEAD, Fault, Faults
from tests.s3.strict.messages import Reply, Request, S3Error
from tests.s3.strict.store import Store

CHUNK = 256 * 1024
MOST_REQUESTS = 100_000
LONGEST_BODY = 1 << 20
"""Bytes of a request: nothing large is uploaded here."""

Clock = Callable[[], datetime.datetime]


class StrictS3:
    """A server that accepts what Amazon S3 accepts and no more, with faults when a test wants them."""

    def __init__(self, account: Account, clock: Clock, tls: ssl.SSLContext | None) -> None:
        self.account = account
        self.clock = clock
        self.store = Store(clock)
        self.faults = Faults(self.store)
        self.requests: list[Request] = []
        """All since the start, in the order in which they came; of very many the oldest are forgotten."""
        self.connections = 0
        """All since the start."""
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._numbers = itertools.count(1)
        self._broken: list[BaseException] = []

    def url(self, bucket: str, key: str = "") -> str:
        """The URL of an object, or of a bucket."""
        return self.account.url(bucket, key)

    @property
    def open_connections(self) -> int:
        """Those that neither side has ended."""
        return len(self._writers)

    def drop_connections(self) -> None:
        """End all connections, the idle ones included."""
        for writer in self._writers.values():
            writer.transport.abort()

    async def listen(self, bound: socket.socket) -> None:
        """Serve the connections of a socket that is bound, from now on."""
        self._server = await asyncio.start_server(self._accept, sock=bound, ssl=self._tls)

    @contextlib.asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """No connection is left, and new ones are refused, while the block runs."""
        assert self._server
        address = self._server.sockets[0].getsockname()
        self._server.close()
        self.drop_connections()
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)  # Nobody else gets the port, and as it does not listen, it refuses.
        try:
            yield
        finally:
            await self.listen(bound)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # asyncio does not do so by itself for a socket that was bound before: a body would wait for an ACK, 40 ms.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.transport.set_write_buffer_limits(high=1, low=0)  # drain() then tells that the kernel has it all
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._writers[task] = writer
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Listen no more, and end all connections.

        Raises:
            BaseExceptionGroup: this server failed, or was sent what is no request.
        """
        if self._server:
            self._server.close()
        tasks = list(self._writers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._broken:
            raise BaseExceptionGroup("the S3 server is broken", self._broken)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._writers[task]
        if not task.cancelled() and (error := task.exception()):
            self._broken.append(error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while await self._exchange(reader, writer):
                    pass
                if not writer.transport.is_closing():
                    writer.close()
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection is good for another."""
        request = await _read(reader)
        self.requests.append(request)
        if len(self.requests) > MOST_REQUESTS:
            del self.requests[: MOST_REQUESTS // 2]
        fault: Fault | None = None
        try:
            request.bucket, request.key = place(request)
        except UnicodeDecodeError:
            reply = S3Error(400, "InvalidURI", "Couldn't parse the specified URI.").reply()
        else:
            fault = self.faults.next(request)
            if fault and fault.at == BEFORE_HEAD and not await self._strike(fault, request, reader, writer):
                return False
            reply = answer(request, self.store, self.account, self.clock())
        if fault:
            reply = fault.alter(reply)
        bodiless = request.method == "HEAD" or reply.status == 304
        announced = self._write_head(request, reply, writer)
        await writer.drain()
        if not bodiless:
            point = fault.at if fault and 0 <= fault.at <= reply.length else None
            await _send(request, reply, 0, reply.length if point is None else point, writer)
            if fault and point is not None:
                if not await self._strike(fault, request, reader, writer):
                    return False
                await _send(request, reply, point, reply.length, writer)
        goes_on = (request.field("Connection") or "").lower() != "close"
        return goes_on and (bodiless or announced == str(reply.length))

    def _write_head(self, request: Request, reply: Reply, writer: asyncio.StreamWriter) -> str:
        """Write the head; gives its Content-Length."""
        number = f"{next(self._numbers):016X}"
        announced = dict(reply.fields).get("Content-Length", str(reply.length))
        fields = [
            ("x-amz-request-id", number),
            ("Date", email.utils.format_datetime(self.clock().astimezone(datetime.UTC), usegmt=True)),
            ("Server", "AmazonS3"),
            *((name, value) for name, value in reply.fields if name != "Content-Length"),
        ]
        if reply.status != 304:
            fields.append(("Content-Length", announced))
        lines = [f"HTTP/1.1 {reply.status} {http.HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields]
        request.status = reply.status
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        return announced

    async def _strike(
        self, fault: Fault, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Let the fault happen; whether the answer goes on."""
        if fault.end == "reset":
            await _delivered(writer)
        fault.strike(request)
        match fault.end:
            case "go on":
                return True
            case "reset":
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case "fin":
                return False
            case "stall":
                return await _released(fault, reader)


async def _read(reader: asyncio.StreamReader) -> Request:
    """The next request.

    Raises:
        IncompleteReadError: the client has ended the connection.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = start.split(" ")
    assert re.fullmatch(r"HTTP/1\.[01]", version), start
    fields = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    request = Request(method, target, fields, b"")
    length = int(request.field("Content-Length") or 0)
    assert length <= LONGEST_BODY, f"{length} bytes are more than anybody should send here"
    assert request.field("Transfer-Encoding") is None, "S3 wants a Content-Length"
    request.body = await reader.readexactly(length)
    return request


async def _send(request: Request, reply: Reply, start: int, stop: int, writer: asyncio.StreamWriter) -> None:
    """Send these bytes of the body."""
    while start < stop:
        piece = reply.content.read(reply.start + start, min(CHUNK, stop - start))
        writer.write(piece)
        await writer.drain()
        start += len(piece)
        request.sent += len(piece)


async def _delivered(writer: asyncio.StreamWriter) -> None:
    """Wait until the other side's kernel has all that was sent, since RST throws away what has not left ours."""
    connection = writer.get_extra_info("socket")
    while not writer.transport.is_closing():
        unacknowledged = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        if not int.from_bytes(unacknowledged, "little"):
            return
        await asyncio.sleep(0.001)  # The kernel tells nobody.


async def _released(fault: Fault, reader: asyncio.StreamReader) -> bool:
    """Wait for the release, or for the client to leave; whether it was the first."""
    release, leaving = asyncio.ensure_future(fault.released()), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({release, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return release.done()
    finally:
        for waiting in (release, leaving):
            waiting.cancel()
        await asyncio.gather(release, leaving, return_exceptions=True)
