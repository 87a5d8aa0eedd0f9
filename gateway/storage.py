"""What a storage can do: all that a plug-in has to know of the gateway.

One Protocol per capability: a plug-in implements those it has, and callers ask with ``isinstance``, or where every
request does so with `on_disk`, `can_stream` and `can_sign`. Plug-ins are classes announced under the entry point group
``gateway.storage``; the gateway imports none of them by name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import functools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast, runtime_checkable


class StorageError(Exception):
    """A storage could not do what was asked. The message is for operators: it may hold paths and keys."""


class CopyNotFoundError(StorageError):
    """Nothing lies at the location, or what lies there is no regular file."""


class CopyUnavailableError(StorageError):
    """The storage cannot be reached or does not answer now; a later try may succeed."""


class CopyOfflineError(StorageError):
    """What lies at the location cannot be read before it is restored: it is on tape or in a cold storage class."""


class CopyChangedError(StorageError):
    """What lies at the location is not what the catalogue describes: it was changed since it was ingested."""


class CopyBrokenError(StorageError):
    """The storage has a copy of the right version and size, but gives bytes that are not those of its checksum."""


class answering_within:  # noqa: N801 - read as a word of ``async with``
    """Wait for a storage no longer than ``seconds``; a call in a thread goes on, but nobody waits for it.

    Raises:
        CopyUnavailableError: it did not answer in time.
    """

    __slots__ = ("_deadline", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._deadline.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._deadline.__aexit__(kind, error, trace)
        except TimeoutError:
            raise CopyUnavailableError(f"did not answer within {self._seconds:g} s") from error
        if isinstance(error, TimeoutError):
            raise CopyUnavailableError(f"did not answer within {self._seconds:g} s") from error


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


@runtime_checkable
class SumsOnDisk(OnDisk, Protocol):
    """A storage on a disk that computes a CRC-32 where it reads: bytes of which nothing else is wanted stay there."""

    async def crc32(self, file: OpenFile, offset: int, count: int, value: int) -> int:
        """The CRC-32 of ``count`` bytes from ``offset``, behind bytes that have the CRC-32 ``value``.

        Raises:
            CopyChangedError: the file ends before, or was written to since it was opened.
            CopyUnavailableError: the disk could not be read.
        """
        ...


class ByteStream(Protocol):
    """Some bytes of a copy, on their way from a storage. Whoever has it closes it."""

    @property
    def stat(self) -> Stat:
        """Of the whole copy that the bytes are part of, as the storage said along with these very bytes."""
        ...

    async def read(self) -> bytes:
        """The next bytes, as many as are at hand and at least one; empty once all that was asked for is given.

        Raises:
            CopyUnavailableError: they ended early, or the connection broke.
        """
        ...

    def close(self) -> None:
        """Let go at once, without taking what was not read: a connection with bytes outstanding is closed.

        A second call does nothing.
        """
        ...


@runtime_checkable
class OnSocket(ByteStream, Protocol):
    """A stream whose bytes come from a socket just as they are, so that the kernel can pass them on by itself."""

    def socket(self) -> Descriptor:
        """The non-blocking socket that gives the bytes after those that `read` gave; the stream keeps owning it.

        Only after a first `read`, which gives what had come along with the header. More may come than is asked for:
        whoever takes bytes must stop at the last one.
        """
        ...

    def took(self, count: int) -> None:
        """Tell that ``count`` bytes were taken from the socket."""
        ...


@runtime_checkable
class AtOnce(ByteStream, Protocol):
    """A stream that can tell at once whether bytes have come, so that nobody has to wait for each piece of them."""

    def waits_on(self) -> Descriptor:
        """What gets readable when more bytes have come; the stream keeps owning it, and alone may read from it."""
        ...

    def read_at_once(self) -> bytes:
        """As `read`, but empty when nothing has come.

        Raises:
            CopyUnavailableError: the bytes ended early, or the connection broke.
        """
        ...


@runtime_checkable
class CanStream(CanStat, Protocol):
    """A storage that gives the bytes of a copy over a network."""

    async def stream(self, location: str, start: int, stop: int, version: str | None) -> ByteStream:
        """Ask for the bytes from ``start`` up to, not including, ``stop``; at least one.

        With ``version`` only bytes of that version (`Stat.version`) may come, whatever happens meanwhile. The caller
        holds `ByteStream.stat` against what it expects in any case.

        Raises:
            CopyNotFoundError, CopyUnavailableError, CopyOfflineError: see these.
            CopyChangedError: it has another version, or ends before ``stop``.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL that gives a copy to whoever has it."""

    url: str = dataclasses.field(repr=False)
    """To be sent byte for byte: any re-encoding breaks the signature."""
    lifetime: float | None
    """Seconds that it works from now on; None for ever."""


@runtime_checkable
class CanSign(Protocol):
    """A storage that can let a client fetch a copy from it directly."""

    async def sign(
        self,
        location: str,
        *,
        method: Literal["GET", "HEAD"],
        lifetime: float,
        content_type: str | None = None,
        disposition: str | None = None,
    ) -> SignedUrl:
        """Make a URL for ``method`` and nothing else that works for ``lifetime`` seconds, or less if it must.

        Args:
            location: of the copy; nobody asks the storage whether it is there.
            method: other methods are refused with this URL.
            lifetime: seconds.
            content_type: the Content-Type that the storage shall answer with, where it can be told.
            disposition: likewise the Content-Disposition.

        Raises:
            CopyUnavailableError: there are no credentials to sign with at the moment.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ToStage:
    """A copy that is to be readable for a while."""

    key: str
    """The same in all calls about one restore, another for the next: by it a storage can tell a repetition."""
    location: str
    size: int | None
    """Bytes; None where the catalogue does not say."""
    seconds: float
    """That it shall be readable, from when it is restored."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageState:
    """How it stands with a copy that may have to be restored."""

    state: Literal["ONLINE", "STAGING", "NEARLINE", "LOST", "FAILED"]
    """ONLINE: it can be read, or fetched; STAGING: it will be; NEARLINE: nobody restores it at the moment; LOST: the
    storage has it no more; FAILED: it could not be restored, and ``retry`` says whether it is worth to ask again."""
    until: datetime.datetime | None = None
    """ONLINE: when the storage takes it back, with a timezone; None if it does not by itself."""
    ready: datetime.datetime | None = None
    """STAGING: when it will be ONLINE, as far as the storage can tell, with a timezone."""
    path: Path | None = None
    """ONLINE: where its bytes can be read on this machine, if that is not its location."""
    error: str | None = None
    """FAILED, LOST: why, for operators."""
    retry: bool = True


@runtime_checkable
class CanStage(Protocol):
    """A storage with copies that must be restored before they can be read.

    Its calls are about any number of copies. What they give for one says nothing of others; one that they say nothing
    of has not been looked at. They raise `CopyUnavailableError` when the storage does not answer, and whoever called
    comes back later.
    """

    in_place: bool
    """Whether a restored copy is read at its location (the storage `CanStream` or is `OnDisk`); else it `CanFetch`."""
    stage_batch: int
    """Copies that one call may be about, at most."""

    async def stage(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """Ask that copies be readable; gives what is known of each by `ToStage.key`.

        Asking again while that is under way must not begin anew. Asking for one that is restored has it stay readable
        for the seconds asked, from now on, where the storage can do that.
        """
        ...

    async def staged(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """How it stands with copies that were asked for, by `ToStage.key`. Changes nothing."""
        ...

    async def release(self, copies: Sequence[ToStage]) -> None:
        """Tell that copies are needed no more, be they restored or on their way."""
        ...


@runtime_checkable
class CanFetch(CanStage, Protocol):
    """A storage whose restored copies are fetched into the cache before they are read."""

    async def fetch(self, copy: ToStage, state: StageState, target: Path) -> None:
        """Write the bytes of a copy that is ONLINE into ``target``, which does not exist yet, in a folder that does.

        The caller holds them against size and checksum, and removes what is left when it fails or is cancelled.

        Raises:
            CopyNotFoundError, CopyUnavailableError, CopyOfflineError: see these.
            OSError: it could not be written; ENOSPC and EDQUOT say that the disk is full.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class TapePosition:
    """Where a copy lies on a medium."""

    tape: str
    """Name of the medium."""
    position: int
    """Grows along it."""


