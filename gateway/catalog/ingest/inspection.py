"""What storages say of the copies: sizes, versions and, where asked, checksums, held against the catalogue's own."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from gateway.catalog.ingest.events import IngestError, RefusedError, Rejection, Remark
from gateway.catalog.ingest.model import Checksum, Copy, File, Product
from gateway.storage import CanStat, CopyChangedError, CopyNotFoundError, OnDisk, Stat, Storage, StorageError

CONCURRENCY = 16
"""Products whose copies are looked at at the same time."""
HASHERS = 2
"""Threads that compute checksums."""
TIMEOUT = 30.0
"""Seconds that a storage may take to describe, open or read one piece of a copy."""
_PIECE = 1024 * 1024

_T = TypeVar("_T")
_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


@dataclasses.dataclass(frozen=True, slots=True)
class _Sums:
    checksum: Checksum
    crc32: int
    size: int


class Inspector:
    """Asks the storages about copies. A context manager: it owns the threads that compute checksums."""

    def __init__(self, storages: Sequence[Storage], *, compute_checksums: bool) -> None:
        self._can_stat = {storage.name: storage for storage in storages if isinstance(storage, CanStat)}
        self._on_disk: dict[str, OnDisk] = {}
        if compute_checksums:
            self._on_disk = {storage.name: storage for storage in storages if isinstance(storage, OnDisk)}
        self._threads = ThreadPoolExecutor(HASHERS, thread_name_prefix="ingest-checksums")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def inspect(
        self,
        products: Sequence[Product],
        *,
        tell: Callable[[Rejection | Remark], None],
        done: Callable[[int], None],
    ) -> list[Product]:
        """Those of ``products`` that agree with their storages, in their order, with what the storages said of them.

        ``tell`` takes what is wrong with the others and odd about these; ``done`` the number of products looked at.

        Raises:
            IngestError: a storage did not answer in `TIMEOUT`.
        """
        results: list[Product | None] = [None] * len(products)
        waiting = iter(enumerate(products))

        async def work() -> None:
            for index, product in waiting:
                try:
                    results[index] = await self._product(product, tell)
                except RefusedError as error:
                    tell(Rejection(product.place, str(error)))
                done(1)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(CONCURRENCY, len(products))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [product for product in results if product is not None]

    async def _product(self, product: Product, tell: Callable[[Rejection | Remark], None]) -> Product:
        if not any(copy.storage in self._can_stat for file in product.files for copy in file.copies):
            return product
        files = []
        for file in product.files:
            try:
                files.append(await self._file(file, lambda text: tell(Remark(product.place, text))))
            except RefusedError as error:
                raise RefusedError(f"asset {file.asset_key!r}: {error}") from error
        return dataclasses.replace(product, files=tuple(files))

    async def _file(self, file: File, remark: Callable[[str], None]) -> File:
        copies = []
        for copy in file.copies:
            storage = self._can_stat.get(copy.storage)
            if storage is None:
                copies.append(copy)
                continue
            stat = await _stat(storage, copy)
            if stat is None:
                remark(f"asset {file.asset_key!r}: {_name(copy)} does not exist")
                copies.append(copy)
                continue
            file = _with_size(file, copy, stat)
            disk = self._on_disk.get(copy.storage)
            if disk is not None:
                sums = await self._sums(disk, copy, stat, file.checksum)
                # What was read must be what lies there still, else the sums describe neither.
                if await _stat(storage, copy) != stat or sums.size != stat.size:
                    raise RefusedError(f"{_name(copy)} changed while it was read")
                file = _with_sums(file, copy, sums)
            copies.append(dataclasses.replace(copy, size=stat.size, modified=stat.modified, version=stat.version))
        return dataclasses.replace(file, copies=tuple(copies))

    async def _sums(self, disk: OnDisk, copy: Copy, stat: Stat, stated: Checksum | None) -> _Sums:
        algorithm = stated.algorithm if stated is not None else "SHA-256"
        digest = hashlib.new(_HASHES[algorithm], usedforsecurity=False)
        loop = asyncio.get_running_loop()
        crc32 = offset = 0
        try:
            file = await _in_time(disk.open(copy.location), copy)
        except CopyNotFoundError as error:
            raise RefusedError(f"{_name(copy)} vanished before it was read") from error
        try:
            if file.stat != stat:
                raise RefusedError(f"{_name(copy)} changed while it was read")
            while piece := await _in_time(disk.read(file, offset, _PIECE), copy):
                crc32 = await loop.run_in_executor(self._threads, _add, digest, piece, crc32)
                offset += len(piece)
        finally:
            file.close()
        return _Sums(Checksum(algorithm, digest.hexdigest()), crc32, offset)


async def _stat(storage: CanStat, copy: Copy) -> Stat | None:
    try:
        return await _in_time(storage.stat(copy.location), copy)
    except CopyNotFoundError:
        return None


def _add(digest: Any, piece: bytes, crc32: int) -> int:
    digest.update(piece)
    return zlib.crc32(piece, crc32)


def _with_size(file: File, copy: Copy, stat: Stat) -> File:
    if file.size is not None and file.size != stat.size:
        raise RefusedError(f"the catalogue says {file.size} bytes, but {_name(copy)} has {stat.size}")
    return dataclasses.replace(file, size=stat.size)


def _with_sums(file: File, copy: Copy, sums: _Sums) -> File:
    stated, found = file.checksum or sums.checksum, sums.checksum
    if stated.value.lower() != found.value:
        raise RefusedError(
            f"the catalogue says {stated.algorithm} {stated.value.lower()}, but {_name(copy)} has {found.value}"
        )
    if file.crc32 is not None and file.crc32 != sums.crc32:
        raise RefusedError(f"the catalogue says CRC-32 {file.crc32:08x}, but {_name(copy)} has {sums.crc32:08x}")
    return dataclasses.replace(file, checksum=stated, crc32=sums.crc32)


def _name(copy: Copy) -> str:
    return f"{copy.location!r} in storage {copy.storage!r}"


async def _in_time(answer: Awaitable[_T], copy: Copy) -> _T:
    try:
        async with asyncio.timeout(TIMEOUT):
            return await answer
    except TimeoutError as error:
        raise IngestError(
            f"storage {copy.storage!r} did not answer for {copy.location!r} in {TIMEOUT:.0f} s"
        ) from error
    except CopyNotFoundError:
        raise
    except CopyChangedError as error:
        raise RefusedError(f"{_name(copy)} changed while it was read") from error
    except StorageError as error:
        raise RefusedError(f"{_name(copy)} cannot be read: {error}") from error
