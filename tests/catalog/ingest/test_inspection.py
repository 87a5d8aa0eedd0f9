"""Files on a disk, and what the catalogue says of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from gateway.catalog.ingest import IngestError, asking
from gateway.storage import OpenFile
from storage_plugins.local import LocalStorage
from tests.catalog.ingest.conftest import Ingesting, everyones
from tests.catalog.ingest.test_regards import FEATURE, FILE, URN

Item = dict[str, Any]


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


FILES = """SELECT checksum_algorithm, checksum, files.size, crc32, reference,
                  storage, location, copies.size AS copied, modified, version
           FROM files JOIN copies USING (file_id)"""


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
    assert result.told == []
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
    assert result.told == []


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
    ingesting.locations = [everyones(storage)]
    result = await ingesting.of(on_disk(), compute_checksums=True)
    await storage.close()
    assert result.reasons == ["asset 'a': 'a.tif' in storage 'disk' changed while it was read"]


async def test_a_file_that_may_not_be_read_is_refused(ingesting: Ingesting, on_disk: Callable[..., Item]) -> None:
    from gateway.storage import CopyUnavailableError

    class Broken(LocalStorage):
        async def read(self, file: OpenFile, offset: int, count: int) -> bytes:
            raise CopyUnavailableError("input/output error")

    storage = Broken("disk", ingesting.directory)
    ingesting.locations = [everyones(storage)]
    result = await ingesting.of(on_disk(), compute_checksums=True)
    await storage.close()
    assert result.reasons == ["asset 'a': 'a.tif' in storage 'disk' cannot be read: input/output error"]


async def test_a_storage_that_hangs_ends_the_ingest(
    ingesting: Ingesting, on_disk: Callable[..., Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "TIMEOUT", 0.1)

    class Hanging(LocalStorage):
        async def stat(self, location: str) -> Any:
            await asyncio.sleep(60)

    storage = Hanging("disk", ingesting.directory)
    ingesting.locations = [everyones(storage)]
    with pytest.raises(IngestError, match=r"storage 'disk' did not answer for 'a.tif'"):
        await ingesting.of(on_disk())
    await storage.close()
    assert await ingesting.rows("SELECT FROM tenants") == []
