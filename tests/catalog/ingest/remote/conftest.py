"""Loads from a source on this machine."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.catalog.ingest import Event
from gateway.catalog.ingest.remote.client import Credentials
from gateway.catalog.ingest.remote.load import Into, Wanted
from gateway.catalog.ingest.remote.patience import Patience
from gateway.catalog.ingest.remote.source import ingest_url
from tests.catalog.ingest.conftest import Ingesting, Result
from tests.catalog.ingest.remote.api import StacApi, running_api

QUICK = Patience(connect=5, read=0.25, total=5, attempts=3, first_pause=0.01, longest_pause=0.02, longest_wait=1)


@dataclasses.dataclass
class Loading:
    """Loads into a fresh database as the tenant ``earth``, ten items a page."""

    ingesting: Ingesting
    events: list[Event] = dataclasses.field(default_factory=list)

    async def __call__(
        self,
        api: StacApi | str,
        *collections: str,
        since: datetime.datetime | None = None,
        page_size: int = 10,
        restart: bool = False,
        connection: asyncpg.Connection | None = None,
        patience: Patience = QUICK,
        default_collection: str | None = None,
        **fields: str,
    ) -> Result:
        self.events = []
        root = api if isinstance(api, str) else f"{api.url}/"
        into = Into(connection or self.ingesting.connection, "earth", self.ingesting.locations)
        summary = await ingest_url(
            Wanted(root, collections, since, page_size),
            into,
            Credentials({name.replace("_", "-"): value for name, value in fields.items()}),
            patience=patience,
            default_collection=default_collection,
            restart=restart,
            on_event=self.events.append,
        )
        return Result(summary, self.events)

    async def ids(self) -> list[str]:
        """Of all items, with their collections."""
        rows = await self.ingesting.rows(
            "SELECT collection_id || '/' || provider_id AS id FROM products JOIN datasets USING (dataset_id) ORDER BY 1"
        )
        return [str(row["id"]) for row in rows]

    async def stops(self) -> list[dict[str, object]]:
        return await self.ingesting.rows("SELECT collection, request, pages FROM loads")


@pytest.fixture
def loading(ingesting: Ingesting) -> Loading:
    return Loading(ingesting)


@pytest.fixture
async def api() -> AsyncIterator[StacApi]:
    """Three collections of 25, 5 and no items."""
    async with running_api(scenes=25, radar=5, empty=0) as found:
        yield found
