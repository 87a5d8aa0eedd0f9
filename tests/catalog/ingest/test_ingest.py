"""Whole ingests into a real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.catalog.ingest import Count, Event, IngestError, Progress, ingest, inspection, run
from gateway.storage import OpenFile
from storage_plugins.local import LocalStorage
from tests.catalog.ingest.conftest import Ingesting
from tests.catalog.ingest.test_regards import FEATURE, FILE, URN

EXAMPLES = Path(__file__).parents[2] / "data" / "stac"
ONE, NONE, AGAIN = Count(accepted=1), Count(), Count(updated=1)

Item = dict[str, Any]


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
            assert (name, result.events) == (name, [])
        # The examples have no Collection of this name, which their items are in.
        assert summary.undescribed == (("HLSL30.v1.5",) if name.startswith("sentinel-2") else ())


async def test_a_directory_is_taken_whole_and_a_second_time_changes_no_id(ingesting: Ingesting) -> None:
    ids = "SELECT product_id, urn, file_id, asset_key, copy_id FROM products JOIN files USING (product_id) JOIN copies USING (file_id) ORDER BY copy_id"
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


async def test_an_item_is_written_as_it_came(ingesting: Ingesting) -> None:
    await ingesting(EXAMPLES / "stac-server-item-s1-1.json")
    source = json.loads((EXAMPLES / "stac-server-item-s1-1.json").read_text())
    [row] = await ingesting.rows("SELECT * FROM products")
    assert json.loads(str(row["properties"])) == source["properties"]
    assert json.loads(str(row["geometry"])) == source["geometry"]
    rest = {name: value for name, value in source.items() if name not in ("properties", "geometry", "assets")}
    assert json.loads(str(row["body"])) == rest
    assert [row[side] for side in ("west", "south", "east", "north")] == source["bbox"]
    files = await ingesting.rows(
        "SELECT asset_key, body, data_type, storage, location FROM files JOIN copies USING (file_id)"
    )
    assert {row["asset_key"]: json.loads(str(row["body"])) for row in files} == source["assets"]
    assert {row["storage"] for row in files} == {"s3"}
    assert {row["location"] for row in files} == {asset["href"] for asset in source["assets"].values()}


async def test_an_asset_that_is_gone_is_deleted_and_the_others_keep_their_ids(ingesting: Ingesting, item: Item) -> None:
    item["assets"] = {"a": {"href": "s3://x/a"}, "b": {"href": "s3://x/b"}}
    await ingesting.of(item)
    [a, _] = await ingesting.rows("SELECT file_id, copy_id FROM files JOIN copies USING (file_id) ORDER BY asset_key")
    item["assets"] = {"a": {"href": "s3://x/a", "title": "new"}}
    result = await ingesting.of(item)
    assert (result.summary.items, result.summary.files) == (AGAIN, 1)
    rows = await ingesting.rows(
        "SELECT file_id, copy_id, body->>'title' AS title FROM files JOIN copies USING (file_id)"
    )
    assert rows == [{**a, "title": "new"}]
    item["assets"] = {"a": {"href": "s3://x/elsewhere"}}
    await ingesting.of(item)
    rows = await ingesting.rows("SELECT file_id, location FROM files JOIN copies USING (file_id)")
    assert rows == [{"file_id": a["file_id"], "location": "s3://x/elsewhere"}]


async def test_an_item_twice_in_a_batch_is_the_last_one(ingesting: Ingesting, item: Item) -> None:
    other = {**item, "assets": {"b": {"href": "s3://x/b"}}}
    item["assets"] = {"a": {"href": "s3://x/a"}}
    result = await ingesting.of(item, other)
    assert result.summary.items == Count(accepted=1, updated=1)
    assert await ingesting.rows("SELECT asset_key FROM files") == [{"asset_key": "b"}]


async def test_a_collection_that_comes_late_describes_the_one_made_for_items(ingesting: Ingesting, item: Item) -> None:
    result = await ingesting.of(item)
    assert result.summary.undescribed == ("scenes",)
    assert result.summary.collections == NONE
    [made] = await ingesting.rows("SELECT dataset_id, title, body FROM datasets")
    body = json.loads(str(made["body"]))
    assert (body["type"], body["id"], body["license"], body["description"]) == ("Collection", "scenes", "other", "")
    assert await ingesting.rows("SELECT * FROM access_rights") == []
    await ingesting.connection.execute(
        "INSERT INTO licences (tenant_id, name, url) SELECT tenant_id, 'l', 'u' FROM tenants"
    )
    await ingesting.connection.execute("UPDATE datasets SET licence_id = (SELECT licence_id FROM licences)")
    result = await ingesting.of({"type": "Collection", "id": "scenes", "title": "All scenes"})
    assert result.summary.collections == AGAIN
    assert result.remarks == ["the collection has no description, license, extent"]
    [described] = await ingesting.rows("SELECT dataset_id, title, licence_id FROM datasets")
    assert described["dataset_id"] == made["dataset_id"]
    assert described["title"] == "All scenes"
    assert described["licence_id"] is not None


async def test_items_before_their_collection_in_one_ingest(
    ingesting: Ingesting, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH_ENTRIES", 1)
    result = await ingesting.of(item, {"type": "Collection", "id": "scenes"})
    assert result.summary.undescribed == ()
    assert result.summary.collections == ONE


async def test_a_bad_line_is_named_and_the_others_go_in(ingesting: Ingesting, item: Item) -> None:
    file = ingesting.directory / "items.ndjson"
    lines = [json.dumps({**item, "id": f"scene-{number}"}) for number in range(4)]
    lines[1] = lines[1][:-1]
    lines[2] = lines[2].replace("scenes", "")
    file.write_text("\n".join(lines))
    result = await ingesting(file)
    assert result.summary.items == Count(accepted=2)
    assert [(rejection.place.line, rejection.place.id) for rejection in result.rejections] == [
        (2, None),
        (3, "scene-2"),
    ]
    assert str(result.rejections[1].place) == f"{file}, line 3, id 'scene-2'"
    assert result.reasons[0].startswith("is not JSON: Expecting ',' delimiter (column ")
    assert result.reasons[1] == "collection is empty"


async def test_what_is_no_item_is_refused_with_its_place(ingesting: Ingesting, item: Item) -> None:
    result = await ingesting.of(
        {"type": "Catalog", "id": "root"},
        {"type": "FeatureCollection", "features": [item, 7, None, {"type": "Feature"}, {"type": "Mystery"}]},
        {"type": "FeatureCollection", "features": {}},
        [{}, "text"],
        {"type": "Collection"},
        {"type": "Collection", "id": ["x"]},
        7,
    )
    assert [
        (rejection.place.line, rejection.place.index, rejection.reason[:28]) for rejection in result.rejections
    ] == [
        (1, None, "is a STAC Catalog, which hol"),
        (2, 1, "is no JSON object"),
        (2, 2, "is no JSON object"),
        (2, 3, "has no id"),
        (2, 4, "type is 'Mystery': it is nei"),
        (3, None, "is a FeatureCollection witho"),
        (4, 0, "has no type: it is neither a"),
        (4, 1, "is no JSON object"),
        (5, None, "has no id"),
        (6, None, "id is an array of 1, no stri"),
        (7, None, "is no JSON object"),
    ]
    assert result.summary.items == ONE
    assert result.summary.rejected == 11


async def test_paths_that_cannot_be_read(ingesting: Ingesting) -> None:
    (ingesting.directory / "empty").mkdir()
    (ingesting.directory / "links").mkdir()
    (ingesting.directory / "links" / "broken.json").symlink_to("nowhere")
    (ingesting.directory / "links" / "page.html").write_text("<html>")
    os.mkfifo(ingesting.directory / "pipe")
    (ingesting.directory / "deep.json").write_text("[" * 90 + "[" * 100 + "]" * 190)
    paths = [ingesting.directory / name for name in ("none.json", "pipe", "deep.json", "empty", "links")]
    result = await ingesting(*paths)
    assert result.reasons == [
        "cannot be read: No such file or directory",
        "is no regular file",
        "nests deeper than 100 arrays and objects",
        "cannot be read: No such file or directory",
    ]
    assert result.remarks[0].startswith("holds no file with one of the suffixes")
    assert result.summary.rejected == 4


async def test_a_regards_page(ingesting: Ingesting) -> None:
    page = {"content": [{"content": FEATURE, "links": []}], "metadata": {"size": 1}, "links": []}
    events: list[Event] = []
    file = ingesting.directory / "page.json"
    file.write_text(json.dumps(page))
    result = await ingesting(file, tenant="tenant")
    assert result.events == events
    assert result.summary.items == ONE
    [row] = await ingesting.rows(
        "SELECT products.urn, collection_id, datasets.urn AS dataset FROM products JOIN datasets USING (dataset_id)"
    )
    assert row["urn"] == URN
    assert row["collection_id"] == row["dataset"] == FEATURE["tags"][0]  # type: ignore[index]
    [copy] = await ingesting.rows("SELECT storage, state, reference FROM copies JOIN files USING (file_id)")
    assert copy == {"storage": "web", "state": "NEARLINE", "reference": True}


async def test_a_product_of_regards_moves_and_keeps_its_ids(ingesting: Ingesting) -> None:
    ids = "SELECT product_id, file_id, copy_id FROM products JOIN files USING (product_id) JOIN copies USING (file_id)"
    feature = {**FEATURE, "id": URN.replace(":tenant:", ":earth:"), "collection": "old"}
    await ingesting.of(feature)
    before = await ingesting.rows(ids)
    result = await ingesting.of({**feature, "collection": "new"})
    assert result.summary.items == AGAIN
    assert await ingesting.rows(ids) == before
    rows = await ingesting.rows("SELECT collection_id FROM products JOIN datasets USING (dataset_id)")
    assert rows == [{"collection_id": "new"}]


async def test_a_contradiction_with_the_catalogue_is_a_rejection(ingesting: Ingesting) -> None:
    feature = {**FEATURE, "id": URN.replace(":tenant:", ":earth:"), "collection": "c"}
    await ingesting.of(feature)
    other = {**feature, "id": str(feature["id"]).replace(":V3", ":V4")}
    result = await ingesting.of({**feature, "providerId": "other"}, other, {**other, "providerId": "third"})
    assert result.reasons == [
        f"{feature['id']} is the product with the provider id 'DATA-06-20220613-2390', not 'other'",
        f"provider id 'DATA-06-20220613-2390' is that of {feature['id']} in the same dataset, not {other['id']}",
    ]
    assert result.summary.items == ONE


async def test_a_collection_and_the_urn_of_its_dataset_are_one(ingesting: Ingesting, item: Item) -> None:
    await ingesting.of({"type": "Collection", "id": "scenes"})
    [row] = await ingesting.rows("SELECT urn FROM datasets")
    result = await ingesting.of({**item, "collection": row["urn"]}, {"type": "Collection", "id": row["urn"]})
    assert result.summary.undescribed == ()
    assert len(await ingesting.rows("SELECT FROM datasets")) == 1
    result = await ingesting.of({**item, "collection": "b"}, {**item, "collection": _dataset_urn("b")})
    assert result.reasons == []
    assert len(await ingesting.rows("SELECT FROM datasets")) == 2


def _dataset_urn(collection: str) -> str:
    from gateway.catalog.ingest.model import dataset_urn

    return dataset_urn("earth", collection)


async def test_tenants_do_not_see_one_another(ingesting: Ingesting, item: Item) -> None:
    file = ingesting.directory / "item.json"
    file.write_text(json.dumps(item))
    for tenant in ("one", "two"):
        assert (await ingesting(file, tenant=tenant)).summary.items == ONE
    assert len({row["urn"] for row in await ingesting.rows("SELECT urn FROM products")}) == 2


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
    ingesting.storages = [slow]
    first = asyncio.create_task(ingesting(file))
    try:
        await asyncio.wait_for(started.wait(), 10)
        for tenant in ("earth", "moon"):
            try:
                await ingest(other, tenant=tenant, paths=[], storages=[], on_event=lambda _: None)
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
    monkeypatch.setattr(run, "BATCH_ENTRIES", 50)
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
            storages=[],
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
    await ingest(ingesting.connection, tenant="earth", paths=[file], storages=[], on_event=events.append, clock=clock)
    # A hundred entries at a hundred a second, at most one event in a quarter of a second.
    assert 3 <= len(events) <= 5
    assert all(isinstance(event, Progress) and event.rejected == 0 for event in events)
    entries = [event.entries for event in events if isinstance(event, Progress)]
    assert entries == sorted(entries)
    assert entries[-1] <= 100


# ---- Files on a disk

CONTENT = b"the quick brown fox" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CRC32 = zlib.crc32(CONTENT)


@pytest.fixture
def on_disk(ingesting: Ingesting, disk: LocalStorage, item: Item) -> Callable[..., Item]:
    (ingesting.directory / "a.tif").write_bytes(CONTENT)

    def make(**members: object) -> Item:
        return {
            **item,
            "assets": {"a": {"href": "./a.tif", **{name.replace("_", ":"): value for name, value in members.items()}}},
        }

    return make


FILES = "SELECT checksum_algorithm, checksum, files.size, crc32, reference, storage, location, copies.size AS copied, modified, version FROM files JOIN copies USING (file_id)"


async def test_a_local_file_is_described(
    ingesting: Ingesting, disk: LocalStorage, on_disk: Callable[..., Item]
) -> None:
    await ingesting.of(on_disk(file_size=len(CONTENT)))
    [row] = await ingesting.rows(FILES)
    stat = await disk.stat("a.tif")
    assert (row["storage"], row["location"], row["reference"]) == ("disk", "a.tif", False)
    assert (row["copied"], row["modified"], row["version"]) == (stat.size, stat.modified, stat.version)
    assert (row["size"], row["checksum"], row["crc32"]) == (len(CONTENT), None, None)


async def test_the_size_is_taken_from_the_disk_where_the_catalogue_has_none(
    ingesting: Ingesting, on_disk: Callable[..., Item]
) -> None:
    await ingesting.of(on_disk())
    [row] = await ingesting.rows(FILES)
    assert row["size"] == len(CONTENT)


async def test_a_file_of_another_size_is_refused_with_both_sizes(
    ingesting: Ingesting, on_disk: Callable[..., Item]
) -> None:
    result = await ingesting.of(on_disk(file_size=7))
    assert result.reasons == ["asset 'a': the catalogue says 7 bytes, but 'a.tif' in storage 'disk' has 19000"]
    assert await ingesting.rows("SELECT FROM products") == []


async def test_a_missing_file_is_remarked_and_taken(ingesting: Ingesting, on_disk: Callable[..., Item]) -> None:
    entry = on_disk(file_size=len(CONTENT))
    (ingesting.directory / "a.tif").unlink()
    for compute in (False, True):
        result = await ingesting.of(entry, compute_checksums=compute)
        assert result.remarks == ["asset 'a': 'a.tif' in storage 'disk' does not exist"]
        [row] = await ingesting.rows(FILES)
        assert (row["size"], row["copied"], row["version"]) == (len(CONTENT), None, None)


async def test_checksums_are_made(ingesting: Ingesting, on_disk: Callable[..., Item]) -> None:
    await ingesting.of(on_disk(), compute_checksums=True)
    [row] = await ingesting.rows(FILES)
    assert (row["checksum_algorithm"], row["checksum"], row["crc32"]) == ("SHA-256", SHA256, CRC32)


async def test_what_was_computed_stays_as_long_as_the_bytes_and_the_catalogue_do(
    ingesting: Ingesting, on_disk: Callable[..., Item]
) -> None:
    await ingesting.of(on_disk(), compute_checksums=True)
    await ingesting.of(on_disk())
    [row] = await ingesting.rows(FILES)
    assert (row["checksum_algorithm"], row["checksum"], row["crc32"]) == ("SHA-256", SHA256, CRC32)
    await ingesting.of(on_disk(title="another"))
    [row] = await ingesting.rows(FILES)
    assert (row["checksum_algorithm"], row["checksum"], row["crc32"]) == (None, None, None)

    await ingesting.of(on_disk(), compute_checksums=True)
    (ingesting.directory / "a.tif").write_bytes(CONTENT[::-1])
    await ingesting.of(on_disk())
    [row] = await ingesting.rows(FILES)
    assert (row["checksum_algorithm"], row["checksum"], row["crc32"]) == (None, None, None)


async def test_files_of_several_pieces_and_of_none(ingesting: Ingesting, on_disk: Callable[..., Item]) -> None:
    for content in (b"", os.urandom(1024 * 1024), os.urandom(3 * 1024 * 1024 + 1)):
        (ingesting.directory / "a.tif").write_bytes(content)
        await ingesting.of(on_disk(), compute_checksums=True)
        [row] = await ingesting.rows(FILES)
        assert (row["checksum"], row["crc32"]) == (hashlib.sha256(content).hexdigest(), zlib.crc32(content))


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("d50110", "MD5"), ("1114", "SHA-1"), ("1220", "SHA-256"), ("2030", "SHA-384"), ("1340", "SHA-512")],
)
async def test_the_checksum_that_the_catalogue_says_is_verified(
    ingesting: Ingesting, on_disk: Callable[..., Item], prefix: str, name: str
) -> None:
    digest = hashlib.new(name.replace("-", ""), CONTENT).hexdigest()
    result = await ingesting.of(on_disk(file_checksum=prefix + digest.upper()), compute_checksums=True)
    assert result.events == []
    [row] = await ingesting.rows(FILES)
    assert (row["checksum_algorithm"], row["checksum"], row["crc32"]) == (name, digest.upper(), CRC32)
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    result = await ingesting.of({**on_disk(file_checksum=prefix + wrong), "id": "wrong"}, compute_checksums=True)
    [reason] = result.reasons
    assert name in reason
    assert wrong in reason
    assert digest in reason
    result = await ingesting.of({**on_disk(file_checksum=prefix + wrong), "id": "wrong"})
    assert result.reasons == []  # nobody asked for the bytes to be read


async def test_a_wrong_crc32_is_refused(ingesting: Ingesting, disk: LocalStorage, on_disk: Callable[..., Item]) -> None:
    file = {
        **FILE,
        "uri": str(ingesting.directory / "a.tif"),
        "filesize": len(CONTENT),
        "crc32": CRC32 ^ 1,
        "online": True,
    }
    file["checksum"] = hashlib.md5(CONTENT).hexdigest()
    feature = {**FEATURE, "id": URN.replace(":tenant:", ":earth:"), "collection": "c", "files": {"RAWDATA": [file]}}
    result = await ingesting.of(feature, compute_checksums=True)
    assert re.search(r"CRC-32 [0-9a-f]{8}, but 'a.tif'", result.reasons[0])
    file["crc32"] = CRC32
    result = await ingesting.of(feature, compute_checksums=True)
    assert result.events == []


async def test_a_file_that_changes_while_it_is_read_is_refused(
    ingesting: Ingesting, on_disk: Callable[..., Item]
) -> None:
    path = ingesting.directory / "a.tif"

    class Changing(LocalStorage):
        async def read(self, file: OpenFile, offset: int, count: int) -> bytes:
            path.write_bytes(CONTENT[::-1])
            os.utime(path, ns=(1, 1))
            return await super().read(file, offset, count)

    storage = Changing("disk", ingesting.directory)
    ingesting.storages = [storage]
    result = await ingesting.of(on_disk(), compute_checksums=True)
    await storage.close()
    assert result.reasons == ["asset 'a': 'a.tif' in storage 'disk' changed while it was read"]


async def test_a_file_that_may_not_be_read_is_refused(ingesting: Ingesting, on_disk: Callable[..., Item]) -> None:
    from gateway.storage import CopyUnavailableError

    class Broken(LocalStorage):
        async def read(self, file: OpenFile, offset: int, count: int) -> bytes:
            raise CopyUnavailableError("input/output error")

    storage = Broken("disk", ingesting.directory)
    ingesting.storages = [storage]
    result = await ingesting.of(on_disk(), compute_checksums=True)
    await storage.close()
    assert result.reasons == ["asset 'a': 'a.tif' in storage 'disk' cannot be read: input/output error"]


async def test_a_storage_that_hangs_ends_the_ingest(
    ingesting: Ingesting, on_disk: Callable[..., Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "TIMEOUT", 0.1)

    class Hanging(LocalStorage):
        async def stat(self, location: str) -> Any:
            await asyncio.sleep(60)

    storage = Hanging("disk", ingesting.directory)
    ingesting.storages = [storage]
    with pytest.raises(IngestError, match=r"storage 'disk' did not answer for 'a.tif'"):
        await ingesting.of(on_disk())
    await storage.close()
    assert await ingesting.rows("SELECT FROM tenants") == []


# ---- Hostile catalogues

hostile = st.recursive(
    st.sampled_from(
        [
            None,
            True,
            0,
            -1,
            1.5,
            10**30,
            2**53 + 1,
            "",
            "\0",
            "x",
            "ü" * 600,
            "s3://x/a",
            "https://[",
            "file:///a",
            "%00",
        ]
    )
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "id", "coordinates", "href", "datetime", "content", "features", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
MEMBERS = (
    "type",
    "id",
    "collection",
    "properties",
    "geometry",
    "bbox",
    "assets",
    "links",
    "entityType",
    "files",
    "tags",
    "title",
    "content",
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(MEMBERS), hostile, st.booleans()), min_size=20, max_size=20))
async def test_whatever_a_catalogue_says_it_is_taken_or_refused(
    ingesting: Ingesting, changes: list[tuple[str, Any, bool]]
) -> None:
    asset = {"href": "s3://x/a", "roles": ["data"], "file:size": 1}
    good = {
        "type": "Feature",
        "id": "x",
        "collection": "c",
        "geometry": None,
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {"a": asset},
    }
    feature = {**FEATURE, "id": URN.replace(":tenant:", ":earth:"), "collection": "c"}
    collection = {"type": "Collection", "id": "c"}
    entries = [
        {**((good, feature, collection)[number % 3]), member: value}
        if replace
        else {**good, "assets": {"a": {**asset, member: value, "href": value}}}
        for number, (member, value, replace) in enumerate(changes)
    ]
    file = ingesting.directory / "hostile.ndjson"
    file.write_text("\n".join(json.dumps(entry) for entry in entries))
    result = await ingesting(file)
    summary = result.summary
    taken = sum(count.accepted + count.updated for count in (summary.items, summary.collections))
    # An entry may unfold into several or none where a change makes a collection of it.
    assert taken + summary.rejected > 0
    assert all(reason for reason in result.reasons)


async def test_texts_that_jsonb_cannot_hold_are_refused_one_by_one(ingesting: Ingesting, item: Item) -> None:
    good = json.dumps(item)
    bad = [
        good.replace('"links": []', f'"links": {value}')
        for value in (
            '"\\u0000"',
            '"\\ud800"',
            '{"\\udc00": 1}',
            "1e999",
            "NaN",
            "[" * 5000 + "]" * 5000,
            "[" * 200 + "]" * 200,
            "9" * 5000,
        )
    ]
    file = ingesting.directory / "items.ndjson"
    file.write_text("\n".join([*bad, good]))
    result = await ingesting(file)
    assert [rejection.place.line for rejection in result.rejections] == list(range(1, len(bad) + 1))
    assert result.summary.items == ONE
    array = ingesting.directory / "items.json"
    array.write_text(f"[{', '.join([bad[0], bad[1], bad[3], good])}]")
    result = await ingesting(array)
    assert [rejection.place.index for rejection in result.rejections] == [0, 1, 2]
    assert result.summary.items == AGAIN


async def test_keys_as_long_as_are_taken_fit_the_indexes(ingesting: Ingesting, item: Item) -> None:
    noise = "".join(chr(0x4E00 + byte * 79) for byte in os.urandom(2000))  # does not compress, three bytes each

    def of_bytes(length: int) -> str:
        return noise[: length // 3] + "x" * (length % 3)

    entry = {
        **item,
        "id": of_bytes(1000),
        "collection": of_bytes(999),
        "assets": {of_bytes(998): {"href": "s3://" + of_bytes(2393)}},
    }
    result = await ingesting.of(entry)
    assert result.reasons == []
    assert result.summary.files == 1


# ---- Size


async def test_a_large_collection_is_taken_in_bounded_memory(ingesting: Ingesting, item: Item) -> None:
    """As much memory for 8,000 items as for 2,000, and far less than their text: one batch is held, and the next."""
    import tracemalloc

    peaks = {}
    for count in (2_000, 8_000):
        file = ingesting.directory / f"{count}.json"
        item["properties"]["filler"] = "x" * 2000
        with file.open("w") as stream:
            stream.write('{"features": [')
            for number in range(count):
                stream.write(
                    ("," if number else "")
                    + json.dumps({**item, "id": f"scene-{number}", "assets": {"a": {"href": "s3://x/a"}}})
                )
            stream.write('], "type": "FeatureCollection"}')
        tracemalloc.start()
        result = await ingesting(file)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.summary.items.accepted + result.summary.items.updated == count
    assert peaks[8_000] < 1.3 * peaks[2_000]
    assert peaks[8_000] < 30_000_000
