from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from gateway.demo import catalogue
from gateway.demo.catalogue import ARCHIVED, LICENSED, OPEN, RESTRICTED, TAPE, write_catalogue

LARGE = 3 * 2**20 + 5
MULTIHASHES = {"1220": "sha256", "d50110": "md5"}
"""Code and length of a multihash: sha2-256 is 0x12 and 32 bytes; md5 is 0xd5, as a varint d5 01, and 16 bytes."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("catalogue")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def documents(directory: Path) -> dict[Path, dict[str, Any]]:
    return {path: json.loads(path.read_text("utf-8")) for path in write_catalogue(directory, large=LARGE)}


@pytest.fixture(scope="module")
def items(documents: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    return {path: document for path, document in documents.items() if document["type"] == "Feature"}


@pytest.fixture(scope="module")
def collections(documents: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    return {path: document for path, document in documents.items() if document["type"] == "Collection"}


def follow(document: Path, href: str) -> Path:
    """The file that a reference in a document means, by the rules of URLs."""
    return Path(unquote(urlsplit(urljoin(document.as_uri(), href)).path))


def test_the_collections_come_before_their_items(documents: dict[Path, dict[str, Any]], directory: Path) -> None:
    seen = set()
    for path, document in documents.items():
        if document["type"] == "Collection":
            assert path == directory / document["id"] / "collection.json"
            seen.add(document["id"])
        else:
            assert document["collection"] in seen
            assert path == directory / document["collection"] / document["id"] / f"{document['id']}.json"
    assert seen == {OPEN, RESTRICTED, LICENSED, ARCHIVED}


def test_items_are_valid_stac(items: dict[Path, dict[str, Any]]) -> None:
    assert len({item["id"] for item in items.values()}) == len(items)
    for path, item in items.items():
        assert item["stac_version"] == "1.1.0"
        assert item["stac_extensions"] == ["https://stac-extensions.github.io/file/v2.1.0/schema.json"]
        west, south, east, north = item["bbox"]
        assert -180 <= west < east <= 180
        assert -90 <= south < north <= 90
        (ring,) = item["geometry"]["coordinates"]
        assert item["geometry"]["type"] == "Polygon"
        assert ring[0] == ring[-1]
        assert {tuple(point) for point in ring} == {(x, y) for x in (west, east) for y in (south, north)}
        area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise(ring))
        assert area > 0, "the outer ring goes against the clock (RFC 7946 §3.1.6)"
        when = datetime.datetime.fromisoformat(item["properties"]["datetime"])
        assert when.utcoffset() == datetime.timedelta(0)
        assert item["properties"]["title"]
        links = {link["rel"]: link for link in item["links"]}
        assert links.keys() == {"root", "parent", "collection"}
        assert json.loads(follow(path, links["collection"]["href"]).read_text())["id"] == item["collection"]


def test_collections_are_valid_stac(collections: dict[Path, dict[str, Any]], items: dict[Path, dict[str, Any]]) -> None:
    for path, collection in collections.items():
        mine = {p: item for p, item in items.items() if item["collection"] == collection["id"]}
        assert collection["stac_version"] == "1.1.0"
        assert collection["title"]
        assert collection["description"]
        ((west, south, east, north),) = collection["extent"]["spatial"]["bbox"]
        assert all(
            west <= item["bbox"][0]
            and south <= item["bbox"][1]
            and east >= item["bbox"][2]
            and north >= item["bbox"][3]
            for item in mine.values()
        )
        times = [datetime.datetime.fromisoformat(item["properties"]["datetime"]) for item in mine.values()]
        ((begin, end),) = collection["extent"]["temporal"]["interval"]
        assert datetime.datetime.fromisoformat(begin) == min(times)
        assert datetime.datetime.fromisoformat(end) == max(times)
        linked = {follow(path, link["href"]) for link in collection["links"] if link["rel"] == "item"}
        assert linked == set(mine)
        licences = [link["href"] for link in collection["links"] if link["rel"] == "license"]
        assert licences == ([catalogue.LICENCE_URL] if collection["license"] == "other" else [])
        assert (collection["license"] == "other") == (collection["id"] == LICENSED)


def test_assets_describe_their_files(items: dict[Path, dict[str, Any]], directory: Path) -> None:
    described = set()
    for path, item in items.items():
        for asset in item["assets"].values():
            assert asset["href"].isascii()
            assert " " not in asset["href"]
            if item["collection"] == ARCHIVED:
                file = directory / TAPE / unquote(asset["href"].removeprefix("tape://"))
            else:
                assert asset["href"].startswith("./")
                file = follow(path, asset["href"])
            content = file.read_bytes()
            described.add(file)
            assert asset["file:size"] == len(content)
            checksum = asset["file:checksum"]
            prefix = next(prefix for prefix in MULTIHASHES if checksum.startswith(prefix))
            assert checksum == prefix + hashlib.new(MULTIHASHES[prefix], content).hexdigest()
            assert asset["type"]
            assert asset["roles"] in (["data"], ["thumbnail"], ["metadata"])
    there = {file for file in directory.rglob("*") if file.is_file() and file.suffix != ".json"}
    assert described == there


def test_the_catalogue_has_one_of_each_kind(items: dict[Path, dict[str, Any]]) -> None:
    assets = [(item["collection"], key, asset) for item in items.values() for key, asset in item["assets"].items()]
    sizes = {key: asset["file:size"] for collection, key, asset in assets if collection == OPEN}
    assert sizes["mosaic-20240604.bin"] == 64 * 2**20
    assert sizes["empty.dat"] == 0
    assert sizes["large-20240606.bin"] == LARGE
    assert [key for _, key, asset in assets if asset["file:checksum"].startswith("d50110")] == ["about"]
    (alphabets,) = (asset for _, key, asset in assets if key == "alphabets.tif")
    assert unquote(alphabets["href"]) == "./Île-de-France – Εύβοια – 北京 – Москва.tif"
    types = {asset["type"] for _, _, asset in assets}
    assert types == {"image/tiff; application=geotiff", "image/png", "text/plain", "application/octet-stream"}


def test_ten_and_more_data_files_differ_over_open_and_restricted(items: dict[Path, dict[str, Any]]) -> None:
    checksums = {
        collection: [
            asset["file:checksum"]
            for item in items.values()
            for asset in item["assets"].values()
            if item["collection"] == collection and asset["roles"] == ["data"] and asset["file:size"]
        ]
        for collection in (OPEN, RESTRICTED, LICENSED)
    }
    both = checksums[OPEN] + checksums[RESTRICTED]
    assert len(set(both)) == len(both) >= 10
    assert len(checksums[RESTRICTED]) > 3, "the account limited runs out of downloads"
    assert checksums[LICENSED]


def test_writing_again_gives_the_same_bytes(
    documents: dict[Path, dict[str, Any]], directory: Path, tmp_path: Path
) -> None:
    again = write_catalogue(tmp_path, large=LARGE)
    assert [path.relative_to(tmp_path) for path in again] == [path.relative_to(directory) for path in documents]
    assert _digests(tmp_path) == _digests(directory)
    write_catalogue(tmp_path, large=LARGE)
    assert _digests(tmp_path) == _digests(directory)
    shutil.rmtree(tmp_path)


def test_without_large_there_is_no_large_file() -> None:
    ids = {product.item for dataset in catalogue.datasets(None) for product in dataset.products}
    with_large = {product.item for dataset in catalogue.datasets(1) for product in dataset.products}
    assert with_large - ids == {"large-20240606"}
    assert ids < with_large


def test_a_file_too_large_for_the_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"A file of {2**62} bytes does not fit") as caught:
        write_catalogue(tmp_path / "data", large=2**62)
    assert caught.value.filename == str(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def _digests(directory: Path) -> dict[Path, str]:
    return {
        path.relative_to(directory): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
