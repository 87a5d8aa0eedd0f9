"""Callers, files, gateway processes without their background work, and a proxy that loses, holds and refuses what goes
to Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import redis.asyncio

from gateway import db
from gateway.catalog.model import File
from gateway.config import Database as DatabaseSettings
from gateway.config import Quotas as QuotaSettings
from gateway.config import Redis as RedisSettings
from gateway.db import Database
from gateway.delivery.transfer import Transfer
from gateway.identity.principal import Principal
from gateway.quotas import accounts as counters
from gateway.quotas import upkeep
from gateway.quotas.calls import SCRIPTS
from gateway.quotas.epochs import Epochs
from gateway.quotas.journal import Journal
from gateway.quotas.keys import Keys
from gateway.quotas.leases import Lease
from gateway.quotas.ledger import Ledger
from gateway.quotas.limits import Limit
from gateway.quotas.service import Quotas
from gateway.quotas.usage import Amount, Usage
from gateway.redis.scripts import Scripts, open_scripts

USER = Principal("esa", "scientist", "scientist@example.org", "REGISTERED_USER")
OWN = "user:scientist@example.org"


def user(email: str, tenant: str = "esa") -> Principal:
    return Principal(tenant, email, email, "REGISTERED_USER")


def file(content: str | int, limits: tuple[Limit, ...] = (), *, size: int | None = None) -> File:
    """A file whose checksum is ``content``; a number makes one without checksum."""
    checksum = content if isinstance(content, str) else None
    return File(
        file_id=content if isinstance(content, int) else 1,
        product="urn",
        data_type="RAWDATA",
        name="file",
        mime_type=None,
        size=size,
        checksum=checksum,
        checksum_algorithm=None if checksum is None else "SHA-256",
        reference=False,
        visible_to_all=False,
        is_open=False,
        copies=(),
        is_metered=True,
        limits=limits,
    )


def redis_settings(url: str, *, timeout: float = 5, pool_size: int = 4) -> RedisSettings:
    return RedisSettings.model_validate({"url": url, "timeout": timeout, "pool_size": pool_size})


@contextlib.asynccontextmanager
async def opened_database(dsn: str, *tenants: str) -> AsyncIterator[Database]:
    """The database, with these tenants."""
    settings = DatabaseSettings.model_validate({"dsn": dsn, "timeout": 10})
    async with db.connect(settings, ()) as database:
        for tenant in tenants:
            await database.fetch("INSERT INTO tenants (name) VALUES ($1) ON CONFLICT DO NOTHING", tenant)
        yield database


@contextlib.asynccontextmanager
async def open_quotas(
    redis_url: str, dsn: str, *tenants: str, timeout: float = 5, pool_size: int = 4, **settings: object
) -> AsyncIterator[Quotas]:
    """Quotas with all of their background work, for ``tenants`` (``esa`` if none is named)."""
    async with (
        opened_database(dsn, *(tenants or ("esa",))) as database,
        upkeep.open_quotas(
            redis_settings(redis_url, timeout=timeout, pool_size=pool_size),
            QuotaSettings.model_validate(settings),
            database,
        ) as quotas,
    ):
        yield quotas


@dataclasses.dataclass
class Process:
    """A gateway process, as far as quotas are concerned; nothing goes on in the background."""

    upkeep: upkeep.Upkeep
    scripts: Scripts
    ledger: Ledger
    epochs: Epochs
    journal: Journal

    @staticmethod
    def over(scripts: Scripts, database: Database, settings: QuotaSettings) -> Process:
        ledger, journal, epochs = Ledger(database), Journal(), Epochs()
        return Process(upkeep.Upkeep(scripts, ledger, journal, epochs, settings), scripts, ledger, epochs, journal)

    @property
    def quotas(self) -> Quotas:
        return self.upkeep.quotas

    async def settled(self) -> None:
        """Return when nothing is to be settled any more."""
        while tasks := set(self.quotas._settling):
            await asyncio.wait(tasks)

    async def compared(self, tenant: str, account: str) -> list[bytes]:
        """How the counters of an account in Redis differ from the ledger and what waits for it; nothing if they do
        not.
        """
        keys = self.epochs.keys(tenant)
        now = int((await self.scripts.run("usage", (keys.state,), ()))[1])
        day = counters.day_of(now)
        (balance,) = await self.ledger.balances(tenant, keys.epoch, [account], counters.date_of(day))
        answer = await self.scripts.run("load", *counters.arguments("compare", keys, balance, day))
        assert answer[0] in (b"equal", b"different", b"missing"), answer
        return list(answer[1:])


@contextlib.asynccontextmanager
async def process(redis_url: str, database: Database, **settings: object) -> AsyncIterator[Process]:
    """A process; it is not closed in an orderly way."""
    async with open_scripts(redis_settings(redis_url), SCRIPTS) as scripts:
        yield Process.over(scripts, database, QuotaSettings.model_validate(settings))


async def set_clock(redis_client: redis.asyncio.Redis, keys: Keys, clock: int) -> None:
    """Have the time of a tenant be ``clock``, in microseconds since 1970 and later than now: there it stands still."""
    await redis_client.hset(keys.state, "clock", str(clock))


async def download(quotas: Quotas, who: Principal, wanted: File, promised: int, sent: int | None = None) -> Lease:
    """Download ``wanted`` up to ``sent`` bytes, by default all that is promised."""
    transfer = Transfer(promised)
    lease = await quotas.reserve(who, wanted, transfer)
    transfer.sent = promised if sent is None else sent
    transfer.finished = transfer.sent == promised
    await quotas.settle(lease, delivered=transfer.delivered)
    return lease


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


def usage(downloads: int, octets: int, running: int) -> Usage:
    """What an account has used, all of it today."""
    amount = Amount(downloads, octets)
    return Usage(downloads, octets, running, today=amount, month=amount)
