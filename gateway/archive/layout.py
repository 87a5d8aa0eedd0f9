"""Where every byte of an archive is, known before the first one is sent.

A layout is a ZIP of stored members, ZIP64 where and only where it must be: the length of every record follows from
names, sizes and times, so that any byte can be found without those before it. A million members take about 80 MB: they
are columns of numbers, not objects.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from gateway.archive import records
from gateway.archive.columns import Columns

DIRECTORY_PIECE = 32 * 1024
"""Bytes of the central directory that are made at once: a millisecond or two."""

_FORMAT = b"stored zip, 1"
"""Changes when the same members would be laid out in other bytes."""
_UNKNOWN_TIME = -1
_STATED = struct.Struct("<HQI?qI")


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive."""

    index: int
    """Its place, from 0."""
    name: str
    """Its path in the archive."""
    size: int
    """Bytes."""
    crc32: int | None
    """None: nobody knows; it is computed while the bytes are sent, and follows them."""
    modified: datetime.datetime | None
    """When its bytes last changed, to the second and in UTC."""
    key: int
    """What whoever made the layout knows the file by."""
    fingerprint: bytes
    """Of its content's identity; see `fingerprint_of`."""


@dataclasses.dataclass(frozen=True, slots=True)
class MemberSpan:
    """The bytes of a member from ``start`` up to, not including, ``stop``."""

    member: int
    """Its index."""
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bytes."""
        return self.stop - self.start


Piece = bytes | MemberSpan
"""Bytes of an archive as they are, or where to take them from."""


def fingerprint_of(identity: str) -> bytes:
    """Eight bytes that tell one content from another: what a member must still be when its bytes are sent."""
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class LayoutBuilder:
    """Takes the members of an archive one by one; none can be taken back."""

    def __init__(self) -> None:
        self._columns = Columns()
        self._texts: dict[int, bytes] = {}
        self._digest = hashlib.sha256(_FORMAT)

    def add(
        self,
        name: str,
        size: int,
        crc32: int | None,
        modified: datetime.datetime | None,
        *,
        identity: str,
        key: int = 0,
    ) -> None:
        """Add a file.

        Args:
            name: its path in the archive, of `gateway.archive.names.Names`.
            size: bytes.
            crc32: of these; None where nobody knows it yet: then the archive has neither an entity-tag nor ranges.
            modified: when they last changed, with a timezone; None: unknown.
            identity: what changes whenever its content does: a checksum, else the storage's version of it.
            key: given back as `Member.key`; of 63 bits.

        Raises:
            ValueError: the name is too long, or the size negative.
        """
        seconds = _UNKNOWN_TIME if modified is None else max(int(modified.timestamp()), _UNKNOWN_TIME)
        raw, content = name.encode(), identity.encode("utf-8", "surrogatepass")
        if not 0 < len(raw) <= records.MAX_16 or size < 0:
            raise ValueError(f"no member of an archive: {len(raw)} bytes of name, {size} bytes")
        known = crc32 if size else 0
        self._columns.add(raw, size, known, modified=seconds, key=key, fingerprint=fingerprint_of(identity))
        self._digest.update(_STATED.pack(len(raw), size, known or 0, known is None, seconds, len(content)))
        self._digest.update(raw + content)

    def add_text(self, name: str, content: bytes, modified: datetime.datetime) -> None:
        """Add a file that is part of the layout itself, such as a notice."""
        self._texts[len(self._columns)] = content
        identity = hashlib.sha256(content).hexdigest()
        self.add(name, len(content), zlib.crc32(content), modified, identity=identity)

    def finish(self, created: datetime.datetime) -> Layout:
        """The layout, which is as old as ``created`` (with a timezone) says. The builder is used up."""
        tag = self._digest.hexdigest()[:40]
        return Layout(self._columns, self._texts, tag, created.astimezone(datetime.UTC).replace(microsecond=0))


class Layout:
    """An archive, byte for byte, but for the content of its members. It never changes."""

    def __init__(self, columns: Columns, texts: Mapping[int, bytes], tag: str, created: datetime.datetime) -> None:
        """Made by `LayoutBuilder` and `gateway.archive.frozen.thaw`."""
        self.columns = columns
        self.texts = texts
        """The content of members that have it here, by index."""
        self.tag = tag
        self.created = created
        """When it was laid out, in UTC and to the second."""
        self._starts = array("Q", [0])
        """Offsets of the local headers, and of the central directory, which follows."""
        self._entries = array("Q")
        """Offsets of the entries of the central directory, and of its end."""
        self._place()

    def _place(self) -> None:
        columns, offset = self.columns, 0
        for name, size, known, modified in columns.measures():
            offset += (
                records.local_bytes(name, size, modified) + size + (0 if known else records.descriptor_bytes(size))
            )
            self._starts.append(offset)
        self._entries.append(offset)
        for (name, size, _, modified), start in zip(columns.measures(), self._starts, strict=False):
            offset += records.central_bytes(name, size, modified, start)
            self._entries.append(offset)
        self._end = records.end_records(len(columns), self._starts[-1], offset)
        self.length = offset + len(self._end)
        """Bytes of the whole archive."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def is_fixed(self) -> bool:
        """Whether every byte is known by now; if not, the CRC-32 of some member is found while it is sent."""
        return self.columns.all_crcs_known

    @property
    def etag(self) -> str:
        """The strong entity-tag, with its quotes: another one means other bytes. It means nothing before `is_fixed`."""
        return f'"zip-{self.tag}"'

    def member(self, index: int) -> Member:
        """The member with this index."""
        columns = self.columns
        seconds = columns.modified[index]
        return Member(
            index,
            columns.name(index).decode(),
            columns.sizes[index],
            columns.crc32(index),
            None if seconds == _UNKNOWN_TIME else datetime.datetime.fromtimestamp(seconds, datetime.UTC),
            columns.keys[index],
            columns.fingerprint(index),
        )

    def offset_of(self, index: int) -> int:
        """Where the record of the member with this index begins."""
        return self._starts[index]

    def content_of(self, index: int) -> tuple[int, int]:
        """Where the content of the member with this index begins and ends."""
        name, size, _, modified = self.columns.at(index)
        start = self._starts[index] + records.local_bytes(len(name), size, modified)
        return start, start + size

    def member_at(self, offset: int) -> int:
        """The index of the member in whose record ``offset`` lies; behind all of them, how many there are."""
        return bisect_right(self._starts, offset) - 1 if offset < self._starts[-1] else len(self)

    def pieces(self, start: int, stop: int, crcs: Sequence[int] | None = None) -> Iterator[Piece]:
        """The bytes from ``start`` up to, not including, ``stop``, in order; no piece is empty.

        Args:
            start: offset of the first byte.
            stop: offset behind the last one, at most `length`.
            crcs: the CRC-32 of each member; where the layout knows none it must be there by the time that the piece
                behind the member's last byte is asked for.
        """
        known = self.columns.crcs if crcs is None else crcs
        directory = self._starts[-1]
        if start < min(stop, directory):
            yield from _cut(self._local_records(start, known), start, min(stop, directory))
        if max(start, directory) < min(stop, self._entries[-1]):
            yield from _cut(self._entries_from(start, known), max(start, directory), min(stop, self._entries[-1]))
        if max(start, self._entries[-1]) < stop:
            yield self._end[max(start - self._entries[-1], 0) : stop - self._entries[-1]]

    def _local_records(self, start: int, crcs: Sequence[int]) -> Iterator[tuple[int, Piece]]:
        """All pieces with their offsets, from the header of the member on that ``start`` lies in."""
        columns = self.columns
        for index in range(bisect_right(self._starts, start) - 1, len(columns)):
            name, size, known, modified = columns.at(index)
            offset = self._starts[index]
            header = records.local_header(name, size, crcs[index] if known else None, modified)
            yield offset, header
            offset += len(header)
            if size:
                yield offset, self.texts.get(index) or MemberSpan(index, 0, size)
            if not known:
                yield offset + size, records.descriptor(size, crcs[index])

    def _entries_from(self, start: int, crcs: Sequence[int]) -> Iterator[tuple[int, Piece]]:
        """The central directory from the entry on that ``start`` lies in, in pieces of some size."""
        columns = self.columns
        first = max(bisect_right(self._entries, start) - 1, 0)
        gathered, offset = bytearray(), self._entries[first]
        for index in range(first, len(columns)):
            name, size, known, modified = columns.at(index)
            gathered += records.central_entry(
                name, size, crcs[index], modified, self._starts[index], described=not known
            )
            if len(gathered) >= DIRECTORY_PIECE:
                yield offset, bytes(gathered)
                offset += len(gathered)
                gathered.clear()
        if gathered:
            yield offset, bytes(gathered)


def _cut(pieces: Iterator[tuple[int, Piece]], start: int, stop: int) -> Iterator[Piece]:
    """What of ``pieces``, which come with their offsets, lies between ``start`` and ``stop``."""
    for offset, piece in pieces:
        if offset >= stop:
            return
        length = len(piece) if isinstance(piece, bytes) else piece.length
        first, last = max(start - offset, 0), min(stop - offset, length)
        if first >= last:
            continue
        if isinstance(piece, bytes):
            yield piece[first:last]
        else:
            yield MemberSpan(piece.member, piece.start + first, piece.start + last)
