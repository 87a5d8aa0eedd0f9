"""Taking a large catalogue in, and pages of it over HTTP, beside stac-fastapi-pgstac with the same items.

``python -m benchmarks.stac_search --peer DIRECTORY``: makes items as NDJSON, has `gateway ingest` and ``pypgstac load``
take them in, then asks both servers for the same pages in turn, over one connection that is kept. The gateway's caller
is anonymous, and sees what public groups may; its peer knows no rights. DIRECTORY is a virtual environment with
``stac-fastapi.pgstac[server]`` and ``pypgstac[psycopg]``; the peer's PostgreSQL needs PostGIS (``--peer-postgresql``, a
directory with its programs). Both PostgreSQLs have the same settings. Without ``--peer`` the gateway is measured alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import http.client
import json
import os
import pwd
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import asyncpg
import click

from benchmarks.harness import conditions, ending_in_order
from benchmarks.processes import Cores, choose_cores, on_core, running, wait_until
from benchmarks.setting_up import RunningServer, free_port, running_gateway
from gateway.embedded import run_services

TENANT = "mission"
BEGIN = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)
YEARS = 10
DEEP = 10_000
"""The page that is far from the first, of 10 items each."""
POSTGRESQL = ("shared_buffers=256MB", "max_wal_size=4GB", "synchronous_commit=off")
WARM_UP = 3
_SECRET = "only-for-this-benchmark-only-for-this-benchmark"


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """A page, and how each of the servers is asked for it."""

    name: str
    ours: str
    theirs: str | None = None
    """None: as ours."""


def item(number: int, items: int, collections: int) -> dict[str, object]:
    """One of ``items``; collections are of very different sizes, as those of real archives."""
    start = BEGIN + datetime.timedelta(days=365.25 * YEARS * number / items)
    west, south = -180 + (number * 48271 % 359000) / 1000, -80 + (number * 69621 % 159000) / 1000
    east, north = west + 1, south + 1
    rank = int(collections * (number * 2654435761 % 1000003 / 1000003) ** 3)
    stamp = start.isoformat().replace("+00:00", "Z")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"item-{number}",
        "collection": f"collection-{rank}",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
        },
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": stamp,
            "platform": "sentinel-2a",
            "instruments": ["msi"],
            "eo:cloud_cover": number % 100,
            "gsd": 10,
            "proj:epsg": 32632,
            "grid:code": "MGRS-32TQM",
        },
        "links": [],
        "assets": {
            name: {"href": f"https://archive.example.org/{number}/{name}", "type": "image/tiff", "roles": ["data"]}
            for name in ("B02.tif", "B03.tif", "B04.tif")
        },
    }


def collection(rank: int) -> dict[str, object]:
    """The collection of a rank."""
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": f"collection-{rank}",
        "description": "Made for a benchmark.",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[BEGIN.isoformat(), None]]}},
        "links": [],
    }


def write_catalogue(directory: Path, items: int, collections: int) -> tuple[Path, Path]:
    """Files with the collections and the items, a line each."""
    first, second = directory / "collections.ndjson", directory / "items.ndjson"
    with first.open("w") as stream:
        stream.writelines(json.dumps(collection(rank)) + "\n" for rank in range(collections))
    with second.open("w") as stream:
        stream.writelines(json.dumps(item(number, items, collections)) + "\n" for number in range(items))
    return first, second


def asks(items: int, collections: int) -> Sequence[Ask]:
    """What both are asked for. The gateway's token of a deep page is made by itself; see `deep_token`."""
    middle = BEGIN + datetime.timedelta(days=365 * YEARS / 2)
    day, month = (f"{_stamp(middle)}/{_stamp(middle + datetime.timedelta(days=days))}" for days in (1, 30))
    searches = {
        "newest": {},
        "of one collection": {"collections": f"collection-{collections // 2}"},
        "a day": {"datetime": day},
        "the Alps": {"bbox": "5,44,17,48"},
        "the Alps, a month": {"bbox": "5,44,17,48", "datetime": month},
        "20 ids": {"ids": ",".join(f"item-{number * items // 21}" for number in range(1, 21)), "limit": "20"},
    }
    made = [Ask(name, f"/search?{urlencode({'limit': '10', **search})}") for name, search in searches.items()]
    place = f"/collections/collection-{collections // 2}/items/item-"
    return [*made, Ask("an item", place)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--items", default=1_000_000, show_default=True, type=click.IntRange(1000, 10**8))
@click.option("--collections", default=100, show_default=True, type=click.IntRange(2, 10**4))
@click.option("--rounds", default=30, show_default=True, type=click.IntRange(3, 1000))
@click.option("--peer", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--peer-postgresql",
    default="/usr/lib/postgresql/15/bin",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
)
def main(items: int, collections: int, rounds: int, peer: Path | None, peer_postgresql: Path) -> None:
    """Measure both, and print their times."""
    cores = choose_cores()
    with ending_in_order(), tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        click.echo(
            conditions(f"servers on core {cores.server}, PostgreSQL and client on core {cores.load}", "loopback")
        )
        files = write_catalogue(directory, items, collections)
        click.echo(
            f"{items:,} items in {collections:,} collections, {files[1].stat().st_size / 2**20:,.0f} MiB of NDJSON"
        )
        with contextlib.ExitStack() as stack:
            servers = {"gateway": stack.enter_context(our_server(directory, files, cores, items))}
            if peer is not None:
                theirs = pgstac_server(directory, files, cores, items, environment=peer, programs=peer_postgresql)
                servers["pgstac"] = stack.enter_context(theirs)
            compare(servers, items, collections, rounds, cores)


@contextlib.contextmanager
def our_server(directory: Path, files: tuple[Path, Path], cores: Cores, items: int) -> Iterator[RunningServer]:
    """A gateway with the catalogue, all of which is public."""
    with contextlib.ExitStack() as stack:
        with on_core(cores.load):
            services = stack.enter_context(run_services())
        root, configuration = directory / "files", directory / "gateway.toml"
        root.mkdir()
        configuration.write_text(
            f"[server]\nport = 0\n[database]\ndsn = {json.dumps(services.postgres_dsn)}\ntimeout = 60\n"
            f"[redis]\nurl = {json.dumps(services.redis_url)}\n[api]\ndefault_tenant = {json.dumps(TENANT)}\n"
            f'[[identity.jwt]]\nalgorithms = ["HS256"]\nsecret = "{_SECRET}"\n'
            f'[[storage]]\nname = "disk"\nplugin = "local"\ntenants = ["*"]\nroot = {json.dumps(str(root))}\n'
        )
        _configure(services.postgres_dsn)
        gateway = (sys.executable, "-m", "gateway")
        subprocess.run([*gateway, "migrate", "--config", configuration], check=True, stdout=subprocess.DEVNULL)
        seconds = 0.0
        for file in files:
            begun = time.perf_counter()
            with on_core(cores.server):
                subprocess.run(
                    [*gateway, "ingest", "--config", configuration, "--tenant", TENANT, file],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            seconds = time.perf_counter() - begun
        click.echo(f"gateway ingest: {items / seconds:,.0f} items/s")
        _execute(
            services.postgres_dsn,
            "INSERT INTO groups (tenant_id, name, is_public) SELECT tenant_id, 'public', true FROM tenants",
            "INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level) "
            "SELECT dataset_id, group_id, 'FULL_ACCESS', 'INHERITED_ACCESS' FROM datasets, groups",
            "VACUUM ANALYZE",
        )
        yield stack.enter_context(running_gateway(directory, configuration, cores.server))


@contextlib.contextmanager
def pgstac_server(
    directory: Path, files: tuple[Path, Path], cores: Cores, items: int, *, environment: Path, programs: Path
) -> Iterator[RunningServer]:
    """stac-fastapi-pgstac with the catalogue."""
    with postgis(directory / "peer", programs, cores.load) as port:
        dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        loader = environment / "bin" / "pypgstac"
        subprocess.run([loader, "migrate", "--dsn", dsn], check=True, stdout=subprocess.DEVNULL)
        seconds = 0.0
        for what, file in zip(("collections", "items"), files, strict=True):
            begun = time.perf_counter()
            with on_core(cores.server):
                subprocess.run(
                    [loader, "load", what, file, "--dsn", dsn, "--method", "insert"],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            seconds = time.perf_counter() - begun
        click.echo(f"pypgstac load: {items / seconds:,.0f} items/s")
        _execute(dsn, "VACUUM ANALYZE")
        own = {"PGUSER": "postgres", "PGPASSWORD": "none", "PGHOST": "127.0.0.1", "PGPORT": str(port)}
        own |= {"PGDATABASE": "postgres", "USE_API_HYDRATE": "false", "DB_MIN_CONN_SIZE": "1"}
        web, log = free_port(), directory / "pgstac.log"
        command: list[str | Path] = [
            environment / "bin" / "uvicorn",
            "stac_fastapi.pgstac.app:create_app",
            "--factory",
            "--port",
            str(web),
            "--no-access-log",
        ]
        with log.open("wb") as output, on_core(cores.server), _with(own), running(command, stdout=output) as process:
            wait_until(lambda: "Uvicorn running" in log.read_text(), process, log)
            yield RunningServer(process.pid, web)


@contextlib.contextmanager
def postgis(directory: Path, programs: Path, core: int) -> Iterator[int]:
    """A PostgreSQL of its own, with PostGIS; gives its port."""
    directory.mkdir()
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    os.chown(directory, account.pw_uid, account.pw_gid)
    data, log, port = directory / "data", directory / "log", free_port()
    user, group = account.pw_uid, account.pw_gid
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"],
        check=True,
        stdout=subprocess.DEVNULL,
        user=user,
        group=group,
        cwd=directory,
    )
    options = [
        part
        for setting in (*POSTGRESQL, f"port={port}", f"unix_socket_directories={directory}")
        for part in ("-c", setting)
    ]
    with log.open("wb") as output, on_core(core):
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *options],
            stdout=output,
            stderr=output,
            user=user,
            group=group,
            cwd=directory,
        )
    try:
        wait_until(lambda: "ready to accept connections" in log.read_text(), process, log)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def compare(servers: dict[str, RunningServer], items: int, collections: int, rounds: int, cores: Cores) -> None:
    """Ask all servers for each page in turn, and print medians of the times in milliseconds."""
    with on_core(cores.load):
        connections = {name: http.client.HTTPConnection("127.0.0.1", one.port) for name, one in servers.items()}
        questions = list(asks(items, collections))
        some = json.loads(_get(connections["gateway"], f"/collections/collection-{collections // 2}/items?limit=1")[0])
        questions[-1] = Ask("an item", f"/collections/collection-{collections // 2}/items/{some['features'][0]['id']}")
        questions.insert(1, deep(connections["gateway"], items))
        click.echo(f"\nmilliseconds, median of {rounds} (least, most)")
        for question in questions:
            told = []
            paths = {name: question.ours if name == "gateway" else question.theirs or question.ours for name in servers}
            times: dict[str, list[float]] = {name: [] for name in servers}
            sizes: dict[str, set[tuple[str, ...]]] = {name: set() for name in servers}
            for number in range(WARM_UP + rounds):
                for name, connection in connections.items():
                    body, seconds = _get(connection, paths[name])
                    if number >= WARM_UP:
                        times[name].append(seconds * 1000)
                    sizes[name].add(_ids(body))
            for name in servers:
                middle = statistics.median(times[name])
                told.append(f"{name} {middle:8.2f} ({min(times[name]):.2f}-{max(times[name]):.2f})")
            same = "" if len({frozenset(found) for found in sizes.values()}) == 1 else "  other items"
            ratio = ""
            if len(servers) == 2:
                ratio = f"  ratio {statistics.median(times['pgstac']) / statistics.median(times['gateway']):.1f}"
            click.echo(f"{question.name:22} {'  '.join(told)}{ratio}{same}")


