"""A storage behind an imaginary network, that does what a test tells it to."""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections.abc import Mapping
from typing import Self

from gateway.storage import ByteStream, CopyChangedError, CopyNotFoundError, Stat, StorageError


@dataclasses.dataclass
class MemoryStream:
    stat: Stat
    pieces: list[bytes]
    failure: StorageError | None
    closed: bool = False

    async def read(self) -> bytes:
        assert not self.closed
        if not self.pieces and self.failure is not None:
            raise self.failure
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.closed = True


class MemoryStorage:
    """Describes and streams ``files``; its locations are the hrefs that start with ``prefix``."""

    def __init__(self, name: str, prefix: str = "https://") -> None:
        self.name = name
        self.prefix = prefix
        self.files: dict[str, bytes] = {}
        self.failures: dict[str, StorageError] = {}
        """By location, what ``stat`` raises."""
        self.stream_failure: StorageError | None = None
        """What ``stream`` raises."""
        self.read_failure: StorageError | None = None
        """What ``read`` raises once all but the last byte was given."""
        self.hangs = False
        self.asked: list[str] = []
        self.streams: list[MemoryStream] = []

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        return cls(name)

    def locate(self, href: str) -> str | None:
        return href if href.startswith(self.prefix) else None

    async def stat(self, location: str) -> Stat:
        self.asked.append(location)
        if self.hangs:
            await asyncio.Event().wait()
        if location in self.failures:
            raise self.failures[location]
        if location not in self.files:
            raise CopyNotFoundError(location)
        content = self.files[location]
        return Stat(len(content), None, f"v{zlib.crc32(content):x}")

    async def stream(self, location: str, start: int, stop: int, version: str | None) -> ByteStream:
        assert start < stop
        if self.stream_failure is not None:
            raise self.stream_failure
        stat = await self.stat(location)
        if version not in (None, stat.version):
            raise CopyChangedError(location)
        content = self.files[location][start:stop]
        if self.read_failure is not None:
            content = content[:-1]
        half = len(content) // 2
        stream = MemoryStream(stat, [piece for piece in (content[:half], content[half:]) if piece], self.read_failure)
        self.streams.append(stream)
        return stream

    async def close(self) -> None:
        assert all(stream.closed for stream in self.streams)
