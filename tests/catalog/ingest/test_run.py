"""Whole ingests into a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.catalog.ingest import Count, Event, IngestError, Progress, ingest, taking
from storage_plugins.local import LocalStorage
from tests.catalog.ingest.conftest import Ingesting, everyones

Item = dict[str, Any]


EXAMPLES = Path(__file__).parents[2] / "data" / "stac"


ONE, NONE, AGAIN = Count(accepted=1), Count(), Count(updated=1)


# What the public examples give, in the order of their names: collections, items, files.
EXPECTED: dict[str, tuple[Count, Count, int]] = {
    "joplin-collection.json": (ONE, NONE, 0),
    "joplin-items.geojson": (NONE, Count(accepted=30), 30),
    "landsat-8-l1-collection.json": (ONE, NONE, 0),
    "sentinel-2-item-collection.json": (NONE, Count(accepted=10), 170),
    "stac-server-LC80100102015050LGN00.json": (NONE, ONE, 16),
    "stac-server-LC80100102015082LGN00.json": (NONE, ONE, 16),
    "stac-server-collection-s1.json": (ONE, NONE, 0),
    "stac-server-collection.json": (AGAIN, NONE, 0),  # the landsat-8-l1 of above
    "stac-server-item-s1-1.json": (NONE, ONE, 6),
    "stac-server-item-s1-2.json": (NONE, ONE, 6),
    "stac-spec-collection.json": (ONE, NONE, 0),
    "stac-spec-collectionless-item.json": (NONE, NONE, 0),
    "stac-spec-core-item.json": (NONE, ONE, 6),
    "stac-spec-extended-item.json": (NONE, AGAIN, 6),  # the same id as core-item
    "stac-spec-simple-item.json": (NONE, AGAIN, 2),
}


async def test_every_public_example_goes_in_or_says_why_not(ingesting: Ingesting) -> None:
    assert sorted(EXPECTED) == sorted(path.name for path in EXAMPLES.iterdir() if path.suffix != ".md")
    for name, expected in EXPECTED.items():
        result = await ingesting(EXAMPLES / name)
        summary = result.summary
        assert (summary.collections, summary.items, summary.files) == expected, name
        if name == "stac-spec-collectionless-item.json":
            assert result.reasons == ["has no collection, and no default collection was given"]
        else:
            assert (name, result.told) == (name, [])
        # The examples have no Collection of this name, which their items are in.
        assert summary.undescribed == (("HLSL30.v1.5",) if name.startswith("sentinel-2") else ())


async def test_a_directory_is_taken_whole_and_a_second_time_changes_no_id(ingesting: Ingesting) -> None:
    ids = """SELECT product_id, urn, file_id, asset_key, copy_id
             FROM products JOIN files USING (product_id) JOIN copies USING (file_id) ORDER BY copy_id"""
    first = await ingesting(EXAMPLES, default_collection="loose")
    assert first.summary.items == Count(accepted=46, updated=2)
    assert first.summary.collections == Count(accepted=4, updated=1)
    assert first.summary.undescribed == ("HLSL30.v1.5", "loose")
    before = await ingesting.rows(ids)
    second = await ingesting(EXAMPLES, default_collection="loose")
    assert second.summary.items == Count(updated=48)
    assert second.summary.collections == Count(updated=5)
    assert second.summary.undescribed == ()
    assert await ingesting.rows(ids) == before


@pytest.mark.parametrize("tenant", ["", "a:b", "a b", "a\n", "é", "x" * 101])
async def test_a_tenant_that_no_urn_could_name_is_refused(ingesting: Ingesting, tenant: str) -> None:
    with pytest.raises(IngestError, match="tenant"):
        await ingesting(EXAMPLES, tenant=tenant)


async def test_a_default_collection_that_is_no_id_is_refused(ingesting: Ingesting) -> None:
    with pytest.raises(IngestError, match="the default collection is empty"):
        await ingesting(EXAMPLES, default_collection="")


async def test_a_second_ingest_of_the_tenant_is_turned_away(ingesting: Ingesting, item: Item) -> None:
    file = ingesting.directory / "item.json"
    file.write_text(json.dumps(item))
    other = await asyncpg.connect(ingesting.dsn)
    turned_away: list[str] = []
    started, release = asyncio.Event(), asyncio.Event()

    class Slow(LocalStorage):
        async def stat(self, location: str) -> Any:
            started.set()
            await release.wait()
            return await super().stat(location)

    slow = Slow("slow", ingesting.directory)
    item["assets"] = {"a": {"href": "item.json"}}
    file.write_text(json.dumps(item))
    ingesting.locations = [everyones(slow)]
    first = asyncio.create_task(ingesting(file))
    try:
        await asyncio.wait_for(started.wait(), 10)
        for tenant in ("earth", "moon"):
            try:
                await ingest(other, tenant=tenant, paths=[], locations=[], on_event=lambda _: None)
            except IngestError as error:
                turned_away.append(str(error))
    finally:
        release.set()
        await first
        await other.close()
        await slow.close()
    assert turned_away == ["another ingest of the tenant 'earth' is running; wait for its end"]


async def test_an_interrupted_ingest_leaves_nothing(
    ingesting: Ingesting, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "BATCH_ENTRIES", 50)
    file = ingesting.directory / "items.ndjson"
    file.write_text("\n".join(json.dumps({**item, "id": f"scene-{number}"}) for number in range(2000)))
    events: list[Event] = []
    halfway = asyncio.Event()

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.entries >= 500:
            halfway.set()

    ticks = iter(range(10**6))
    task = asyncio.create_task(
        ingest(
            ingesting.connection,
            tenant="earth",
            paths=[file],
            locations=[],
            on_event=on_event,
            clock=lambda: float(next(ticks)),
        )
    )
    await asyncio.wait_for(halfway.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for table in ("tenants", "datasets", "products"):
        assert await ingesting.rows(f"SELECT FROM {table}") == []
    # The connection is whole, and no lock is left.
    assert (await ingesting(file)).summary.items == Count(accepted=2000)


async def test_progress_is_told_a_few_times_a_second(ingesting: Ingesting, item: Item) -> None:
    file = ingesting.directory / "items.ndjson"
    file.write_text("\n".join(json.dumps({**item, "id": f"scene-{number}"}) for number in range(100)))
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01
        return now

    events: list[Event] = []
    await ingest(ingesting.connection, tenant="earth", paths=[file], locations=[], on_event=events.append, clock=clock)
    # A hundred entries at a hundred a second, at most one event in a quarter of a second.
    assert 3 <= len(events) <= 5
    assert all(isinstance(event, Progress) and event.rejected == 0 for event in events)
    entries = [event.entries for event in events if isinstance(event, Progress)]
    assert entries == sorted(entries)
    assert entries[-1] <= 100
