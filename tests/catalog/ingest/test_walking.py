"""Static catalogues: on a disk and on an HTTP server, followed by their links and no further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.catalog.ingest import Count, SourceError, walking
from gateway.catalog.ingest.remote import static
from storage_plugins.local import LocalStorage
from tests.catalog.ingest.conftest import Ingesting
from tests.catalog.ingest.remote.api import StacApi, collection, item
from tests.catalog.ingest.remote.conftest import Loading, api, loading

__all__ = ["api", "loading"]

Json = dict[str, Any]


def catalogue(*hrefs: str, rel: str = "child") -> Json:
    links = [{"rel": rel, "href": href} for href in hrefs]
    return {"type": "Catalog", "stac_version": "1.1.0", "id": "root", "description": "d", "links": links}


def linked(document: Json, *hrefs: str, rel: str = "item") -> Json:
    return {**document, "links": [{"rel": rel, "href": href} for href in hrefs]}


DOCUMENTS = {
    "catalog.json": catalogue("./deep/catalog.json", "scenes/collection.json", "scenes/../deep/catalog.json"),
    "deep/catalog.json": catalogue("../catalog.json", "../scenes/collection.json", "catalog.json"),
    "scenes/collection.json": linked(collection("scenes"), "a%20b/1.json", "./2.json?x=1#f", "2.json", "3.json"),
    "scenes/a b/1.json": item(1, assets={"data": {"href": "./1.tif"}}),
    "scenes/2.json": item(2, assets={"data": {"href": "/elsewhere/2.tif"}}),
}


def lay_out(root: Path, documents: dict[str, Json]) -> Path:
    for name, document in documents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    return root / "catalog.json"


async def test_a_local_catalogue_is_followed_and_each_document_read_once(
    ingesting: Ingesting, disk: LocalStorage
) -> None:
    root = lay_out(ingesting.directory, DOCUMENTS)
    (ingesting.directory / "scenes/a b/1.tif").write_bytes(b"123")
    result = await ingesting(root)
    assert (result.summary.collections, result.summary.items) == (Count(1), Count(1))
    assert sorted(result.reasons) == [
        "asset 'data': no storage location holds the path '/elsewhere/2.tif'",
        "cannot be read: No such file or directory",
    ]
    assert await ingesting.rows("SELECT location, size FROM copies") == [{"location": "scenes/a b/1.tif", "size": 3}]


async def test_links_do_not_lead_out_of_the_directory(ingesting: Ingesting, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(item(7)))
    inside = tmp_path / "catalogue"
    root = lay_out(inside, {"catalog.json": {}, "good.json": item(1, assets={})})
    (inside / "link.json").symlink_to(secret)
    (inside / "up").symlink_to(tmp_path)
    good = f"file://{inside}/good.json"
    hrefs = ["../secret.json", str(secret), "link.json", "up/secret.json", f"file://{secret}", "https://x/1.json"]
    hrefs += ["a\0b", "", "http://[", "file://host/good.json", "..%2Fsecret.json"]
    root.write_text(json.dumps(catalogue(*hrefs, good, rel="item")))
    result = await ingesting(root)
    assert (result.summary.items, result.summary.rejected) == (Count(1), len(hrefs))
    assert all(reason.startswith(("the link", "a link")) for reason in result.reasons)


async def test_depth_and_number_of_documents_have_bounds(ingesting: Ingesting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MOST_DEPTH", 3)
    chain = {f"{number}.json": catalogue(f"{number + 1}.json") for number in range(6)}
    root = lay_out(ingesting.directory, {"catalog.json": catalogue("1.json"), **chain})
    result = await ingesting(root)
    assert result.reasons == ["the link '4.json' is more than 3 links from the root: not followed"]
    monkeypatch.setattr(walking, "MOST_DOCUMENTS", 3)
    many = catalogue(*(f"i{number}.json" for number in range(5)), rel="item")
    root = lay_out(ingesting.directory, {"catalog.json": many} | {f"i{n}.json": item(n, assets={}) for n in range(5)})
    result = await ingesting(root)
    assert result.summary.items == Count(2)
    assert result.reasons == [f"the link 'i{number}.json' is beyond 3 documents: not followed" for number in (2, 3, 4)]


async def test_files_that_are_no_catalogue_are_taken_as_before(ingesting: Ingesting, disk: LocalStorage) -> None:
    """A Collection that is given by itself is that alone; a directory is searched for files."""
    lay_out(ingesting.directory, DOCUMENTS)
    result = await ingesting(ingesting.directory / "scenes/collection.json")
    assert (result.summary.collections, result.summary.items) == (Count(1), Count())
    result = await ingesting(ingesting.directory)
    assert len([reason for reason in result.reasons if "is a STAC Catalog" in reason]) == 2


async def test_a_catalogue_on_a_server_is_followed(api: StacApi, loading: Loading) -> None:
    api.documents = {f"/c/{name}": document for name, document in DOCUMENTS.items()}
    result = await loading(f"{api.url}/c/catalog.json")
    assert (result.summary.collections, result.summary.items) == (Count(1), Count(2, 1))
    assert result.reasons == [f"{api.url}/c/scenes/3.json answered 404"]
    rows = await loading.ingesting.rows("SELECT location FROM copies ORDER BY 1")
    locations = [f"{api.url}/c/scenes/a%20b/1.tif", f"{api.url}/elsewhere/2.tif"]
    assert [row["location"] for row in rows] == locations
    # A query may make another document of it.
    assert sorted(set(api.asked)) == [
        "GET /c/catalog.json",
        "GET /c/deep/catalog.json",
        "GET /c/scenes/2.json",
        "GET /c/scenes/2.json?x=1",
        "GET /c/scenes/3.json",
        "GET /c/scenes/a%20b/1.json",
        "GET /c/scenes/collection.json",
    ]


async def test_a_catalogue_on_a_server_does_not_lead_elsewhere(api: StacApi, loading: Loading) -> None:
    hrefs = ["https://elsewhere.example/1.json", "file:///etc/passwd", "//127.0.0.1:1/x", "good.json"]
    api.documents = {"/catalog.json": catalogue(*hrefs, rel="item"), "/good.json": item(1)}
    result = await loading(f"{api.url}/catalog.json")
    assert (result.summary.items, result.summary.rejected) == (Count(1), 3)
    with pytest.raises(SourceError, match="is a static catalogue, of which collections or times cannot be chosen"):
        await loading(f"{api.url}/catalog.json", "scenes")


async def test_a_catalogue_on_a_server_is_written_batch_by_batch(
    api: StacApi, loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "BATCH", 10)
    monkeypatch.setattr(static, "AT_A_TIME", 5)
    monkeypatch.setattr(static, "GIVE_UP_AFTER", 10)
    api.documents = {f"/i{number}.json": item(number) for number in range(20)}
    api.documents["/catalog.json"] = catalogue(*(f"i{number}.json" for number in range(40)), rel="item")
    with pytest.raises(SourceError, match="the last of 10 documents that could not be read"):
        await loading(f"{api.url}/catalog.json")
    assert len(await loading.ids()) == 20
    api.documents["/catalog.json"] = "<html>"
    with pytest.raises(SourceError, match="is not JSON"):
        await loading(f"{api.url}/catalog.json")
