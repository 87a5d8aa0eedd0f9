"""What storages say of the copies: sizes, versions and, where asked, checksums, held against the catalogue's own."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

from gateway.catalog.ingest.asking import NoAnswerError, in_time
from gateway.catalog.ingest.events import IngestError, RefusedError, Rejection, Remark
from gateway.catalog.ingest.model import Copy, File, Product
from gateway.catalog.ingest.sums import Summing, Sums
from gateway.locations import Location
from gateway.storage import (
    CanStat,
    CanStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    OnDisk,
    Stat,
    StorageError,
)
from gateway.text import shown

ON_DISK = 16
"""Copies of a storage on a disk that are looked at at the same time."""
OVER_NETWORK = 64
"""Likewise of any other storage, where most of the time goes by waiting for the answer."""
GIVE_UP_AFTER = 3
"""References of one host that in a row were asked for in vain, before no other one of it is asked for."""


class Inspector:
    """Asks the storages about copies. A context manager: it owns the threads that compute checksums."""

    def __init__(self, locations: Sequence[Location], *, compute_checksums: bool) -> None:
        storages = {location.storage.name: location.storage for location in locations}
        self._can_stat = {name: storage for name, storage in storages.items() if isinstance(storage, CanStat)}
        self._readable: dict[str, OnDisk | CanStream] = {}
        self._unread: frozenset[str] = frozenset()
        """Storages whose copies would be read, but for the tape that each might have to be fetched from."""
        if compute_checksums:
            self._unread = frozenset(location.storage.name for location in locations if location.type == "NEARLINE")
            self._readable = {
                name: storage
                for name, storage in storages.items()
                if isinstance(storage, OnDisk | CanStream) and name not in self._unread
            }
        self._turns = {
            name: asyncio.Semaphore(ON_DISK if isinstance(storage, OnDisk) else OVER_NETWORK)
            for name, storage in storages.items()
        }
        self._in_vain: Counter[str] = Counter()
        self._summing = Summing()

    def __enter__(self) -> Self:
        self._summing.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._summing.__exit__(*exception)

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
            IngestError: a storage did not answer in time.
        """
        looks = [_Look(product) for product in products]
        waiting = ((look, index) for look in looks for index in range(len(look.product.files)))

        async def work() -> None:
            for look, index in waiting:
                if not look.refusals:
                    await self._file(look, index)
                look.left -= 1
                if not look.left:
                    done(1)

        for look in looks:
            if not look.left:  # it has no files
                done(1)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(OVER_NETWORK, sum(look.left for look in looks))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        for look in looks:
            look.report(tell)
        return [look.result() for look in looks if not look.refusals]

    async def _file(self, look: _Look, index: int) -> None:
        """Look at the copies of one file."""
        file = look.files[index]
        one = self._reference if file.reference else self._copy
        copies = []
        try:
            for copy in file.copies:
                file, described = await one(file, copy, look.remarks[index].append)
                copies.append(described)
        except RefusedError as error:
            look.refusals[index] = str(error)
        else:
            look.files[index] = dataclasses.replace(file, copies=tuple(copies))

    async def _copy(self, file: File, copy: Copy, remark: Callable[[str], None]) -> tuple[File, Copy]:
        """The file and its copy, with what the storage says of both."""
        try:
            return await self._described(file, copy, remark)
        except NoAnswerError as error:
            raise IngestError(str(error)) from error
        except StorageError as error:
            raise RefusedError(f"{_name(copy)} cannot be read: {error}") from error

    async def _reference(self, file: File, copy: Copy, remark: Callable[[str], None]) -> tuple[File, Copy]:
        """As `_copy`, but where somebody else's site is down the copy is taken as it is: nobody here can mend that."""
        host = copy.location.partition("://")[2].partition("/")[0]
        if self._in_vain[host] >= GIVE_UP_AFTER:
            remark(f"{_name(copy)} is not looked at: its host was asked in vain {GIVE_UP_AFTER} times in a row")
            return file, dataclasses.replace(copy, unanswered=True)
        try:
            found = await self._described(file, copy, remark)
        except CopyUnavailableError as error:
            self._in_vain[host] += 1
            remark(f"{_name(copy)} cannot be looked at: {error}")
            return file, dataclasses.replace(copy, unanswered=True)
        except StorageError as error:
            raise RefusedError(f"{_name(copy)} cannot be read: {error}") from error
        self._in_vain[host] = 0
        return found

    async def _described(self, file: File, copy: Copy, remark: Callable[[str], None]) -> tuple[File, Copy]:
        storage = self._can_stat.get(copy.storage)
        if storage is None:
            self._remark_unread(copy, remark)
            return file, copy
        try:
            async with self._turns[copy.storage]:
                stat = await in_time(storage.stat(copy.location), copy)
        except CopyNotFoundError:
            remark(f"{_name(copy)} does not exist")
            return file, copy
        file = _with_size(file, copy, stat)
        copy = dataclasses.replace(copy, size=stat.size, modified=stat.modified, version=stat.version)
        readable = self._readable.get(copy.storage)
        if readable is None:
            self._remark_unread(copy, remark)
            return file, copy
        try:
            sums = await self._summing.of(readable, copy, stat, file.checksum.algorithm if file.checksum else "SHA-256")
        except CopyOfflineError:
            remark(f"{_name(copy)} is not read: it must be restored first")
            return file, copy
        except CopyNotFoundError as error:
            raise RefusedError(f"{_name(copy)} vanished before it was read") from error
        except CopyChangedError as error:
            raise RefusedError(f"{_name(copy)} changed while it was read") from error
        return _with_sums(file, copy, sums), dataclasses.replace(copy, verified_version=stat.version)

    def _remark_unread(self, copy: Copy, remark: Callable[[str], None]) -> None:
        if copy.storage in self._unread:
            remark(f"{_name(copy)} is not read: its storage is nearline")


