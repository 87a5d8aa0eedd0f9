"""The CRC-32 of files of which nobody said it: computed once from a copy, and remembered in the catalogue."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Self

from gateway.catalog.model import File
from gateway.db import Database
from gateway.hashing import HASHES, Hashers
from gateway.sources import Candidate
from gateway.storage import CopyBrokenError
from gateway.verification import Verifier, read_through

READERS = 2
"""Copies that are read at the same time, and threads that compute: this is work for the background."""

# A file that was ingested anew meanwhile may have other bytes; without a checksum, the copy's version tells.
_SAVE = """
UPDATE files SET crc32 = $2
WHERE file_id = $1 AND size IS NOT DISTINCT FROM $3
  AND CASE WHEN $4::text IS NULL
      THEN checksum IS NULL AND EXISTS (SELECT FROM copies WHERE copy_id = $5 AND file_id = $1 AND version = $6)
      ELSE lower(checksum) = lower($4) END
RETURNING file_id"""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What reading a copy gave."""

    crc32: int
    size: int
    """Bytes."""
    version: str
    """The version of the copy that was read."""


class Crc32Reader:
    """Reads copies and computes their CRC-32, in the same pass as the checksum that they are held against.

    A context manager: it owns the threads that compute.
    """

    def __init__(
        self, database: Database, verifier: Verifier, *, storage_timeout: float, readers: int = READERS
    ) -> None:
        """``storage_timeout``: seconds for every step of a storage."""
        self._database = database
        self._verifier = verifier
        self._storage_timeout = storage_timeout
        self._turns = asyncio.Semaphore(readers)
        self._hashers = Hashers(readers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hashers.close()

    async def read(self, file: File, candidate: Candidate) -> Found:
        """Read one copy of ``file``. Whether it has the bytes of the checksum is remembered as of any copy.

        Raises:
            StorageError: it cannot be read, or has not the bytes of the checksum.
            ValueError: the file has no known size.
        """
        size = candidate.copy.size if file.size is None else file.size
        if size is None:
            raise ValueError("there is no size in the catalogue")
        algorithm = file.checksum_algorithm if file.checksum_algorithm in HASHES else None
        source = candidate.source(candidate.copy.recorded, provable=False)
        async with self._turns:
            proof, crc32 = self._hashers.proof_with_crc32(algorithm, file.checksum)
            version = await read_through(source, size, proof.add, storage_timeout=self._storage_timeout)
            holds = await proof.holds()
        if algorithm is not None:
            self._verifier.proved(candidate, version, holds=holds)
        if not holds:
            raise CopyBrokenError(f"{candidate.copy.location}: has not the bytes of its checksum")
        return Found(crc32.value, size, version)

    async def save(self, file: File, candidate: Candidate, found: Found) -> bool:
        """As `remember`."""
        return await remember(self._database, file, candidate, found)


async def remember(database: Database, file: File, candidate: Candidate, found: Found) -> bool:
    """Remember what was found of a copy of ``file``. Tells whether that could be.

    It cannot, when the catalogue has other bytes by now, or neither a checksum nor a version that would show it.

    Raises:
        GatewayError: 503; PostgreSQL does not answer.
    """
    rows = await database.fetch(
        _SAVE, file.file_id, found.crc32, file.size, file.checksum, candidate.copy.copy_id, found.version
    )
    return bool(rows)
