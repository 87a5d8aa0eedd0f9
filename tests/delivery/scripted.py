"""Storages that fail by a script, and a client that only collects: for the rules of `gateway.delivery.content`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Literal, Self, cast

from gateway.delivery.client import Client
from gateway.delivery.source import Source
from gateway.delivery.transfer import Transfer
from gateway.storage import (
    ByteStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    Stat,
    StorageError,
)

PIECE = 100
"""Bytes that a stream gives at once."""

REFUSALS: Mapping[str, type[StorageError]] = {
    "unavailable": CopyUnavailableError,
    "missing": CopyNotFoundError,
    "offline": CopyOfflineError,
    "changed": CopyChangedError,
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong with one request to the storage."""

    kind: Literal["none", "unavailable", "missing", "offline", "changed", "error", "ends", "replaced"]
    after: int = 0
    """Bytes that are given before: of ``error``, ``ends``; ``replaced`` has another version from the start."""


class ScriptedStream:
    """Gives bytes until its fault comes."""

    def __init__(self, content: bytes, stat: Stat, fault: Fault) -> None:
        self.stat = stat
        self._content = content
        self._fault = fault
        self._given = 0
        self.closed = False

    async def read(self) -> bytes:
        assert not self.closed
        faulty = self._fault.kind in ("error", "ends")
        most = min(PIECE, self._fault.after - self._given) if faulty else PIECE
        if faulty and most <= 0:
            if self._fault.kind == "error":
                raise CopyUnavailableError("the connection broke")
            return b""
        piece = self._content[self._given : self._given + most]
        self._given += len(piece)
        return piece

    def close(self) -> None:
        self.closed = True


class ScriptedStorage:
    """Holds one copy; each request meets the next fault of the script, and none once it is over."""

    def __init__(self, name: str, content: bytes, faults: list[Fault]) -> None:
        self.name = name
        self.content = content
        self.faults = list(faults)
        self.streams: list[ScriptedStream] = []
        self.version = hashlib.md5(content, usedforsecurity=False).hexdigest()

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        raise AssertionError("never made from options: tests make it from a script")

    def locate(self, href: str) -> str | None:
        return href

    async def close(self) -> None:
        assert all(stream.closed for stream in self.streams)

    async def stat(self, location: str) -> Stat:
        return Stat(len(self.content), None, self.version)

    async def stream(self, location: str, start: int, stop: int, version: str | None) -> ByteStream:
        fault = self.faults.pop(0) if self.faults else Fault("none")
        if fault.kind in REFUSALS:
            raise REFUSALS[fault.kind](location)
        content, tag = self.content, self.version
        if fault.kind == "replaced":
            content, tag = bytes(255 - byte for byte in content), "another"
        stream = ScriptedStream(content[start:stop], Stat(len(content), None, tag), fault)
        self.streams.append(stream)
        return stream


def source(number: int, storage: ScriptedStorage, *, recorded: bool = True, prove: bool = False) -> Source:
    stat = Stat(len(storage.content), None, storage.version) if recorded else None
    return Source(number, storage.name, storage, "there", stat, prove=prove, prove_large=prove)


class CollectingClient:
    """What `Content.send` needs of a client, without a connection."""

    encrypted = True

    def __init__(self) -> None:
        self.transfer = Transfer(0)
        self.received = bytearray()

    async def write(self, piece: bytes) -> None:
        self.received += piece
        self.transfer.sent += len(piece)

    @property
    def as_client(self) -> Client:
        return cast("Any", self)  # type: ignore[no-any-return]
