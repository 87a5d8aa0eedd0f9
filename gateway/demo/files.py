"""Makers of the bytes of the demo's files. The same arguments give the same bytes on every run."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

MIB = 2**20
PAGE = 4096
"""Bytes between two stamps of `noise`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Raster:
    """Pixels of 8 bits a sample, row by row from the north-west corner, the samples of a pixel side by side."""

    width: int
    height: int
    samples: Literal[1, 3]
    """1 is grey, 3 is RGB."""
    pixels: bytes

    def __post_init__(self) -> None:
        expected = self.width * self.height * self.samples
        if len(self.pixels) != expected:
            raise ValueError(f"{len(self.pixels)} bytes of pixels, where width, height and samples make {expected}")


def relief(seed: str, *, width: int = 256, height: int = 256) -> Raster:
    """A grey image that looks like hills: waves across and along, whose lengths and phases come from ``seed``."""
    across = _waves(seed + "/across", width)
    along = _waves(seed + "/along", height)
    pixels = bytearray()
    for y in range(height):
        level = along[y]
        pixels += bytes([(level + value) >> 1 for value in across])
    return Raster(width, height, 1, bytes(pixels))


def _waves(seed: str, length: int) -> list[int]:
    """``length`` values between 0 and 255: a sum of three sines."""
    numbers = hashlib.sha256(seed.encode()).digest()
    terms = [(1 + numbers[i] % 7, numbers[i + 1] / 256 * math.tau) for i in (0, 2, 4)]
    return [
        round(127.5 + 42.5 * sum(math.sin(math.tau * count * i / length + phase) for count, phase in terms))
        for i in range(length)
    ]


_SEA, _SHORE = 96, 112


def coloured(grey: Raster) -> Raster:
    """The grey image as a map: blue below the shore, then sand, green and white."""
    palette = [_colour(level) for level in range(256)]
    pixels = bytearray(3 * len(grey.pixels))
    for sample in range(3):
        pixels[sample::3] = grey.pixels.translate(bytes(colour[sample] for colour in palette))
    return Raster(grey.width, grey.height, 3, bytes(pixels))


def _colour(level: int) -> tuple[int, int, int]:
    if level < _SEA:
        return level // 4, level // 2, 96 + level
    if level < _SHORE:
        return 224, 208, 144
    rise = level - _SHORE
    return rise, 128 + rise * 127 // (255 - _SHORE), rise


