"""From an item of the upstream to rows of the catalogue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from gateway.catalog.ingest import stac
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import IngestError, Place, RefusedError, Rejection, Remark
from gateway.catalog.ingest.inspection import Inspector
from gateway.catalog.ingest.model import JsonObject, Product
from gateway.catalog.ingest.writing import open_catalogue
from gateway.companion.rewriting import joined
from gateway.companion.upstream import unreachable
from gateway.db import Database
from gateway.errors import unavailable
from gateway.locations import Location

log = logging.getLogger(__name__)

_PAUSE = 0.05
"""Seconds before the next attempt while somebody else writes to the tenant's catalogue."""


class Taker:
    """Takes items into the catalogue of one tenant, one after the other."""

    def __init__(
        self,
        database: Database,
        locations: Sequence[Location],
        tenant: str,
        delivers: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._locations = locations
        self._tenant = tenant
        self._delivers = delivers
        self._clock = clock
        self._turn = asyncio.Lock()

    async def __call__(self, item: JsonObject, url: str) -> None:
        """Take ``item``, which lies at ``url``, with those of its assets that can be delivered.

        What their storages hold now is what downloads will be held against.

        Raises:
            GatewayError: 502 it cannot be taken; 503 PostgreSQL or a storage does not answer, or somebody else writes.
        """
        place = Place("the upstream", id=str(item.get("id"))[:200])
        remarks: list[str] = []
        try:
            product = stac.product(
                self._deliverable(item, url),
                place,
                Context(self._tenant, self._locations, True, "/", None, remarks.append),
            )
        except RefusedError as error:
            log.warning("%s is not taken: %s", place, error)
            raise unreachable(
                "The catalogue behind this gateway describes an item that cannot be delivered."
            ) from error
        sound = await self._inspect(product)
        until = self._clock() + self._database.timeout
        while not await self._write(sound):
            if self._clock() >= until:
                raise unavailable("The catalogue is being written to; try again.", code="CatalogBusy")
            await asyncio.sleep(_PAUSE)

    def _deliverable(self, item: JsonObject, url: str) -> JsonObject:
        assets = item.get("assets")
        if not isinstance(assets, dict):
            return item
        kept: JsonObject = {}
        for key, asset in assets.items():
            if isinstance(asset, dict) and isinstance(asset.get("href"), str) and asset["href"]:
                href = joined(url, str(asset["href"]))
                if self._delivers(href):
                    kept[key] = {**asset, "href": href}
        return {**item, "assets": kept}

    async def _inspect(self, product: Product) -> Product:
        told: list[Rejection | Remark] = []
        try:
            with Inspector(self._locations, compute_checksums=False) as inspector:
                sound = await inspector.inspect([product], tell=told.append, done=lambda _: None)
        except IngestError as error:
            raise unavailable(
                "The storage location does not answer at the moment; try again.", retry_after=30
            ) from error
        if not sound:
            log.warning("%s is not taken: %s", product.place, told)
            raise unreachable("The catalogue behind this gateway describes an item that cannot be delivered.")
        return sound[0]

    async def _write(self, product: Product) -> bool:
        """Whether it is written; it is not while somebody else writes."""
        async with self._turn, self._database.transaction() as connection:
            try:
                catalogue = await open_catalogue(connection, self._tenant)
            except IngestError:
                return False
            _, _, rejections = await catalogue.write_products([product])
        if rejections:
            log.warning("%s is not taken: %s", product.place, rejections[0].reason)
            raise unreachable("The catalogue behind this gateway describes an item that cannot be delivered.")
        return True
