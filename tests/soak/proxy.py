"""A proxy in front of Redis that now and then cuts a connection instead of a reply."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class CuttingProxy:
    """Relays; each reply is lost with some chance, after Redis did what it was asked for."""

    def __init__(self, url: str, chance: float, seed: int) -> None:
        self._parts = urlsplit(url)
        self._chance = chance
        self._random = random.Random(seed)
        self.cut = 0
        """Replies that were lost."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either end closes it."""
        try:
            upstream_reader, upstream = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._relay(reader, upstream, loses=False)),
            asyncio.create_task(self._relay(upstream_reader, writer, loses=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.transport.abort()
            upstream.transport.abort()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, loses: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(262144):
                if loses and self._random.random() < self._chance:
                    self.cut += 1
                    return
                writer.write(piece)
                await writer.drain()


@contextlib.asynccontextmanager
async def cutting_proxy(url: str, *, chance: float, seed: int) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """A proxy in front of ``url``, and the URL that goes through it."""
    proxy = CuttingProxy(url, chance, seed)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(proxy.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    try:
        yield proxy, parts._replace(netloc=f"{credentials}{at}{host}:{port}").geturl()
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()
