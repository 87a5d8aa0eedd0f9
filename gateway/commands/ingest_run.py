"""What ``gateway ingest`` does once it is known what is asked."""

from __future__ import annotations

import asyncio
import datetime
import sys
import time
from pathlib import Path

import click

from gateway.catalog.ingest import IngestError, SourceError, Summary, ingest
from gateway.catalog.ingest.events import RefusedError
from gateway.catalog.ingest.extent import moment
from gateway.catalog.ingest.remote.client import Credentials
from gateway.catalog.ingest.remote.load import Into, Wanted
from gateway.catalog.ingest.remote.origin import is_url
from gateway.catalog.ingest.remote.source import ingest_url
from gateway.cli_report import Report
from gateway.commands.shared import plain_errors
from gateway.config import load
from gateway.db import check_schema, one_connection
from gateway.locations import storage_locations


def take_in(
    sources: tuple[str, ...],
    *,
    config_file: Path | None,
    tenant: str,
    collection: str | None,
    checksum: bool,
    wanted: Wanted | None,
    credentials: Credentials,
    restart: bool,
) -> None:
    """Ingest files, or what lies at the URL of ``wanted``."""

    async def run() -> Summary:
        await check_schema(config.database)
        async with storage_locations(config.storage) as locations, one_connection(config.database) as connection:
            into = Into(connection, tenant, list(locations.values()), compute_checksums=checksum)
            if wanted is not None:
                return await ingest_url(
                    wanted,
                    into,
                    credentials,
                    default_collection=collection,
                    restart=restart,
                    on_event=report.hear,
                )
            return await ingest(
                connection,
                tenant=tenant,
                paths=[Path(source) for source in sources],
                locations=into.locations,
                default_collection=collection,
                compute_checksums=checksum,
                on_event=report.hear,
            )

    with plain_errors():
        config = load(config_file)
        report = Report(time.monotonic)
        try:
            summary = asyncio.run(run())
        except (IngestError, SourceError) as error:
            raise click.ClickException(str(error)) from error
        report.end(summary)
        if summary.rejected:
            sys.exit(1)


def credentials_from(token: str, api_key: str) -> Credentials:
    """What a source is to know the gateway by; nothing where they are empty."""
    fields = {"Authorization": f"Bearer {token}"} if token else {}
    return Credentials(fields | ({"X-API-Key": api_key} if api_key else {}))


def wanted_of(
    sources: tuple[str, ...], collections: str | None, since: str | None, page_size: int, *, restart: bool
) -> Wanted | None:
    """What of a URL is wanted; None for paths.

    Raises:
        click.UsageError: options do not go together, or with the sources.
    """
    urls = [source for source in sources if is_url(source)]
    if not urls:
        if collections is not None or since is not None or restart:
            raise click.UsageError("--collections, --since and --restart go with the URL of a STAC API")
        for source in sources:
            if not Path(source).exists():
                raise click.BadParameter(f"{source!r} does not exist", param_hint="SOURCES")
        return None
    if len(sources) > 1:
        raise click.UsageError("a URL stands alone: each source is loaded by a command of its own")
    try:
        start = None if since is None else moment(since, "--since")
    except RefusedError as error:
        raise click.UsageError(str(error)) from error
    if start is not None and start > datetime.datetime.now(datetime.UTC):
        raise click.UsageError(f"--since is {since}, which is yet to come")
    names = tuple(name.strip() for name in (collections or "").split(",") if name.strip())
    if collections is not None and not names:
        raise click.UsageError("--collections names none; leave it out for all of them")
    return Wanted(urls[0], names, start, page_size)
