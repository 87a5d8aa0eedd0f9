"""A gateway behind a proxy that sends its files."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import aiohttp
import pytest
import yarl

from gateway.identity.principal import Principal
from tests.harness import SCIENCE, RunningGateway, bearer, config_for, running_gateway
from tests.offload.proxies import KINDS, NGINX, Kind, running

Fields = Sequence[tuple[str, str]]

ELSEWHERE = "127.0.0.2"
"""Where the tests' clients connect from: the proxy is told from them by its loopback address."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    fields: Fields
    """The header, line by line."""
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of each line of a field."""
        return [value for key, value in self.fields if key == name.lower()]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same gateway, by itself and through the proxy in front."""

    kind: Kind
    gateway: RunningGateway
    proxy_url: str
    archive: Path
    elsewhere: aiohttp.ClientSession
    """Connects from ELSEWHERE."""
    _ids: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    async def direct(self, path: str, who: Principal | None = None, fields: Fields = (), method: str = "GET") -> Answer:
        """Ask the gateway itself."""
        return await _ask(self.elsewhere, method, f"{self.gateway.url}{path}", who, fields)

    async def through(
        self, path: str, who: Principal | None = None, fields: Fields = (), method: str = "GET"
    ) -> Answer:
        """Ask by way of the proxy."""
        return await _ask(self.elsewhere, method, f"{self.proxy_url}{path}", who, fields)

    def request_id(self) -> tuple[str, str]:
        """A field that names a request, to find it in the log by."""
        return "X-Request-ID", f"request-{next(self._ids)}"

    async def logged(self, request_id: tuple[str, str]) -> dict[str, object]:
        """The line of the access log, which is written once the gateway is done."""
        async with asyncio.timeout(20):
            while True:
                for line in self.gateway.access_log:
                    fields: dict[str, object] = json.loads(line)
                    if fields["request_id"] == request_id[1]:
                        return fields
                await asyncio.sleep(0.005)


async def _ask(session: aiohttp.ClientSession, method: str, url: str, who: Principal | None, fields: Fields) -> Answer:
    sent = [*fields, *bearer(who).items()] if who is not None else fields
    target = yarl.URL(url, encoded=True)
    async with session.request(method, target, headers=sent, allow_redirects=False) as response:
        raw = [(name.decode("ascii").lower(), value.decode("latin-1")) for name, value in response.raw_headers]
        return Answer(response.status, raw, await response.read())


@pytest.fixture
def archive() -> Iterator[Path]:
    """A directory that the user a proxy runs as can read, too."""
    directory = Path(tempfile.mkdtemp(prefix="gateway-offload-")).resolve()
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@contextlib.asynccontextmanager
async def pair(kind: Kind, database: str, redis_url: str, archive: Path, directory: Path) -> AsyncIterator[Pair]:
    """Run a gateway that lists the proxy, and the proxy."""
    config = config_for(
        database, redis_url, archive,
        server={"port": 0, "shutdown_timeout": 1, "trusted_proxies": ["127.0.0.1"]},
        storage=[{
            "name": "disk", "plugin": "local", "tenants": ["*"], "root": str(archive),
            "offload": kind.field, "offload_prefix": kind.prefix(archive),
        }],
    )  # fmt: skip
    # A machine that is busy with other things makes for no 503.
    patient = {name: getattr(config, name).model_copy(update={"timeout": 20}) for name in ("database", "redis")}
    config = config.model_copy(update=patient)
    async with (
        running_gateway(config, archive) as gateway,
        aiohttp.ClientSession(
            auto_decompress=False, connector=aiohttp.TCPConnector(local_addr=(ELSEWHERE, 0))
        ) as elsewhere,
    ):
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group(SCIENCE))
        with running(kind, gateway.url, archive, directory) as url:
            yield Pair(kind, gateway, url, archive, elsewhere)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def offloading(
    request: pytest.FixtureRequest,
    database: str,
    redis_url: str,
    archive: Path,
    tmp_path: Path,
) -> AsyncIterator[Pair]:
    """Each proxy in turn."""
    async with pair(request.param, database, redis_url, archive, tmp_path) as both:
        yield both


@pytest.fixture
async def nginx(database: str, redis_url: str, archive: Path, tmp_path: Path) -> AsyncIterator[Pair]:
    """nginx alone: what only it is handed."""
    async with pair(NGINX, database, redis_url, archive, tmp_path) as both:
        yield both
