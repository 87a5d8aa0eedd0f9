"""The plug-in of docs/storage-plugins.md: built, installed and used as the page says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.catalog.ingest import Event, ingest
from gateway.config import Config
from gateway.errors import ConfigurationError
from gateway.locations import Location, load_plugin, storage_locations
from gateway.storage import (
    CanFetch,
    CanKeep,
    CanSign,
    CanStage,
    CanStat,
    CanStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyUnavailableError,
    KnowsTape,
    OnDisk,
)
from tests.harness import SCIENCE, SCIENTIST, TENANT, RunningGateway, config_for, running_gateway

PAGE = Path(__file__).parents[2] / "docs" / "storage-plugins.md"
CONTENT = random.Random(8).randbytes(300_000)
PIECE = 65536
NAME = f"{TENANT}/scene.bin"


def listing(heading: str) -> str:
    """The listing that follows ``heading`` in the page."""
    match = re.search(
        rf"{re.escape(heading)}\n\n```\w+\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert match is not None, heading
    return match[1]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the distribution installed, as pip installs it."""
    project, target = tmp_path_factory.mktemp("gateway-sqlite"), tmp_path_factory.mktemp("installed")
    for name in ("gateway_sqlite.py", "pyproject.toml"):
        (project / name).write_text(listing(f"`{name}`:"), encoding="utf-8")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(target: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plug-in, importable and announced."""
    monkeypatch.syspath_prepend(target)
    yield target
    sys.modules.pop("gateway_sqlite", None)


class Store:
    """The database of the page, and who writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.executescript(listing("there:"))

    def put(self, name: str, content: bytes) -> str:
        """Write or replace a file; returns its version."""
        version = hashlib.sha256(content).hexdigest()
        pieces = [(name, start, content[start : start + PIECE]) for start in range(0, len(content), PIECE)]
        with contextlib.closing(sqlite3.connect(self.path)) as database, database:
            database.execute("DELETE FROM pieces WHERE name = ?", [name])
            database.execute("REPLACE INTO files VALUES (?, ?, ?, ?)", [name, len(content), 1_700_000_000, version])
            database.executemany("INSERT INTO pieces VALUES (?, ?, ?)", pieces)
        return version


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "quicklooks.sqlite")


def table(store: Store) -> dict[str, Any]:
    """The ``[[storage]]`` of the page, with a database that is there."""
    [setting] = tomllib.loads(listing("`gateway.toml`:"))["storage"]
    return {**setting, "tenants": [TENANT], "database": str(store.path)}


def config(store: Store, **options: object) -> Config:
    dsn = "postgresql://nobody@127.0.0.1:1/none"
    return config_for(dsn, "redis://127.0.0.1:1", store.path.parent, storage=[{**table(store), **options}])


@pytest.fixture
async def location(installed: Path, store: Store) -> AsyncIterator[Location]:
    async with storage_locations(config(store).storage) as locations:
        yield locations["quicklooks"]


@pytest.fixture
def storage(location: Location) -> CanStream:
    assert isinstance(location.storage, CanStream)
    return location.storage


async def read(storage: CanStream, start: int, stop: int, version: str | None = None, name: str = NAME) -> bytes:
    pieces = []
    with contextlib.closing(await storage.stream(name, start, stop, version)) as stream:
        while piece := await stream.read():
            pieces.append(piece)
    return b"".join(pieces)


def test_it_is_a_whole_plugin_in_under_sixty_lines() -> None:
    assert len([line for line in listing("`gateway_sqlite.py`:").splitlines() if line.strip()]) < 60


def test_it_is_found_only_where_it_is_installed() -> None:
    with pytest.raises(ConfigurationError, match=r"plug-in 'sqlite' is not installed; installed are: .*local"):
        load_plugin("sqlite")


