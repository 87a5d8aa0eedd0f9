"""Copies that may give the bytes of an answer, and one of them once it is open."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from gateway.delivery.client import Client
from gateway.delivery.pump import Pump
from gateway.delivery.relay import relay
from gateway.delivery.splice import splice
from gateway.http.evaluate import Span
from gateway.storage import (
    AtOnce,
    ByteStream,
    CanStream,
    CopyBrokenError,
    CopyChangedError,
    CopyUnavailableError,
    OnDisk,
    OnSocket,
    OpenFile,
    Stat,
    SumsOnDisk,
    answering_within,
    can_stream,
    on_disk,
)

READ_BYTES = 256 * 1024
"""Bytes a step where a file must pass through Python."""
READ_MANY_BYTES = 1024 * 1024
"""Likewise where that is known to be worth more memory: half of what a step costs is the way to the thread and back."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A copy that may give the bytes."""

    copy_id: int
    storage_name: str
    storage: OnDisk | CanStream
    location: str
    expected: Stat | None
    """What it must be; None where nothing was recorded, so that only its size is known."""
    broken_version: str | None = None
    """The version that must not be served, since its bytes were once found to be wrong."""
    prove: bool = False
    """Whether a whole delivery is to be held against the checksum on its way, if it is small."""
    prove_large: bool = False
    """Whether a large one is, too: then it passes through Python."""

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self.storage_name}:{self.location}"


class Opened(Protocol):
    """An open copy."""

    stat: Stat

    def gives(self, offset: int) -> bool:
        """Whether the next byte it can give is the one at ``offset``."""
        ...

    async def read(self, offset: int, stop: int, most: int = READ_BYTES) -> bytes:
        """Some bytes from ``offset`` on, at least one, none from ``stop`` on; of a file up to ``most``.

        Raises:
            StorageError: there are none.
        """
        ...

    async def pass_on(self, span: Span, client: Client) -> None:
        """Send the whole span, past Python where that can be; the transfer counts what was sent, whatever happens.

        Raises:
            StorageError, ConnectionError, ClientStalledError, AllowanceEndedError: see these.
        """
        ...

    def close(self) -> None:
        """Give it back."""
        ...


async def open_source(source: Source, span: Span, *, size: int, at_once: bool, storage_timeout: float) -> Opened:
    """Open the copy for the bytes of ``span``, with the first of them at hand unless they can leave by sendfile.

    ``at_once`` has all bytes of a small span read on the way.

    Raises:
        CopyChangedError: it is not what was recorded, or not of ``size`` bytes.
        CopyBrokenError: this version of it was found to be broken.
        StorageError: it cannot be opened.
    """
    opened: Opened
    disk, remote = on_disk(source.storage), can_stream(source.storage)
    if disk is not None:
        async with answering_within(storage_timeout):
            start, count = (span.start, span.length) if at_once else (0, 0)
            file = await disk.open(source.location, start, count)
        opened = OpenedFile(disk, file, start, storage_timeout)
    else:
        assert remote is not None  # noqa: S101 - it is one or the other
        version = source.expected.version if source.expected is not None else None
        async with answering_within(storage_timeout):
            stream = await remote.stream(source.location, span.start, span.stop, version)
        opened = OpenedStream(stream, span, storage_timeout)
    try:
        check_stat(source, opened.stat, size)
        if isinstance(opened, OpenedStream):
            await opened.start()
    except BaseException:
        opened.close()
        raise
    return opened


def check_stat(source: Source, found: Stat, size: int) -> None:
    """See that what was found is what was recorded, of ``size`` bytes, and not known to be broken.

    Raises:
        CopyChangedError, CopyBrokenError: it is not.
    """
    if source.expected is not None and found.version != source.expected.version:
        raise CopyChangedError(f"{source.location}: changed since it was ingested")
    if found.size != size:
        raise CopyChangedError(f"{source.location}: has {found.size} bytes, not {size}")
    if found.version == source.broken_version:
        raise CopyBrokenError(f"{source.location}: has not the bytes of its checksum, as was seen before")


