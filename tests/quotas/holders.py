"""The quota part of one gateway process, inside the test: it can die or hang as a process does; and the books."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from unittest import mock
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from gateway import db
from gateway.catalog.model import File
from gateway.config import Database as DatabaseSettings
from gateway.config import Quotas as QuotaSettings
from gateway.config import Redis as RedisSettings
from gateway.delivery.transfer import Transfer
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.quotas.audit import Audit
from gateway.quotas.calls import SCRIPTS, UNKNOWN_ERRORS
from gateway.quotas.epochs import Epochs
from gateway.quotas.journal import Journal
from gateway.quotas.keys import Keys
from gateway.quotas.leases import Lease
from gateway.quotas.ledger import Ledger
from gateway.quotas.limits import Limit, own_account
from gateway.quotas.reservation import MOST_BYTES
from gateway.quotas.service import Quotas
from gateway.quotas.upkeep import Upkeep
from gateway.redis.scripts import Scripts, open_scripts
from tests.faults.support import RawClient
from tests.harness import token

TENANT = "esa"
TIMEOUT = 0.8
"""Seconds that a call may take to a Redis that is going to hang."""
ANSWER_SECONDS = 1.0
"""Within which a caller must hear that nobody knows; beyond it, a busy machine is given as much again."""


def user(name: str, tenant: str = TENANT) -> Principal:
    return Principal(tenant, name, f"{name}@example.org", "REGISTERED_USER")


USER = user("scientist")


def file_of(content: str, size: int | None = None, *limits: Limit) -> File:
    """A metered file whose checksum is ``content``."""
    return File(
        file_id=1,
        product="urn",
        data_type="RAWDATA",
        name="file",
        mime_type=None,
        size=size,
        checksum=content,
        checksum_algorithm="SHA-256",
        reference=False,
        visible_to_all=False,
        is_open=False,
        copies=(),
        is_metered=True,
        limits=limits,
    )


async def until(holds: Callable[[], Awaitable[object]], what: str, seconds: float = 15) -> None:
    """Wait until it holds; neighbours that do not answer do not count."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(GatewayError, *UNKNOWN_ERRORS):
            if await holds():
                return
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s"
        await asyncio.sleep(0.02)