def test_it_is_found_with_its_capabilities(location: Location) -> None:
    assert location.prefixes == ("{tenant}/",)
    for capability, has in (
        (CanStat, True),
        (CanStream, True),
        (OnDisk, False),
        (CanSign, False),
        (CanStage, False),
        (CanFetch, False),
        (KnowsTape, False),
        (CanKeep, False),
    ):
        assert isinstance(location.storage, capability) is has


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"databse": "/x", "Thread": 1}, "Thread, databse: no such option of plug-in 'sqlite' (database)"),
        ({"database": 5}, "database: must be the absolute path of an SQLite file"),
        ({"database": "relative.sqlite"}, "database: must be the absolute path of an SQLite file"),
        ({"database": "/absent/quicklooks.sqlite"}, "database: must be the absolute path of an SQLite file"),
    ],
)
async def test_options_are_refused_by_name(
    installed: Path, store: Store, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with storage_locations(config(store, **options).storage):
            raise AssertionError
    assert str(caught.value) == f"storage 'quicklooks': {complaint}"


def test_a_gateway_process_with_a_wrong_option_says_so_and_ends(
    target: Path, store: Store, database: str, redis_url: str
) -> None:
    options = json.dumps([{**table(store), "databse": "/x"}])
    environment = {
        "PYTHONPATH": os.pathsep.join([str(target), *sys.path]),
        "GATEWAY_STORAGE": options,
        "GATEWAY_DATABASE__DSN": database,
        "GATEWAY_REDIS__URL": redis_url,
        "GATEWAY_SERVER__PORT": "0",
        "GATEWAY_IDENTITY__JWT": json.dumps([{"algorithms": ["HS256"], "secret": "s" * 32}]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "Error: storage 'quicklooks': databse: no such option of plug-in 'sqlite' (database)\n"


@pytest.mark.parametrize(
    ("href", "place"),
    [
        ("sqlite://quicklooks/esa/a.png", "esa/a.png"),
        ("sqlite://other/esa/a.png", None),
        ("sqlite://quicklooks2/esa/a.png", None),
        ("/quicklooks/esa/a.png", None),
        ("https://quicklooks/esa/a.png", None),
    ],
)
def test_it_locates_what_is_its_own(location: Location, href: str, place: str | None) -> None:
    assert location.storage.locate(href) == place


async def test_a_stream_gives_the_bytes_and_no_others(storage: CanStream, store: Store) -> None:
    version = store.put(NAME, CONTENT)
    stat = await storage.stat(NAME)
    assert (stat.size, stat.version) == (len(CONTENT), version)
    assert stat.modified is not None
    assert stat.modified.timestamp() == 1_700_000_000
    ends = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, len(CONTENT) - 1, len(CONTENT)]
    for start in ends:
        for stop in (stop for stop in ends if stop > start):
            assert await read(storage, start, stop, version) == CONTENT[start:stop]
    with contextlib.closing(await storage.stream(NAME, 0, 1, None)) as stream:
        assert stream.stat == stat


async def test_what_is_not_there_what_was_replaced_and_a_database_that_is_broken_are_told_apart(
    storage: CanStream, store: Store
) -> None:
    with pytest.raises(CopyNotFoundError):
        await storage.stat(NAME)
    with pytest.raises(CopyNotFoundError):
        await storage.stream(NAME, 0, 1, None)
    version = store.put(NAME, CONTENT)
    with pytest.raises(CopyChangedError):
        await storage.stream(NAME, 0, len(CONTENT) + 1, version)
    stream = await storage.stream(NAME, 0, len(CONTENT), version)
    assert CONTENT.startswith(await stream.read())
    store.put(NAME, CONTENT[::-1])
    with pytest.raises(CopyUnavailableError):
        await stream.read()
    stream.close()
    with pytest.raises(CopyChangedError):
        await storage.stream(NAME, 0, 1, version)
    store.path.write_bytes(b"no database at all" * 100)
    with pytest.raises(CopyUnavailableError):
        await storage.stat(NAME)


async def test_pieces_that_are_missing_cut_the_stream(storage: CanStream, store: Store) -> None:
    store.put(NAME, CONTENT)
    with contextlib.closing(sqlite3.connect(store.path)) as database, database:
        database.execute("DELETE FROM pieces WHERE start = ?", [PIECE])
    with pytest.raises(CopyUnavailableError):
        await read(storage, 0, len(CONTENT))


async def test_calls_that_are_cancelled_leave_it_whole(storage: CanStream, store: Store) -> None:
    store.put(NAME, CONTENT)
    for _ in range(30):
        task = asyncio.create_task(read(storage, 0, len(CONTENT)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await read(storage, 0, len(CONTENT)) == CONTENT


def item(tmp_path: Path, href: str) -> Path:
    """A file with a STAC Item that has one asset there."""
    file = tmp_path / "item.json"
    value: dict[str, object] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "scene",
        "collection": "restricted",
        "geometry": None,
        "properties": {"datetime": "2023-04-13T13:56:55Z"},
        "links": [],
        "assets": {"data": {"href": href, "type": "image/tiff", "file:checksum": "1220" + digest()}},
    }
    file.write_text(json.dumps(value))
    return file


def digest() -> str:
    return hashlib.sha256(CONTENT).hexdigest()


async def test_its_files_are_ingested_and_verified_within_its_tenants_and_prefixes(
    location: Location, store: Store, database: str, tmp_path: Path
) -> None:
    version = store.put(NAME, CONTENT)
    connection = await asyncpg.connect(database)
    try:
        for href, accepted in (
            (f"sqlite://quicklooks/{NAME}", 1),
            ("sqlite://quicklooks/moon/a.png", 0),
            (f"sqlite://quicklooks/{TENANT}/../moon/a.png", 0),
        ):
            events: list[Event] = []
            file = item(tmp_path, href)
            summary = await ingest(
                connection,
                tenant=TENANT,
                paths=[file],
                locations=[location],
                compute_checksums=True,
                on_event=events.append,
            )
            assert (summary.items.accepted, len(events)) == (accepted, 1 - accepted)
        [row] = await connection.fetch("SELECT storage, location, size, version, verified_version FROM copies")
        assert tuple(row) == ("quicklooks", NAME, len(CONTENT), version, version)
    finally:
        await connection.close()


@dataclasses.dataclass
class Served:
    """A gateway that serves the file of the store, ingested."""

    gateway: RunningGateway
    path: str


@pytest.fixture
async def served(installed: Path, store: Store, database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    store.put(NAME, CONTENT)
    settings = config_for(database, redis_url, tmp_path, storage=[table(store)])
    async with running_gateway(settings, tmp_path) as gateway:
        connection = gateway.catalogue.connection
        async with storage_locations(settings.storage) as locations:
            paths = [item(tmp_path, f"sqlite://quicklooks/{NAME}")]
            await ingest(
                connection, tenant=TENANT, paths=paths, locations=list(locations.values()), on_event=lambda _: None
            )
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group(SCIENCE))
        yield Served(gateway, "/collections/restricted/items/scene/download/data")


async def test_a_running_gateway_serves_its_files(served: Served) -> None:
    response, body = await served.gateway.get(served.path, SCIENTIST)
    assert (response.status, body) == (200, CONTENT)
    assert response.headers["Content-Length"] == str(len(CONTENT))
    assert response.headers["ETag"] == f'"{digest()}"'
    assert response.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert await served.gateway.usage(SCIENTIST) == (1, len(CONTENT))


async def test_a_running_gateway_serves_ranges_and_heads_of_its_files(served: Served) -> None:
    response, body = await served.gateway.get(served.path, SCIENTIST, Range="bytes=65530-65545")
    assert (response.status, body) == (206, CONTENT[65530:65546])
    response, body = await served.gateway.get(served.path, SCIENTIST, Range="bytes=0-9,299990-")
    assert response.status == 206
    assert CONTENT[:10] in body
    assert CONTENT[299990:] in body
    response, body = await served.gateway.request("HEAD", served.path, SCIENTIST)
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"", str(len(CONTENT)))


async def test_a_running_gateway_refuses_a_file_that_was_replaced_and_one_that_is_gone(
    served: Served, store: Store
) -> None:
    store.put(NAME, CONTENT[::-1])
    response, body = await served.gateway.get(served.path, SCIENTIST)
    assert response.status == 502
    assert CONTENT[:100] not in body
    with contextlib.closing(sqlite3.connect(store.path)) as database, database:
        database.execute("DELETE FROM files")
    response, _ = await served.gateway.get(served.path, SCIENTIST)
    assert response.status == 404
