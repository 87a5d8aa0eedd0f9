"""A TCP proxy that breaks connections in the ways that networks do."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from urllib.parse import urlsplit

MOST_CONNECTIONS = 64
LONGEST_CONNECTION = 60.0
"""Seconds after which a connection is dropped, whatever it does: no test hangs on its proxy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection. Counts are bytes from the server to the client, header included."""

    cut_after: int | None = None
    """Pass exactly so many bytes, then end the connection."""
    reset: bool = False
    """End it by RST instead of FIN."""
    stall_after: int | None = None
    """Pass exactly so many bytes, then no more, and leave the connection open."""
    slice_bytes: int = 64 * 1024
    """Most bytes passed at once."""


HEALTHY = Fault()


class FaultProxy:
    """Gives each new connection the next fault of its plan; when the plan is over, all are healthy."""

    def __init__(self, url: str, plan: Iterable[Fault]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._plan = list(plan)
        self.url = ""
        self.cuts = 0
        """Connections that were cut before the server ended them."""
        self.connections = 0
        self._running: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection with the next fault."""
        self.connections += 1
        if len(self._running) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        fault = self._plan.pop(0) if self._plan else HEALTHY
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, fault))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        try:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(LONGEST_CONNECTION):
                    await self._relay(reader, writer, fault)
        finally:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        from_server, to_server = await asyncio.open_connection(self._host, self._port)
        upwards = asyncio.ensure_future(_pass_on(reader, to_server))
        try:
            await self._downwards(from_server, writer, fault)
        finally:
            upwards.cancel()
            to_server.transport.abort()
            await asyncio.gather(upwards, return_exceptions=True)

    async def _downwards(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, fault: Fault) -> None:
        passed = 0
        stop = min((limit for limit in (fault.cut_after, fault.stall_after) if limit is not None), default=None)
        while stop is None or passed < stop:
            most = fault.slice_bytes if stop is None else min(fault.slice_bytes, stop - passed)
            if not (piece := await source.read(most)):
                await _finish(target)
                return
            target.write(piece)
            await target.drain()
            passed += len(piece)
        if fault.cut_after is None:
            await asyncio.Event().wait()
        self.cuts += 1
        if fault.reset:
            connection = target.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            await _finish(target)

    async def close(self) -> None:
        """Drop every connection."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(64 * 1024):
            target.write(piece)
            await target.drain()


async def _finish(target: asyncio.StreamWriter) -> None:
    """Have all that was written leave before the FIN."""
    target.close()
    with contextlib.suppress(ConnectionError):
        await target.wait_closed()


@contextlib.asynccontextmanager
async def fault_proxy(url: str, plan: Iterable[Fault] = ()) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the HTTP server at ``url``, whose own base URL is ``proxy.url``."""
    proxy = FaultProxy(url, plan)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.url = f"http://{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
