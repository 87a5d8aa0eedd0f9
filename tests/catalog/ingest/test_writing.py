"""What an ingest does to the rows of the catalogue."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.catalog.ingest import Count, taking
from storage_plugins.local import LocalStorage
from tests.catalog.ingest.conftest import Ingesting
from tests.catalog.ingest.test_regards import FEATURE, URN

Item = dict[str, Any]
ONE, NONE, AGAIN = Count(accepted=1), Count(), Count(updated=1)
EXAMPLES = Path(__file__).parents[2] / "data" / "stac"


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


async def test_what_a_batch_reads_does_not_grow_with_the_catalogue(
    ingesting: Ingesting, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Within its transaction nobody tells PostgreSQL what the tables hold by now.
    batch, batches = 100, 40
    monkeypatch.setattr(taking, "BATCH_ENTRIES", batch)
    assets = {"a": {"href": "s3://x/a"}, "b": {"href": "s3://x/b"}}
    result = await ingesting.of(*({**item, "id": f"scene-{n}", "assets": assets} for n in range(batch * batches)))
    assert result.summary.items == Count(accepted=batch * batches)
    await ingesting.rows("SELECT pg_stat_force_next_flush()")
    read = await ingesting.rows(
        """SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_user_tables
           WHERE relname IN ('products', 'files', 'copies')"""
    )
    assert len(read) == 3
    assert all(int(str(table["rows"])) <= 8 * batch * batches for table in read), read


MARKS = "SELECT version, verified_version, broken_version FROM copies"


async def test_what_was_verified_or_broken_stays_so_as_long_as_version_and_checksum_do(
    ingesting: Ingesting, disk: LocalStorage, item: Item
) -> None:
    path = ingesting.directory / "a.tif"

    def entry(title: str, checksum: str | None = None) -> Item:
        asset = {"href": "a.tif", "title": title} | ({"file:checksum": "1220" + checksum} if checksum else {})
        return {**item, "assets": {"a": asset}}

    async def marks() -> tuple[bool, bool]:
        """Whether the present version is verified, and whether it is broken."""
        [row] = await ingesting.rows(MARKS)
        for mark in ("verified_version", "broken_version"):
            assert row[mark] in (None, row["version"])
        return row["verified_version"] is not None, row["broken_version"] is not None

    async def mark_broken() -> None:
        await ingesting.connection.execute("UPDATE copies SET verified_version = NULL, broken_version = version")

    path.write_bytes(b"content")
    right, wrong = hashlib.sha256(b"content").hexdigest(), hashlib.sha256(b"other").hexdigest()
    await ingesting.of(entry("read", right))
    assert await marks() == (False, False)
    await ingesting.of(entry("read", right), compute_checksums=True)
    assert await marks() == (True, False)
    await ingesting.of(entry("another title", right.upper()))
    assert await marks() == (True, False)
    await ingesting.of(entry("another checksum", wrong))
    assert await marks() == (False, False)

    await mark_broken()
    await ingesting.of(entry("still broken", wrong))
    assert await marks() == (False, True)
    await ingesting.of(entry("the checksum was to blame", right))
    assert await marks() == (False, False)
    await mark_broken()
    await ingesting.of(entry("read and right", right), compute_checksums=True)
    assert await marks() == (True, False)

    path.write_bytes(b"contents")
    await ingesting.of(entry("another version", right))
    assert await marks() == (False, False)
    await ingesting.of(entry("a checksum of our own making"), compute_checksums=True)
    assert await marks() == (True, False)
    await ingesting.of(entry("a checksum of our own making"))
    assert await marks() == (True, False)
    await ingesting.of(entry("which is forgotten when the entry changes"))
    assert await marks() == (False, False)


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
    monkeypatch.setattr(taking, "BATCH_ENTRIES", 1)
    result = await ingesting.of(item, {"type": "Collection", "id": "scenes"})
    assert result.summary.undescribed == ()
    assert result.summary.collections == ONE


async def test_a_regards_page(ingesting: Ingesting) -> None:
    page = {"content": [{"content": FEATURE, "links": []}], "metadata": {"size": 1}, "links": []}
    file = ingesting.directory / "page.json"
    file.write_text(json.dumps(page))
    result = await ingesting(file, tenant="tenant")
    assert result.told == []
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
