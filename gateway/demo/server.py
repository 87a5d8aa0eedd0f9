"""``gateway demo``: the catalogue, its neighbours and the gateway, in one process that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import aiofiles

from gateway.app import create_app
from gateway.catalog.ingest import ingest
from gateway.catalog.ingest.events import Event
from gateway.config import Config, Server, from_values
from gateway.db import apply_schema, one_connection
from gateway.demo.accounts import ACCOUNTS, TENANT, Account, grant_all, seed
from gateway.demo.catalogue import TAPE, write_catalogue
from gateway.demo.examples import curl_lines
from gateway.demo.listing import ARCHIVE, TAPES, list_files, to_json
from gateway.embedded import Services, run_services
from gateway.errors import ConfigurationError
from gateway.identity.jwt import sign
from gateway.identity.principal import Principal
from gateway.locations import storage_locations
from gateway.server import serving, until_stopped

SHUTDOWN_SECONDS = 1.0
"""What running downloads get after Ctrl-C, so that the demo ends within three seconds."""
TOKEN_LIFETIME = datetime.timedelta(days=7)
ALGORITHM = "HS512"
TAPE_SECONDS = 5.0
"""That the tapes take."""
CACHE = "cache"
"""Name of the storage that restored copies are kept in, and of its folder."""
CACHE_BYTES = 2**30


@dataclasses.dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of ``gateway demo``."""

    host: str
    port: int
    ready_file: Path | None
    """Where to write, once requests are accepted, what the demo holds."""
    data_dir: Path | None
    """Where to write the product files and keep them; None for a directory that is removed at the end."""
    large: int | None
    """Bytes of an additional large file."""
    catalog: Path | None
    """Serve the STAC files found there and their local asset files instead."""


async def run_demo(options: DemoOptions, report: Callable[[Event], None]) -> None:
    """Serve the demo until the process is told to stop; ``report`` hears what ingesting its catalogue tells.

    Raises:
        ConfigurationError: the embedded servers are not installed, or an option cannot be used.
    """
    secret = secrets.token_urlsafe(64)
    with _neighbours(options) as (directory, services):
        config = _config(options, services, directory, secret)
        await _fill(config, options, directory, report)
        async with serving(create_app(config), config.server) as base_url:
            listing = await _listing(config, base_url, directory, secret)
            print(curl_lines(listing), flush=True)
            print(f"# serving on {base_url} until Ctrl-C", flush=True)
            if options.ready_file is not None:
                await _write_whole(options.ready_file, json.dumps(listing, ensure_ascii=False, indent=2))
            await until_stopped()


@contextlib.contextmanager
def _neighbours(options: DemoOptions) -> Iterator[tuple[Path, Services]]:
    """The directory with the product files, and the servers; what is of the demo's own making goes with them."""
    kept = options.catalog or options.data_dir
    directory = kept or Path(tempfile.gettempdir()) / f"gateway-demo-{secrets.token_hex(8)}"
    with run_services(and_remove=None if kept else directory) as services:
        if options.catalog is None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=kept is not None)
        yield directory.resolve(), services


def _config(options: DemoOptions, services: Services, directory: Path, secret: str) -> Config:
    storages: list[dict[str, object]] = [
        {"name": ARCHIVE, "plugin": "local", "tenants": [TENANT], "root": str(directory)}
    ]
    staging: dict[str, object] = {}
    if options.catalog is None:
        (directory / CACHE).mkdir(exist_ok=True)
        storages += [
            _tapes(directory / TAPE),
            {"name": CACHE, "plugin": "local", "tenants": [TENANT], "root": str(directory / CACHE)},
        ]
        staging = {"cache": CACHE, "cache_size": CACHE_BYTES, "poll": TAPE_SECONDS / 4}
    return from_values(
        {
            "server": Server(host=options.host, port=options.port, shutdown_timeout=SHUTDOWN_SECONDS),
            "database": {"dsn": services.postgres_dsn},
            "redis": {"url": services.redis_url},
            "identity": {
                "jwt": [{"algorithms": [ALGORITHM], "secret": secret}],
                "links": {"secret": secrets.token_urlsafe(48)},
            },
            "orders": {"secret": secrets.token_urlsafe(48)},
            "staging": staging,
            "storage": storages,
        }
    )


def _tapes(folder: Path) -> dict[str, object]:
    program = [sys.executable, "-m", "gateway.demo.tape", str(folder), str(TAPE_SECONDS)]
    actions = dict.fromkeys(("stage", "query", "release", "fetch"), program)
    return {"name": TAPES, "plugin": "command", "type": "NEARLINE", "tenants": [TENANT], **actions}


async def _fill(config: Config, options: DemoOptions, directory: Path, report: Callable[[Event], None]) -> None:
    """Write the catalogue, ingest it, and give out rights."""
    if options.catalog is not None:
        paths: Sequence[Path] = [directory]
    else:
        paths = await asyncio.to_thread(write_catalogue, directory, large=options.large)
    async with (
        one_connection(config.database) as connection,
        storage_locations(config.storage) as locations,
    ):
        await apply_schema(connection)
        summary = await ingest(
            connection,
            tenant=TENANT,
            paths=paths,
            locations=list(locations.values()),
            default_collection="catalog" if options.catalog else None,
            compute_checksums=options.catalog is not None,
            on_event=report,
        )
        if not summary.items.accepted:
            raise ConfigurationError(f"--catalog: no STAC Item was found in {directory} that could be ingested")
        await seed(connection)
        if options.catalog is not None:
            await grant_all(connection)


async def _listing(config: Config, base_url: str, directory: Path, secret: str) -> dict[str, object]:
    async with one_connection(config.database) as connection:
        files = await list_files(connection, directory)
    now = datetime.datetime.now(datetime.UTC)
    tokens = {
        account.name: sign(secret, ALGORITHM, _principal(account), now=now, lifetime=TOKEN_LIFETIME)
        for account in ACCOUNTS
    }
    prefixes = config.api
    return to_json(
        base_url,
        TENANT,
        tokens,
        files,
        regards_prefix=prefixes.regards_prefix,
        stac_prefix=prefixes.stac_prefix,
    )


def _principal(account: Account) -> Principal:
    return Principal(TENANT, account.name, account.email, account.role, account.groups)


async def _write_whole(file: Path, text: str) -> None:
    """Write ``file`` so that whoever waits for it never reads half of it. It holds tokens, so only its owner may."""
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    async with aiofiles.open(beside, "x", encoding="utf-8", opener=_private) as output:
        await output.write(text)
    await asyncio.to_thread(beside.replace, file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
