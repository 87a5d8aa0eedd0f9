from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.demo.accounts import TENANT
from gateway.demo.catalogue import TAPE
from gateway.demo.listing import DemoFile, list_files, to_json
from tests.demo.conftest import add_copy, add_dataset, add_file, add_product, add_tenant

SHA256 = "AB" * 32
MD5 = "Cd" * 16
FILE = DemoFile(
    collection="open",
    item="coast",
    asset="coast.tif",
    product="URN:FEATURE:DATA:demo:50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd:V1",
    checksum=MD5,
    data_type="RAWDATA",
    name="coast.tif",
    path="/archive/open/coast/coast.tif",
    size=3,
    sha256=SHA256.lower(),
)


@pytest.fixture
async def product(connection: asyncpg.Connection) -> int:
    tenant = await add_tenant(connection, TENANT)
    return await add_product(connection, tenant, await add_dataset(connection, tenant, "open"), "coast")


async def test_a_file_with_sha256_is_listed_without_being_read(
    connection: asyncpg.Connection, product: int, tmp_path: Path
) -> None:
    file = await add_file(connection, product, "coast.tif", checksum=SHA256, algorithm="SHA-256", size=3)
    await add_copy(connection, file, "archive", "open/coast/Île – 北京.tif", size=3)
    assert await list_files(connection, tmp_path) == [
        DemoFile(
            collection="open",
            item="coast",
            asset="coast.tif",
            product="URN:FEATURE:DATA:demo:coast:V1",
            checksum=SHA256,
            data_type="RAWDATA",
            name="coast.tif as a name",
            path=str(tmp_path / "open/coast/Île – 北京.tif"),
            size=3,
            sha256=SHA256.lower(),
        )
    ]


@pytest.mark.parametrize(("checksum", "algorithm"), [(MD5, "MD5"), (None, None)])
async def test_where_the_catalogue_has_no_sha256_the_file_is_read(
    connection: asyncpg.Connection, product: int, tmp_path: Path, checksum: str | None, algorithm: str | None
) -> None:
    content = b"some text" * 100_000
    (tmp_path / "about.txt").write_bytes(content)
    file = await add_file(connection, product, "about", checksum=checksum, algorithm=algorithm, data_type="DOCUMENT")
    await add_copy(connection, file, "archive", "about.txt")
    (listed,) = await list_files(connection, tmp_path)
    assert listed.sha256 == hashlib.sha256(content).hexdigest()
    assert listed.size == len(content)
    assert listed.checksum == checksum
    assert listed.data_type == "DOCUMENT"


async def test_a_size_that_nobody_knows_is_measured(
    connection: asyncpg.Connection, product: int, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    sha256 = hashlib.sha256(b"12345").hexdigest()
    file = await add_file(connection, product, "x", checksum=sha256, algorithm="SHA-256")
    await add_copy(connection, file, "archive", "x")
    (listed,) = await list_files(connection, tmp_path)
    assert (listed.size, listed.sha256) == (5, sha256)


async def test_only_what_the_demo_can_deliver_is_listed(
    connection: asyncpg.Connection, product: int, tmp_path: Path
) -> None:
    for asset, storage, version in [
        ("b-here", "archive", "1"),
        ("a-here", "archive", "2"),
        ("elsewhere", "attic", "3"),
        ("on tape", "tape", None),
        ("never seen", "archive", None),
    ]:
        file = await add_file(connection, product, asset, checksum=SHA256, algorithm="SHA-256", size=3)
        await add_copy(connection, file, storage, asset, version=version)
    await add_file(connection, product, "no copy", checksum=SHA256, algorithm="SHA-256", size=3)
    twice = await add_file(connection, product, "twice", checksum=SHA256, algorithm="SHA-256", size=3)
    await add_copy(connection, twice, "archive", "first")
    await add_copy(connection, twice, "archive", "another")
    other = await add_tenant(connection, "other")
    foreign = await add_product(connection, other, await add_dataset(connection, other, "open"), "coast")
    file = await add_file(connection, foreign, "foreign", checksum=SHA256, algorithm="SHA-256", size=3)
    await add_copy(connection, file, "archive", "foreign")
    listed = await list_files(connection, tmp_path)
    assert [(file.asset, file.path, file.nearline) for file in listed] == [
        ("a-here", str(tmp_path / "a-here"), False),
        ("b-here", str(tmp_path / "b-here"), False),
        ("on tape", str(tmp_path / TAPE / "on tape"), True),
        ("twice", str(tmp_path / "first"), False),
    ]


async def test_paths_are_absolute_even_of_a_relative_root(
    connection: asyncpg.Connection, product: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await add_file(connection, product, "x", checksum=SHA256, algorithm="SHA-256", size=3)
    await add_copy(connection, file, "archive", "open/x")
    monkeypatch.chdir(tmp_path)
    (listed,) = await list_files(connection, Path("data"))
    assert listed.path == str(tmp_path / "data" / "open" / "x")


async def test_a_file_that_is_gone_is_named(connection: asyncpg.Connection, product: int, tmp_path: Path) -> None:
    file = await add_file(connection, product, "about", checksum=MD5, algorithm="MD5", size=3)
    await add_copy(connection, file, "archive", "gone.txt")
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        await list_files(connection, tmp_path)


def test_json_has_tokens_and_addresses() -> None:
    value = to_json(
        "http://127.0.0.1:8080",
        "demo",
        {"scientist": "a.b.c"},
        [FILE],
        regards_prefix="/api/v1/rs-catalog",
        stac_prefix="/stac",
    )
    assert json.loads(json.dumps(value)) == {
        "base_url": "http://127.0.0.1:8080",
        "tenant": "demo",
        "tokens": {"scientist": "a.b.c"},
        "files": [
            {
                "collection": "open",
                "item": "coast",
                "asset": "coast.tif",
                "product": "URN:FEATURE:DATA:demo:50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd:V1",
                "checksum": MD5,
                "data_type": "RAWDATA",
                "name": "coast.tif",
                "path": "/archive/open/coast/coast.tif",
                "size": 3,
                "sha256": SHA256.lower(),
                "nearline": False,
                "regards_url": "http://127.0.0.1:8080/api/v1/rs-catalog/downloads/URN:FEATURE:DATA:demo:"
                f"50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd:V1/files/{MD5}",
                "stac_url": "http://127.0.0.1:8080/stac/collections/open/items/coast/download/coast.tif",
            }
        ],
    }


def test_without_checksum_there_is_no_regards_address() -> None:
    file = dataclasses.replace(FILE, checksum=None)
    value = to_json("http://h", "demo", {}, [file], regards_prefix="", stac_prefix="")
    assert json.loads(json.dumps(value))["files"][0]["regards_url"] is None


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(collection=NAMES, item=NAMES, asset=NAMES, product=NAMES, checksum=NAMES)
def test_each_id_is_one_percent_encoded_segment(
    collection: str, item: str, asset: str, product: str, checksum: str
) -> None:
    file = dataclasses.replace(FILE, collection=collection, item=item, asset=asset, product=product, checksum=checksum)
    value = to_json("http://h:1", "demo", {}, [file], regards_prefix="/r", stac_prefix="/s")
    (entry,) = json.loads(json.dumps(value))["files"]
    expected = {
        "regards_url": ["", "r", "downloads", product, "files", checksum],
        "stac_url": ["", "s", "collections", collection, "items", item, "download", asset],
    }
    for key, segments in expected.items():
        parts = urlsplit(entry[key])
        assert entry[key].isascii()
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("http", "h:1", "", "")
        assert [unquote(segment) for segment in parts.path.split("/")] == segments
