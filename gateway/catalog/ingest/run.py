"""One ingest of files from its paths to its summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg

from gateway.catalog.ingest import model
from gateway.catalog.ingest.convert import convert
from gateway.catalog.ingest.events import Event, IngestError, RefusedError, Summary
from gateway.catalog.ingest.inspection import Inspector
from gateway.catalog.ingest.reading import read
from gateway.catalog.ingest.taking import Reporter, take
from gateway.catalog.ingest.writing import open_catalogue
from gateway.locations import Location


async def ingest(
    connection: asyncpg.Connection,
    *,
    tenant: str,
    paths: Sequence[Path],
    locations: Sequence[Location],
    default_collection: str | None = None,
    compute_checksums: bool = False,
    remote: bool = False,
    on_event: Callable[[Event], None],
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Take what lies in ``paths`` into the catalogue of ``tenant``, in one transaction: interrupted, it leaves nothing.

    ``connection`` is for this call alone, with asyncpg's own codecs and no transaction open.
    Entries that cannot be taken are told to ``on_event`` as Rejections and left out; the others go in. An href belongs
    to the first of ``locations`` that locates it and serves it for ``tenant``. ``compute_checksums`` reads every copy
    that a location gives the bytes of, to verify the catalogue's checksum or to make one. ``remote`` is for entries
    that came over the network from somebody else: none of their hrefs may name a local path. ``on_event`` is called on
    the loop, with a Progress a few times a second.

    Raises:
        IngestError: nothing could be done, and nothing was written; the message says why.
        asyncpg.PostgresError, OSError: the database failed; nothing was written.
    """
    check_names(tenant, default_collection)
    rows = convert(
        read(paths), tenant=tenant, locations=locations, default_collection=default_collection, remote=remote
    )
    reporter = Reporter(on_event, clock)
    async with connection.transaction():
        catalogue = await open_catalogue(connection, tenant)
        with Inspector(locations, compute_checksums=compute_checksums) as inspector:
            await take(rows, catalogue, inspector, reporter)
    return reporter.summary(catalogue.undescribed)


def check_names(tenant: str, default_collection: str | None) -> None:
    """See that these can be names.

    Raises:
        IngestError: one cannot.
    """
    if model.TENANT.fullmatch(tenant) is None:
        raise IngestError(
            f"tenant {tenant!r} is no name of at most 100 letters, digits and the characters '.', '_', '-'"
        )
    if default_collection is not None:
        try:
            model.key(default_collection, "the default collection")
        except RefusedError as error:
            raise IngestError(str(error)) from error
