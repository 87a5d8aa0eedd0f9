"""Layouts that outlive the process: written down compactly, and read back to the very same bytes."""

from __future__ import annotations

import datetime
import struct
import sys
import zlib
from array import array

from gateway.archive.columns import Columns
from gateway.archive.layout import Layout

_MAGIC = b"ZL1\n"
"""Of what this module writes. Whoever changes what a layout's bytes are must change it."""
_HEAD = struct.Struct("<Qq40s2Q")
"""Members, when it was laid out, tag, bytes of all names, bytes of the archive."""
_LEVEL = 1


class FrozenLayoutError(ValueError):
    """What was written down is damaged, or of another release that laid archives out in other bytes."""


def freeze(layout: Layout) -> bytes:
    """``layout`` as bytes: some 15 to 40 for each member, most of them of its name and CRC-32."""
    columns = layout.columns
    body = [_little(column) for column in _numbers(columns)]
    body += [bytes(columns.unknown), bytes(columns.fingerprints), bytes(columns.names)]
    for index, text in layout.texts.items():
        body.append(struct.pack("<2Q", index, len(text)) + text)
    tag, created = layout.tag.encode("ascii"), int(layout.created.timestamp())
    whole = b"".join([_HEAD.pack(len(columns), created, tag, len(columns.names), layout.length), *body])
    return _MAGIC + struct.pack("<I", zlib.crc32(whole)) + zlib.compress(whole, _LEVEL)


def thaw(frozen: bytes) -> Layout:
    """The layout that `freeze` wrote down.

    Raises:
        FrozenLayoutError: see there.
    """
    if not frozen.startswith(_MAGIC):
        raise FrozenLayoutError("no layout, or one of another release")
    try:
        (checksum,) = struct.unpack_from("<I", frozen, len(_MAGIC))
        whole = zlib.decompress(frozen[len(_MAGIC) + 4 :])
    except (struct.error, zlib.error) as error:
        raise FrozenLayoutError("a damaged layout") from error
    if zlib.crc32(whole) != checksum:
        raise FrozenLayoutError("a damaged layout")
    layout, length = _read(memoryview(whole))
    if layout.length != length:
        raise FrozenLayoutError("a layout of another release")
    return layout


def _read(whole: memoryview) -> tuple[Layout, int]:
    count, created, tag, names, length = _HEAD.unpack_from(whole)
    rest = whole[_HEAD.size :]

    def take(octets: int) -> memoryview:
        nonlocal rest
        taken, rest = rest[:octets], rest[octets:]
        return taken

    columns = Columns()
    for column in _numbers(columns):
        column.frombytes(take(count * column.itemsize))
        if sys.byteorder == "big":
            column.byteswap()
    columns.unknown += take(count)
    columns.fingerprints += take(8 * count)
    columns.names += take(names)
    texts = {}
    while rest:
        index, size = struct.unpack("<2Q", take(16))
        texts[index] = bytes(take(size))
    when = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return Layout(columns, texts, tag.decode("ascii"), when), length


def _numbers(columns: Columns) -> tuple[array[int], ...]:
    return columns.name_ends, columns.sizes, columns.crcs, columns.modified, columns.keys


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()