def deep(connection: http.client.HTTPConnection, items: int) -> Ask:
    """The page `DEEP` of all items, or one in the middle of fewer.

    The gateway's is walked to in large pages; its peer is asked for what follows the id of the item before it.
    """
    before = min(10 * (DEEP - 1), items // 2 // 10 * 10)
    path, passed, last = "/search?limit=1000", 0, ""
    while passed < before:
        most = min(1000, before - passed)
        path = path.replace("limit=1000", f"limit={most}") if most < 1000 else path
        page = json.loads(_get(connection, path)[0])
        passed += len(page["features"])
        last = ":".join(page["features"][-1][name].encode().hex() for name in ("collection", "id"))
        following = next(link["href"] for link in page["links"] if link["rel"] == "next")
        parts = urlsplit(following)
        path = f"{parts.path}?{parts.query}"
    ours = path.replace("limit=1000", "limit=10").replace(f"limit={most}&", "limit=10&")
    return Ask(f"newest, page {before // 10 + 1:,}", ours, f"/search?limit=10&token={quote(f'next:{last}')}")


def _ids(body: bytes) -> tuple[str, ...]:
    found = json.loads(body)
    return tuple(one["id"] for one in found["features"]) if "features" in found else (found["id"],)


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[bytes, float]:
    begun = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    seconds = time.perf_counter() - begun
    if answer.status != 200:
        raise click.ClickException(f"{path}: {answer.status} {body[:500]!r}")
    return body, seconds


def _stamp(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _execute(dsn: str, *statements: str) -> None:
    import asyncio  # noqa: PLC0415

    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def _configure(dsn: str) -> None:
    """Set of `POSTGRESQL` what can be while the server runs."""
    settings = (setting.partition("=") for setting in POSTGRESQL if not setting.startswith("shared_buffers"))
    _execute(dsn, *(f"ALTER SYSTEM SET {name} = '{value}'" for name, _, value in settings), "SELECT pg_reload_conf()")


@contextlib.contextmanager
def _with(variables: dict[str, str]) -> Iterator[None]:
    """Have processes that are started in the block see ``variables``."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    main()
