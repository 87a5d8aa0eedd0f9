"""The transactions themselves: all of a request and its record, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Self

from gateway.administration.changes import record_all
from gateway.administration.work import Work, changing, conflict
from gateway.catalog.ingest.events import Count, IngestError, Rejection, Remark
from gateway.catalog.ingest.inspection import Inspector
from gateway.catalog.ingest.model import File, JsonObject, Product, dataset_urn
from gateway.catalog.ingest.writing import catalogue_of, take_turn
from gateway.catalog.transactions import entities, stored
from gateway.catalog.transactions.entities import Pusher
from gateway.config import Database as DatabaseSettings
from gateway.db import Database, connect_for_writing
from gateway.errors import GatewayError, unavailable
from gateway.locations import Location
from gateway.stac.entity_tags import check_match
from gateway.stac.merge_patch import merged

AT_A_TIME = 4
"""Requests whose storages are asked, or that write, at the same time; others wait."""
SECONDS = 60.0
"""That a request may take once its body is here."""
TURN_SECONDS = 5.0
"""That it waits for an ingest or another request that writes to the same tenant's part of the catalogue."""
FEW = 20
"""Items that are read on the loop; of more it is done in a thread."""
_ATTEMPTS = 3
"""Of a patch to what others change meanwhile."""

_COLLECTION_TAKEN = "SELECT 1 FROM datasets WHERE tenant_id = $1 AND (collection_id = $2 OR urn = $3)"
_GROUPS = """
SELECT coalesce(array_agg(g.name ORDER BY g.name), '{}') FROM access_rights r JOIN groups g USING (group_id)
WHERE r.dataset_id = $1"""


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """A document as it is now."""

    entity: JsonObject
    updated: datetime.datetime


