"""A TCP proxy that counts round trips."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class CountingProxy:
    """Counts how often the client speaks after the server did: each such turn costs one round trip."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.round_trips = 0
        self.shut = False
        """Set to refuse new connections."""
        self.refused = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection, or refuse it while the proxy is shut."""
        if self.shut:
            self.refused += 1
            writer.transport.abort()
            return
        upstream = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._writers |= {writer, upstream[1]}
        turns = ["server"]

        async def relay(source: asyncio.StreamReader, target: asyncio.StreamWriter, who: str) -> None:
            with contextlib.suppress(ConnectionError):
                while piece := await source.read(65536):
                    if who == "client" and turns[0] == "server":
                        self.round_trips += 1
                    turns[0] = who
                    target.write(piece)
                    await target.drain()
            target.close()

        await asyncio.gather(relay(reader, upstream[1], "client"), relay(upstream[0], writer, "server"))

    def cut(self) -> None:
        """Drop every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@contextlib.asynccontextmanager
async def counting_proxy(url: str) -> AsyncIterator[tuple[CountingProxy, str]]:
    """A proxy in front of ``url``, and the URL that goes through it."""
    proxy = CountingProxy(url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    try:
        yield proxy, parts._replace(netloc=f"{credentials}{at}{host}:{port}").geturl()
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
