"""A server of archives, and the storages that members lie in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage_plugins.local import LocalStorage
from storage_plugins.s3.plugin import S3Storage
from tests.archive.serving import ArchiveServer, Lying, archive_server, lying
from tests.s3.strict import StrictS3
from tests.storage_plugins.test_s3_strict import storage_at


class Disk:
    """A storage of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = LocalStorage("disk", root, threads=4)
        self._number = 0

    async def put(self, name: str, content: bytes, *, known: bool = True, folder: str = "") -> Lying:
        self._number += 1
        location = f"file-{self._number}"
        (self.root / location).write_bytes(content)
        return await lying(name, content, self.storage, location, known=known, folder=folder)


class Cloud:
    """A storage on a network."""

    def __init__(self, server: StrictS3) -> None:
        self.server = server
        self.storage: S3Storage = storage_at(server)
        self._number = 0

    async def put(self, name: str, content: bytes, *, known: bool = True, folder: str = "") -> Lying:
        self._number += 1
        key = f"object-{self._number}"
        self.server.store.put("bucket", key, content)
        return await lying(name, content, self.storage, f"bucket/{key}", known=known, folder=folder)


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    root = tmp_path / "disk"
    root.mkdir()
    made = Disk(root)
    yield made
    await made.storage.close()


@pytest.fixture
async def cloud(strict: StrictS3) -> AsyncIterator[Cloud]:
    made = Cloud(strict)
    yield made
    await made.storage.close()


@pytest.fixture
async def server(disk: Disk, cloud: Cloud) -> AsyncIterator[ArchiveServer]:
    """It ends before the storages, which it may be sending from."""
    async with archive_server() as running:
        yield running
