"""The sender: the only code that writes file bytes to a connection.

It counts what the kernel accepted against what the answer promised, and cuts the connection on any shortfall: the
framework would keep it open, and the next answer's bytes would become file content at the client. A cut in the middle
of a declared Content-Length is what tells every client that its copy is not whole (RFC 9112 §8).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.delivery.pace import Pace
from gateway.delivery.pump import ClientStalledError, Pump
from gateway.http.evaluate import Span, Verdict
from gateway.storage import CopyChangedError, Descriptor, OnDisk, OpenFile, StorageError

SMALL_BYTES = 64 * 1024
"""Up to here an answer is read first and leaves with its header in one write."""

READ_BYTES = 256 * 1024
"""Bytes a step where sendfile cannot be used, because Python itself encrypts the connection."""


@dataclasses.dataclass(slots=True)
class Transfer:
    """What became of one answer."""

    promised: int
    """Bytes of the representation that the answer's length promises."""
    sent: int = 0
    """Bytes of the representation that the kernel accepted."""
    finished: bool = False
    """Whether the answer was sent to its end, down to the last byte it promised."""
    problem: Exception | None = None
    """Why it was cut, if it was."""
    offloaded: bool = False
    """Whether the proxy in front was told to send it; then all that was promised counts as sent."""

    @property
    def delivered(self) -> bool:
        """Whether the client got anything: some bytes, or an answer that is whole without any."""
        return self.finished or self.sent > 0


def head(verdict: Verdict) -> tuple[int, int]:
    """Offset and count of the bytes worth reading as the file is opened: all, where the answer is small and plain."""
    parts = verdict.parts
    if len(parts) == 1 and isinstance(parts[0], Span) and verdict.length <= SMALL_BYTES:
        return parts[0].start, parts[0].length
    return 0, 0