def reduced(raster: Raster, step: int) -> Raster:
    """Every ``step``-th pixel of every ``step``-th row."""
    row, samples = raster.width * raster.samples, raster.samples
    pixels = bytearray()
    for y in range(0, raster.height, step):
        for x in range(0, row, step * samples):
            pixels += raster.pixels[y * row + x : y * row + x + samples]
    return Raster(-(-raster.width // step), -(-raster.height // step), samples, bytes(pixels))


def png(raster: Raster) -> bytes:
    """The raster as a PNG file (RFC 2083): 8 bits a sample, not interlaced, no filter."""
    row = raster.width * raster.samples
    scanlines = b"".join(b"\0" + raster.pixels[i : i + row] for i in range(0, len(raster.pixels), row))
    colour_type = 0 if raster.samples == 1 else 2
    header = struct.pack(">IIBBBBB", raster.width, raster.height, 8, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(scanlines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


_SHORT, _LONG, _RATIONAL, _DOUBLE = 3, 4, 5, 12
_FORMATS = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _DOUBLE: "d"}

# GeoTIFF 1.1 (OGC 19-008r4): version 1.1.0, four keys, each as key, 0 (the value stands here), count, value.
_GEO_KEYS = (
    *(1, 1, 0, 4),
    *(1024, 0, 1, 2),  # GTModelType: geographic, longitude and latitude
    *(1025, 0, 1, 1),  # GTRasterType: a pixel is an area
    *(2048, 0, 1, 4326),  # GeodeticCRS: EPSG:4326
    *(2054, 0, 1, 9102),  # GeogAngularUnits: degree
)


def geotiff(raster: Raster, *, west: float, north: float, degrees: float) -> bytes:
    """The raster as a GeoTIFF in EPSG:4326: little-endian TIFF 6.0, uncompressed, one strip.

    ``west`` and ``north`` are the corner of the first pixel and ``degrees`` the side of a pixel, all in degrees.
    """
    count = raster.samples
    entries: list[tuple[int, int, tuple[float, ...]]] = [
        (256, _LONG, (raster.width,)),  # ImageWidth
        (257, _LONG, (raster.height,)),  # ImageLength
        (258, _SHORT, (8,) * count),  # BitsPerSample
        (259, _SHORT, (1,)),  # Compression: none
        (262, _SHORT, (1 if count == 1 else 2,)),  # PhotometricInterpretation: black is zero, or RGB
        (273, _LONG, (0,)),  # StripOffsets: known when the directory is laid out
        (277, _SHORT, (count,)),  # SamplesPerPixel
        (278, _LONG, (raster.height,)),  # RowsPerStrip
        (279, _LONG, (len(raster.pixels),)),  # StripByteCounts
        (282, _RATIONAL, (72, 1)),  # XResolution
        (283, _RATIONAL, (72, 1)),  # YResolution
        (284, _SHORT, (1,)),  # PlanarConfiguration: the samples of a pixel side by side
        (296, _SHORT, (2,)),  # ResolutionUnit: inch
        (33550, _DOUBLE, (degrees, degrees, 0.0)),  # ModelPixelScale
        (33922, _DOUBLE, (0.0, 0.0, 0.0, west, north, 0.0)),  # ModelTiepoint: pixel 0, 0 lies there
        (34735, _SHORT, _GEO_KEYS),  # GeoKeyDirectory
    ]
    return _tiff(entries, raster.pixels)


def _tiff(entries: list[tuple[int, int, tuple[float, ...]]], strip: bytes) -> bytes:
    """Lay out the header, one directory, the values too long for it, and the strip."""
    directory_end = 8 + 2 + 12 * len(entries) + 4
    overflow = bytearray()
    directory = bytearray(struct.pack("<H", len(entries)))
    strip_offset_at = 0
    for tag, kind, values in entries:
        packed = _packed(kind, values)
        count = len(values) // 2 if kind == _RATIONAL else len(values)
        if len(packed) > 4:
            packed, value = struct.pack("<I", directory_end + len(overflow)), packed
            overflow += value + b"\0" * (len(value) % 2)  # values begin on a word
        if tag == 273:
            strip_offset_at = len(directory) + 8
        directory += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    directory += struct.pack("<I", 0)
    struct.pack_into("<I", directory, strip_offset_at, directory_end + len(overflow))
    return b"II" + struct.pack("<HI", 42, 8) + bytes(directory) + bytes(overflow) + strip


def _packed(kind: int, values: tuple[float, ...]) -> bytes:
    if kind == _DOUBLE:
        return struct.pack(f"<{len(values)}d", *values)
    return struct.pack(f"<{len(values)}{_FORMATS[kind]}", *(int(value) for value in values))


def noise(seed: str, size: int) -> Iterator[bytes]:
    """``size`` bytes that look random, in pieces of a MiB, the last one shorter.

    The bytes of every MiB are the same but for the offset from the start of the file, stamped as 8 bytes (big-endian)
    at every 4096th byte: no page of 4096 bytes is there twice, so that a reader who mixes them up is found out.
    """
    block = bytearray(hashlib.shake_256(seed.encode()).digest(MIB))
    for start in range(0, size, MIB):
        for page in range(0, MIB, PAGE):
            struct.pack_into(">Q", block, page, start + page)
        yield bytes(memoryview(block)[: size - start])


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What `write` wrote."""

    size: int
    """Bytes."""
    digest: str
    """Hexadecimal, lower case."""


def write(path: Path, pieces: Iterable[bytes], algorithm: Literal["md5", "sha256"]) -> Written:
    """Write the pieces to ``path``, making its directory, and say how many bytes they were and their digest.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    size, digest = 0, hashlib.new(algorithm, usedforsecurity=False)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return Written(size, digest.hexdigest())
