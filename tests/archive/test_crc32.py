"""CRC-32 of files: computed once, in the pass that verifies them, and remembered while it is true."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from gateway.catalog.model import Copy, File
from gateway.config import Database as DatabaseSettings
from gateway.crc32 import crc32
from gateway.crc32_of_files import Crc32Reader
from gateway.db import connect
from gateway.locations import Location
from gateway.sources import Candidate
from gateway.storage import CopyBrokenError, CopyChangedError
from gateway.verification import Verifier, verifying
from storage_plugins.local import LocalStorage
from tests.archive.conftest import Cloud, Disk, Place
from tests.harness import Catalogue, Entry

CONTENT = random.Random(3).randbytes(700_000)


@dataclasses.dataclass
class Desk:
    """What reads and remembers, and the catalogue it does so for."""

    reader: Crc32Reader
    verifier: Verifier
    catalogue: Catalogue
    disk: LocalStorage

    async def candidate(self, entry: Entry) -> tuple[File, Candidate]:
        row = await self.catalogue.connection.fetchrow(
            "SELECT * FROM files JOIN copies USING (file_id) WHERE file_id = $1", entry.file_id
        )
        assert row
        size = await self.catalogue.connection.fetchval("SELECT size FROM files WHERE file_id = $1", entry.file_id)
        file = File(
            entry.file_id, entry.product, row["data_type"], row["file_name"], row["mime_type"], size, row["checksum"],
            row["checksum_algorithm"], reference=False, copies=(), visible_to_all=False, is_open=False,
            is_metered=False, limits=(),
        )  # fmt: skip
        keys = ("copy_id", "storage", "location", "state", "size", "modified", "version", "verified_version")
        copy = Copy(**{key: row[key] for key in keys})
        return file, Candidate(copy, Location(self.disk))

    async def remembered(self, entry: Entry) -> int | None:
        value: int | None = await self.catalogue.connection.fetchval(
            "SELECT crc32 FROM files WHERE file_id = $1", entry.file_id
        )
        return value


@pytest.fixture
async def desk(database: str, tmp_path: Path) -> AsyncIterator[Desk]:
    root = tmp_path / "archive"
    root.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        connection = await asyncpg.connect(database)
        stack.push_async_callback(connection.close)
        settings = DatabaseSettings.model_validate({"dsn": database, "timeout": 10})
        db = await stack.enter_async_context(connect(settings, ()))
        verifier = await stack.enter_async_context(verifying(db, 10))
        reader = stack.enter_context(Crc32Reader(db, verifier, storage_timeout=10))
        disk = LocalStorage("disk", root)
        stack.push_async_callback(disk.close)
        yield Desk(reader, verifier, Catalogue(connection, root), disk)


@pytest.mark.parametrize("checksum", [True, False])
async def test_it_is_computed_from_a_copy_and_remembered(desk: Desk, checksum: bool) -> None:
    for number, content in enumerate((CONTENT, b"", b"x")):
        entry = await desk.catalogue.file(content, item=f"item-{number}", checksum=checksum, verified=False)
        file, candidate = await desk.candidate(entry)
        found = await desk.reader.read(file, candidate)
        assert (found.crc32, found.size, found.version) == (zlib.crc32(content), len(content), candidate.copy.version)
        assert await desk.reader.save(file, candidate, found)
        assert await desk.remembered(entry) == zlib.crc32(content)


async def test_the_same_pass_verifies_the_copy(desk: Desk) -> None:
    entry = await desk.catalogue.file(CONTENT, verified=False)
    file, candidate = await desk.candidate(entry)
    await desk.reader.read(file, candidate)
    await desk.verifier.__aexit__()  # what was seen is written down by then
    _, seen = await desk.candidate(entry)
    assert seen.copy.verified_version == candidate.copy.version


async def test_a_copy_without_the_bytes_of_its_checksum_has_none(desk: Desk) -> None:
    entry = await desk.catalogue.file(CONTENT, verified=False)
    await desk.catalogue.connection.execute("UPDATE files SET checksum = $1", "0" * 64)
    with pytest.raises(CopyBrokenError):
        await desk.reader.read(*await desk.candidate(entry))
    assert desk.verifier.broken == 1
    assert await desk.remembered(entry) is None


async def test_a_copy_that_was_replaced_is_not_read(desk: Desk) -> None:
    entry = await desk.catalogue.file(CONTENT)
    entry.path.write_bytes(CONTENT[::-1])
    with pytest.raises(CopyChangedError):
        await desk.reader.read(*await desk.candidate(entry))


@pytest.mark.parametrize(
    ("checksum", "change"),
    [
        (True, "UPDATE files SET checksum = repeat('0', 64)"),
        (True, "UPDATE files SET size = 5"),
        (True, "UPDATE files SET checksum = NULL, checksum_algorithm = NULL"),
        (False, "UPDATE copies SET version = 'other'"),
        (False, "UPDATE copies SET version = NULL"),
        (False, "DELETE FROM copies"),
        (True, "DELETE FROM files"),
    ],
)
async def test_nothing_is_remembered_of_a_file_that_is_another_by_now(desk: Desk, checksum: bool, change: str) -> None:
    entry = await desk.catalogue.file(CONTENT, checksum=checksum)
    file, candidate = await desk.candidate(entry)
    found = await desk.reader.read(file, candidate)
    await desk.catalogue.connection.execute(change)
    assert not await desk.reader.save(file, candidate, found)
    assert await desk.remembered(entry) is None


async def test_a_copy_on_a_network_is_read_alike(desk: Desk, cloud: Cloud) -> None:
    place: Place = cloud
    lying = await place.put("x", CONTENT)
    entry = await desk.catalogue.file(CONTENT)
    file, candidate = await desk.candidate(entry)
    copy = dataclasses.replace(candidate.copy, location=lying.location, version=lying.stat.version)
    found = await desk.reader.read(file, Candidate(copy, Location(cloud.storage)))
    assert found.crc32 == lying.crc32


async def test_a_file_of_unknown_size_is_refused(desk: Desk) -> None:
    entry = await desk.catalogue.file(CONTENT, recorded=False)
    await desk.catalogue.connection.execute("UPDATE files SET size = NULL")
    with pytest.raises(ValueError, match="no size"):
        await desk.reader.read(*await desk.candidate(entry))


async def test_a_disk_sums_any_part_of_a_file_that_nobody_changes(disk: Disk) -> None:
    lying, storage = await disk.put("file", CONTENT), disk.storage
    assert isinstance(storage, LocalStorage)
    with contextlib.closing(await storage.open(lying.location)) as file:
        for start, count in ((0, len(CONTENT)), (1000, 5), (len(CONTENT) - 1, 1), (7, 0)):
            expected = zlib.crc32(CONTENT[start : start + count], 99)
            assert await storage.crc32(file, start, count, 99) == expected
        with pytest.raises(CopyChangedError, match="ends"):
            await storage.crc32(file, len(CONTENT) - 5, 6, 0)
        (disk.root / lying.location).write_bytes(CONTENT[::-1])
        with pytest.raises(CopyChangedError, match="written to"):
            await storage.crc32(file, 0, 10, 0)


def test_it_is_that_of_zlib() -> None:
    value = reference = 0
    for piece in (b"", b"a", CONTENT, CONTENT[:1000]):
        value, reference = crc32(piece, value), zlib.crc32(piece, reference)
        assert value == reference
