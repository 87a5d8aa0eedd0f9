"""The servers of a benchmark: a gateway with its catalogue, and nginx."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import getpass
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import click

from benchmarks.processes import Cores, on_core, running, wait_until
from gateway.config import load as load_config
from gateway.db import connect as connect_database
from gateway.embedded import Services, run_services
from gateway.identity.jwt import sign
from gateway.identity.principal import Principal
from gateway.quotas.limits import own_account
from gateway.quotas.upkeep import open_quotas
from storage_plugins.local import DEFAULT_THREADS

COLLECTION, ITEM = "benchmark", "granule"
CALLER = Principal("bench", "reader", "reader@example.org", "REGISTERED_USER", ("readers",))
SECRET = "of a benchmark that is over soon, but as long as a real one must be"
MIB = 2**20
PATIENCE = 10
"""Seconds that the gateway waits for PostgreSQL and Valkey, which share their core: a 503 would end the benchmark."""

_SBIN = "/usr/local/sbin:/usr/sbin:/usr/local/nginx/sbin"
"""Where nginx lies on systems that keep it from the PATH of users."""

_CATALOGUE = """
WITH tenant AS (INSERT INTO tenants (name) VALUES ($1) RETURNING tenant_id),
readers AS (INSERT INTO groups (tenant_id, name) SELECT tenant_id, $2 FROM tenant RETURNING group_id),
quota AS (
    INSERT INTO quota_limits (tenant_id, subject, name, metric, period, value)
    SELECT tenant_id, 'user', $3, metric, 'total', value
    FROM tenant, (VALUES ('downloads', 1000000000), ('bytes', 9007199254740992)) AS limits(metric, value)),
dataset AS (
    INSERT INTO datasets (tenant_id, collection_id, urn, body)
    SELECT tenant_id, $4, 'URN:AIP:DATASET:bench:1:V1', '{}' FROM tenant RETURNING tenant_id, dataset_id),
allowed AS (
    INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
    SELECT dataset_id, group_id, 'FULL_ACCESS', 'INHERITED_ACCESS' FROM dataset, readers)
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
SELECT tenant_id, dataset_id, 'URN:FEATURE:DATA:bench:1:V1', $5, '{}', '{}' FROM dataset RETURNING product_id"""
_FILE = """
WITH file AS (
    INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, size, mime_type, file_name, body)
    VALUES ($1, $2, 'RAWDATA', $3, 'SHA-256', $4, 'application/octet-stream', $2, '{}') RETURNING file_id)
INSERT INTO copies (file_id, storage, location, size, modified, version, verified_version)
SELECT file_id, $5, $6, $4, $7, $8, $8 FROM file"""


@dataclasses.dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """A file that is served; its name is its asset key, too, and its path below the root unless told otherwise."""

    name: str
    size: int
    sha256: str

    @property
    def gateway_path(self) -> str:
        """Where the gateway serves it."""
        return f"/collections/{COLLECTION}/items/{ITEM}/download/{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class FileCopy:
    """Where a file lies, as the catalogue has it: its bytes were held against their checksum already."""

    storage: str
    """Name of the ``[[storage]]``."""
    location: str
    modified: datetime.datetime
    version: str
    """The storage's tag of the bytes."""


def make_file(root: Path, name: str, size: int) -> BenchmarkFile:
    """Write a file of random bytes; it is on the disk and in the page cache afterwards."""
    digest = hashlib.sha256()
    path = root / name
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            block = os.urandom(min(MIB, size - start))
            digest.update(block)
            file.write(block)
        file.flush()
        # Writing it back later would take CPU time while others are measured.
        os.fsync(file.fileno())
    with path.open("rb") as file:
        while file.read(MIB):
            pass
    return BenchmarkFile(name, size, digest.hexdigest())


