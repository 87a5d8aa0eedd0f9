"""The record of downloads in PostgreSQL: the table ``download_log``, whose partitions are months."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import hmac
import logging
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import asyncpg

from gateway.catalog.model import Address, ByAsset
from gateway.config import Audit as AuditSettings
from gateway.config import Database as DatabaseSettings
from gateway.db import NEIGHBOUR_ERRORS
from gateway.identity.principal import Principal
from gateway.text import escaped

log = logging.getLogger(__name__)

TABLE = "download_log"
COLUMNS = (
    "at", "record", "tenant", "subject", "email", "role", "credential", "credential_id", "address", "method", "route",
    "path", "product", "file", "file_id", "verdict", "reason", "status", "promised", "sent", "storage", "delivery",
    "duration_ms", "request_id", "user_agent",
)  # fmt: skip
MOST_NAME, MOST_TEXT = 256, 1024
"""Characters that are kept of names, and of longer texts."""
SECONDS = 10.0
"""That a batch, or a look at the months, may take."""
LOCK_MILLISECONDS = 2000
"""That one waits for a lock. While somebody waits to make or drop a month, those who write wait behind him."""
_LOCK = 0x61_75_64_69_74
"""Advisory lock of whoever makes or drops a month."""
_SLICE = 50
"""Rows between two turns of the loop."""
_HASH_DIGITS = 32

_UNWRITABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    ValueError,  # asyncpg's own DataError among them
    TypeError,
    OverflowError,
)
"""What is wrong with a record, not with PostgreSQL."""

_KNOWN = f"""
SELECT EXISTS (
    SELECT FROM unnest($1::text[], $2::timestamptz[], $3::bigint[]) AS written(tenant, at, record)
    JOIN {TABLE} USING (tenant, at, record)
)"""  # noqa: S608 - made of constants; values are bound
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_MONTHS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::regclass"
_MONTH = re.compile(rf"{TABLE}_(\d{{4}})_(\d\d)")

Row = tuple[object, ...]


class Noted(NamedTuple):
    """What is kept of a request until it is written."""

    at: float
    """When the answer ended, seconds since the epoch."""
    record: int
    principal: Principal | None
    """None: no credential that holds."""
    client: str
    """IP address."""
    method: str
    route: str
    path: str
    product: str
    """Its URN; before it is found: as it was asked."""
    file: str
    """As it was asked."""
    file_id: int | None
    verdict: str
    reason: str | None
    status: int | None
    promised: int | None
    sent: int | None
    storage: str | None
    way: str | None
    seconds: float
    request_id: str | None
    user_agent: str | None


class AuditTable:
    """Writes records by a connection of its own, which is opened when it is needed."""

    def __init__(self, database: DatabaseSettings, settings: AuditSettings) -> None:
        self._dsn = database.dsn
        self._keep = datetime.timedelta(days=settings.keep_days)
        self._addresses = settings.addresses
        self._secret = settings.secret.get_secret_value().encode() if settings.secret is not None else b""
        self._hashed = functools.lru_cache(maxsize=4096)(self._hash)
        self._connection: asyncpg.Connection[Any] | None = None

    async def write(self, records: Sequence[Noted], *, again: bool) -> int:
        """Write a batch; see `gateway.ops.audit.Table`."""
        rows: list[Row] = []
        for start in range(0, len(records), _SLICE):
            rows += map(self.row, records[start : start + _SLICE])
            await asyncio.sleep(0)
        async with self._working() as connection:
            await self._make(connection, {month_of(record.at) for record in records})
            async with connection.transaction():
                # An attempt that was given up may still be about to commit: this waits for it.
                await self._lock(connection, records[0].record)
                if again:
                    at, number, tenant, *_ = zip(*rows, strict=True)
                    if await connection.fetchval(_KNOWN, tenant, at, number):
                        return 0
                return await self._copy(connection, rows)

    async def upkeep(self, now: float) -> None:
        """Make this month and the next one; drop those that ended more than `keep_days` ago.

        That is by PostgreSQL's clock, too: one that runs ahead must not cost all records.
        """
        this = month_of(now)
        async with self._working() as connection:
            await self._make(connection, {this, after(this)})
            today = datetime.datetime.fromtimestamp(min(now, await connection.fetchval(_CLOCK)), datetime.UTC).date()
            for month, name in (await _months(connection)).items():
                if after(month) <= today - self._keep:
                    await self._drop(connection, name)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=1)
            except NEIGHBOUR_ERRORS:
                connection.terminate()

    def row(self, record: Noted) -> Row:
        """The columns of ``record``: cut, without control characters, and with as much of the address as is kept."""
        return (
            datetime.datetime.fromtimestamp(record.at, datetime.UTC),
            record.record,
            *_who(record.principal),
            self._address(record.client),
            record.method,
            record.route,
            _text(record.path),
            _text(record.product),
            _text(record.file),
            record.file_id,
            record.verdict,
            _name(record.reason),
            record.status,
            record.promised,
            record.sent,
            _name(record.storage),
            record.way,
            round(record.seconds * 1000, 3),
            _name(record.request_id),
            _text(record.user_agent),
        )

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """The connection, within the deadline; it is given up if the work fails, as nobody knows its state then."""
        try:
            async with asyncio.timeout(SECONDS):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(
                        self._dsn.get_secret_value(),
                        timeout=SECONDS,
                        server_settings={"application_name": "download-gateway audit"},
                    )
                yield self._connection
        except BaseException:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.terminate()
            raise

    async def _copy(self, connection: asyncpg.Connection[Any], rows: Sequence[Row]) -> int:
        """Copy ``rows``; of what PostgreSQL does not take, everything else. How many it does not."""
        try:
            async with connection.transaction():
                await connection.copy_records_to_table(TABLE, records=_slowly(rows), columns=COLUMNS)
        except _UNWRITABLE as error:
            if len(rows) == 1:
                log.error("a record of a download cannot be written: %s", type(error).__name__)  # noqa: TRY400
                return 1
            half = len(rows) // 2
            return await self._copy(connection, rows[:half]) + await self._copy(connection, rows[half:])
        return 0

    async def _make(self, connection: asyncpg.Connection[Any], months: set[datetime.date]) -> None:
        # They are looked for each time: where there is none for a record, it could never be written.
        if months <= (await _months(connection)).keys():
            return
        async with connection.transaction():
            await self._lock(connection, _LOCK)
            for month in sorted(months - (await _months(connection)).keys()):
                name = f"{TABLE}_{month:%Y_%m}"
                # Attached rather than made in place, which would wait for every running query, and hold up all others
                # meanwhile.
                await connection.execute(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING ALL)")
                await connection.execute(
                    f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES "
                    f"FROM ('{month} 00:00+00') TO ('{after(month)} 00:00+00')"
                )

    async def _drop(self, connection: asyncpg.Connection[Any], name: str) -> None:
        try:
            async with connection.transaction():
                await self._lock(connection, _LOCK)
                await connection.execute(f"DROP TABLE IF EXISTS {name}")
        except asyncpg.LockNotAvailableError:
            log.info("%s is in use; it is dropped later", name)
        else:
            log.info("%s is dropped: its records are older than they are kept", name)

    @staticmethod
    async def _lock(connection: asyncpg.Connection[Any], number: int) -> None:
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", number)

    def _address(self, address: str) -> str | None:
        if not address or self._addresses == "none":
            return None
        return self._hashed(address) if self._addresses == "hashed" else _name(address)

    def _hash(self, address: str) -> str:
        return hmac.digest(self._secret, address.encode("utf-8", "replace"), "sha256").hex()[:_HASH_DIGITS]


def month_of(at: float) -> datetime.date:
    """The first day of the month (UTC) that ``at``, seconds since the epoch, lies in."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).date().replace(day=1)