class Transactions:
    """Changes Collections and Items. A context manager: it owns the thread in which long documents are read."""

    def __init__(self, database: Database, locations: Sequence[Location]) -> None:
        self._database = database
        self._locations = locations
        self._turns = asyncio.Semaphore(AT_A_TIME)
        # Of those who write to the same tenant's part, all but one would hold a connection to wait with.
        self._queues: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transactions")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def create_collection(self, pusher: Pusher, body: Any) -> Written:
        """Make a Collection.

        Raises:
            GatewayError: 400 it is none; 404 no such tenant; 409 there is one; 503.
        """
        value = entities.collection(body)
        dataset = entities.dataset(value, pusher.tenant)
        name = dataset.collection_id
        async with self._writing(pusher) as work:
            urn = dataset_urn(pusher.tenant, name)
            if await work.connection.fetchval(_COLLECTION_TAKEN, work.tenant_id, name, urn):
                raise conflict(f"There is a collection {name!r} already.")
            catalogue = await catalogue_of(work.connection, work.tenant, work.tenant_id)
            await catalogue.write_datasets([dataset])
            await work.record("collection.create", name, title=dataset.title)
            _, now = await stored.hold_collection(work.connection, work.tenant_id, name)
        return Written(value, now)

    async def replace_collection(self, pusher: Pusher, name: str, body: Any, match: Sequence[str]) -> Written:
        """Replace a Collection; its items, rights and licence stay. ``match``: lines of If-Match.

        Raises:
            GatewayError: 400; 404; 412; 503.
        """
        value = entities.collection(body, name)
        dataset = entities.dataset(value, pusher.tenant)
        async with self._writing(pusher) as work:
            held, now = await stored.hold_collection(work.connection, work.tenant_id, name)
            check_match(match, held.updated)
            catalogue = await catalogue_of(work.connection, work.tenant, work.tenant_id)
            await catalogue.write_datasets([dataset])
            await work.record("collection.change", name, title=dataset.title)
        return Written(value, now)

    async def delete_collection(self, pusher: Pusher, name: str, match: Sequence[str]) -> None:
        """Delete a Collection that has no items, with the rights of groups to it, which the record names.

        Its licence stays, and with it who accepted it; so does what was recorded of downloads.

        Raises:
            GatewayError: 404; 409 it has items; 412; 503.
        """
        async with self._writing(pusher) as work:
            held, _ = await stored.hold_collection(work.connection, work.tenant_id, name)
            check_match(match, held.updated)
            if await work.connection.fetchval("SELECT 1 FROM products WHERE dataset_id = $1 LIMIT 1", held.row_id):
                raise conflict(f"The collection {name!r} has items; delete them first.")
            groups = await work.connection.fetchval(_GROUPS, held.row_id)
            await work.connection.execute("DELETE FROM datasets WHERE dataset_id = $1", held.row_id)
            await work.record("collection.delete", name, rightsOf=list(groups))

    async def create_items(self, pusher: Pusher, collection: str, body: Any) -> Written | None:
        """Make the Item of ``body``, or all Items of an ItemCollection; then gives None.

        Raises:
            GatewayError: 400; 404 no such collection; 409 there is one of them already; 503.
        """
        values, alone = entities.items(body, collection)
        async with self._prepared(pusher, values) as products, self._writing(pusher) as work:
            held, now = await stored.hold_collection(work.connection, work.tenant_id, collection)
            written = await self._write(work, "item.create", (collection, held.row_id), products)
            if written.updated:  # which undoes it
                one = repr(products[0].provider_id) if alone else "of one of these ids"
                raise conflict(f"There is an item {one} already.")
        return Written(values[0], now) if alone else None

    async def replace_item(
        self, pusher: Pusher, collection: str, identifier: str, body: Any, match: Sequence[str]
    ) -> Written:
        """Replace an Item. ``match``: lines of If-Match.

        Raises:
            GatewayError: 400; 404; 412; 503.
        """
        value = entities.item(body, collection, identifier)
        async with self._prepared(pusher, [value]) as products, self._writing(pusher) as work:
            held, now = await stored.hold_collection(work.connection, work.tenant_id, collection)
            item = await stored.hold_item(work.connection, held.row_id, collection, identifier)
            check_match(match, item.updated)
            await self._write(work, "item.change", (collection, held.row_id), products)
        return Written(value, now)

    async def patch_item(
        self, pusher: Pusher, collection: str, identifier: str, patch: Any, match: Sequence[str]
    ) -> Written:
        """Merge ``patch`` (RFC 7396) into an Item; assets that stay as they are keep what is known of their files.

        Raises:
            GatewayError: 400; 404; 409 it is none of STAC, or others change it all the time; 412; 503.
        """
        if not isinstance(patch, dict):
            raise entities.refused(identifier, "the patch is no JSON object")
        for _ in range(_ATTEMPTS):
            before = await stored.item(self._database, pusher.tenant, collection, identifier)
            check_match(match, before.updated)
            if "entityType" in before.entity:
                raise conflict("This product is none of STAC: replace it as a whole.")
            patched = merged(before.entity, patch)
            value = entities.item(patched, collection, identifier)
            kept = _unchanged(value, before.files)
            assets = value["assets"] if isinstance(value["assets"], dict) else {}
            changed: JsonObject = {name: asset for name, asset in assets.items() if name not in kept}
            async with (
                self._prepared(pusher, [{**value, "assets": changed}]) as products,
                self._writing(pusher) as work,
            ):
                held, now = await stored.hold_collection(work.connection, work.tenant_id, collection)
                item = await stored.hold_item(work.connection, held.row_id, collection, identifier)
                if item.updated != before.updated:
                    continue
                product = dataclasses.replace(products[0], files=(*kept.values(), *products[0].files))
                await self._write(work, "item.change", (collection, held.row_id), [product])
            return Written(value, now)
        raise conflict(f"Others change the item {identifier!r} all the time; try again.")

    async def delete_item(self, pusher: Pusher, collection: str, identifier: str, match: Sequence[str]) -> None:
        """Delete an Item. Its files stay where they are; only the catalogue knows them no longer.

        Raises:
            GatewayError: 404; 412; 503.
        """
        async with self._writing(pusher) as work:
            held, _ = await stored.hold_collection(work.connection, work.tenant_id, collection)
            item = await stored.hold_item(work.connection, held.row_id, collection, identifier)
            check_match(match, item.updated)
            await work.connection.execute("DELETE FROM products WHERE product_id = $1", item.row_id)
            await work.record("item.delete", f"{collection}/{identifier}")

    @contextlib.asynccontextmanager
    async def _prepared(self, pusher: Pusher, values: Sequence[JsonObject]) -> AsyncIterator[list[Product]]:
        """The rows of Items, with what their storages say; all that is done with them has a deadline, too.

        Raises:
            GatewayError: 400 one is not taken; 503 a storage does not answer, or there is no time left.
        """
        try:
            async with asyncio.timeout(SECONDS), self._turns:
                yield await self._inspected(await self._products(pusher, values))
        except TimeoutError as error:
            raise unavailable("There is too much to do at the moment; try again.") from error

    async def _products(self, pusher: Pusher, values: Sequence[JsonObject]) -> list[Product]:
        if len(values) <= FEW:
            return entities.products(values, pusher, self._locations)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, entities.products, values, pusher, self._locations)

    async def _inspected(self, products: list[Product]) -> list[Product]:
        rejections: list[Rejection] = []

        def tell(event: Rejection | Remark) -> None:
            if isinstance(event, Rejection):
                rejections.append(event)

        try:
            with Inspector(self._locations, compute_checksums=False) as inspector:
                sound = await inspector.inspect(products, tell=tell, done=lambda _: None)
        except IngestError as error:
            raise unavailable("A storage of these files does not answer at the moment; try again.") from error
        if rejections:
            raise entities.refused(rejections[0].place.id, rejections[0].reason)
        return sound

    @contextlib.asynccontextmanager
    async def _writing(self, pusher: Pusher) -> AsyncIterator[Work]:
        """A transaction in which nobody else writes to the tenant's part of the catalogue.

        Raises:
            GatewayError: 404 no such tenant; 503 an ingest is under way.
        """
        async with self._queue(pusher.tenant), changing(self._database, pusher.tenant, pusher.actor) as work:
            try:
                await take_turn(work.connection, pusher.tenant, wait=TURN_SECONDS)
            except IngestError as error:
                raise unavailable(
                    "An ingest of the tenant is under way; try again.", retry_after=30, code="IngestUnderWay"
                ) from error
            yield work

    @contextlib.asynccontextmanager
    async def _queue(self, tenant: str) -> AsyncIterator[None]:
        queue = self._queues.setdefault(tenant, asyncio.Lock())
        try:
            async with asyncio.timeout(SECONDS):
                await queue.acquire()
        except TimeoutError as error:
            raise unavailable("There is too much to do at the moment; try again.") from error
        try:
            yield
        finally:
            queue.release()

    async def _write(self, work: Work, action: str, collection: tuple[str, int], products: Sequence[Product]) -> Count:
        """Write Items of ``collection``, its name and row, with their record.

        Raises:
            GatewayError: 409 one contradicts the catalogue.
        """
        few = len(products) <= FEW
        catalogue = await catalogue_of(work.connection, work.tenant, work.tenant_id, few=few)
        catalogue.know(*collection)
        count, _, rejections = await catalogue.write_products(products)
        if rejections:
            raise GatewayError(HTTPStatus.CONFLICT, f"{rejections[0].reason}.")
        made = {f"{collection[0]}/{product.provider_id}": {"assets": len(product.files)} for product in products}
        await record_all(work.connection, work.actor, work.tenant, action, made)
        return count


@contextlib.asynccontextmanager
async def opened_transactions(settings: DatabaseSettings, locations: Sequence[Location]) -> AsyncIterator[Transactions]:
    """Transactions with connections of their own: whoever pushes takes none from those who download."""
    async with connect_for_writing(settings, most=AT_A_TIME, timeout=SECONDS) as database:
        with Transactions(database, locations) as transactions:
            yield transactions


def _unchanged(value: JsonObject, files: Mapping[str, File]) -> dict[str, File]:
    """The files of those assets of ``value`` that are what they were."""
    assets = value["assets"] if isinstance(value["assets"], dict) else {}
    return {
        name: file
        for name, file in files.items()
        if isinstance(asset := assets.get(name), dict) and json.loads(file.body) == asset
    }