class _Look:
    """How far the look at a product has come. The files of a product are looked at in order, several at a time."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.files = list(product.files)
        self.left = len(self.files)
        self.remarks: list[list[str]] = [[] for _ in self.files]
        self.refusals: dict[int, str] = {}
        """By the index of the file. Once there is one, no other file is begun."""

    def report(self, tell: Callable[[Rejection | Remark], None]) -> None:
        place = self.product.place
        if self.refusals:
            first = min(self.refusals)
            tell(Rejection(place, f"asset {self.files[first].asset_key!r}: {self.refusals[first]}"))
            return
        for file, remarks in zip(self.files, self.remarks, strict=True):
            for text in remarks:
                tell(Remark(place, f"asset {file.asset_key!r}: {text}"))

    def result(self) -> Product:
        return dataclasses.replace(self.product, files=tuple(self.files))


def _with_size(file: File, copy: Copy, stat: Stat) -> File:
    if file.size is not None and file.size != stat.size:
        raise RefusedError(f"the catalogue says {file.size} bytes, but {_name(copy)} has {stat.size}")
    return dataclasses.replace(file, size=stat.size)


def _with_sums(file: File, copy: Copy, sums: Sums) -> File:
    stated, found = file.checksum or sums.checksum, sums.checksum
    if stated.value.lower() != found.value:
        raise RefusedError(
            f"the catalogue says {stated.algorithm} {stated.value.lower()}, but {_name(copy)} has {found.value}"
        )
    if file.crc32 is not None and file.crc32 != sums.crc32:
        raise RefusedError(f"the catalogue says CRC-32 {file.crc32:08x}, but {_name(copy)} has {sums.crc32:08x}")
    return dataclasses.replace(file, checksum=stated, crc32=sums.crc32)


def _name(copy: Copy) -> str:
    return f"{shown(copy.location)} in storage {copy.storage!r}"