def after(month: datetime.date) -> datetime.date:
    """The first day of the month after the one that begins with ``month``."""
    return (month + datetime.timedelta(days=31)).replace(day=1)


def names_of(asked: Address) -> tuple[str, str]:
    """Product and file as they are asked for."""
    if isinstance(asked, ByAsset):
        return f"{asked.collection}/{asked.item}", asked.asset
    return asked.product, asked.checksum


async def _months(connection: asyncpg.Connection[Any]) -> dict[datetime.date, str]:
    """The tables of the months that there are, by their first day."""
    names = [name for (name,) in await connection.fetch(_MONTHS, TABLE)]
    found = {name: match for name in names if (match := _MONTH.fullmatch(name))}
    return {datetime.date(int(match[1]), int(match[2]), 1): name for name, match in found.items()}


async def _slowly(rows: Sequence[Row]) -> AsyncIterator[Row]:
    """The rows, with turns of the loop in between: others are served meanwhile."""
    for number, row in enumerate(rows):
        if number % _SLICE == 0:
            await asyncio.sleep(0)
        yield row


@functools.lru_cache(maxsize=4096)
def _who(principal: Principal | None) -> tuple[str | None, ...]:
    """Tenant, subject, email, role, credential and which one."""
    if principal is None:
        return "", None, None, None, None, None
    tenant, subject, email, role = map(_name, (principal.tenant, principal.subject, principal.email, principal.role))
    link = principal.link.identifier if principal.link is not None else None
    return tenant, subject, email, role, principal.credential, principal.api_key or link


def _name(text: str | None) -> str | None:
    return None if text is None else escaped(text, MOST_NAME)


def _text(text: str | None) -> str | None:
    return None if text is None else escaped(text, MOST_TEXT)