def make_sparse_file(root: Path, name: str, size: int) -> BenchmarkFile:
    """Make a file of zeros that takes no space on the disk."""
    digest, block = hashlib.sha256(), bytes(MIB)
    for start in range(0, size, MIB):
        digest.update(block[: size - start])
    with (root / name).open("wb") as file:
        file.truncate(size)
    return BenchmarkFile(name, size, digest.hexdigest())


@dataclasses.dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers."""

    pid: int
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class Nginx:
    """An installed nginx."""

    program: Path
    version: str
    """As it says itself, like ``nginx/1.22.1``."""


def find_nginx() -> Nginx:
    """Find nginx, or end the program with status 2 and say so."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if program is None:
        click.echo(
            "This benchmark compares with nginx, which is not installed here: install the package nginx.", err=True
        )
        raise SystemExit(2)
    shown = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return Nginx(Path(program), shown.partition("version: ")[2].strip())


@contextlib.contextmanager
def running_nginx(
    nginx: Nginx, directory: Path, core: int, *, http: str = "", server: str = ""
) -> Iterator[RunningServer]:
    """Run nginx with one worker, sendfile and an access log, serving ``directory/files``, all else at its defaults.

    ``http`` and ``server`` are further directives for these blocks.
    """
    port, log, root = free_port(), directory / "nginx.out", directory / "files"
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    paths = "".join(
        f"    {kind}_temp_path {directory / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"{user}\ndaemon off;\nworker_processes 1;\npid {directory / 'nginx.pid'};\n"
        "events { worker_connections 1024; }\n"
        f"http {{\n{paths}    access_log {directory / 'nginx.access.log'};\n"
        "    sendfile on;\n    tcp_nopush on;\n    default_type application/octet-stream;\n"
        f"{http}    server {{\n        listen 127.0.0.1:{port};\n        root {root};\n{server}    }}\n}}\n"
    )
    command: list[str | Path] = [
        nginx.program,
        "-p",
        directory,
        "-e",
        directory / "nginx.error.log",
        "-c",
        configuration,
    ]
    with log.open("wb") as output, on_core(core), running(command, stdout=output) as process:
        wait_until(lambda: _answers(port), process, log)
        yield RunningServer(process.pid, port)


def write_configuration(directory: Path, services: Services, storages: str) -> Path:
    """Write the gateway's configuration with the tables ``storages``; readable by us alone, since it holds secrets."""
    file = directory / "gateway.toml"
    file.touch(mode=0o600)
    file.write_text(
        "[server]\nport = 0\nshutdown_timeout = 1\n"
        f"[database]\ndsn = {json.dumps(services.postgres_dsn)}\ntimeout = {PATIENCE}\n"
        f"[redis]\nurl = {json.dumps(services.redis_url)}\ntimeout = {PATIENCE}\n"
        f'[[identity.jwt]]\nalgorithms = ["HS256"]\nsecret = {json.dumps(SECRET)}\n'
        f"{storages}"
    )
    return file


def disk_storage(root: Path, *, threads: int = DEFAULT_THREADS) -> str:
    """The ``[[storage]]`` table of the files below ``root``."""
    return (
        '[[storage]]\nname = "disk"\nplugin = "local"\ntenants = ["*"]\n'
        f"root = {json.dumps(str(root))}\nthreads = {threads}\n"
    )


def copies_on_disk(root: Path, files: list[BenchmarkFile]) -> dict[BenchmarkFile, FileCopy]:
    """Where ``files`` lie below ``root``."""
    copies = {}
    for file in files:
        found = (root / file.name).stat()
        modified = datetime.datetime.fromtimestamp(int(found.st_mtime), datetime.UTC)
        version = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
        copies[file] = FileCopy("disk", file.name, modified, version)
    return copies


@contextlib.contextmanager
def catalogue(
    directory: Path, files: list[BenchmarkFile], cores: Cores, *, threads: int = DEFAULT_THREADS
) -> Iterator[Path]:
    """Run PostgreSQL and Valkey with a catalogue of ``files``, which lie in ``directory/files``.

    Gives the gateway's configuration, in which their storage has ``threads``.
    """
    root = directory / "files"
    with catalogue_of(directory, disk_storage(root, threads=threads), copies_on_disk(root, files), cores) as written:
        yield written


