"""The bytes of an archive: records that are made on the way, and members from wherever they lie."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, Protocol, Self

from gateway.archive.layout import Layout, Member, MemberSpan, Piece
from gateway.crc32 import crc32
from gateway.delivery.client import Client
from gateway.delivery.content import Content
from gateway.delivery.sender import SMALL_BYTES
from gateway.http.evaluate import Span
from gateway.storage import CopyBrokenError, CopyChangedError, StorageError

BATCH_BYTES = 256 * 1024
"""Records and small members leave together, once there are so many bytes of them."""
BATCH_MEMBERS = 16
"""Or so many members: these are read at the same time."""
BATCH_PIECES = 512
"""Or so many pieces, which take a millisecond to be made."""
AHEAD = 2
"""Steps that are ready before the header leaves: the first may be no more than the record before a large member."""
STEP_BYTES = 4 * 1024 * 1024
"""Bytes of a file of which a CRC-32 is computed before they are sent."""
ALONE_BYTES = 16 * 1024
"""Records of so many bytes took their time to be made, and leave alone."""


class MemberSource(Protocol):
    """Knows where the members of an archive lie."""

    def opening(self, member: Member) -> contextlib.AbstractAsyncContextManager[Content]:
        """The content of ``member``, which is open only within the block; whoever gives it closes it at its end.

        Its sources expect what was laid out: a catalogue that has other content by now (`Member.fingerprint`) is no
        place to get the bytes from. To enter several blocks at a time must be possible.

        Raises:
            StorageError: from entering: it is gone, or not what was laid out any more.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Large:
    """A member that is open for the bytes of its span, to be sent by itself."""

    span: MemberSpan
    content: Content