class OpenedFile:
    """An open file of this machine."""

    def __init__(self, storage: OnDisk, file: OpenFile, head_start: int, storage_timeout: float) -> None:
        self.stat = file.stat
        self._storage = storage
        self._file = file
        self._head_start = head_start
        self._timeout = storage_timeout

    def gives(self, offset: int) -> bool:  # noqa: ARG002 - of a file every byte can be had
        """See `Opened`."""
        return True

    async def read(self, offset: int, stop: int, most: int = READ_BYTES) -> bytes:
        """See `Opened`."""
        if offset == self._head_start and 0 < len(self._file.head) <= stop - offset:
            return self._file.head
        async with answering_within(self._timeout):
            piece = await self._storage.read(self._file, offset, min(most, stop - offset))
        if not piece:
            raise CopyChangedError(f"the file ends at byte {offset}")
        return piece

    async def crc32(self, span: Span, value: int) -> int | None:
        """The CRC-32 of a span behind bytes of the CRC-32 ``value``; None where only Python can compute it.

        Raises:
            StorageError: it cannot be read.
        """
        if not isinstance(self._storage, SumsOnDisk):
            return None
        async with answering_within(self._timeout):
            return await self._storage.crc32(self._file, span.start, span.length, value)

    async def pass_on(self, span: Span, client: Client) -> None:
        """See `Opened`."""
        if client.encrypted:
            offset = span.start
            while offset < span.stop:
                piece = await self.read(offset, span.stop)
                await client.write(piece)
                offset += len(piece)
            return
        peer = await client.bypass()
        pump = Pump(self._storage, self._file, client.socket, peer, client.transfer)
        offset = span.start
        while offset < span.stop:
            stop = offset + await client.allowed(span.stop - offset)
            await pump.send(Span(offset, stop), client.watch, storage_timeout=self._timeout)
            offset = stop

    def close(self) -> None:
        """See `Opened`."""
        self._file.close()


class OpenedStream:
    """Bytes of one span on their way from a storage."""

    def __init__(self, stream: ByteStream, span: Span, storage_timeout: float) -> None:
        self.stat = stream.stat
        self._stream = stream
        self._position = span.start
        self._stop = span.stop
        self._timeout = storage_timeout
        self._first = b""

    async def start(self) -> None:
        """Wait for the first bytes: a storage that cannot give them shows it while the answer can still be an error."""
        self._first = await self._next()

    def gives(self, offset: int) -> bool:
        """See `Opened`."""
        return offset == self._position < self._stop

    async def read(self, offset: int, stop: int, most: int = READ_BYTES) -> bytes:  # noqa: ARG002 - it is what came
        """See `Opened`; ``offset`` is where the last call ended."""
        piece, self._first = self._first or await self._next(), b""
        if offset != self._position or len(piece) > stop - offset:
            raise CopyUnavailableError(f"the storage gave other bytes than it was asked for, at byte {offset}")
        self._position += len(piece)
        return piece

    async def pass_on(self, span: Span, client: Client) -> None:
        """See `Opened`."""
        offset = span.start
        while offset < span.stop:
            piece = await self.read(offset, span.stop)
            await client.write(piece)
            offset += len(piece)
            if offset < span.stop and not client.encrypted:
                passed = await self._pass_by(span.stop - offset, client)
                self._position += passed
                offset += passed

    async def _pass_by(self, count: int, client: Client) -> int:
        """Send the next ``count`` bytes without a coroutine for each piece; 0 where that cannot be done."""
        if isinstance(self._stream, OnSocket):
            peer = await client.bypass()
            return await splice(self._stream, count, peer, client, storage_timeout=self._timeout)
        if isinstance(self._stream, AtOnce):
            peer = await client.bypass()
            await relay(self._stream, count, peer, client, storage_timeout=self._timeout)
            return count
        return 0

    def close(self) -> None:
        """See `Opened`."""
        self._stream.close()

    async def _next(self) -> bytes:
        async with answering_within(self._timeout):
            piece = await self._stream.read()
        if not piece:
            raise CopyUnavailableError(f"the stream ended at byte {self._position} instead of {self._stop}")
        return piece
