"""Holding stored bytes against the checksums of the catalogue, and remembering what was seen.

A version of a copy is read once: on its first whole delivery where its bytes pass through this process anyway, else in
the background after it was first handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from gateway.catalog.model import File
from gateway.db import Database
from gateway.delivery.source import Source, check_stat, open_source
from gateway.errors import GatewayError
from gateway.hashing import HASHES, Hashers, Proof
from gateway.http.evaluate import Span
from gateway.sources import Candidate
from gateway.storage import StorageError, answering_within

log = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Copies that may wait to be read; a copy that finds no place comes again when it is next touched."""

_VERIFIED = """
UPDATE copies SET verified_version = $2, broken_version = nullif(broken_version, $2) WHERE copy_id = $1"""
_BROKEN = """
UPDATE copies SET broken_version = $2, verified_version = nullif(verified_version, $2) WHERE copy_id = $1"""
_LOOK = "SELECT verified_version, broken_version FROM copies WHERE copy_id = $1"


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    file: File
    candidate: Candidate


class Verifier:
    """Reads copies that nobody has read yet, one after the other, and writes down what it finds.

    A context manager: it owns the task that does so.
    """

    def __init__(self, database: Database, hashers: Hashers, *, storage_timeout: float) -> None:
        self._database = database
        self._hashers = hashers
        self._storage_timeout = storage_timeout
        self._waiting: asyncio.Queue[_Task] = asyncio.Queue(MOST_WAITING)
        self._known: set[int] = set()
        self._notes: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None
        self.broken = 0
        """Copies that were found to be broken, since the start: an alarm."""

    async def __aenter__(self) -> Self:
        self._worker = asyncio.get_running_loop().create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (self._worker, *self._notes) if task is not None]
        if self._worker is not None:
            self._worker.cancel()
        if self._notes:
            # What was just found is worth a moment: else the next process has to read it all again.
            await asyncio.wait(self._notes, timeout=2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def proof_of(self, file: File) -> Callable[[], Proof] | None:
        """What begins to hold bytes against the checksum of ``file``; None without one."""
        algorithm, checksum = file.checksum_algorithm, file.checksum
        if checksum is None or algorithm not in HASHES:
            return None
        return lambda: self._hashers.proof(algorithm, checksum)

    def proved(self, candidate: Candidate, version: str, *, holds: bool) -> None:
        """Write down, in the background, whether the bytes of ``version`` of a copy are those of the checksum."""
        if not holds:
            self.broken += 1
            log.error(
                "alarm: a copy is broken: %s:%s has not the checksum of the catalogue; it is not served any more",
                candidate.copy.storage,
                candidate.copy.location,
            )
        elif candidate.is_verified(version):
            return
        task = asyncio.get_running_loop().create_task(self._note(candidate.copy.copy_id, version, holds=holds))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    def touched(self, file: File, candidate: Candidate, version: str) -> None:
        """Have a copy read in the background whose bytes were handed out unseen, unless it was verified before."""
        copy_id = candidate.copy.copy_id
        if candidate.is_verified(version) or copy_id in self._known or self.proof_of(file) is None:
            return
        if not self._waiting.full():
            self._known.add(copy_id)
            self._waiting.put_nowait(_Task(file, candidate))

    async def verify(self, file: File, candidate: Candidate) -> tuple[str, bool]:
        """Read a copy; returns its version, and whether that has the bytes of the checksum.

        Raises:
            StorageError: it cannot be read.
            ValueError: the file has no checksum to hold it against, or no known size.
        """
        begin = self.proof_of(file)
        size = candidate.copy.size if file.size is None else file.size
        if begin is None or size is None:
            raise ValueError("there is no checksum or no size in the catalogue")
        proof = begin()
        source = candidate.source(candidate.copy.recorded, provable=False)
        source = dataclasses.replace(source, broken_version=None)
        version = await read_through(source, size, proof.add, storage_timeout=self._storage_timeout)
        return version, await proof.holds()

    async def record(self, copy_id: int, version: str, *, holds: bool) -> None:
        """Write down whether the bytes of ``version`` of a copy are those of the checksum.

        Raises:
            GatewayError: 503; PostgreSQL does not answer.
        """
        await self._database.fetch(_VERIFIED if holds else _BROKEN, copy_id, version)

    async def _work(self) -> None:
        while True:
            task = await self._waiting.get()
            try:
                await self._verify_once(task)
            except (StorageError, GatewayError) as error:
                log.warning("copy %s cannot be verified: %r", task.candidate.copy.location, error)
            except Exception:
                log.exception("verifying copy %s failed", task.candidate.copy.location)
            finally:
                self._known.discard(task.candidate.copy.copy_id)

    async def _verify_once(self, task: _Task) -> None:
        rows = await self._database.fetch(_LOOK, task.candidate.copy.copy_id)
        # Another process may have done it meanwhile.
        if rows and rows[0]["verified_version"] == task.candidate.copy.version is not None:
            return
        version, holds = await self.verify(task.file, task.candidate)
        self.proved(task.candidate, version, holds=holds)
        # Who asks for this copy next must find it written down, or would have it read again.
        if self._notes:
            await asyncio.wait(self._notes)

    async def _note(self, copy_id: int, version: str, *, holds: bool) -> None:
        try:
            await self.record(copy_id, version, holds=holds)
        except GatewayError as error:
            log.warning("what was seen of copy %s could not be written down: %r", copy_id, error.__cause__)


async def read_through(
    source: Source, size: int, add: Callable[[bytes], Awaitable[None]], *, storage_timeout: float
) -> str:
    """Read a whole copy of ``size`` bytes; ``add`` takes the pieces in order. Returns the version that was read.

    Raises:
        StorageError: it cannot be read, or is not what the source expects.
    """
    if size == 0:
        # A storage on a network cannot be asked for no bytes.
        async with answering_within(storage_timeout):
            found = await source.storage.stat(source.location)
        check_stat(source, found, size)
        return found.version
    opened = await open_source(source, Span(0, size), size=size, at_once=False, storage_timeout=storage_timeout)
    try:
        offset = 0
        while offset < size:
            piece = await opened.read(offset, size)
            await add(piece)
            offset += len(piece)
        return opened.stat.version
    finally:
        opened.close()


@contextlib.asynccontextmanager
async def verifying(database: Database, storage_timeout: float) -> AsyncIterator[Verifier]:
    """A verifier at work, with threads of its own that compute checksums."""
    with contextlib.closing(Hashers()) as hashers:
        async with Verifier(database, hashers, storage_timeout=storage_timeout) as verifier:
            yield verifier
