"""One load of another STAC API: page by page, each in a transaction of its own with the place where it goes on."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Sequence

import asyncpg

from gateway.catalog.ingest.convert import convert
from gateway.catalog.ingest.events import Event, Place, Remark, SourceError, Summary
from gateway.catalog.ingest.inspection import Inspector
from gateway.catalog.ingest.model import JsonObject
from gateway.catalog.ingest.remote import stac_api
from gateway.catalog.ingest.remote.client import Client
from gateway.catalog.ingest.remote.pages import Believe, Circle, Collections, PageReader, item_of, of_one
from gateway.catalog.ingest.remote.places import Places, Stop
from gateway.catalog.ingest.remote.stac_api import Api, Request
from gateway.catalog.ingest.run import check_names
from gateway.catalog.ingest.taking import Reporter, take
from gateway.catalog.ingest.writing import open_catalogue
from gateway.locations import Location

MOST_COLLECTIONS = 100_000
"""Of a source."""
LOCK_SECONDS = 60.0
"""That a page waits for others who write to the tenant's part of the catalogue."""
_SINCE = {
    "updated": "what changed since then is loaded: items are chosen by their property 'updated'",
    "datetime": "the source cannot tell what changed since then: items are chosen by their datetime instead",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What is loaded."""

    root: str
    """URL of the landing page."""
    collections: tuple[str, ...] = ()
    """Ids; none for all."""
    since: datetime.datetime | None = None
    page_size: int = 250
    """Items that are asked for at a time; the source may give fewer, or more."""

    @property
    def key(self) -> str:
        """The same for loads that can go on from one another."""
        since = None if self.since is None else stac_api.timestamp(self.since)
        return json.dumps({"collections": sorted(set(self.collections)), "since": since})


@dataclasses.dataclass(frozen=True, slots=True)
class Into:
    """Where a load goes."""

    connection: asyncpg.Connection
    """For this load alone, with asyncpg's own codecs and no transaction open."""
    tenant: str
    locations: Sequence[Location]
    compute_checksums: bool = False


async def load(
    client: Client,
    landing: JsonObject,
    wanted: Wanted,
    into: Into,
    *,
    restart: bool = False,
    on_event: Callable[[Event], None],
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Take the collections and items of the STAC API with the page ``landing`` into the catalogue of a tenant.

    A load that stopped goes on after the last page that it wrote, unless it is to ``restart``. Hrefs are judged as
    those of entries that came over the network.

    Raises:
        SourceError: the source cannot be read any further; what was written stays.
        IngestError: another ingest of the tenant is running, or a storage does not answer; likewise.
        asyncpg.PostgresError, OSError: the database failed; likewise.
    """
    check_names(into.tenant, None)
    return await _Load(client, wanted, into, Reporter(on_event, clock)).run(landing, restart=restart)


class _Load:
    def __init__(self, client: Client, wanted: Wanted, into: Into, reporter: Reporter) -> None:
        self._client = client
        self._wanted = wanted
        self._into = into
        self._reporter = reporter
        self._places = Places(into.connection, into.tenant, wanted.root, wanted.key)
        self._inspector = Inspector(into.locations, compute_checksums=into.compute_checksums)
        self._pages = 0

    async def run(self, landing: JsonObject, *, restart: bool) -> Summary:
        api = await self._describe(landing)
        if restart:
            await self._places.forget()
        stop = await self._places.find()
        if stop is not None:
            self._pages = stop.pages
            self._remark(f"goes on after page {stop.pages}, in the collection {stop.collection!r}")
        if self._wanted.since is not None:
            self._remark(_SINCE[api.since_goes_by()])
        with self._inspector:
            for identifier, collection in sorted((await self._collections(api)).items()):
                if stop is None or not stop.is_past(identifier):
                    await self._items(api, identifier, collection, stop)
        await self._places.forget()
        return self._reporter.summary(())

    async def _describe(self, landing: JsonObject) -> Api:
        root, origin = self._wanted.root, self._client.origin
        conformance = landing
        if "conformsTo" not in landing:
            for link in stac_api.links(landing):
                if link.get("rel") == "conformance" and isinstance(link.get("href"), str):
                    conformance = await self._client.document(origin.resolve(str(link["href"]), root))
                    break
        return stac_api.describe(landing, conformance, root, origin)

    async def _collections(self, api: Api) -> dict[str, JsonObject]:
        """Write the collections that are wanted; by id, what is needed to ask for their items."""
        known = Collections(MOST_COLLECTIONS)
        for identifier in sorted(set(self._wanted.collections)):
            url = stac_api.collection_url(api, identifier)
            document = await self._client.document(url)
            if document.get("id") != identifier:
                raise SourceError(f"{url} is not the collection {identifier!r}")
            await self._write(PageReader(of_one(document), url, known.believe))
        if not self._wanted.collections:
            await self._walk(Request(api.collections), known.believe)
        return known.items

    async def _items(self, api: Api, identifier: str, collection: JsonObject, stop: Stop | None) -> None:
        items = stac_api.items_url(api, collection, identifier)
        size, since = self._wanted.page_size, self._wanted.since
        asked = stac_api.first_request(api, identifier, items, limit=size, since=since)
        if stop is not None and stop.request is not None and stop.collection == identifier:
            asked = stop.request
        try:
            await self._walk(asked, item_of(identifier), identifier)
        except SourceError as error:
            if stop is None or self._pages > stop.pages:
                raise
            raise SourceError(f"{error}; if that page is no longer known there, begin anew (--restart)") from error

    async def _walk(self, asked: Request, believe: Believe, collection: str | None = None) -> None:
        """Write page after page; of items, ``collection`` is theirs."""
        circle = Circle()
        following: Request | None = asked
        while following is not None:
            asked = following
            circle.ask(asked)
            page = PageReader(await self._client.fetch(asked), asked.url, believe)
            following, refusal = await self._write(page, asked, collection)
            if refusal is not None:
                raise refusal
            circle.take(page)

    async def _write(
        self, page: PageReader, asked: Request | None = None, collection: str | None = None
    ) -> tuple[Request | None, SourceError | None]:
        """Write a page, and with it the place after it.

        Gives what the next page is asked with, or why that cannot be: the load will go on with this page again.
        """
        into = self._into
        rows = convert(page, tenant=into.tenant, locations=into.locations, default_collection=None, remote=True)
        following, refusal = None, None
        async with into.connection.transaction():
            catalogue = await open_catalogue(into.connection, into.tenant, wait=LOCK_SECONDS)
            await take(rows, catalogue, self._inspector, self._reporter)
            if asked is not None and page.rest is not None:
                try:
                    following = stac_api.next_request(page.rest, asked, self._client.origin)
                except SourceError as error:
                    refusal = error
            if collection is not None:
                self._pages += 1
                await self._places.keep(Stop(collection, asked if refusal else following, self._pages))
        return following, refusal

    def _remark(self, text: str) -> None:
        self._reporter.tell(Remark(Place(self._wanted.root), text))
