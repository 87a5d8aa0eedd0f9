"""One gateway for the whole package, and nginx both before it and beside it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import redis

from gateway.embedded import Services
from tests.conformance import nginx
from tests.conformance.http1 import ProtocolError
from tests.conformance.table import EMPTY, TABLE, Case
from tests.conformance.targets import OverCurl, OverSocket, Run, Served, Server, put
from tests.conftest import Execute, fresh_database
from tests.e2e.conftest import REQUIRE_CLIENTS
from tests.harness import SCIENCE, SCIENTIST, Entry, RunningGateway, bearer, config_for, running_gateway
from tests.offload import proxies

T = TypeVar("T")

MODIFIED = 1_738_555_506.789
"""3 February 2025 04:05:06.789 UTC: a day of one digit, and a fraction that Last-Modified must not round up."""

PNG = b"\x89PNG\r\n\x1a\n"
"""How the files begin, as their type says: linters look."""

CONTENTS = {
    "small": PNG + random.Random(3).randbytes(992),
    "large": PNG + random.Random(4).randbytes(299_999),
    "empty": b"",
}
"""Below and above the size from which the gateway uses sendfile, and the size that has no ranges."""

CASES: dict[str, list[Case]] = {"small": TABLE, "large": TABLE, "empty": EMPTY}


@dataclasses.dataclass(frozen=True)
class Stand:
    """A gateway that runs in a thread of its own, so that tests may block."""

    running: RunningGateway
    root: Path
    files: dict[str, Entry]
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.running.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` where the gateway runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def add(self, content: bytes, **options: Any) -> Entry:
        """A file that was changed at ``MODIFIED``."""
        catalogue = self.running.catalogue
        entry = await catalogue.file(content, **options)
        os.utime(entry.path, (MODIFIED, MODIFIED))
        found = entry.path.stat()
        await catalogue.connection.execute(
            "UPDATE copies SET modified = to_timestamp($1), version = $2 WHERE location = $3",
            int(MODIFIED),
            f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}",
            str(entry.path.relative_to(self.root)),
        )
        return entry


@contextlib.asynccontextmanager
async def _stand(database: str, redis_url: str, root: Path) -> AsyncIterator[Stand]:
    # Files are left to a listed proxy that offers to send them; to all others they are streamed.
    config = config_for(
        database, redis_url, root,
        server={"port": 0, "shutdown_timeout": 1, "trusted_proxies": ["127.0.0.1"]},
        storage=[{
            "name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root),
            "offload": proxies.NGINX.field, "offload_prefix": proxies.NGINX.prefix(root),
        }],
    )  # fmt: skip
    async with running_gateway(config, root) as running:
        files: dict[str, Entry] = {}
        stand = Stand(running, root, files, asyncio.get_running_loop())
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        await running.catalogue.grant("open", await running.catalogue.group("everyone", public=True))
        for name, content in CONTENTS.items():
            mime_type = "image/png" if content else "text/plain"
            files[name] = await stand.add(content, item=name, mime_type=mime_type)
        yield stand


@contextlib.contextmanager
def _in_a_thread(database: str, redis_url: str, root: Path) -> Iterator[Stand]:
    ready: Future[tuple[Stand, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with _stand(database, redis_url, root) as stand:
            ready.set_result((stand, stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=run, name="gateway")
    thread.start()
    try:
        stand, stop = ready.result(30)
        try:
            yield stand
        finally:
            stand.loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()


@pytest.fixture(scope="package")
def stand(
    services: Services, template_database: str, on_server: Execute, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    """A gateway over a real socket with the files of ``CONTENTS``."""
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushdb()
    root = tmp_path_factory.mktemp("archive")
    with (
        fresh_database(services, template_database, on_server) as dsn,
        _in_a_thread(dsn, services.redis_url, root) as running,
    ):
        yield running


@dataclasses.dataclass(frozen=True)
class Proxy:
    """nginx with the shipped configuration before the gateway."""

    directory: Path
    redirect: tuple[str, int]
    clear: tuple[str, int]
    tls: int

    @property
    def certificate(self) -> Path:
        return self.directory / "gateway.crt"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.tls}"


@pytest.fixture(scope="package")
def proxy(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """See `Proxy`."""
    nginx.program()
    directory = tmp_path_factory.mktemp("proxy")
    nginx.make_certificate(directory)
    redirect, clear, tls = nginx.free_ports(3)
    text = nginx.deployed(directory, gateway=stand.address, redirect=redirect, clear=clear, tls=tls)
    with nginx.running(directory, text, tls):
        yield Proxy(directory, ("127.0.0.1", redirect), ("127.0.0.1", clear), tls)


@pytest.fixture(scope="package")
def offload(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of nginx before the gateway that sends the files which the gateway leaves to it."""
    with proxies.running(proxies.NGINX, stand.running.url, stand.root, tmp_path_factory.mktemp("offload")) as url:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        yield parts.hostname, parts.port


@pytest.fixture(scope="package")
def static(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of nginx that serves the same files by itself: the oracle."""
    nginx.program()
    directory = tmp_path_factory.mktemp("static")
    (port,) = nginx.free_ports(1)
    text = nginx.static(directory, port=port, root=stand.root)
    with nginx.running(directory, text, port):
        yield "127.0.0.1", port


def curl() -> str:
    """The path of curl; the test is skipped, or fails, without one."""
    found = shutil.which("curl")
    if found is None:
        if os.environ.get(REQUIRE_CLIENTS):
            pytest.fail("curl is missing, and this run must have it")
        pytest.skip("curl is not installed")
    return found


Runs = Callable[[str, str], Run]
"""From the names of a server and a file to what the one answered about the other."""

SERVERS = ("gateway", "gateway, pipelined", "proxy, HTTP/1.1", "proxy, HTTP/2", "proxy, X-Accel-Redirect")
STATIC = "nginx alone"


@pytest.fixture(scope="package")
def runs(stand: Stand, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The table put to each server, once and when it is first asked for."""

    def server(name: str) -> Server:
        if name.startswith("gateway"):
            return OverSocket(stand.address, depth=16 if name == "gateway, pipelined" else 1)
        if fixture := {STATIC: "static", "proxy, X-Accel-Redirect": "offload"}.get(name):
            return OverSocket(request.getfixturevalue(fixture), may_hang_up=True)
        proxy: Proxy = request.getfixturevalue("proxy")
        if name == "proxy, HTTP/1.1":
            return OverSocket(proxy.clear)
        return OverCurl(curl(), proxy.url, proxy.certificate, tmp_path_factory.mktemp("curl"))

    def served(name: str, file: str) -> Served:
        entry = stand.files[file]
        if name == STATIC:
            target = f"/{entry.path.relative_to(stand.root)}"
            return Served(entry.content, target, f"{target}-absent")
        return Served(entry.content, entry.stac, f"{entry.stac}-absent", list(bearer(SCIENTIST).items()))

    done: dict[tuple[str, str], Run | Exception] = {}

    def run(name: str, file: str) -> Run:
        if (name, file) not in done:
            try:
                done[name, file] = put(CASES[file], served(name, file), server(name))
            except Exception as error:  # noqa: BLE001 - raised below, for every test that needs this run
                done[name, file] = error
        known = done[name, file]
        if isinstance(known, Exception):
            # A new one each time: the traceback of one that is raised for every case would grow and grow.
            raise ProtocolError(f"{name}, {file}: {known!r}")
        return known

    return run
