"""The connection of the client that takes an answer: writing, waiting until it took what was written, cutting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Self

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.delivery.allowance import Allowance, granted_beyond
from gateway.delivery.pace import Pace
from gateway.delivery.transfer import Transfer
from gateway.delivery.watch import Watch
from gateway.storage import Descriptor


class Client:
    """Takes the body of one answer whose header is prepared. Made by `answering`; ends with its block."""

    def __init__(
        self,
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
        transfer: Transfer,
        pace: Pace,
        *,
        allowance: Allowance | None,
    ) -> None:
        self.transport = transport
        # Once it is closed, the transport of asyncio's TLS cannot be asked any more.
        self.encrypted = transport.get_extra_info("sslcontext") is not None
        """Whether Python itself encrypts this connection, so that bytes must pass through it."""
        self.socket: socket.socket = transport.get_extra_info("socket")
        """The socket of the connection, as the framework lends it."""
        self.transfer = transfer
        self.watch = Watch(transport, pace, transfer)
        self._writer = writer
        self._allowance = allowance
        self._peer: Descriptor | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def answering(
        cls,
        request: web.Request,
        response: web.StreamResponse,
        transfer: Transfer,
        pace: Pace,
        *,
        allowance: Allowance | None,
    ) -> AsyncIterator[Self]:
        """Prepare ``response`` and give the connection that takes its body, as far as ``allowance`` goes.

        Raises:
            ConnectionError: the client is gone.
        """
        writer = await response.prepare(request)
        transport = request.transport
        if writer is None or transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        client = cls(transport, writer, transfer, pace, allowance=allowance)
        try:
            yield client
        finally:
            if client._peer is not None:
                client._peer.close()

    def room(self, most: int) -> int:
        """How many of the next ``most`` bytes of the representation may be sent now. Nothing is sent without asking."""
        if self._allowance is None:
            return most
        return max(min(most, self._allowance.granted() - self.transfer.sent), 0)

    async def allowed(self, most: int) -> int:
        """As `room`, but wait until it is at least one byte; that time is not held against the client.

        Raises:
            AllowanceEndedError: see there.
            ConnectionError: the client is gone.
        """
        if self._allowance is not None and not self.room(most):
            with self.watch.excused():
                await granted_beyond(self.transfer.sent, self._allowance, self.transport)
        return self.room(most)

    def send_headers(self) -> None:
        """Have the header leave with the first bytes that are written, or by themselves with `flush`."""
        self._writer.send_headers()

    async def frame(self, data: bytes) -> None:
        """Write what is no part of the representation."""
        await self._writer.write(data)

    async def write(self, piece: bytes) -> None:
        """Write bytes of the representation, and wait until the kernel has them. They are counted then.

        Raises:
            ConnectionError: the client is gone.
            ClientStalledError, AllowanceEndedError: see these.
        """
        left = memoryview(piece)
        while left:
            part = left[: self.room(len(left)) or await self.allowed(len(left))]
            if self.encrypted:
                await self._writer.write(part)
                await self.flush()
                self.transfer.sent += len(part)
            else:
                await self._write_past(part)
            left = left[len(part) :]

    async def _write_past(self, left: memoryview) -> None:
        """Write past the framework, which would copy what the kernel does not take at once."""
        peer = await self.bypass()
        while left:
            try:
                sent = os.write(peer.number, left)
            except BlockingIOError:
                await self._writable(peer)
            else:
                self.transfer.sent += sent
                left = left[sent:]

    async def flush(self) -> None:
        """Wait until the kernel has all that was written.

        Raises:
            ConnectionError: the client is gone.
            ClientStalledError: see there.
        """
        if not self.transport.get_write_buffer_size():
            return
        # The transport of asyncio's TLS takes 0 as "always full".
        self.transport.set_write_buffer_limits(high=1 if self.encrypted else 0, low=0)
        try:
            async with self.watch.patience():
                await self._writer.drain()
        finally:
            self.transport.set_write_buffer_limits()
        if self.transport.is_closing():
            raise ConnectionResetError("the client is gone")

    async def bypass(self) -> Descriptor:
        """A duplicate of the connection's descriptor, for bytes that the kernel moves; it is closed with the block.

        What the framework still holds leaves first: from then on bytes pass it by.

        Raises:
            ConnectionError, ClientStalledError: as `flush`.
        """
        await self.flush()
        if self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if self._peer is None:
            self._peer = Descriptor(os.dup(self.socket.fileno()))
        return self._peer

    async def _writable(self, peer: Descriptor) -> None:
        """Wait until the kernel takes more."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(peer.number, _wake, ready)
        try:
            async with self.watch.patience():
                await ready
        finally:
            loop.remove_writer(peer.number)

    @contextlib.contextmanager
    def full_segments(self) -> Iterator[None]:
        """Have the kernel send full segments only, until the block ends, which sends what is left (tcp(7), TCP_CORK).

        Without it the framework's TCP_NODELAY has every piece of a sendfile end in a small segment of its own: a sixth
        more CPU time for the same bytes.
        """
        self._cork(1)
        try:
            yield
        finally:
            self._cork(0)

    def _cork(self, value: int) -> None:
        with contextlib.suppress(OSError):  # the connection is closed
            if hasattr(socket, "TCP_CORK"):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, value)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
