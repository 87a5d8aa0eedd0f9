"""Clients of STAC as people use them, against a gateway on a socket."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac_client
import pytest
import rasterio
import stac_asset
import stac_validator.utilities
from rasterio.windows import Window
from stac_api_validator.validations import QueryConfig, validate_api

from gateway.identity.principal import Principal
from gateway.stac.assets import FILE
from tests.harness import SCIENTIST, bearer, token
from tests.s3.swift import Swift
from tests.stac import offline
from tests.stac.conftest import DATASET, WIDTH, Archive, ArchiveFactory, cog, fill

CLASSES = ["core", "collections", "features", "item-search"]
GEOMETRY = '{"type": "Polygon", "coordinates": [[[9, 39], [12, 39], [12, 42], [9, 42], [9, 39]]]}'

# Clients use what is old in each other, and leave connections for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore")


async def test_the_validator_finds_no_error(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def schema(uri: str) -> offline.Schema:
        asked.append(uri)
        return offline.schema(uri)

    monkeypatch.setattr(stac_validator.utilities, "_schema_cache", schema)
    for root, who in (("/", None), ("/", SCIENTIST), ("/tenants/esa", None)):
        _, errors = await asyncio.to_thread(
            validate_api,
            root_url=f"{archive.gateway.url}{root}",
            ccs_to_validate=CLASSES,
            collection="restricted" if who else "scenes",
            geometry=GEOMETRY,
            auth_bearer_token=token(who) if who else None,
            auth_query_parameter=None,
            fields_nested_property=None,
            validate_pagination=True,
            query_config=QueryConfig(*[None] * 13),
            transaction_collection=None,
            headers={},
            open_assets_urls=True,
        )
        assert list(errors) == [], (root, who)
    assert {f"https://schemas.stacspec.org/v1.1.0/{one}-spec/json-schema/{one}.json" for one in CORE} <= set(asked)
    assert FILE in asked


CORE = ("item", "collection")


async def test_pystac_client_finds_collections_beyond_the_first_page(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ids() -> list[str]:
        client = pystac_client.Client.open(f"{archive.gateway.url}/", headers=bearer(SCIENTIST))
        return [one.id for one in client.get_collections()]

    expected = await asyncio.to_thread(ids)
    monkeypatch.setattr("gateway.stac.search.MOST_COLLECTIONS", 1)
    assert await asyncio.to_thread(ids) == expected
    assert len(expected) == 3


async def test_pystac_client_walks_and_searches(archive: Archive) -> None:
    def walk(who: Principal | None) -> None:
        client = pystac_client.Client.open(f"{archive.gateway.url}/", headers={} if who is None else bearer(who))
        seen = ["scenes", DATASET] if who is None else ["restricted", "scenes", DATASET]
        assert sorted(one.id for one in client.get_collections()) == sorted(seen)
        scenes: Any = client.get_collection("scenes")
        assert [one.id for one in scenes.get_items()] == ["far", "near"]
        near = scenes.get_item("near")
        assert near is not None
        assert scenes.get_item("none") is None
        assert near.get_collection().id == "scenes"
        assert near.datetime == datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.UTC)
        assert near.assets["visual"].href == f"{archive.gateway.url}/collections/scenes/items/near/download/visual"
        everything = client.search(limit=1)
        expected = ["DATA-06", "far", "near"] if who is None else ["DATA-06", "secret too", "secret", "far", "near"]
        assert [one.id for one in everything.items()] == expected
        asked: list[tuple[list[str], dict[str, Any]]] = [
            (["near"], {"ids": ["near"]}),
            (["far"], {"bbox": [11.5, 40, 12, 41]}),
            (["far", "near"], {"collections": ["scenes"], "datetime": "2024-05-01/2024-05-02"}),
            (["far", "near"], {"intersects": {"type": "Point", "coordinates": [11, 40.5]}, "collections": ["scenes"]}),
            (["near", "far"], {"collections": ["scenes"], "sortby": "+datetime"}),
        ]
        for found, question in asked:
            for method in ("GET", "POST"):
                search = client.search(limit=1, method=method, **question)
                assert [one.id for one in search.items()] == found, (method, question)

    for who in (None, SCIENTIST):
        await asyncio.to_thread(walk, who)


async def test_stac_asset_downloads_items(
    archive_for: ArchiveFactory, swift: Swift, bucket: str, tmp_path: Path
) -> None:
    """Streamed, and redirected to a real S3 server: it encodes the query of a redirect anew (RFC 3986 §2.2)."""
    await swift.put(bucket, "far.tif", cog())
    async with archive_for(swift, bucket) as archive:
        await fill(archive, bucket)

        def items() -> Any:
            client = pystac_client.Client.open(f"{archive.gateway.url}/")
            return [next(client.search(ids=[name]).items()) for name in ("near", "far")]

        for found in await asyncio.to_thread(items):
            directory = tmp_path / found.id
            await stac_asset.download_item(found, directory, config=stac_asset.Config(warn=False))
            assert (directory / "visual").read_bytes() == cog()
        assert (tmp_path / "near" / "thumbnail").read_bytes() == b"png"
        assert "307" in "".join(archive.gateway.access_log)


async def test_gdal_reads_a_window_of_an_image(archive: Archive) -> None:
    """``near`` is streamed, ``far`` redirected."""

    def read(href: str, who: Principal | None) -> Any:
        options: dict[str, Any] = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": False}
        if who is not None:
            options["GDAL_HTTP_HEADERS"] = f"Authorization: Bearer {token(who)}"
        with rasterio.Env(**options), rasterio.open(f"/vsicurl/{href}") as image:
            assert (image.width, image.height, image.crs.to_epsg()) == (WIDTH, WIDTH, 4326)
            assert image.overviews(1)
            return image.read(1, window=Window(100, 200, 7, 5))

    whole = np.arange(WIDTH * WIDTH, dtype="uint16").reshape(WIDTH, WIDTH)
    for item, who in (("near", None), ("far", None), ("near", SCIENTIST)):
        archive.gateway.access_log.clear()
        root = "" if who is None else "/tenants/esa"  # GDAL keeps what it read of a URL.
        document = await archive.json(f"{root}/collections/scenes/items/{item}", who)
        pixels = await asyncio.to_thread(read, document["assets"]["visual"]["href"], who)
        assert np.array_equal(pixels, whole[200:205, 100:107])
        statuses = {json.loads(line)["status"] for line in archive.gateway.access_log if "/download/" in line}
        assert statuses >= {206 if item == "near" else 307}, (item, who)
        assert (307 in statuses) == (item == "far")
