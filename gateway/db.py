"""PostgreSQL: a bounded pool for look-ups, and the schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from gateway.config import Database as DatabaseSettings
from gateway.errors import ConfigurationError, GatewayError, unavailable

SCHEMA_VERSION = 6
"""The version that schema.sql brings a database to."""

STAGING_POOL = 4
"""Connections of a process for restores."""
BESIDE_POOL = 12 + STAGING_POOL
"""Connections of a gateway process beside its pool: one listens for changes, one writes the record of downloads, up to
four take pushed items, six fill baskets, and make and prepare orders, and some restore."""

_SCHEMA_LOCK = 0x64_6F_77_6E_6C_6F_61_64
"""Advisory lock that keeps two processes from changing the schema at once."""

NEIGHBOUR_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that ends at that very moment
)
"""What a PostgreSQL that is gone, slow or stopping raises."""

_CLASSES_OF_SERVER = frozenset({"08", "28", "3D", "42", "53", "55", "57"})
"""Of SQLSTATE (PostgreSQL, Appendix A): no connection, not let in, no such database, no privilege or table, no
resources, locked, stopping or cancelled. A statement fails with these whatever it is asked with."""


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        """Nothing: look-ups leave no state in a session, and the reset would be a round trip for each."""
        return ""


Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"
"""One of one's own, or of the pool."""


class Database:
    """Runs statements. No connection is held longer than one of them takes."""

    def __init__(self, pool: asyncpg.Pool[Any], timeout: float) -> None:
        self._pool = pool
        self.timeout = timeout
        """Seconds that a statement may take, waiting for a connection included."""

    @property
    def most(self) -> int:
        """Statements that can run at a time."""
        return self._pool.get_max_size()

    async def fetch(self, statement: str, *parameters: object) -> list[asyncpg.Record]:
        """The rows of ``statement``, in autocommit.

        Raises:
            GatewayError: 503; no answer in time.
        """
        try:
            async with asyncio.timeout(self.timeout), self._pool.acquire() as connection:
                rows: list[asyncpg.Record] = await connection.fetch(statement, *parameters)
                return rows
        except NEIGHBOUR_ERRORS as error:
            raise no_answer() from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, for administration: all of the block, or nothing, within the deadline.

        Raises:
            GatewayError: 503; no answer in time. Errors of constraints pass: they are the caller's business.
        """
        try:
            async with asyncio.timeout(self.timeout), self._pool.acquire() as connection, connection.transaction():
                yield connection
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError):
            raise
        except NEIGHBOUR_ERRORS as error:
            raise no_answer() from error

    async def ping(self) -> None:
        """Ask PostgreSQL for a sign of life.

        Raises:
            GatewayError: 503.
        """
        await self.fetch("SELECT 1")


def no_answer() -> GatewayError:
    """503: PostgreSQL gave no answer, or not in time."""
    return unavailable("The catalogue does not answer at the moment; try again.", code="CatalogUnavailable")


def is_of_server(error: Exception) -> bool:
    """Whether what `Database.fetch` raised speaks of PostgreSQL, rather than of what the statement was asked with."""
    cause = error.__cause__ if isinstance(error, GatewayError) else error
    if isinstance(cause, asyncpg.PostgresError):
        return str(cause.sqlstate)[:2] in _CLASSES_OF_SERVER
    return isinstance(cause, NEIGHBOUR_ERRORS)


@asynccontextmanager
async def connect(
    settings: DatabaseSettings, warm_up: Sequence[tuple[str, tuple[object, ...]]]
) -> AsyncIterator[Database]:
    """Open the pool; every connection runs ``warm_up`` once, so that its statements are prepared.

    Raises:
        ConfigurationError: the database cannot be reached, or its schema is of another version.
    """

    async def prepare(connection: asyncpg.Connection[Any]) -> None:
        # A batch is planned once: else PostgreSQL takes a plan made for one question only to be cheaper, and makes it
        # anew each time, which costs far more than the look-up.
        # Statements that look costly to the planner take milliseconds, of which compiling them would make hundreds.
        await connection.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
        for statement, parameters in warm_up:
            await connection.fetch(statement, *parameters)

    await check_schema(settings)
    async with asyncpg.create_pool(
        settings.dsn.get_secret_value(),
        # Look-ups share round trips: more connections are opened when these get long.
        min_size=1,
        max_size=settings.pool_size,
        max_inactive_connection_lifetime=0,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=0,  # any: the longest take longest to plan
        connection_class=_Connection,
        init=prepare,
        timeout=settings.timeout,
        server_settings={"application_name": "download-gateway"},
    ) as pool:
        yield Database(pool, settings.timeout)


@asynccontextmanager
async def connect_for_writing(settings: DatabaseSettings, *, most: int, timeout: float) -> AsyncIterator[Database]:  # noqa: ASYNC109 - of each transaction
    """Open a pool for long transactions, apart from that of look-ups: at most ``most`` connections, made when needed.

    ``timeout`` is in seconds, of a transaction as a whole.
    """
    async with asyncpg.create_pool(
        settings.dsn.get_secret_value(),
        min_size=0,
        max_size=most,
        max_inactive_connection_lifetime=300,
        connection_class=_Connection,
        timeout=settings.timeout,
        server_settings={"application_name": "download-gateway-writing"},
    ) as pool:
        yield Database(pool, timeout)


@asynccontextmanager
async def one_connection(settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of one's own, for work that is no look-up.

    Raises:
        ConfigurationError: the database cannot be reached.
    """
    try:
        connection = await asyncpg.connect(settings.dsn.get_secret_value(), timeout=max(settings.timeout, 10))
    except (*NEIGHBOUR_ERRORS, ValueError) as error:
        raise ConfigurationError(
            f"database.dsn: PostgreSQL cannot be reached there: {type(error).__name__}: {error}"
        ) from error
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def check_schema(settings: DatabaseSettings) -> None:
    """See that the database has the schema of this gateway.

    Raises:
        ConfigurationError: it cannot be reached, has no schema, or one of another version.
    """
    async with one_connection(settings) as connection:
        await check_schema_of(connection)


async def check_schema_of(connection: asyncpg.Connection[Any]) -> int:
    """The version of the schema, which is that of this gateway.

    Raises:
        ConfigurationError: there is no schema, or one of another version; what to do stands behind a semicolon.
    """
    version: int | None
    try:
        version = await connection.fetchval("SELECT max(version) FROM schema_version")
    except asyncpg.UndefinedTableError:
        version = None
    if version is None:
        raise ConfigurationError("database: has no schema yet; run: gateway migrate --config FILE")
    if version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"database: has schema version {version}, this gateway needs {SCHEMA_VERSION}; "
            + ("run: gateway migrate --config FILE" if version < SCHEMA_VERSION else "run a newer gateway")
        )
    return version


async def apply_schema(connection: asyncpg.Connection[Any]) -> None:
    """Run schema.sql, which brings an empty or older database to `SCHEMA_VERSION`; all of it or nothing."""
    text = await asyncio.to_thread(schema_file().read_text, encoding="utf-8")
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
        await connection.execute(text)


def schema_file() -> Path:
    """Where schema.sql lies: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "schema.sql"
    return packaged if packaged.exists() else here.parent / "schema.sql"
