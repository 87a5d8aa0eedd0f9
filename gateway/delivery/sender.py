"""The sender: the only code that writes file bytes to a connection.

It counts what the kernel accepted against what the answer promised, and cuts the connection on any shortfall: the
framework would keep it open, and the next answer's bytes would become file content at the client. A cut in the middle
of a declared Content-Length is what tells every client that its copy is not whole (RFC 9112 §8).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.http.evaluate import Span, Verdict
from gateway.storage import CopyChangedError, Descriptor, OnDisk, OpenFile, StorageError, answering_within

SMALL_BYTES = 64 * 1024
"""Up to here an answer is read first and leaves with its header in one write."""

HOP_BYTES = 4 * 1024 * 1024
"""Most bytes that one call in a thread moves: what progress, deadlines and aborts are seen at."""

READ_BYTES = 256 * 1024
"""Bytes a step where sendfile cannot be used, because Python itself encrypts the connection."""

LOOKS = 8
"""How often within its deadline a client is looked at: it is cut at most an eighth later than the deadline says."""

ABANDON_SECONDS = 1.0
"""Time for a thread that sends to an ended connection to notice."""


class ClientStalledError(Exception):
    """The client took no byte within the deadline."""


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

    @property
    def delivered(self) -> bool:
        """Whether the client got anything: some bytes, or an answer that is whole without any."""
        return self.finished or self.sent > 0


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
        send_timeout: float,
        storage_timeout: float,
    ) -> None:
        self._transfer = transfer
        self._request = request
        self._storage = storage
        self._file = file
        self._verdict = verdict
        self._timeout = send_timeout
        self._storage_timeout = storage_timeout

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
        pieces = []
        for part in self._verdict.parts:
            if isinstance(part, Span):
                async with answering_within(self._storage_timeout):
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
        # Not to wait in there, where no deadline holds.
        transport.set_write_buffer_limits(high=4 * SMALL_BYTES)
        try:
            await response.write_eof(body)
            if transport.get_write_buffer_size():
                await self._flush(writer, transport)
        finally:
            transport.set_write_buffer_limits()
            framing = self._verdict.length - self._transfer.promised
            accepted = max(len(body) - transport.get_write_buffer_size() - framing, 0)
            self._transfer.sent = min(accepted, self._transfer.promised)

    async def _send_large(self, response: web.StreamResponse) -> None:
        writer = await self._prepare(response)
        transport = self._transport()
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
        await self._flush(writer, transport)
        await response.write_eof()

    async def _sendfile(self, transport: asyncio.Transport, span: Span) -> None:
        """Hand the span to the kernel, a hop at a time, on a duplicate of the connection's descriptor."""
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")
        offset = span.start
        with contextlib.closing(Descriptor(os.dup(transport.get_extra_info("socket").fileno()))) as peer:
            while offset < span.stop:
                asked = min(HOP_BYTES, span.stop - offset)
                moved = await self._hop(transport, offset, asked, peer)
                offset += moved
                if moved < asked:
                    await self._writable(transport, peer.number)

    async def _hop(self, transport: asyncio.Transport, offset: int, count: int, peer: Descriptor) -> int:
        """Have the storage move up to ``count`` bytes. Whatever it moved is counted, even if nobody waits for it."""
        hop = asyncio.ensure_future(self._storage.sendfile(self._file, offset, count, peer))
        try:
            async with answering_within(self._storage_timeout):
                moved = await asyncio.shield(hop)
        except BaseException:
            await self._abandon(transport, hop, count)
            raise
        self._transfer.sent += moved
        return moved

    async def _abandon(self, transport: asyncio.Transport, hop: asyncio.Future[int], count: int) -> None:
        """Count what a hop moved whose thread cannot be stopped: all it was asked for, if it does not say soon."""
        moved = count
        try:
            # Its thread gets an error at its next write, and comes back.
            with contextlib.suppress(OSError):
                transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            await asyncio.wait([hop], timeout=ABANDON_SECONDS)
            if hop.done():
                moved = 0 if hop.cancelled() or hop.exception() else hop.result()
        finally:
            self._transfer.sent += moved
            hop.cancel()

    async def _writable(self, transport: asyncio.Transport, descriptor: int) -> None:
        """Wait until the kernel takes bytes for the client again."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(descriptor, ready.set)
        try:
            async with self._deadline(transport):
                await ready.wait()
        finally:
            loop.remove_writer(descriptor)

    async def _copy(self, writer: AbstractStreamWriter, transport: asyncio.Transport, span: Span) -> None:
        offset = span.start
        while offset < span.stop:
            async with answering_within(self._storage_timeout):
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
            async with self._deadline(transport):
                await writer.drain()
        finally:
            transport.set_write_buffer_limits()
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")

    @contextlib.asynccontextmanager
    async def _deadline(self, transport: asyncio.Transport) -> AsyncIterator[None]:
        """Give up on a client that takes no byte for the deadline.

        The kernel says that a socket is writable only once a third of its buffer is free: megabytes, for which a slow
        client takes minutes. So it is asked what the client has acknowledged meanwhile.
        """
        loop = asyncio.get_running_loop()
        held = held_for_client(transport)
        watch: asyncio.TimerHandle

        def look() -> None:
            nonlocal held, watch
            now_held = held_for_client(transport)
            if now_held < held:
                deadline.reschedule(loop.time() + self._timeout)
            held = now_held
            watch = loop.call_later(self._timeout / LOOKS, look)

        watch = loop.call_later(self._timeout / LOOKS, look)
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                yield
        except TimeoutError as error:
            raise ClientStalledError(f"the client took no byte for {self._timeout:g} s") from error
        finally:
            watch.cancel()

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
        if isinstance(self._transfer.problem, ClientStalledError):
            reset(transport)
        else:
            # A plain end, not a reset: what was sent arrives, and the client can resume from there.
            with contextlib.suppress(OSError):
                transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            transport.abort()


def _encrypts(transport: asyncio.Transport) -> bool:
    """Whether Python itself encrypts this connection, so that bytes must pass through it."""
    return transport.get_extra_info("sslcontext") is not None


def held_for_client(transport: asyncio.Transport) -> int:
    """Bytes that the client has not acknowledged, as far as the system tells; fewer and fewer while nobody sends."""
    waiting = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, ValueError):
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        waiting += int.from_bytes(answer, sys.byteorder)
    return waiting


def reset(transport: asyncio.Transport) -> None:
    """End the connection of a client that does not read: the kernel forgets at once what it holds for it."""
    with contextlib.suppress(OSError):
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
