"""A static catalogue on an HTTP server: walked by its links, several documents at a time, written batch by batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from gateway.catalog.ingest.convert import convert
from gateway.catalog.ingest.events import Event, Place, RefusedError, Rejection, Remark, SourceError, Summary
from gateway.catalog.ingest.inspection import Inspector
from gateway.catalog.ingest.model import JsonObject
from gateway.catalog.ingest.reading import RawEntry, unfold
from gateway.catalog.ingest.remote.client import Client
from gateway.catalog.ingest.remote.load import LOCK_SECONDS, Into
from gateway.catalog.ingest.run import check_names
from gateway.catalog.ingest.taking import Reporter, take
from gateway.catalog.ingest.walking import Document, Walk
from gateway.catalog.ingest.writing import open_catalogue

AT_A_TIME = 16
"""Documents that are fetched together."""
BATCH = 500
"""Entries that are written together, or a few more."""
GIVE_UP_AFTER = 20
"""Documents that in a row could not be read, before no other one is asked for."""


async def walk(
    client: Client,
    root: str,
    into: Into,
    *,
    default_collection: str | None = None,
    on_event: Callable[[Event], None],
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Take the static catalogue with the root at the URL ``root`` into the catalogue of a tenant.

    Each batch is a transaction of its own: a walk that is interrupted leaves what it wrote, and begins anew. A document
    that cannot be read is told to ``on_event`` and left out.

    Raises:
        SourceError: the root cannot be read, or too many others in a row; what was written stays.
        IngestError: another ingest of the tenant is running, or a storage does not answer; likewise.
        asyncpg.PostgresError, OSError: the database failed; likewise.
    """
    check_names(into.tenant, default_collection)
    reporter = Reporter(on_event, clock)
    walking = _Walking(client, root)
    undescribed: set[str] = set()
    with Inspector(into.locations, compute_checksums=into.compute_checksums) as inspector:
        while entries := await walking.batch():
            rows = convert(
                entries,
                tenant=into.tenant,
                locations=into.locations,
                default_collection=default_collection,
                remote=True,
            )
            async with into.connection.transaction():
                catalogue = await open_catalogue(into.connection, into.tenant, wait=LOCK_SECONDS)
                await take(rows, catalogue, inspector, reporter)
            undescribed |= set(catalogue.undescribed)
    return reporter.summary(tuple(sorted(undescribed - walking.collections)))


class _Walking:
    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root
        self._walk = Walk(root, self._resolve)
        self._in_vain = 0
        self.collections: set[str] = set()
        """Ids of those that came."""

    def _resolve(self, href: str, base: str) -> str:
        try:
            return self._client.origin.resolve(href, base)
        except SourceError as error:
            raise RefusedError(str(error)) from error

    async def batch(self) -> list[RawEntry | Rejection | Remark]:
        """The next entries; none when the walk is over."""
        entries: list[RawEntry | Rejection | Remark] = []
        while len(entries) < BATCH and (documents := self._walk.following(AT_A_TIME)):
            fetched = await asyncio.gather(*(self._fetch(document) for document in documents))
            for document, value in zip(documents, fetched, strict=True):
                entries += self._entries(document, value)
        return entries

    async def _fetch(self, document: Document) -> JsonObject | str:
        """The document, or why there is none."""
        try:
            return await self._client.document(document.address)
        except SourceError as error:
            if document.address == self._root:
                raise
            return str(error)

    def _entries(self, document: Document, value: JsonObject | str) -> Sequence[RawEntry | Rejection | Remark]:
        place = Place(document.address)
        if isinstance(value, str):
            self._in_vain += 1
            if self._in_vain >= GIVE_UP_AFTER:
                raise SourceError(f"{value}; that is the last of {GIVE_UP_AFTER} documents that could not be read")
            return [Rejection(place, value)]
        self._in_vain = 0
        found: list[RawEntry | Rejection | Remark] = []
        found += [Rejection(place, reason) for reason in self._walk.read(document, value)]
        if value.get("type") == "Collection":
            self.collections.add(str(value.get("id")))
        if value.get("type") != "Catalog":
            found += unfold(value, place, document.address)
        return found
