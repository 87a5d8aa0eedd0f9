"""A server of archives, and the storages that members lie in."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage_plugins.local import LocalStorage
from storage_plugins.s3.plugin import S3Storage
from tests.archive.serving import ArchiveServer, Lying, archive_server, lying
from tests.s3.strict import StrictS3
from tests.storage_plugins.test_s3_strict import storage_at


class Place(abc.ABC):
    """A storage that files can be put into."""

    storage: LocalStorage | S3Storage

    def __init__(self) -> None:
        self._number = 0

    @abc.abstractmethod
    def write(self, number: int, content: bytes) -> str:
        """Write a file; gives its location."""

    async def put(self, name: str, content: bytes, *, known: bool = True, folder: str = "") -> Lying:
        self._number += 1
        location = self.write(self._number, content)
        return await lying(name, content, self.storage, location, known=known, folder=folder)


class Disk(Place):
    """A storage of this machine."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.storage = LocalStorage("disk", root, threads=4)

    def write(self, number: int, content: bytes) -> str:
        (self.root / f"file-{number}").write_bytes(content)
        return f"file-{number}"


class Cloud(Place):
    """A storage on a network."""

    def __init__(self, server: StrictS3) -> None:
        super().__init__()
        self.server = server
        self.storage = storage_at(server)

    def write(self, number: int, content: bytes) -> str:
        self.server.store.put("bucket", f"object-{number}", content)
        return f"bucket/object-{number}"


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
