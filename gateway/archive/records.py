"""The records of a ZIP of stored members, byte by byte (APPNOTE.TXT 6.3.10, and its extra field 0x5455 of Info-ZIP)."""

from __future__ import annotations

import datetime
import functools
import struct

MAX_16 = 0xFFFF
MAX_32 = 0xFFFFFFFF
"""What stands in a field says "look into the ZIP64 record", so that the number itself needs one, too."""

LOCAL_BYTES = 30
"""A local header without name and extra fields."""
CENTRAL_BYTES = 46
"""An entry of the central directory, likewise."""
DESCRIPTOR_BYTES = 16
DESCRIPTOR_64_BYTES = 24
END_BYTES = 22
END_64_BYTES = 56 + 20
"""The ZIP64 end of the central directory, and its locator."""
SIZES_64_BYTES = 20
"""The ZIP64 extra field of a local header: both sizes."""
TIME_LOCAL_BYTES = TIME_CENTRAL_BYTES = 9
"""The extra field with the time of the last change in UTC, which the field of the header has not."""

_PLAIN, _ZIP64 = 20, 45  # Versions needed to extract, §4.4.3.
_MADE_BY = 3 << 8 | _ZIP64  # Unix: the attributes are those of a file there, §4.4.2.
_REGULAR_FILE = 0o100644 << 16
_UTF8, _DESCRIPTOR = 1 << 11, 1 << 3  # §4.4.4
_TIME = 0x5455
_LAST_TIME = 2**31 - 1
_EARLIEST_DOS = (1 << 5 | 1) << 16  # 1 January 1980, 0:00
_LATEST_DOS = (127 << 9 | 12 << 5 | 31) << 16 | 23 << 11 | 59 << 5 | 29
_DOS_BEGINS, _DOS_ENDS = 315_532_800, 4_354_819_200  # 1980 and 2108

_LOCAL = struct.Struct("<4s3HI3I2H")
_CENTRAL = struct.Struct("<4s4HI3I5H2I")
_TIME_EXTRA = struct.Struct("<2HBI")


def has_time(modified: int) -> bool:
    """Whether ``modified`` (seconds since 1970; negative: unknown) gets an extra field of its own."""
    return 0 <= modified <= _LAST_TIME


@functools.lru_cache(maxsize=1024)
def dos_time(modified: int) -> int:
    """Date and time in one field of 32 bits (§4.4.6), in UTC, for seconds since 1970; its ends where it cannot be."""
    if modified < _DOS_BEGINS:
        return _EARLIEST_DOS
    if modified >= _DOS_ENDS:
        return _LATEST_DOS
    at = datetime.datetime.fromtimestamp(modified, datetime.UTC)
    date = (at.year - 1980) << 9 | at.month << 5 | at.day
    return date << 16 | at.hour << 11 | at.minute << 5 | at.second // 2


def local_header(name: bytes, size: int, crc32: int | None, modified: int) -> bytes:
    """What stands before the bytes of a member; ``crc32`` None: it stands behind them (`descriptor`).

    The sizes are here in any case, so that an archive can be read while it comes: stored bytes do not show their end.
    """
    extra, shown = b"", size
    if size >= MAX_32:
        extra, shown = struct.pack("<2H2Q", 1, 16, size, size), MAX_32
    if has_time(modified):
        extra += _TIME_EXTRA.pack(_TIME, 5, 1, modified)
    version = _ZIP64 if size >= MAX_32 else _PLAIN
    time = dos_time(modified)
    return (
        _LOCAL.pack(
            b"PK\3\4",
            version,
            _flags(crc32),
            0,
            time,
            crc32 or 0,
            shown,
            shown,
            len(name),
            len(extra),
        )
        + name
        + extra
    )


def descriptor(size: int, crc32: int) -> bytes:
    """What stands behind the bytes of a member whose header had no CRC-32 (§4.3.9)."""
    if size >= MAX_32:
        return struct.pack("<4sI2Q", b"PK\7\x08", crc32, size, size)
    return struct.pack("<4s3I", b"PK\7\x08", crc32, size, size)


def central_entry(name: bytes, size: int, crc32: int, modified: int, offset: int, *, described: bool) -> bytes:
    """The entry of a member in the central directory (§4.3.12).

    Args:
        name: in UTF-8.
        size: bytes.
        crc32: of them.
        modified: seconds since 1970; negative: unknown.
        offset: of its local header.
        described: whether a `descriptor` stands behind its bytes.
    """
    extra, version = b"", _PLAIN
    if size >= MAX_32 or offset >= MAX_32:
        large = [value for value in (size, size, offset) if value >= MAX_32]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large)
        version = _ZIP64
    if has_time(modified):
        extra += _TIME_EXTRA.pack(_TIME, 5, 1, modified)
    shown = min(size, MAX_32)
    return (
        _CENTRAL.pack(
            b"PK\1\2",
            _MADE_BY,
            version,
            _flags(None if described else crc32),
            0,
            dos_time(modified),
            crc32,
            shown,
            shown,
            len(name),
            len(extra),
            0,
            0,
            0,
            _REGULAR_FILE,
            min(offset, MAX_32),
        )
        + name
        + extra
    )


def end_records(members: int, start: int, stop: int) -> bytes:
    """The end of an archive (§4.3.14 to §4.3.16) whose central directory lies from ``start`` to ``stop``."""
    size, records = stop - start, b""
    if needs_end_64(members, start, stop):
        records = struct.pack(
            "<4sQ2H2I4Q", b"PK\6\6", 44, _MADE_BY, _ZIP64, 0, 0, members, members, size, start
        ) + struct.pack("<4sIQI", b"PK\6\7", 0, stop, 1)
    shown = min(members, MAX_16)
    return records + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, shown, shown, min(size, MAX_32), min(start, MAX_32), 0)


def needs_end_64(members: int, start: int, stop: int) -> bool:
    """Whether `end_records` must have those of ZIP64."""
    return members >= MAX_16 or start >= MAX_32 or stop - start >= MAX_32


def local_bytes(name: int, size: int, modified: int) -> int:
    """Length of `local_header` for a name of ``name`` bytes."""
    return LOCAL_BYTES + name + SIZES_64_BYTES * (size >= MAX_32) + TIME_LOCAL_BYTES * has_time(modified)


def central_bytes(name: int, size: int, modified: int, offset: int) -> int:
    """Length of `central_entry`, likewise."""
    large = 2 * (size >= MAX_32) + (offset >= MAX_32)
    return CENTRAL_BYTES + name + (4 + 8 * large if large else 0) + TIME_CENTRAL_BYTES * has_time(modified)


def descriptor_bytes(size: int) -> int:
    """Length of `descriptor`."""
    return DESCRIPTOR_64_BYTES if size >= MAX_32 else DESCRIPTOR_BYTES


def _flags(crc32: int | None) -> int:
    return _UTF8 | (_DESCRIPTOR if crc32 is None else 0)