class Holder:
    """What `gateway.quotas.upkeep.open_quotas` opens, with its inside in view."""

    def __init__(self, scripts: Scripts, database: db.Database, settings: QuotaSettings) -> None:
        self.scripts = scripts
        self.ledger = Ledger(database)
        self.journal = Journal()
        self.epochs = Epochs()
        self.upkeep = Upkeep(scripts, self.ledger, self.journal, self.epochs, settings)
        self.quotas: Quotas = self.upkeep.quotas
        self._background: asyncio.Task[None] | None = None

    async def go_on(self) -> None:
        """Begin, or take up again, what goes on in the background."""
        begun = asyncio.Event()

        async def run() -> None:
            async with self.upkeep.going_on():
                begun.set()
                await asyncio.Event().wait()

        self._background = asyncio.create_task(run())
        await begun.wait()

    async def freeze(self) -> None:
        """Do nothing any more and tell nobody, as after SIGSTOP; `go_on` is SIGCONT, never is SIGKILL."""
        with (
            mock.patch.object(self.upkeep, "_leave", _nothing),
            mock.patch.object(self.quotas, "close", _nothing),
        ):
            await self.end()

    async def end(self) -> None:
        """End in an orderly way."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
            self._background = None

    async def reserve(
        self, content: str, size: int, who: Principal = USER, *limits: Limit, promised: int | None = None
    ) -> Lease:
        """Reserve a download of ``content``. Without limits of its own it has some that never refuse."""
        counting = (
            Limit(own_account(who), "bytes", "total", MOST_BYTES),
            Limit("tenant", "downloads", "day", MOST_BYTES),
        )
        return await self.quotas.reserve(
            who, file_of(content, size, *(limits or counting)), Transfer(size if promised is None else promised)
        )

    async def settle(self, lease: Lease, sent: int) -> None:
        """Settle a download of which so many bytes were sent."""
        lease.transfer.sent = sent
        await self.quotas.settle(lease, delivered=sent > 0)

    async def download(self, content: str, size: int, who: Principal = USER) -> None:
        """A whole download."""
        await self.settle(await self.reserve(content, size, who), size)

    async def used(self, who: Principal = USER) -> tuple[int, int]:
        """Downloads and bytes in Redis."""
        account = own_account(who)
        usage = (await self.quotas.usage(who.tenant, [account]))[account]
        return usage.downloads, usage.octets

    async def running(self, who: Principal = USER) -> int:
        """Leases in Redis."""
        account = own_account(who)
        return (await self.quotas.usage(who.tenant, [account]))[account].running

    async def leases(self, tenant: str = TENANT) -> int:
        """Leases in Redis, those that ran out and were not swept yet included."""
        return int(await self.scripts.call("ZCARD", Keys(tenant, self.epoch(tenant)).running("tenant")))

    async def is_settled(self) -> bool:
        """Whether no settlement is on its way."""
        return not self.quotas._settling

    async def is_drained(self) -> bool:
        """Whether the ledger has all that this process did."""
        return await self.is_settled() and not self.journal.tenants()

    async def is_open(self, tenant: str = TENANT) -> bool:
        """Whether counters can be used."""
        tenancy = self.epochs.tenancies.get(tenant)
        return tenancy is not None and tenancy.opened

    def epoch(self, tenant: str = TENANT) -> int:
        """The one it takes part in."""
        return self.epochs.tenancies[tenant].epoch


async def _nothing() -> None:
    pass


@contextlib.asynccontextmanager
async def open_holder(
    redis_url: str,
    dsn: str,
    *,
    timeout: float = 5,
    lease_ttl: int = 60,
    window: int = 3600,
    process_timeout: float = 10,
    max_unconfirmed: int = 100_000,
    seconds: tuple[float, float, float] = (0.05, 0.05, 0.2),
    **redis: object,
) -> AsyncIterator[Holder]:
    """Open one.

    Args:
        redis_url: of the counters.
        dsn: of the ledger.
        timeout: of a call to Redis.
        lease_ttl: as in the settings, but may be shorter.
        window: as in the settings.
        process_timeout: as in the settings, but may be shorter.
        max_unconfirmed: as in the settings.
        seconds: between looks at the epochs, drains and sweeps.
        redis: more settings of Redis.
    """
    settings = QuotaSettings.model_construct(
        window=window, lease_ttl=lease_ttl, process_timeout=process_timeout, max_unconfirmed=max_unconfirmed
    )
    look, drain, sweep = seconds
    async with (
        db.connect(DatabaseSettings(dsn=SecretStr(dsn), timeout=5, pool_size=2), []) as database,
        open_scripts(RedisSettings.model_validate({"url": redis_url, "timeout": timeout, **redis}), SCRIPTS) as scripts,
    ):
        holder = Holder(scripts, database, settings)
        with mock.patch.multiple("gateway.quotas.upkeep", LOOK_SECONDS=look, DRAIN_SECONDS=drain, SWEEP_SECONDS=sweep):
            await holder.upkeep.look()
            await holder.go_on()
            try:
                yield holder
            finally:
                await holder.end()


@contextlib.asynccontextmanager
async def open_quotas(redis: RedisSettings, settings: QuotaSettings, dsn: str) -> AsyncIterator[Quotas]:
    """The quotas of a process that comes later, to see what is charged."""
    async with open_holder(
        redis.url.get_secret_value(), dsn, lease_ttl=settings.lease_ttl, window=settings.window
    ) as holder:
        yield holder.quotas


async def add_tenants(dsn: str, *names: str) -> None:
    """Tenants that the ledger can count for."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.executemany("INSERT INTO tenants (name) VALUES ($1)", [(name,) for name in names])
    finally:
        await connection.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One of the ledger."""

    reservation: str
    kind: str
    downloads: int
    octets: int
    account: str
    """The caller's own."""