@runtime_checkable
class KnowsTape(Protocol):
    """A storage that can tell in which order copies are best restored."""

    async def positions(self, locations: Sequence[str]) -> Mapping[str, TapePosition]:
        """Where copies lie; of some it may say nothing.

        Raises:
            CopyUnavailableError: it does not answer.
        """
        ...


@runtime_checkable
class CanKeep(CanStat, Protocol):
    """A storage that the cache of restored copies can lie in. What is kept is read as from any other storage."""

    scratch: Path | None
    """A folder of this machine in which new files are written before they are kept. It is for the cache alone.
    None where its options name none."""
    base: str
    """What all locations begin with that something can be kept at: nothing, or text that ends with a slash."""

    async def keep(self, file: Path, location: str) -> Stat:
        """Move the ``file``, which lies in `scratch`, to ``location``, where nothing is.

        Whatever crashes, there is all of it then or nothing, and what has returned outlives a loss of power.

        Raises:
            OSError: it could not be written; ENOSPC and EDQUOT say that there is no room, EEXIST that something lies
                there.
            CopyUnavailableError: the storage does not answer.
        """
        ...

    async def remove(self, location: str) -> None:
        """Remove what is kept at ``location``; nothing there is well, too.

        Raises:
            CopyUnavailableError: it could not be done.
        """
        ...

    def kept(self, seconds: float) -> AsyncIterator[Sequence[str]]:
        """Locations of all that lies there and was not written to for ``seconds``, some at a time.

        Of what earlier calls of `keep` had begun when they died, and nobody can see, it gives back the room.

        Raises:
            CopyUnavailableError: the storage does not answer.
        """
        ...


def on_disk(storage: object) -> OnDisk | None:
    """``storage``, if it is `OnDisk`."""
    return cast("OnDisk", storage) if _has(storage, OnDisk) else None


def can_stream(storage: object) -> CanStream | None:
    """``storage``, if it is one that `CanStream`."""
    return cast("CanStream", storage) if _has(storage, CanStream) else None


def can_sign(storage: object) -> CanSign | None:
    """``storage``, if it is one that `CanSign`."""
    return cast("CanSign", storage) if _has(storage, CanSign) else None


def _has(storage: object, capability: type) -> bool:
    """Asked several times a request, for which ``isinstance`` of a Protocol is too slow."""
    return _is_subclass(type(storage), capability)  # type: ignore[arg-type]  # mypy takes classes for unhashable


_is_subclass = functools.lru_cache(maxsize=256)(issubclass)