@contextlib.contextmanager
def catalogue_of(
    directory: Path, storages: str, copies: Mapping[BenchmarkFile, FileCopy], cores: Cores
) -> Iterator[Path]:
    """Run PostgreSQL and Valkey with a catalogue of ``copies`` in ``storages``; gives the gateway's configuration."""
    with contextlib.ExitStack() as stack:
        with on_core(cores.load):
            services = stack.enter_context(run_services())
        configuration = write_configuration(directory, services, storages)
        fill_catalogue(configuration, copies)
        yield configuration


def fill_catalogue(configuration: Path, copies: Mapping[BenchmarkFile, FileCopy]) -> None:
    """Make the schema, and a restricted dataset with the files, which `CALLER` may have by group and within a quota."""
    subprocess.run(
        [sys.executable, "-m", "gateway", "migrate", "--config", configuration],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[1],
    )
    asyncio.run(_fill(load_config(configuration).database.dsn.get_secret_value(), copies))


async def _fill(dsn: str, copies: Mapping[BenchmarkFile, FileCopy]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        product = await connection.fetchval(_CATALOGUE, CALLER.tenant, CALLER.groups[0], CALLER.email, COLLECTION, ITEM)
        for file, copy in copies.items():
            where = copy.storage, copy.location, copy.modified, copy.version
            await connection.execute(_FILE, product, file.name, file.sha256, file.size, *where)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


@contextlib.contextmanager
def running_gateway(directory: Path, configuration: Path, core: int) -> Iterator[RunningServer]:
    """Run ``gateway serve``; its log, the access log with it, goes to a file."""
    log = directory / "gateway.log"
    command: list[str | Path] = [sys.executable, "-m", "gateway", "serve", "--config", configuration]
    with log.open("wb") as output, on_core(core), running(command, stdout=output) as process:
        wait_until(lambda: "serving on http://" in log.read_text(), process, log)
        line = next(line for line in log.read_text().splitlines() if line.startswith("serving on http://"))
        yield RunningServer(process.pid, int(line.rpartition(":")[2]))


def running_plain_app(
    directory: Path, configuration: Path, core: int, answer: str
) -> contextlib.AbstractContextManager[RunningServer]:
    """Run the plain application; ``answer`` is ``redirect``, ``stream`` or ``auth``."""
    return running_app(directory, core, "plain_app", f"--config={configuration}", f"--{answer}")


@contextlib.contextmanager
def running_app(directory: Path, core: int, module: str, *options: str) -> Iterator[RunningServer]:
    """Run ``benchmarks.MODULE``, a server that takes ``--port``, with further ``options``."""
    port = free_port()
    log = directory / f"{module}-{port}.log"
    command = [sys.executable, "-m", f"benchmarks.{module}", f"--port={port}", *options]
    with log.open("wb") as output, on_core(core), running(command, stdout=output) as process:
        wait_until(lambda: _answers(port), process, log)
        yield RunningServer(process.pid, port)


def charged_bytes(configuration: Path) -> int:
    """Bytes that the quota of `CALLER` has been charged with."""
    settings = load_config(configuration)

    async def ask() -> int:
        async with (
            connect_database(settings.database, ()) as database,
            open_quotas(settings.redis, settings.quotas, database) as quotas,
        ):
            account = own_account(CALLER)
            return (await quotas.usage(CALLER.tenant, [account]))[account].octets

    return asyncio.run(ask())


def token() -> str:
    """A bearer token of `CALLER`."""
    now = datetime.datetime.now(datetime.UTC)
    return sign(SECRET, "HS256", CALLER, now=now, lifetime=datetime.timedelta(hours=12))


def request_head(path: str, bearer: str | None = None) -> str:
    """A GET, as the load sends it."""
    authorization = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
