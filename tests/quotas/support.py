"""Callers, files and a proxy that loses, holds and refuses what goes to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import redis.asyncio

from gateway.catalog.model import File
from gateway.config import Quotas as QuotaSettings
from gateway.config import Redis as RedisSettings
from gateway.identity.principal import Principal
from gateway.quotas.limits import Limit
from gateway.quotas.service import Lease, Quotas, connect


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a caller may have in all; -1 is unlimited."""

    max_downloads: int
    max_bytes: int

    def of(self, account: str) -> tuple[Limit, ...]:
        downloads = Limit(account, "downloads", "total", self.max_downloads)
        octets = Limit(account, "bytes", "total", self.max_bytes)
        return tuple(limit for limit in (downloads, octets) if limit.value >= 0)


UNLIMITED = Limits(-1, -1)
USER = Principal("esa", "scientist", "scientist@example.org", "REGISTERED_USER")


def user(email: str, tenant: str = "esa") -> Principal:
    return Principal(tenant, email, email, "REGISTERED_USER")


def file(content: str | int, limits: Limits = UNLIMITED) -> File:
    """A file whose checksum is ``content``; a number makes one without checksum."""
    checksum = content if isinstance(content, str) else None
    return File(
        file_id=content if isinstance(content, int) else 1,
        product="urn",
        data_type="RAWDATA",
        name="file",
        mime_type=None,
        size=None,
        checksum=checksum,
        checksum_algorithm=None if checksum is None else "SHA-256",
        reference=False,
        visible_to_all=False,
        copies=(),
        is_metered=True,
        limits=limits.of("user:of the test"),
    )


def open_quotas(
    url: str, *, window: int = 3600, lease_ttl: int = 86400, timeout: float = 5, pool_size: int = 16
) -> contextlib.AbstractAsyncContextManager[Quotas]:
    redis_settings = RedisSettings.model_validate({"url": url, "timeout": timeout, "pool_size": pool_size})
    return connect(redis_settings, QuotaSettings(window=window, lease_ttl=lease_ttl))


async def run_reserve(
    quotas: Quotas, lease: Lease, limits: Limits = UNLIMITED, *, ttl: int = 86400, whole: bool = False
) -> tuple[bool, int, int]:
    """Run reserve.lua for ``lease`` as it is: whether it is granted, and the downloads and bytes it tells."""
    answer = await quotas._scripts.run(
        "reserve", lease.keys, (limits.max_downloads, limits.max_bytes, lease.promised, lease.window, ttl, int(whole))
    )
    return bool(answer[0]), answer[-2], answer[-1]


async def run_settle(quotas: Quotas, lease: Lease, sent: int, *, delivered: bool) -> bool:
    """Run settle.lua for ``lease``: whether this call settled it."""
    return bool(await quotas._scripts.run("settle", lease.keys, (sent, int(delivered), lease.window, 600)))


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.02)


class FaultyProxy:
    """Relays to Redis, and goes wrong with the calls of scripts as told."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._writers: set[asyncio.StreamWriter] = set()
        self.shut = False
        """New connections are refused."""
        self.deaf = False
        """Nothing is relayed any more; connections stay."""
        self.replies_to_swallow = 0
        """That many calls are executed, but their connection is cut instead of the reply."""
        self.calls_to_hold = 0
        """That many calls wait for ``released`` before Redis sees them, even if the client has gone meanwhile."""
        self.replies_to_hold = 0
        """That many replies wait for ``released``."""
        self.released = asyncio.Event()
        self.calls = 0
        """Calls of scripts seen."""
        self.relayed = 0
        """Calls of scripts that Redis got."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        upstream_reader, upstream = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._writers |= {writer, upstream}
        fault = [""]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(
                self._forth(reader, upstream, fault), self._back(upstream_reader, writer, upstream, fault)
            )

    async def _forth(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, fault: list[str]) -> None:
        while piece := await reader.read(65536):
            if self.deaf:
                continue
            if b"EVALSHA" in piece:
                self.calls += 1
                fault[0] = ""
                if self.replies_to_swallow:
                    self.replies_to_swallow -= 1
                    fault[0] = "swallow"
                elif self.replies_to_hold:
                    self.replies_to_hold -= 1
                    fault[0] = "hold"
                elif self.calls_to_hold:
                    self.calls_to_hold -= 1
                    await self.released.wait()
            upstream.write(piece)
            await upstream.drain()
            self.relayed += b"EVALSHA" in piece
        upstream.close()

    async def _back(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: asyncio.StreamWriter,
        fault: list[str],
    ) -> None:
        while piece := await reader.read(65536):
            if fault[0] == "swallow":
                writer.transport.abort()
                upstream.close()
                return
            if fault[0] == "hold":
                await self.released.wait()
            if not self.deaf:
                writer.write(piece)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Drop every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@contextlib.asynccontextmanager
async def faulty_proxy(url: str) -> AsyncIterator[tuple[FaultyProxy, str]]:
    """A proxy in front of ``url``, and the URL that goes through it."""
    proxy = FaultyProxy(url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    try:
        yield proxy, parts._replace(netloc=f"{credentials}{at}{host}:{port}").geturl()
    finally:
        proxy.released.set()
        server.close()
        proxy.cut()
        await server.wait_closed()


async def all_keys(url: str) -> dict[str, int]:
    """Seconds to live of every key, -1 for ever."""
    async with redis.asyncio.Redis.from_url(url) as client:
        return {key.decode(): await client.ttl(key) async for key in client.scan_iter()}
