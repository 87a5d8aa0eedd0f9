"""Checksums of copies, computed from the bytes that their storages give."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import zlib
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from gateway.catalog.ingest.asking import in_time
from gateway.catalog.ingest.model import Checksum, Copy
from gateway.storage import CanStream, CopyChangedError, OnDisk, Stat

READERS = 16
"""Copies that are read at the same time."""
HASHERS = 2
"""Threads that compute checksums."""
_PIECE = 1024 * 1024

_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


@dataclasses.dataclass(frozen=True, slots=True)
class Sums:
    """What the bytes of a copy give."""

    checksum: Checksum
    crc32: int


class Summing:
    """Reads copies and computes their checksums. A context manager: it owns the threads that compute."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(READERS)
        self._threads = ThreadPoolExecutor(HASHERS, thread_name_prefix="ingest-checksums")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def of(self, storage: OnDisk | CanStream, copy: Copy, stat: Stat, algorithm: str) -> Sums:
        """Read the whole copy that ``stat`` describes; a file on a disk is read from there.

        Raises:
            CopyChangedError: what was read is not what ``stat`` describes.
            StorageError: it cannot be read.
        """
        digest = hashlib.new(_HASHES[algorithm], usedforsecurity=False)
        loop = asyncio.get_running_loop()
        crc32 = size = 0
        pieces = _from_disk(storage, copy, stat) if isinstance(storage, OnDisk) else _streamed(storage, copy, stat)
        async with self._turns, contextlib.aclosing(pieces):
            async for piece in pieces:
                crc32 = await loop.run_in_executor(self._threads, _add, digest, piece, crc32)
                size += len(piece)
                if size > stat.size:
                    break
        if size != stat.size:
            raise CopyChangedError(f"{copy.location}: has {stat.size} bytes, but other than these were read")
        return Sums(Checksum(algorithm, digest.hexdigest()), crc32)


async def _from_disk(disk: OnDisk, copy: Copy, stat: Stat) -> AsyncGenerator[bytes, None]:
    offset = 0
    file = await in_time(disk.open(copy.location), copy)
    with contextlib.closing(file):
        _check_same(copy, file.stat, stat)
        while piece := await in_time(disk.read(file, offset, _PIECE), copy):
            offset += len(piece)
            yield piece
    # What was read must be what lies there still, else the sums describe neither.
    _check_same(copy, await in_time(disk.stat(copy.location), copy), stat)


async def _streamed(storage: CanStream, copy: Copy, stat: Stat) -> AsyncGenerator[bytes, None]:
    if stat.size == 0:  # nobody can ask for no bytes
        return
    stream = await in_time(storage.stream(copy.location, 0, stat.size, stat.version), copy)
    with contextlib.closing(stream):
        _check_same(copy, stream.stat, stat)
        while piece := await in_time(stream.read(), copy):
            yield piece


def _check_same(copy: Copy, found: Stat, stat: Stat) -> None:
    if (found.size, found.version) != (stat.size, stat.version):
        raise CopyChangedError(f"{copy.location}: changed since it was described")


def _add(digest: Any, piece: bytes, crc32: int) -> int:
    digest.update(piece)
    return zlib.crc32(piece, crc32)
