"""Public catalogues as they are, taken in and served back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import ADMIN, Entry
from tests.s3.strict import StrictS3
from tests.stac.conftest import Archive, ArchiveFactory, Json
from tests.stac.offline import validate

EXAMPLES = Path(__file__).parents[1] / "data" / "stac"


def documents(path: Path) -> list[Json]:
    """The Items and Collections of a file."""
    document = json.loads(path.read_text())
    found: list[Json] = document.get("features", [document])
    return found


# Of pystac, when it brings old documents to its version.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
async def test_all_of_them_come_back_valid_and_with_all_that_they_said(
    archive_for: ArchiveFactory, strict: StrictS3
) -> None:
    async with archive_for(strict.account) as archive:
        paths = sorted(EXAMPLES.glob("*.*json"))
        assert len(paths) == 15
        for path in paths:
            await archive.ingest_files(path, default_collection="loose")
            for original in documents(path):
                validate(
                    await (served_collection if original["type"] == "Collection" else served_item)(archive, original)
                )
        found = (await archive.json("/collections", ADMIN))["collections"]
        assert {"HLSL30.v1.5", "loose", "joplin"} <= {one["id"] for one in found}
        for one in found:
            validate(one)


async def served_collection(archive: Archive, original: Json) -> Json:
    served = await archive.json(f"/collections/{original['id']}", ADMIN)
    see_the_same(original, served, set(original) - {"links", "title"})
    see_links(archive, served)
    return served


async def served_item(archive: Archive, original: Json) -> Json:
    collection = original.get("collection", "loose")
    served = await archive.json(f"/collections/{collection}/items/{original['id']}", ADMIN)
    see_the_same(original, served, set(original) - {"links", "assets", "properties", "stac_extensions"})
    see_the_same(original["properties"], served["properties"], set(original["properties"]))
    assert set(original.get("stac_extensions") or ()) <= set(served["stac_extensions"])
    see_links(archive, served)
    check_assets(archive, original, served)
    return served


def see_the_same(original: Json, served: Json, names: set[str]) -> None:
    assert {name: served[name] for name in names} == {name: original[name] for name in names}


def check_assets(archive: Archive, original: Json, served: Json) -> None:
    """Every asset is there, downloads from here, and says where else it is and what it said before."""
    assert set(served["assets"]) == set(original["assets"])
    for key, came in original["assets"].items():
        asset = served["assets"][key]
        assert asset["href"].startswith(f"{archive.gateway.url}/collections/{served['collection']}/items/")
        assert came["href"] in {one["href"] for one in asset["alternate"].values()}
        others = set(came) - {"href", "alternate", "auth:refs"}
        assert {name: asset[name] for name in others} == {name: came[name] for name in others}
        assert came.get("alternate", {}).items() <= asset["alternate"].items()


def see_links(archive: Archive, served: Json) -> None:
    """Every link is absolute, and those through the catalogue lead through this one."""
    for link in served["links"]:
        assert link["href"].startswith(("http://", "https://", "s3://")), link
        if link["rel"] in ("self", "root", "parent", "collection", "items", "item", "child"):
            assert link["href"].startswith(f"{archive.gateway.url}/"), link


async def test_files_that_are_there_are_downloaded_byte_by_byte_from_what_the_item_says(
    archive_for: ArchiveFactory, strict: StrictS3
) -> None:
    async with archive_for(strict.account) as archive:
        await archive.ingest_files(*sorted(EXAMPLES.glob("stac-server-*.json")))
        connection = archive.gateway.catalogue.connection
        files = await connection.fetch(
            """SELECT f.file_id, f.asset_key, d.collection_id, p.provider_id
               FROM files f JOIN products p USING (product_id) JOIN datasets d USING (dataset_id)"""
        )
        assert len(files) == 44
        for number, file in enumerate(files):
            content = f"content of {file['asset_key']} of {file['provider_id']}".encode()
            (archive.root / f"{number}.dat").write_bytes(content)
            entry = Entry("", "", "", "", "", archive.root, content, file["file_id"])
            await connection.execute("UPDATE files SET size = NULL WHERE file_id = $1", file["file_id"])
            await archive.gateway.catalogue.copy(entry, "disk", f"{number}.dat", None)
            item = await archive.json(f"/collections/{file['collection_id']}/items/{file['provider_id']}", ADMIN)
            href = item["assets"][file["asset_key"]]["href"]
            response, body = await archive.gateway.get(href.removeprefix(archive.gateway.url), ADMIN)
            assert (response.status, body) == (200, content)
