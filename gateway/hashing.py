"""Checksums of bytes, computed in threads of their own."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gateway.crc32 import crc32

HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
"""Names of the catalogue's algorithms in `hashlib`."""

AT_ONCE_BYTES = 64 * 1024
"""Up to here hashing takes less than handing the bytes to a thread."""


class Hashers:
    """The threads that compute checksums; hashlib lets the loop run meanwhile."""

    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="hashing")

    def proof(self, algorithm: str, checksum: str) -> Proof:
        """Begin to hold bytes against ``checksum`` (hexadecimal, in any case) by ``algorithm``, one of `HASHES`."""
        return Proof(self._threads, hashlib.new(HASHES[algorithm], usedforsecurity=False), checksum.lower())

    def proof_with_crc32(self, algorithm: str | None, checksum: str | None) -> tuple[Proof, Crc32]:
        """As `proof`, and what has the CRC-32 of the same bytes once the proof knows whether it holds.

        Without a checksum any bytes hold.
        """
        digest = hashlib.new(HASHES[algorithm], usedforsecurity=False) if algorithm and checksum else None
        both = Crc32(digest)
        return Proof(self._threads, both, checksum.lower() if digest and checksum else ""), both

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Crc32:
    """The CRC-32 of bytes, beside ``digest`` of the same bytes: what is read once need not be read again."""

    def __init__(self, digest: Any | None) -> None:
        self.value = 0
        self._digest = digest

    def update(self, piece: bytes) -> None:
        """Take the next bytes, as a digest of `hashlib` does."""
        self.value = crc32(piece, self.value)
        if self._digest is not None:
            self._digest.update(piece)

    def hexdigest(self) -> str:
        """Of the digest; empty without one."""
        return "" if self._digest is None else str(self._digest.hexdigest())


class Proof:
    """Bytes held against a checksum, piece by piece and in order."""

    def __init__(self, threads: ThreadPoolExecutor, digest: Any, checksum: str) -> None:
        self._threads = threads
        self._digest = digest
        self._checksum = checksum
        self._last: asyncio.Future[None] | None = None

    async def add(self, piece: bytes) -> None:
        """Take the next piece; it is hashed while the caller goes on, once the one before it is done."""
        await self._caught_up()
        if len(piece) <= AT_ONCE_BYTES:
            self._digest.update(piece)
        else:
            self._last = asyncio.get_running_loop().run_in_executor(self._threads, self._digest.update, piece)

    async def holds(self) -> bool:
        """Whether all pieces together have the checksum."""
        await self._caught_up()
        matches: bool = self._digest.hexdigest() == self._checksum
        return matches

    async def _caught_up(self) -> None:
        if self._last is not None:
            # A caller that is cancelled stops waiting; the thread cannot be stopped.
            await asyncio.shield(self._last)
            self._last = None