class ArchiveContent:
    """Gives the bytes of an archive, in order: a `gateway.delivery.sender.Body`. An asynchronous context manager.

    A large member is open only while it is sent. Small ones are read some at a time, and held against their CRC-32.
    A member that is not what was laid out breaks the transfer off.
    """

    def __init__(self, layout: Layout, source: MemberSource) -> None:
        self._layout = layout
        self._source = source
        self._crcs: array[int] = layout.columns.crcs if layout.is_fixed else layout.columns.crcs[:]
        self._begun: tuple[Span, AsyncGenerator[bytes | _Large, None]] | None = None
        self._ahead: list[bytes | _Large] = []
        self.found: dict[int, int] = {}
        """The CRC-32, by index, of members of which the layout has none and of which all bytes were seen."""
        self.broken: dict[int, StorageError] = {}
        """Members, by index, whose bytes could not be had, or were not those that were laid out."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def open(self, first: Span, *, at_once: bool) -> None:  # noqa: ARG002 - what is small is always read at once
        """Have what comes first at hand: records, and the first member of the span, or the first small ones.

        Raises:
            StorageError: see `gateway.delivery.sender.Body`.
        """
        await self._end()
        self._begun = first, self._items(first)
        async for item in self._begun[1]:
            self._ahead.append(item)
            if len(self._ahead) == AHEAD or isinstance(item, _Large):
                break

    async def read(self, span: Span) -> bytes:
        """See `gateway.delivery.sender.Body`."""
        read = []
        async with contextlib.aclosing(self._all_items(span)) as items:
            async for item in items:
                assert isinstance(item, bytes)  # noqa: S101 - no part of a small span is large
                read.append(item)
        return b"".join(read)

    async def send(self, span: Span, client: Client) -> None:
        """See `gateway.delivery.sender.Body`."""
        async with contextlib.aclosing(self._all_items(span)) as items:
            async for item in items:
                if isinstance(item, bytes):
                    await client.write(item)
                    continue
                with self._noting(item.span.member):
                    if self._layout.columns.crc32(item.span.member) is None:
                        await self._send_counting(item, client)
                    else:
                        await item.content.send(Span(item.span.start, item.span.stop), client)

    async def _all_items(self, span: Span) -> AsyncGenerator[bytes | _Large, None]:
        """Those of ``span``, from where `open` left off."""
        if self._begun is None or self._begun[0] != span:
            await self._end()
            self._begun = span, self._items(span)
        while self._ahead:
            yield self._ahead.pop(0)
        async for item in self._begun[1]:
            yield item
        self._begun = None

    async def _items(self, span: Span) -> AsyncGenerator[bytes | _Large, None]:
        """What to send, one after the other; a large member is open until the next item is asked for."""
        steps = _steps(self._layout.pieces(span.start, span.stop, self._crcs), self._layout)
        for number, step in enumerate(steps):
            if isinstance(step, MemberSpan):
                # While the answer can still be an error it is to be known; later, a store is asked again before that.
                async with self._opening(step, at_hand=number < AHEAD) as content:
                    yield _Large(step, content)
            else:
                yield await self._gathered(step)

    @contextlib.asynccontextmanager
    async def _opening(self, span: MemberSpan, *, at_hand: bool) -> AsyncIterator[Content]:
        member = self._layout.member(span.member)
        async with self._source.opening(member) as content:
            with self._noting(member.index):
                if content.size != member.size:
                    raise CopyChangedError(f"{member.name}: has {content.size} bytes, {member.size} were laid out")
                if at_hand:
                    await content.open(Span(span.start, span.stop), at_once=span.length <= SMALL_BYTES)
                yield content

    async def _gathered(self, pieces: Iterable[Piece]) -> bytes:
        reads = [self._small(piece) for piece in pieces if isinstance(piece, MemberSpan)]
        if not reads:
            await asyncio.sleep(0)  # A million records are not made in one go.
        contents = iter(await _together(reads))
        return b"".join(next(contents) if isinstance(piece, MemberSpan) else piece for piece in pieces)

    async def _small(self, span: MemberSpan) -> bytes:
        async with self._opening(span, at_hand=True) as content:
            read = await content.read(Span(span.start, span.stop))
            if span.length == content.size:
                self._note(span.member, crc32(read, 0))
            return read

    async def _send_counting(self, item: _Large, client: Client) -> None:
        """Send a member whose CRC-32 nobody knows: it is read here, or by the storage just before it is sent."""
        offset, stop, found = item.span.start, item.span.stop, 0
        while offset < stop:
            step = Span(offset, min(offset + STEP_BYTES, stop))
            summed = None if client.encrypted else await item.content.crc32(step, found)
            if summed is not None:
                found = summed
                await item.content.send(step, client)
                offset = step.stop
            else:
                piece = await item.content.piece(Span(offset, stop))
                found = crc32(piece, found)
                await client.write(piece)
                offset += len(piece)
        self._note(item.span.member, found)

    @contextlib.contextmanager
    def _noting(self, index: int) -> Iterator[None]:
        """Note whether what is done with a member in the block fails by its storage."""
        try:
            yield
        except StorageError as error:
            self.broken[index] = error
            raise

    def _note(self, index: int, found: int) -> None:
        """Hold the CRC-32 of all bytes of a member against what was laid out; nothing was: it is laid out now.

        Raises:
            CopyBrokenError: it is another.
        """
        known = self._layout.columns.crc32(index)
        if known is None:
            self._crcs[index] = self.found[index] = found
        elif known != found:
            name = self._layout.member(index).name
            raise CopyBrokenError(f"{name}: has the CRC-32 {found:08x}, {known:08x} was laid out")

    async def _end(self) -> None:
        self._ahead.clear()
        begun, self._begun = self._begun, None
        if begun is not None:
            await begun[1].aclose()


def _steps(pieces: Iterator[Piece], layout: Layout) -> Iterator[list[Piece] | MemberSpan]:
    """Group ``pieces`` into what leaves in one write, and large members.

    The next piece is asked for once the step before it is done, where it may depend on that: behind a member whose
    CRC-32 is not known.
    """
    batch: list[Piece] = []
    octets = members = 0
    for piece in pieces:
        is_member = isinstance(piece, MemberSpan)
        length = piece.length if isinstance(piece, MemberSpan) else len(piece)
        if isinstance(piece, MemberSpan) and length > SMALL_BYTES:
            if batch:
                yield batch
            yield piece
            batch, octets, members = [], 0, 0
            continue
        batch.append(piece)
        octets += length
        members += is_member
        unknown = isinstance(piece, MemberSpan) and layout.columns.crc32(piece.member) is None
        large_record = not is_member and length >= ALONE_BYTES
        full = octets >= BATCH_BYTES or members == BATCH_MEMBERS or len(batch) == BATCH_PIECES
        if full or unknown or large_record:
            yield batch
            batch, octets, members = [], 0, 0
    if batch:
        yield batch


async def _together(reads: list[Coroutine[Any, Any, bytes]]) -> list[bytes]:
    """The results of all; the first failure is raised once the others have ended, too."""
    tasks = [asyncio.ensure_future(read) for read in reads]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
