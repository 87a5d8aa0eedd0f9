"""Real PostgreSQL and Redis for every test that asks for them, started once a session."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis
from hypothesis import settings

from gateway.embedded import Services, run_services
from tests.canaries import CANARIES
from tests.harness import SCIENCE, SECRET, RunningGateway, config_for, running_gateway

pytest_plugins = ("tests.redis_servers", "tests.s3.fixtures")

# No example fails because the machine is slow.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")

SCHEMA = Path(__file__).parents[1] / "schema.sql"


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The neighbours GATEWAY_TEST_POSTGRES_DSN (a role with CREATEDB) and GATEWAY_TEST_REDIS_URL (emptied by the
    tests!), else embedded ones.
    """
    dsn, url = os.environ.get("GATEWAY_TEST_POSTGRES_DSN"), os.environ.get("GATEWAY_TEST_REDIS_URL")
    if dsn and url:
        yield Services(dsn, url, tmp_path_factory.mktemp("services"))
    else:
        with run_services() as embedded:
            for parts in map(urlsplit, (embedded.postgres_dsn, embedded.redis_url)):
                CANARIES.hide(f"password of {parts.scheme}", str(parts.password))
            yield Services(dsn or embedded.postgres_dsn, url or embedded.redis_url, embedded.directory)


@pytest.fixture(scope="session", autouse=True)
def _hearing_all() -> Iterator[None]:
    logging.getLogger().addHandler(CANARIES)
    CANARIES.hide("the key of tokens", SECRET)
    yield
    logging.getLogger().removeHandler(CANARIES)


@pytest.fixture(autouse=True)
def _no_secret_is_seen() -> Iterator[None]:
    """Whatever a test does: no secret is in a log or an answer."""
    yield
    leaks, CANARIES.leaks = CANARIES.leaks, []
    assert not leaks


Result = TypeVar("Result")
Execute = Callable[[str], None]
"""Executes SQL."""


@pytest.fixture(scope="session")
def on_server(services: Services) -> Iterator[Execute]:
    """Executes on the server's own database; hundreds of tests would each open connections of their own for it."""
    with executing(services.postgres_dsn) as execute:
        yield execute


@pytest.fixture(scope="session")
def template_database(services: Services, on_server: Execute) -> Iterator[str]:
    """The name of a database with the schema, for copying."""
    name = f"gateway_template_{secrets.token_hex(4)}"
    on_server(f"CREATE DATABASE {name}")
    try:
        with executing(dsn_of_database(services.postgres_dsn, name)) as execute:
            execute(SCHEMA.read_text(encoding="utf-8"))
        yield name
    finally:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def fresh_database(services: Services, template: str, on_server: Execute) -> Iterator[str]:
    """The DSN of a copy of ``template``, which is dropped at the end."""
    name = f"gateway_test_{secrets.token_hex(4)}"
    on_server(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield dsn_of_database(services.postgres_dsn, name)
    finally:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(services: Services, template_database: str, on_server: Execute) -> Iterator[str]:
    """The DSN of a fresh database with the schema and nothing else, for one test."""
    with fresh_database(services, template_database, on_server) as dsn:
        yield dsn


@pytest.fixture
def redis_url(services: Services) -> str:
    """The URL of an emptied logical database; each worker of pytest-xdist has its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    parts = urlsplit(services.redis_url)
    url = parts._replace(path=f"/{worker.removeprefix('gw')}").geturl() if worker else services.redis_url
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def dsn_of_database(dsn: str, name: str) -> str:
    """``dsn`` with another database of the same server."""
    parts = urlsplit(dsn)
    return f"{parts.scheme}://{parts.netloc}/{name}" + (f"?{parts.query}" if parts.query else "")


@contextlib.contextmanager
def executing(dsn: str) -> Iterator[Execute]:
    """Executes on one connection, which has a loop of its own."""
    loop = asyncio.new_event_loop()
    try:
        connection = _run_in_thread(loop, asyncpg.connect(dsn, timeout=10))

        def execute(statement: str) -> None:
            _run_in_thread(loop, connection.execute(statement, timeout=30))

        try:
            yield execute
        finally:
            _run_in_thread(loop, connection.close(timeout=10))
    finally:
        loop.close()


def _run_in_thread(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` wherever the fixture is asked for: the test's loop, which may be running, is left alone."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(loop.run_until_complete, work).result()


@pytest.fixture
def no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on in the background waits for an hour: round trips are those of requests alone."""
    monkeypatch.setattr("gateway.notifications.PING_SECONDS", 3600.0)
    for name in ("LOOK_SECONDS", "DRAIN_SECONDS", "SWEEP_SECONDS"):
        monkeypatch.setattr(f"gateway.quotas.upkeep.{name}", 3600.0)
    monkeypatch.setattr("gateway.ops.audit.GATHER_SECONDS", 3600.0)
    monkeypatch.setattr("gateway.orders.worker.LOOK_SECONDS", 3600.0)


@pytest.fixture
async def gateway(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A running gateway: group ``science`` may download the collection ``restricted``, everyone ``open``."""
    root = tmp_path / "archive"
    root.mkdir()
    async with running_gateway(config_for(database, redis_url, root), root) as running:
        catalogue = running.catalogue
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        await catalogue.grant("open", await catalogue.group("everyone", public=True))
        yield running
