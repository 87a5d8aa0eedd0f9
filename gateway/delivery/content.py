"""The bytes of a file, from whichever of its copies can give them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Sequence

from gateway.delivery.client import Client
from gateway.delivery.source import READ_MANY_BYTES, Opened, OpenedFile, Source, open_source
from gateway.hashing import AT_ONCE_BYTES, Proof
from gateway.http.evaluate import Span
from gateway.storage import CopyBrokenError, CopyUnavailableError, StorageError, on_disk

log = logging.getLogger(__name__)

MOST_VAIN = 3
"""How often a copy may fail in a row without having given a byte, before it is given up."""
MOST_RESUMES = 16
"""How often the copies of one answer may fail in all."""
PAUSE = 0.1
"""Seconds before a copy that gave nothing is tried again; doubled each time."""


class _WrongBytesError(CopyBrokenError):
    """What was read has not the checksum, and some of it may be sent."""


class Content:
    """Gives the bytes of a file, in order, from the first of ``sources`` that can give them.

    Before the first byte the next copy takes over from one that cannot be opened. Later, too: where a copy breaks off,
    it is asked for the rest, and then the next one is. That is why all must have the same bytes: the same size and
    checksum; a copy without a checksum stands alone. A copy of another version than before never goes on.
    """

    def __init__(
        self, sources: Sequence[Source], size: int, *, storage_timeout: float, begin_proof: Callable[[], Proof] | None
    ) -> None:
        """``storage_timeout``: seconds for every step of a storage; ``begin_proof``: None without a known checksum."""
        self.size = size
        """Bytes of the file."""
        self._waiting = list(sources)
        self._timeout = storage_timeout
        self._begin_proof = begin_proof
        self._opened: Opened | None = None
        self._proof: Proof | None = None
        self._failures = self._vain = 0
        self.used: list[tuple[Source, str]] = []
        """The copies that gave bytes, with the version of each."""
        self.unavailable: list[Source] = []
        """The copies that were given up because their storage did not answer."""
        self.proved: list[tuple[Source, str, bool]] = []
        """The copies, with the version of each, of which is now known whether they have the bytes of the checksum."""

    async def open(self, first: Span, *, at_once: bool) -> None:
        """Open a copy so that the bytes of ``first`` can follow; ``at_once`` reads a small span on the way.

        Raises:
            StorageError: no copy can be opened; the first one's error.
        """
        problem: StorageError | None = None
        while self._waiting:
            source = self._waiting[0]
            try:
                await self._open(first, at_once=at_once)
            except StorageError as error:
                log.warning("copy %s cannot be opened: %r", source.name, error)
                problem = problem or error
                self._give_up(error)
            else:
                return
        raise problem or CopyUnavailableError("no copy is left")

    async def read(self, span: Span) -> bytes:
        """All bytes of a small span, held against the checksum first if they are all of the file.

        Raises:
            StorageError: no copy can give them.
        """
        while True:
            try:
                opened = await self._ready(span)
                content = await _all(opened, span)
                if self._proof is not None:
                    await self._proof.add(content)
                    await self._conclude(self._proof, [(self._waiting[0], opened.stat.version)])
            except StorageError as error:
                await self._recover(error, progress=False)
            else:
                self._note_use(opened)
                return content

    async def piece(self, span: Span) -> bytes:
        """Some bytes from the start of ``span`` on, at least one, for whoever must see all of it, in order.

        Raises:
            StorageError: no copy can give them; or these would be the last ones, and all together are not those of the
                checksum.
        """
        while True:
            try:
                opened = await self._ready(span)
                piece = await opened.read(span.start, span.stop, READ_MANY_BYTES)
            except StorageError as error:
                await self._recover(error, progress=False)
            else:
                self._vain = 0
                self._note_use(opened)
                await self._prove(piece, last=span.start + len(piece) == self.size)
                return piece

    async def crc32(self, span: Span, value: int) -> int | None:
        """The CRC-32 of ``span`` behind bytes of the CRC-32 ``value``, where its bytes need not pass through Python.

        None where they must: then `piece` gives them. With a number, `send` sends them.

        Raises:
            StorageError: no copy can give them.
        """
        while True:
            try:
                opened = await self._ready(span)
                if self._proof is not None or not isinstance(opened, OpenedFile):
                    return None
                return await opened.crc32(span, value)
            except StorageError as error:
                await self._recover(error, progress=False)

    async def send(self, span: Span, client: Client) -> None:
        """Send the whole span; the transfer counts what was sent, whatever happens.

        Raises:
            StorageError: no copy can give the rest; or the bytes are not those of the checksum, and the last of them
                were held back.
            ConnectionError, ClientStalledError, AllowanceEndedError: see these.
        """
        offset = span.start
        while offset < span.stop:
            before = client.transfer.sent
            try:
                await self._send(Span(offset, span.stop), client)
            except _WrongBytesError:
                raise
            except StorageError as error:
                await self._recover(error, progress=client.transfer.sent > before)
            offset += client.transfer.sent - before

    def close(self) -> None:
        """Give back the copy that is open."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    async def _send(self, span: Span, client: Client) -> None:
        opened, before = await self._ready(span), client.transfer.sent
        try:
            if self._proof is None:
                await opened.pass_on(span, client)
            else:
                await self._send_proving(opened, span, client)
        finally:
            if client.transfer.sent > before:
                self._note_use(opened)

    async def _send_proving(self, opened: Opened, span: Span, client: Client) -> None:
        offset = span.start
        while offset < span.stop:
            piece = await opened.read(offset, span.stop)
            offset += len(piece)
            if offset == span.stop:
                self._note_use(opened)
            await self._prove(piece, last=offset == span.stop)
            await client.write(piece)

    async def _prove(self, piece: bytes, *, last: bool) -> None:
        if self._proof is not None:
            await self._proof.add(piece)
            if last:
                await self._conclude(self._proof, self.used)

    async def _conclude(self, proof: Proof, givers: Sequence[tuple[Source, str]]) -> None:
        """See whether the bytes were right; of several copies that gave them nobody knows which gave the wrong ones."""
        self._proof = None
        holds = await proof.holds()
        if len(givers) == 1:
            self.proved.append((*givers[0], holds))
        if not holds:
            raise _WrongBytesError(f"{self._waiting[0].name} has not the bytes of its checksum")

    async def _ready(self, span: Span) -> Opened:
        if self._opened is not None and not self._opened.gives(span.start):
            self.close()
        return self._opened or await self._open(span, at_once=False)

    async def _open(self, span: Span, *, at_once: bool) -> Opened:
        source = self._waiting[0]
        opened = await open_source(source, span, size=self.size, at_once=at_once, storage_timeout=self._timeout)
        self._opened = opened
        if source.expected is None:
            # What was found first is what the rest must come from, even of a copy that nobody described.
            self._waiting[0] = dataclasses.replace(source, expected=opened.stat)
        proves = source.prove and (source.prove_large or self.size <= AT_ONCE_BYTES)
        if proves and self._begin_proof is not None and (span.start, span.stop) == (0, self.size):
            self._proof = self._begin_proof()
        return opened

    def _note_use(self, opened: Opened) -> None:
        use = (self._waiting[0], opened.stat.version)
        if use not in self.used:
            self.used.append(use)

    async def _recover(self, error: StorageError, *, progress: bool) -> None:
        """After a failure: be ready to try the same copy again where that can help, else the next one.

        Raises:
            StorageError: ``error``, when there is nothing left to try.
        """
        self.close()
        source = self._waiting[0]
        self._failures += 1
        self._vain = 0 if progress else self._vain + 1
        again = isinstance(error, CopyUnavailableError) and on_disk(source.storage) is None and self._vain < MOST_VAIN
        log.warning("copy %s broke off: %r; %s", source.name, error, "resuming" if again else "giving it up")
        if not again:
            self._give_up(error)
        if not self._waiting or self._failures > MOST_RESUMES:
            raise error
        if again and self._vain:
            await asyncio.sleep(PAUSE * 2 ** (self._vain - 1))

    def _give_up(self, error: StorageError) -> None:
        source = self._waiting.pop(0)
        self._vain = 0
        if isinstance(error, CopyUnavailableError):
            self.unavailable.append(source)


async def _all(opened: Opened, span: Span) -> bytes:
    pieces, offset = [], span.start
    while offset < span.stop:
        pieces.append(await opened.read(offset, span.stop))
        offset += len(pieces[-1])
    return b"".join(pieces)