async def rows_of(dsn: str, tenant: str = TENANT) -> list[Row]:
    """The ledger."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(
            "SELECT reservation, kind, downloads, bytes, accounts[1] FROM quota_ledger JOIN tenants USING (tenant_id) "
            "WHERE name = $1",
            tenant,
        )
    finally:
        await connection.close()
    return [Row(*row) for row in found]


async def assert_books_agree(
    holder: Holder, dsn: str, tenant: str = TENANT, *, without_end: int = 0, perhaps_without: int = 0
) -> None:
    """The ledger's sums are those of its rows, the counters are those of the ledger, and no lease is left.

    ``without_end`` is of how many grants the end was lost with their process, ``perhaps_without`` of how many more it
    may have been.
    """
    await until(holder.is_drained, "all is in the ledger")
    connection = await asyncpg.connect(dsn)
    try:
        wrong = await connection.fetch(
            "SELECT account, u.downloads, u.bytes, l.downloads, l.bytes FROM ("
            "  SELECT account, sum(downloads) AS downloads, sum(bytes) AS bytes"
            "  FROM quota_ledger CROSS JOIN unnest(accounts) AS account JOIN tenants USING (tenant_id)"
            "  WHERE name = $1 GROUP BY account"
            ") l FULL JOIN ("
            "  SELECT account, downloads, bytes FROM quota_usage JOIN tenants USING (tenant_id)"
            "  WHERE name = $1 AND period = 'total'"
            ") u USING (account) WHERE (u.downloads, u.bytes) IS DISTINCT FROM (l.downloads, l.bytes)",
            tenant,
        )
        unfinished = await connection.fetchval(
            "SELECT count(*) FROM quota_ledger g JOIN tenants USING (tenant_id) WHERE name = $1 AND kind = 'grant' "
            "AND NOT EXISTS (SELECT FROM quota_ledger e WHERE e.reservation = g.reservation AND e.kind = 'end')",
            tenant,
        )
    finally:
        await connection.close()
    assert wrong == [], "the sums are not those of the ledger"
    assert 0 <= unfinished - without_end <= perhaps_without, "downloads of the ledger have no end"
    audit = Audit(holder.scripts, holder.ledger, holder.epochs, holder.upkeep.recovery)
    assert [finding async for finding in audit.check(repair=False) if finding.what != "keys"] == []
    assert audit.tally.accounts > 0
    assert await holder.leases(tenant) == 0, "leases are left"


async def ask_as(client: RawClient, path: str, who: Principal) -> None:
    """Send a GET."""
    lines = [f"GET {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token(who)}", "", ""]
    await asyncio.get_running_loop().sock_sendall(client.connection, "\r\n".join(lines).encode())


async def assert_unavailable(holder: Holder, content: str = "of nobody") -> None:
    """A reservation is answered 503 and when to come back, in time; never 429, never granted."""
    before = time.monotonic()
    with pytest.raises(GatewayError) as caught:
        await holder.reserve(content, 10)
    assert time.monotonic() - before < 2 * ANSWER_SECONDS
    assert caught.value.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert "redis" not in caught.value.detail.lower()


class Line:
    """Relays to whichever Redis it leads to, and loses replies as told."""

    def __init__(self, port: int) -> None:
        self.port = port
        """Of the Redis that new connections lead to."""
        self.loses: Callable[[bytes], bool] = lambda _: False
        """Asked about each piece that goes to Redis: whether the connection is cut in place of the reply."""
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self.port)
            self._writers |= {writer, to_redis}
            lost = asyncio.Event()
            await asyncio.gather(self._forth(reader, to_redis, lost), self._back(from_redis, writer, to_redis, lost))
        writer.transport.abort()

    async def _forth(self, reader: asyncio.StreamReader, to_redis: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while piece := await reader.read(1 << 20):
            if self.loses(piece):
                lost.set()
            to_redis.write(piece)
        to_redis.close()

    async def _back(
        self,
        from_redis: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to_redis: asyncio.StreamWriter,
        lost: asyncio.Event,
    ) -> None:
        while piece := await from_redis.read(1 << 20):
            if lost.is_set():
                # Redis answers once it is done with it.
                to_redis.transport.abort()
                break
            writer.write(piece)
        writer.transport.abort()

    def lead_to(self, port: int) -> None:
        """Cut all connections; new ones lead there."""
        self.port = port
        self.cut()

    def cut(self) -> None:
        """Drop every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@contextlib.asynccontextmanager
async def line_to(url: str) -> AsyncIterator[tuple[Line, str]]:
    """A line to the Redis at ``url``, and the URL that goes through it."""
    parts = urlsplit(url)
    line = Line(parts.port or 6379)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials, at, _ = parts.netloc.rpartition("@")
    try:
        yield line, parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}").geturl()
    finally:
        server.close()
        line.cut()
        await server.wait_closed()
