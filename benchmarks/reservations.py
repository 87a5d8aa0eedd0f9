"""What quotas add to a download: the gateway's beside the same scripts by plain redis-py, and beside rate limiters.

``python -m benchmarks.reservations``: one process lets downloads begin and end, one at a time and 64 at a time. Sides,
in turn within each round:

- gateway: `Quotas.reserve` and `settle`, with all that goes on behind them: events brought to PostgreSQL, heartbeats;
- plain redis-py: the very same scripts with the very same arguments, each by an EVALSHA of its own on a connection
  of a pool; nothing is brought to PostgreSQL;
- limits, throttled-py: one hit of a fixed window in Redis. They count one thing once and have nothing to settle.

The client has a core of its own, Valkey and PostgreSQL another one. Every download is counted for its user and its
tenant, and bound by three limits that are never reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version

import asyncpg
import click
import limits
import limits.aio.storage
import limits.aio.strategies
import redis.asyncio
import throttled.asyncio

from benchmarks.harness import conditions, ending_in_order
from benchmarks.in_process import Comparison, NotDoneError, Side, nothing
from benchmarks.options import numbers
from benchmarks.processes import choose_cores, on_core
from gateway.catalog.model import File
from gateway.config import Database as DatabaseSettings
from gateway.config import Quotas as QuotaSettings
from gateway.config import Redis as RedisSettings
from gateway.db import apply_schema, connect
from gateway.delivery.transfer import Transfer
from gateway.embedded import Services, run_services
from gateway.identity.principal import Principal
from gateway.quotas import accounts as counters
from gateway.quotas.calls import SCRIPTS
from gateway.quotas.keys import Keys
from gateway.quotas.leases import first_mark
from gateway.quotas.ledger import Balance
from gateway.quotas.limits import Limit, accounts_of
from gateway.quotas.recovery import REMEMBER_SECONDS
from gateway.quotas.reservation import Reservation, limit_arguments
from gateway.quotas.upkeep import open_quotas

USERS, CONTENTS = 100, 1000
SIZE = 1_000_000
NEVER = 10**12
"""A limit that is not reached."""
TTL = 60
POOL = 64
"""Connections that redis-py has for itself, so that nobody waits for one."""
DRAINED_SECONDS = 30.0
GOAL = "to reach: 2.5 times as many downloads/s as plain redis-py with 64 at a time"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--downloads", default=5000, show_default=True, type=click.IntRange(100, 10**6), help="In each round.")
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(1, 1000))
@click.option("--at-a-time", default="1,64", show_default=True, callback=numbers(1, 1000), help="Downloads.")
def main(downloads: int, rounds: int, at_a_time: list[int]) -> None:
    """Compare what each side adds to a download, and print medians, spreads and ratios."""
    cores = choose_cores()
    with ending_in_order():
        with on_core(cores.load):
            services = run_services()
            running = services.__enter__()
        try:
            with on_core(cores.server):
                pinned = f"client on core {cores.server}, Valkey and PostgreSQL on core {cores.load}"
                packages = (f"{name} {version(name)}" for name in ("hiredis", "limits", "throttled-py"))
                click.echo(conditions(pinned, "loopback", *packages))
                asyncio.run(_run(running, downloads, rounds, at_a_time))
        finally:
            services.__exit__(None, None, None)


async def _run(services: Services, downloads: int, rounds: int, at_a_time: Sequence[int]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sides = [
            await stack.enter_async_context(side)
            for side in (
                gateway(services),
                plain_redis(services.redis_url),
                rate_limits(services.redis_url),
                throttles(services.redis_url),
            )
        ]
        await Comparison("downloads", "added", "Valkey").run(sides, downloads, rounds, at_a_time)
    click.echo(f"\n{GOAL}")


@contextlib.asynccontextmanager
async def gateway(services: Services) -> AsyncIterator[Side]:
    """Quotas as they are, with their ledger."""
    tenant, files = "gateway", _files()
    callers = _callers(tenant)
    connection = await asyncpg.connect(services.postgres_dsn)
    await apply_schema(connection)
    await connection.execute("INSERT INTO tenants (name) VALUES ($1)", tenant)
    database_settings = DatabaseSettings.model_validate({"dsn": services.postgres_dsn})
    redis_settings = RedisSettings.model_validate({"url": services.redis_url})
    async with (
        redis.asyncio.Redis.from_url(services.redis_url) as client,
        connect(database_settings, ()) as database,
        open_quotas(redis_settings, QuotaSettings(), database) as quotas,
    ):

        async def download(number: int) -> None:
            transfer = Transfer(SIZE)
            lease = await quotas.reserve(callers[number % USERS], files[number % CONTENTS], transfer)
            transfer.sent, transfer.finished = SIZE, True
            await quotas.settle(lease, delivered=True)

        async def drained() -> None:
            deadline = time.monotonic() + DRAINED_SECONDS
            while await client.xlen(Keys(tenant, 1).events):
                if time.monotonic() > deadline:
                    raise NotDoneError("the events do not go to the ledger")
                await asyncio.sleep(0.02)

        yield Side("gateway", download, drained)
    events = await connection.fetchval("SELECT count(*) FROM quota_ledger")
    await connection.close()
    if events == 0 or events % 2:
        raise NotDoneError(f"the ledger has {events} events, and each download should have two")


@contextlib.asynccontextmanager
async def plain_redis(url: str) -> AsyncIterator[Side]:
    """The scripts by redis-py, as anybody would run them: one call each."""
    tenant, scripts, files, settings = "plain", SCRIPTS, _files(), QuotaSettings()
    keys, callers = Keys(tenant, 1), _callers(tenant)
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=POOL)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        for script in scripts.values():
            await client.script_load(script.text)

        async def run(name: str, names: Sequence[str], arguments: Sequence[str | int]) -> list[bytes]:
            answer: list[bytes] = await client.evalsha(scripts[name].sha, len(names), *names, *arguments)
            return answer

        await run("open", (keys.state,), (0, "the benchmark"))
        day = int(time.time()) // 86400
        for account in {account for file in files for account in accounts_of(callers[0], file.limits)}:
            await run("load", *counters.arguments("load", keys, Balance(account, 0, {}), day))

        async def download(number: int) -> None:
            file = files[number % CONTENTS]
            accounts = accounts_of(callers[number % USERS], file.limits)
            content = f"{file.checksum_algorithm}:{file.checksum}"
            reservation = Reservation(tenant, secrets.token_urlsafe(16), accounts, content, (), SIZE, SIZE)
            names = reservation.keys(keys)
            most = 10**9  # nothing takes the events away
            about = (SIZE, first_mark(SIZE), SIZE, settings.window, TTL, most, reservation.about, "", "stream")
            answer = await run(
                "reserve", names, (reservation.identifier, *about, *limit_arguments(file.limits, accounts))
            )
            if answer[0] != b"granted":
                raise NotDoneError(f"plain redis-py is answered {answer[0]!r}")
            await run("finish", names, (reservation.identifier, "settle", SIZE, 1, settings.window, REMEMBER_SECONDS))

        async def cleared() -> None:
            await client.xtrim(keys.events, maxlen=0, approximate=False)

        yield Side("plain redis-py", download, cleared)


@contextlib.asynccontextmanager
async def rate_limits(url: str) -> AsyncIterator[Side]:
    """The package limits."""
    storage = limits.aio.storage.RedisStorage(f"async+{url}", implementation="redispy", max_connections=POOL)
    limiter = limits.aio.strategies.FixedWindowRateLimiter(storage)
    item = limits.RateLimitItemPerDay(NEVER)

    async def download(number: int) -> None:
        if not await limiter.hit(item, "user", str(number % USERS)):
            raise NotDoneError("limits refuses")

    yield Side("limits", download, nothing)


@contextlib.asynccontextmanager
async def throttles(url: str) -> AsyncIterator[Side]:
    """The package throttled-py."""
    store = throttled.asyncio.RedisStore(server=url)
    throttle = throttled.asyncio.Throttled(
        using="fixed_window", quota=throttled.asyncio.per_day(NEVER), store=store, timeout=-1
    )

    async def download(number: int) -> None:
        result = await throttle.limit(f"user-{number % USERS}")
        if result.limited:
            raise NotDoneError("throttled-py refuses")

    yield Side("throttled-py", download, nothing)


def _callers(tenant: str) -> list[Principal]:
    return [Principal(tenant, _email(number), _email(number), "REGISTERED_USER") for number in range(USERS)]


def _email(number: int) -> str:
    return f"user-{number}@example.org"


def _files() -> list[File]:
    return [_file(number) for number in range(CONTENTS)]


def _file(number: int) -> File:
    account = f"user:{_email(number % USERS)}"
    return File(
        file_id=number,
        product="urn",
        data_type="RAWDATA",
        name="file",
        mime_type=None,
        size=SIZE,
        checksum=f"{number:064x}",
        checksum_algorithm="SHA-256",
        reference=False,
        copies=(),
        visible_to_all=False,
        is_open=False,
        is_metered=True,
        limits=(
            Limit(account, "downloads", "total", NEVER),
            Limit(account, "concurrent", "now", NEVER),
            Limit("tenant", "bytes", "day", 2**53),
        ),
    )


if __name__ == "__main__":
    main()
