"""``gateway ingest``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gateway.commands.shared import CONFIG

TOKEN, API_KEY = "GATEWAY_SOURCE_TOKEN", "GATEWAY_SOURCE_API_KEY"
"""Environment variables with what a source knows the gateway by."""
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("ingest")
@click.argument("sources", nargs=-1, required=True)
@CONFIG
@click.option("--tenant", required=True, help="Tenant that the entries belong to; made if it is new.")
@click.option("--collection", help="Collection of the Items and products that name none.")
@click.option("--checksum", is_flag=True, help="Read the files: compute or verify their checksums.")
@click.option("--collections", help="Of a STAC API: only these, by their ids with commas between them.")
@click.option("--since", metavar="DATETIME", help="Of a STAC API: only Items updated since then, where it can tell.")
@click.option("--page-size", default=250, show_default=True, type=click.IntRange(1, 10_000), help="Of a STAC API.")
@click.option("--restart", is_flag=True, help="Of a STAC API: do not go on where the last load of it stopped.")
@click.option("--token-file", type=_FILE, help=f"File with a bearer token for the source. [env, the token: {TOKEN}]")
@click.option("--api-key-file", type=_FILE, help=f"File with an API key (X-API-Key). [env, the key: {API_KEY}]")
def ingest_command(
    *,
    sources: tuple[str, ...],
    config_file: Path | None,
    tenant: str,
    collection: str | None,
    collections: str | None,
    since: str | None,
    page_size: int,
    token_file: Path | None,
    api_key_file: Path | None,
    checksum: bool,
    restart: bool,
) -> None:
    """Take STAC Collections, Items, ItemCollections, NDJSON or REGARDS products into the catalogue.

    SOURCES are files or directories of them, stac-geoparquet files, or the catalog.json of a static catalogue, whose
    links are followed. All is written in one transaction: an ingest that is interrupted leaves nothing.

    Or SOURCES is one URL: the root of another STAC API, or of a static catalogue. An API is loaded page by page, each
    in a transaction of its own; a load that was interrupted goes on after the last page it wrote.

    Ends with status 1 if any entry was rejected.
    """
    from gateway.commands.ingest_run import credentials_from, take_in, wanted_of  # noqa: PLC0415 - as all commands do

    take_in(
        sources,
        config_file=config_file,
        tenant=tenant,
        collection=collection,
        checksum=checksum,
        wanted=wanted_of(sources, collections, since, page_size, restart=restart),
        credentials=credentials_from(_secret(token_file, TOKEN), _secret(api_key_file, API_KEY)),
        restart=restart,
    )


def _secret(file: Path | None, variable: str) -> str:
    """What is in ``file``, else in the environment; else nothing."""
    try:
        secret = os.environ.get(variable, "") if file is None else file.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{file} cannot be read: {type(error).__name__}") from error
    secret = secret.strip()
    if not (secret.isascii() and secret.isprintable()):
        raise click.UsageError(f"{file or variable} has characters that no field of HTTP can have")
    return secret
