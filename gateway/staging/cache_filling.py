"""Filling entries of the cache: fetched beside it, held against size and checksum, then kept as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import hashlib
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from gateway.errors import ConfigurationError, GatewayError
from gateway.hashing import HASHES
from gateway.staging.cache_names import scratch_name
from gateway.staging.cache_rows import Claim, Rows
from gateway.storage import CanKeep, CopyBrokenError, CopyUnavailableError, Stat, StorageError, answering_within

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 4
_PIECE = 1024 * 1024
_WATCH_SECONDS = 0.5
"""How often the size of what is being fetched is looked at."""
_KEEP_SECONDS = 120.0
"""That it may take to read and keep a file, and more for a large one:"""
_LEAST_RATE = 128 * 1024
"""Bytes a second."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CacheFullError(StorageError):
    """There is no room where the cache lies, whatever its own size."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size
        """Bytes of the entry."""


class NotOursError(CopyUnavailableError):
    """Somebody else fills the entry, or it was given back: nothing is wrong with the copy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """An entry that is filled, and that nobody reads yet."""

    entry_id: int
    cache: str
    location: str
    stat: Stat
    lease: uuid.UUID
    """By which it is made ready (`gateway.staging.cache_rows.READY`)."""


class Filling:
    """Fills entries. It owns the threads that read and compute."""

    def __init__(self, rows: Rows, storage: CanKeep, name: str, lease: float) -> None:
        self._rows = rows
        self._storage = storage
        self._name = name
        self._lease = lease
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cache")

    async def open(self) -> None:
        """See that the folder for new files is there.

        Raises:
            ConfigurationError: it cannot be made.
        """
        try:
            await self._run(self._scratch.mkdir, 0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"staging.cache: {self._scratch} of storage {self._name!r} cannot be made: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fill(
        self, restore_id: int, checksum: str | None, algorithm: str | None, fetch: Callable[[Path], Awaitable[None]]
    ) -> Kept:
        """See `gateway.staging.cache.Cache.fill`."""
        lease = uuid.uuid4()
        # PostgreSQL may give it to us after we have stopped waiting.
        claiming = asyncio.ensure_future(self._rows.claim(restore_id, lease, self._lease))
        try:
            claim = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(_forgotten)
            raise
        if claim is None:
            raise NotOursError(f"restore {restore_id} has no room in the cache, or another process fetches it")
        path = self._scratch / scratch_name(claim.entry_id, lease)
        kept = False
        try:
            async with self._alive(claim, path):
                await fetch(path)
                async with answering_within(_KEEP_SECONDS + claim.size / _LEAST_RATE):
                    await self._run(_check, path, claim.size, checksum, algorithm)
                    if claim.again:
                        await self._storage.remove(claim.location)
                    if not await self._rows.prolong(claim, self._lease):
                        raise _taken(claim)
                    kept = True
                    stat = await self._storage.keep(path, claim.location)
                    if stat.size != claim.size:
                        raise CopyUnavailableError(f"{claim.location}: has {stat.size} bytes after it was kept")
                if not await self._rows.prolong(claim, self._lease):
                    raise _taken(claim)
        except BaseException as error:
            await self._undo(claim, path, kept=kept)
            if isinstance(error, OSError):
                raise _told(error, claim) from error
            raise
        return Kept(claim.entry_id, self._name, claim.location, stat, lease)

    async def _undo(self, claim: Claim, path: Path, *, kept: bool) -> None:
        """Leave nothing behind. What cannot be done is done by the upkeep."""
        undoing = asyncio.ensure_future(self._leave_nothing(claim, path, kept=kept))
        try:
            await asyncio.shield(undoing)
        except asyncio.CancelledError:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([undoing], timeout=2)
            raise

    async def _leave_nothing(self, claim: Claim, path: Path, *, kept: bool) -> None:
        try:
            await self._run(path.unlink, missing_ok=True)
            if kept and await self._rows.prolong(claim, self._lease):
                async with answering_within(_KEEP_SECONDS):
                    await self._storage.remove(claim.location)
            # Who has it by now begins with what lies there.
            await self._rows.let_go(claim)
        except (OSError, StorageError, GatewayError) as error:
            log.warning("what is left of a failed restore is removed later: %r", error)

    @contextlib.asynccontextmanager
    async def _alive(self, claim: Claim, path: Path) -> AsyncIterator[None]:
        """Keep the lease while the block runs; it is cancelled once that is lost, or the file gets too large."""
        body = asyncio.current_task()
        assert body is not None  # noqa: S101 - there is one
        why: list[StorageError] = []

        def end(error: StorageError) -> None:
            why.append(error)
            body.cancel()

        async def beat() -> None:
            ends = time.monotonic() + self._lease
            while True:
                await asyncio.sleep(self._lease / 3)
                begun = time.monotonic()
                with contextlib.suppress(GatewayError):
                    if not await self._rows.prolong(claim, self._lease):
                        return end(_taken(claim))
                    ends = begun + self._lease
                if time.monotonic() >= ends:
                    return end(_taken(claim))

        async def watch() -> None:
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                if await self._run(_size, path) > claim.size:
                    return end(CopyBrokenError(f"entry {claim.entry_id}: more than {claim.size} bytes are fetched"))

        tasks = [asyncio.create_task(one(), name="cache fill") for one in (beat, watch)]
        try:
            yield
        except asyncio.CancelledError:
            if not why or body.uncancel() > 0:
                raise
            raise why[0] from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _scratch(self) -> Path:
        assert self._storage.scratch is not None  # noqa: S101 - it was looked at when the cache was opened
        return self._storage.scratch

    async def _run(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        call = functools.partial(function, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _taken(claim: Claim) -> NotOursError:
    return NotOursError(f"entry {claim.entry_id} of the cache was given back, or taken for abandoned")


def _told(error: OSError, claim: Claim) -> StorageError:
    if error.errno in _FULL:
        return CacheFullError(f"{error.strerror or error} at {claim.size} bytes of {claim.location}", claim.size)
    return CopyUnavailableError(f"{claim.location} cannot be written: {error.strerror or error}")


def _forgotten(claiming: asyncio.Future[Claim | None]) -> None:
    """Its lease ends by itself."""
    if not claiming.cancelled():
        claiming.exception()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check(path: Path, size: int, checksum: str | None, algorithm: str | None) -> None:
    """Read the whole file; raises CopyBrokenError if it is not what it should be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CopyBrokenError("nothing was fetched") from None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor).st_size
        if found != size:
            raise CopyBrokenError(f"{found} bytes were fetched, the catalogue says {size}")
        if checksum is None or algorithm is None:
            return
        digest = hashlib.new(HASHES[algorithm], usedforsecurity=False)
        buffer = memoryview(bytearray(_PIECE))
        while read := file.readinto(buffer):
            digest.update(buffer[:read])
    if digest.hexdigest() != checksum.lower():
        raise CopyBrokenError(f"what was fetched has not the {algorithm} of the catalogue")