class Sender:
    """Sends one answer of the bytes of ``file``."""

    def __init__(
        self,
        request: web.Request,
        storage: OnDisk,
        file: OpenFile,
        verdict: Verdict,
        transfer: Transfer,
        *,
        pace: Pace,
    ) -> None:
        self._transfer = transfer
        self._request = request
        self._storage = storage
        self._file = file
        self._verdict = verdict
        self._pace = pace
        self._start = asyncio.get_running_loop().time()

    async def send(self, response: web.StreamResponse) -> None:
        """Send ``response``, whose header promises the verdict's bytes, and those bytes.

        When it returns, the transfer says what was sent; if that is not all, the connection is cut.

        Raises:
            StorageError: the bytes could not be read and nothing was sent: the answer can still be an error.
        """
        small = self._verdict.length <= SMALL_BYTES
        body = await self._read_all() if small else b""
        try:
            if small:
                await self._send_small(response, body)
            else:
                await self._send_large(response)
            self._transfer.finished = True
        except (StorageError, ConnectionError, ClientStalledError) as error:
            self._transfer.problem = error
            self._cut(response)
        except BaseException:
            self._cut(response)
            raise

    async def _read_all(self) -> bytes:
        if len(self._file.head) == self._verdict.length:
            return self._file.head
        pieces = []
        for part in self._verdict.parts:
            if isinstance(part, Span):
                piece = await self._storage.read(self._file, part.start, part.length)
                if len(piece) != part.length:
                    raise CopyChangedError(f"the file ends at byte {part.start + len(piece)}")
                pieces.append(piece)
            else:
                pieces.append(part.data)
        return b"".join(pieces)

    async def _send_small(self, response: web.StreamResponse, body: bytes) -> None:
        writer = await self._prepare(response)
        transport = self._transport()
        await response.write_eof(body)
        try:
            if transport.get_write_buffer_size():
                await self._flush(writer, transport)
        finally:
            framing = self._verdict.length - self._transfer.promised
            accepted = max(len(body) - transport.get_write_buffer_size() - framing, 0)
            self._transfer.sent = min(accepted, self._transfer.promised)

    async def _send_large(self, response: web.StreamResponse) -> None:
        writer = await self._prepare(response)
        transport = self._transport()
        with _full_segments(transport):
            await self._send_parts(writer, transport)
            await self._flush(writer, transport)
        await response.write_eof()

    async def _send_parts(self, writer: AbstractStreamWriter, transport: asyncio.Transport) -> None:
        writer.send_headers()
        for part in self._verdict.parts:
            if not isinstance(part, Span):
                await writer.write(part.data)
            elif _encrypts(transport):
                await self._copy(writer, transport, part)
            else:
                # What the framework still holds must leave first: from here on bytes pass it by.
                await self._flush(writer, transport)
                await self._sendfile(transport, part)

    async def _sendfile(self, transport: asyncio.Transport, span: Span) -> None:
        """Hand the span to the kernel, on a duplicate of the connection's descriptor that stays ours alone."""
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")
        connection = transport.get_extra_info("socket")
        with contextlib.closing(Descriptor(os.dup(connection.fileno()))) as peer:
            pump = Pump(self._storage, self._file, connection, peer, pace=self._pace, on_sent=self._count)
            await pump.send(span)

    def _count(self, sent: int) -> None:
        self._transfer.sent += sent

    async def _copy(self, writer: AbstractStreamWriter, transport: asyncio.Transport, span: Span) -> None:
        offset = span.start
        while offset < span.stop:
            piece = await self._storage.read(self._file, offset, min(READ_BYTES, span.stop - offset))
            if not piece:
                raise CopyChangedError(f"the file ends at byte {offset}")
            await writer.write(piece)
            await self._flush(writer, transport)
            offset += len(piece)
            self._transfer.sent += len(piece)

    async def _flush(self, writer: AbstractStreamWriter, transport: asyncio.Transport) -> None:
        """Wait until the kernel has all that was written."""
        if not transport.get_write_buffer_size():
            return
        # The transport of asyncio's TLS takes 0 as "always full".
        transport.set_write_buffer_limits(high=1 if _encrypts(transport) else 0, low=0)
        try:
            async with self._patience():
                await writer.drain()
        finally:
            transport.set_write_buffer_limits()
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")

    @contextlib.asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """Bound how long the client may keep us waiting in the block."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._pace.patience(loop.time() - self._start, self._transfer.sent)):
                yield
        except TimeoutError as error:
            elapsed = loop.time() - self._start
            raise ClientStalledError(f"it took {self._transfer.sent} bytes in {elapsed:.0f} s") from error

    async def _prepare(self, response: web.StreamResponse) -> AbstractStreamWriter:
        writer = await response.prepare(self._request)
        if writer is None:
            raise ConnectionResetError("the client is gone")
        return writer

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        return transport

    def _cut(self, response: web.StreamResponse) -> None:
        """End the connection so that the client sees a broken transfer, and so that nothing else can follow on it."""
        response.force_close()
        transport = self._request.transport
        if transport is None:
            return
        connection = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            if isinstance(self._transfer.problem, ClientStalledError):
                # Nobody reads: have the kernel forget what it holds for this client, at once.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                # A plain end, not a reset: what was sent arrives, and the client can resume from there.
                connection.shutdown(socket.SHUT_RDWR)
        transport.abort()


def _encrypts(transport: asyncio.Transport) -> bool:
    """Whether Python itself encrypts this connection, so that bytes must pass through it."""
    return transport.get_extra_info("sslcontext") is not None


@contextlib.contextmanager
def _full_segments(transport: asyncio.Transport) -> Iterator[None]:
    """Have the kernel send full segments only, until the block ends, which sends what is left (tcp(7), TCP_CORK).

    Without it the framework's TCP_NODELAY has every piece of a sendfile end in a small segment of its own: a sixth
    more CPU time for the same bytes.
    """
    connection = transport.get_extra_info("socket")

    def cork(value: int) -> None:
        with contextlib.suppress(OSError):  # the connection is closed
            if hasattr(socket, "TCP_CORK"):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, value)

    cork(1)
    try:
        yield
    finally:
        cork(0)
