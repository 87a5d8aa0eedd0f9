"""A catalogue to ingest into, and a storage to ingest from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from gateway.catalog.ingest import Event, Progress, Rejection, Remark, Summary, ingest
from gateway.locations import EVERY_TENANT, Location
from gateway.storage import Storage
from storage_plugins.local import LocalStorage


def everyones(storage: Storage) -> Location:
    """A location with nothing but a storage, for whatever tenant."""
    return Location(storage, tenants=frozenset({EVERY_TENANT}))


@dataclasses.dataclass
class Result:
    summary: Summary
    events: list[Event]

    @property
    def told(self) -> list[Event]:
        """All events but those of a slow machine, on which an ingest takes long enough to tell of its progress."""
        return [event for event in self.events if not isinstance(event, Progress)]

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Rejection)]

    @property
    def rejections(self) -> list[Rejection]:
        return [event for event in self.events if isinstance(event, Rejection)]

    @property
    def remarks(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Remark)]


class Ingesting:
    """Ingests into a fresh database as the tenant ``earth``."""

    def __init__(self, connection: asyncpg.Connection, dsn: str, directory: Path) -> None:
        self.connection = connection
        self.dsn = dsn
        self.directory = directory
        self.locations: Sequence[Location] = ()

    async def __call__(
        self,
        *paths: Path,
        tenant: str = "earth",
        default_collection: str | None = None,
        compute_checksums: bool = False,
        remote: bool = False,
    ) -> Result:
        events: list[Event] = []
        summary = await ingest(
            self.connection,
            tenant=tenant,
            paths=paths,
            locations=self.locations,
            default_collection=default_collection,
            compute_checksums=compute_checksums,
            remote=remote,
            on_event=events.append,
        )
        return Result(summary, events)

    async def of(
        self,
        *values: object,
        default_collection: str | None = None,
        compute_checksums: bool = False,
        remote: bool = False,
    ) -> Result:
        """Ingest one file with these values one after another."""
        file = self.directory / "given.json"
        file.write_text("\n".join(json.dumps(value) for value in values))
        return await self(
            file, default_collection=default_collection, compute_checksums=compute_checksums, remote=remote
        )

    async def rows(self, query: str) -> list[dict[str, object]]:
        return [dict(row) for row in await self.connection.fetch(query)]


@pytest.fixture
async def ingesting(database: str, tmp_path: Path) -> AsyncIterator[Ingesting]:
    connection = await asyncpg.connect(database, timeout=10)
    yield Ingesting(connection, database, tmp_path)
    await connection.close(timeout=10)


@pytest.fixture
async def disk(ingesting: Ingesting) -> AsyncIterator[LocalStorage]:
    """A storage location over the directory of the test, known to ``ingesting``."""
    storage = LocalStorage("disk", ingesting.directory)
    ingesting.locations = [everyones(storage)]
    yield storage
    await storage.close()


@pytest.fixture
def item() -> dict[str, object]:
    """The smallest STAC Item that is accepted."""
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "scene",
        "collection": "scenes",
        "geometry": {"type": "Point", "coordinates": [1.5, 45.0]},
        "properties": {"datetime": "2023-04-13T13:56:55Z"},
        "links": [],
        "assets": {},
    }
