"""What a storage can do, and how its plug-in is found.

One Protocol per capability: a plug-in implements those it has, and callers ask with ``isinstance``. Plug-ins are
classes announced under the entry point group ``gateway.storage``; the gateway imports none of them by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, Self, runtime_checkable

from gateway.errors import ConfigurationError
from gateway.http.offload import Offload

ENTRY_POINT_GROUP = "gateway.storage"


class StorageError(Exception):
    """A storage could not do what was asked. The message is for operators: it may hold paths and keys."""


class CopyNotFoundError(StorageError):
    """Nothing lies at the location, or what lies there is no regular file."""


class CopyUnavailableError(StorageError):
    """The storage cannot be reached or does not answer now; a later try may succeed."""


class CopyChangedError(StorageError):
    """What lies at the location is not what the catalogue describes: it was changed since it was ingested."""


@contextlib.asynccontextmanager
async def answering_within(seconds: float) -> AsyncIterator[None]:
    """Wait for a storage no longer than ``seconds``; a call in a thread goes on, but nobody waits for it.

    Raises:
        CopyUnavailableError: it did not answer in time.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise CopyUnavailableError(f"did not answer within {seconds:g} s") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Stat:
    """What a storage says of the bytes at a location."""

    size: int
    """Bytes."""
    modified: datetime.datetime | None
    """When the bytes last changed, with a timezone; None if the storage does not know."""
    version: str
    """The storage's own tag of these very bytes: another tag means other bytes. Never empty."""


class Descriptor:
    """A file descriptor that threads may be using: it ends once it is closed and the last use is over.

    A call in a thread cannot be cancelled. Were the descriptor closed under it, its number could be given to another
    file or connection, and bytes would go where they do not belong. Only the event loop's thread may call this.
    """

    __slots__ = ("_closed", "_uses", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._uses = 0
        self._closed = False

    def held_by(self, future: asyncio.Future[Any]) -> None:
        """Keep the descriptor open until ``future`` is done."""
        self._uses += 1
        future.add_done_callback(self._released)

    def close(self) -> None:
        """Close now, or when the last use is over. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close_if_unused()

    def _released(self, _: asyncio.Future[Any]) -> None:
        self._uses -= 1
        if self._closed:
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self._uses:
            os.close(self.number)


@dataclasses.dataclass(frozen=True, slots=True)
class OpenFile:
    """A file on a local disk, open for reading; whoever opened it closes it."""

    descriptor: Descriptor
    stat: Stat
    """Of the open descriptor, so that it describes the bytes that will be read."""
    head: bytes = b""
    """The bytes that were to be read at once."""

    def close(self) -> None:
        """Close the descriptor once no thread uses it."""
        self.descriptor.close()


class Storage(Protocol):
    """What every plug-in has. ``name`` is that of its ``[[storage]]`` table."""

    name: str

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """Make the storage from the options of its ``[[storage]]`` table that the gateway itself does not read.

        Raises:
            ConfigurationError: an option is unknown, missing or wrong; the message names it.
        """
        ...

    def locate(self, href: str) -> str | None:
        """Turn an absolute href of a catalogue (``/path``, ``file://…``, ``s3://…``, ``https://…``) into a location.

        Returns None if this storage does not hold it. It looks at the text only and does no I/O.
        """
        ...

    async def close(self) -> None:
        """Give back all that the storage holds: threads, descriptors, connections."""
        ...


@runtime_checkable
class CanStat(Protocol):
    """A storage that can describe a copy without opening it."""

    async def stat(self, location: str) -> Stat:
        """Describe the bytes at ``location``.

        Raises:
            CopyNotFoundError, CopyUnavailableError: see these.
        """
        ...


@runtime_checkable
class OnDisk(CanStat, Protocol):
    """A storage whose copies are files of this machine, so that bytes can leave by sendfile.

    Every call runs in threads of this storage alone: a mount that hangs stalls no other storage.
    """

    async def open(self, location: str, offset: int = 0, count: int = 0) -> OpenFile:
        """Open the copy at ``location``, and read ``count`` bytes from ``offset`` on the way: a small file is one call.

        Raises:
            CopyNotFoundError, CopyUnavailableError: see these.
            CopyChangedError: the file was written to while it was read.
        """
        ...

    async def read(self, file: OpenFile, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``, fewer only at the end of the file.

        Raises:
            CopyChangedError: the file was written to since it was opened.
            CopyUnavailableError: the disk could not be read.
        """
        ...

    async def sendfile(self, file: OpenFile, offset: int, count: int, socket: Descriptor) -> int:
        """Move up to ``count`` bytes from ``offset`` into the non-blocking ``socket``.

        Returns the bytes that the kernel accepted, fewer than ``count`` when the socket is full.

        Raises:
            CopyChangedError: the file ends at or before ``offset``, or was written to since it was opened.
            CopyUnavailableError: the disk could not be read.
            ConnectionError: the peer is gone.
        """
        ...

    def bytes_in_memory(self, file: OpenFile, offset: int, count: int) -> int:
        """How many of ``count`` bytes from ``offset`` can, as far as samples tell, be had without asking a disk.

        It does not wait; 0 where nobody can say.
        """
        ...

    def sendfile_from_memory(self, file: OpenFile, offset: int, count: int, socket: Descriptor) -> int:
        """As `sendfile`, but at once and on the loop, for bytes that are in memory (`bytes_in_memory`).

        Returns the bytes that the kernel accepted (0 when the socket is full); fewer than ``count`` also when others
        shall have their turn.

        Raises:
            CopyChangedError, CopyUnavailableError, ConnectionError: as `sendfile`.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A storage and what its ``[[storage]]`` table says of it."""

    storage: Storage
    type: Literal["ONLINE", "NEARLINE", "OFFLINE"]
    priority: int
    """Of several copies the one at the lowest number is served."""
    offload: Offload | None = None
    """How the proxy in front can send its files, where it can."""


def load_plugin(name: str) -> type[Storage]:
    """The plug-in class announced as ``name``.

    Raises:
        ConfigurationError: no installed package announces it, or it cannot be imported.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none; is the gateway installed?"
        raise ConfigurationError(f"storage plug-in {name!r} is not installed; installed are: {known}")
    try:
        plugin: type[Storage] = found[name].load()
    except ImportError as error:
        raise ConfigurationError(f"storage plug-in {name!r} cannot be imported: {error}") from error
    return plugin
