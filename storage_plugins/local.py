"""Files on disks of this machine, network mounts included."""

from __future__ import annotations

import asyncio
import datetime
import errno
import itertools
import os
import stat as stat_bits
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import ParamSpec, Self, TypeVar
from urllib.parse import unquote, urlsplit

from gateway.crc32 import crc32
from gateway.errors import ConfigurationError
from gateway.storage import (
    CopyChangedError,
    CopyNotFoundError,
    CopyUnavailableError,
    Descriptor,
    OpenFile,
    Stat,
    StorageError,
)
from gateway.text import is_storable
from storage_plugins.cached_open import cached_open
from storage_plugins.local_keeping import files_below, keep, remove
from storage_plugins.threads import DaemonThreads

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_THREADS = 16
_AT_ONCE_BYTES = 4 * 1024 * 1024
"""Bytes that are moved before others have their turn: about half a millisecond."""
_SAMPLE_BYTES = 512 * 1024
"""Distance of the samples by which the page cache is looked at."""
_KEPT = 1000
"""Locations that are listed at a time."""
_COPY_BYTES = 256 * 1024
"""Bytes a step where the file system has no sendfile."""
_LAST_BYTES = 64 * 1024
"""Of every call, sent by themselves: until then a file that changes meanwhile can still be seen to be cut."""
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_DIRECTORY_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe would block at open without O_NONBLOCK; for a regular file the flag means nothing.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LocalStorage:
    """Files below one directory. Symbolic links below it are not followed: a link could lead out of it.

    Options: ``root``, absolute path of the directory; ``threads``, how many calls may wait for this disk to open and
    read files, and as many to send them (default 16). They are of this storage alone: a mount that hangs stalls no
    other; ``scratch``, absolute path of the folder for new files where the cache of restored copies lies here, on the
    same file system as ``root`` (default ``.scratch`` in it).
    """

    base = ""
    scratch: Path | None

    def __init__(self, name: str, root: Path, threads: int = DEFAULT_THREADS, scratch: Path | None = None) -> None:
        self.name = name
        self.root = root
        self.scratch = scratch or root / ".scratch"
        self._roots = (PurePosixPath(root), PurePosixPath(root.resolve()))
        self._threads = DaemonThreads(threads, f"storage-{name}")
        # Apart, so that opening a small file does not wait its turn behind those who send large ones from a slow disk.
        self._senders = DaemonThreads(threads, f"storage-{name}-send")
        self._cached_open = cached_open(root)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """See `gateway.storage.Storage.from_options`."""
        unknown = sorted(set(options) - {"root", "threads", "scratch"})
        if unknown:
            raise ConfigurationError(
                f"{', '.join(unknown)}: no such option of plug-in 'local' (root, threads, scratch)"
            )
        root = options.get("root")
        if not isinstance(root, str) or not root.startswith("/"):
            raise ConfigurationError("root: must be the absolute path of the directory with the files")
        threads = options.get("threads", DEFAULT_THREADS)
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
            raise ConfigurationError("threads: must be a number from 1 to 1024")
        if not Path(root).is_dir():
            raise ConfigurationError(f"root: {root} is not a directory, or may not be read")
        scratch = options.get("scratch")
        if scratch is not None and (not isinstance(scratch, str) or not scratch.startswith("/")):
            raise ConfigurationError("scratch: must be the absolute path of a folder for new files")
        return cls(name, Path(root), threads, None if scratch is None else Path(scratch))

    def locate(self, href: str) -> str | None:
        """The path below the root of a ``/path`` or ``file://`` href that lies there."""
        if href[:5].lower() == "file:":
            try:
                parts = urlsplit(href)
            except ValueError:
                return None
            if parts.netloc.lower() not in ("", "localhost"):
                return None
            href = unquote(parts.path)
        if not href.startswith("/"):
            return None
        path = PurePosixPath(os.path.normpath(href))
        for root in self._roots:
            if path != root and path.is_relative_to(root):
                return str(path.relative_to(root))
        return None

    async def stat(self, location: str) -> Stat:
        """See `gateway.storage.CanStat`."""
        found = self._open_from_memory(location, 0, 0)
        if found is not None:
            found.close()
            return found.stat
        return await self._submit(self._stat, location)

    async def open(self, location: str, offset: int = 0, count: int = 0) -> OpenFile:
        """See `gateway.storage.OnDisk`. What is in memory is opened and read at once: a thread costs far more."""
        found = self._open_from_memory(location, offset, count)
        if found is not None:
            return found
        future = self._submit(self._open, location, offset, count)
        try:
            number, stat, head = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close_unwanted)
            raise
        return OpenFile(Descriptor(number), stat, head)

    async def read(self, file: OpenFile, offset: int, count: int) -> bytes:
        """See `gateway.storage.OnDisk`."""
        future = self._submit(_read_unchanged, file.descriptor.number, file.stat.version, offset, count)
        file.descriptor.held_by(future)
        return await asyncio.shield(future)

    async def crc32(self, file: OpenFile, offset: int, count: int, value: int) -> int:
        """See `gateway.storage.SumsOnDisk`."""
        future = self._submit(_crc32_unchanged, file.descriptor.number, file.stat.version, offset, count, value)
        file.descriptor.held_by(future)
        return await asyncio.shield(future)

    async def sendfile(self, file: OpenFile, offset: int, count: int, socket: Descriptor) -> int:
        """See `gateway.storage.OnDisk`."""
        call = self._senders.submit(_sendfile, file.descriptor.number, file.stat.version, offset, count, socket.number)
        future = asyncio.wrap_future(call)
        file.descriptor.held_by(future)
        socket.held_by(future)
        return await asyncio.shield(future)

    def bytes_in_memory(self, file: OpenFile, offset: int, count: int) -> int:
        """See `gateway.storage.OnDisk`."""
        return _bytes_in_memory(file.descriptor.number, offset, count)

    def sendfile_from_memory(self, file: OpenFile, offset: int, count: int, socket: Descriptor) -> int:
        """See `gateway.storage.OnDisk`."""
        number, version = file.descriptor.number, file.stat.version
        return _sendfile(number, version, offset, min(count, _AT_ONCE_BYTES), socket.number, once=True)

    async def keep(self, file: Path, location: str) -> Stat:
        """See `gateway.storage.CanKeep`."""
        if not _is_below(location):
            raise CopyUnavailableError(f"{location!r}: is no path below the root")
        return _describe(await asyncio.shield(self._submit(keep, file, self.root, location)))

    async def remove(self, location: str) -> None:
        """See `gateway.storage.CanKeep`."""
        if _is_below(location):
            try:
                await self._submit(remove, self.root, location)
            except OSError as error:
                raise CopyUnavailableError(f"{location}: {error.strerror}") from error

    async def kept(self, seconds: float) -> AsyncIterator[Sequence[str]]:
        """See `gateway.storage.CanKeep`."""
        found = files_below(self.root, seconds)
        try:
            while page := await self._submit(lambda: list(itertools.islice(found, _KEPT))):
                yield page
        except OSError as error:
            raise CopyUnavailableError(f"{self.root}: {error.strerror}") from error

    async def close(self) -> None:
        """Let the threads end; one that hangs in a dead mount is not waited for."""
        self._threads.close()
        self._senders.close()

    def _submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))

    def _stat(self, location: str) -> Stat:
        number, stat, _ = self._open(location, 0, 0)
        os.close(number)
        return stat

    def _open(self, location: str, offset: int, count: int) -> tuple[int, Stat, bytes]:
        with _disk_errors(location):
            number = self._descend(location)
            try:
                found = os.fstat(number)
                if not stat_bits.S_ISREG(found.st_mode):
                    raise CopyNotFoundError(f"{location}: is no regular file")
                stat = _describe(found)
                head = _read_unchanged(number, stat.version, offset, count) if count else b""
            except BaseException:
                os.close(number)
                raise
            return number, stat, head

    def _open_from_memory(self, location: str, offset: int, count: int) -> OpenFile | None:
        """As `open`; None if a disk might have to be asked, or there is anything to complain about."""
        if self._cached_open is None or not _is_below(location):
            return None
        number = self._cached_open(location, _FILE_FLAGS)
        if number is None:
            return None
        file = None
        try:
            found = os.fstat(number)
            if stat_bits.S_ISREG(found.st_mode) and (head := _read_from_memory(number, offset, count)) is not None:
                stat = _describe(found)
                _check_unchanged(number, stat.version)
                file = OpenFile(Descriptor(number), stat, head)
        except (OSError, StorageError):
            return None
        else:
            return file
        finally:
            if file is None:
                os.close(number)

    def _descend(self, location: str) -> int:
        """Open each part of the path below its parent's descriptor, so that nothing can be swapped in between."""
        if not _is_below(location):
            raise CopyNotFoundError(f"{location!r}: is no path below the root")
        parts = location.split("/")
        directory = os.open(self.root, _DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        try:
            for part in parts[:-1]:
                below = os.open(part, _DIRECTORY_FLAGS, dir_fd=directory)
                os.close(directory)
                directory = below
            return os.open(parts[-1], _FILE_FLAGS, dir_fd=directory)
        finally:
            os.close(directory)


def _is_below(location: str) -> bool:
    return is_storable(location) and {"", ".", ".."}.isdisjoint(location.split("/"))


def _read_from_memory(number: int, offset: int, count: int) -> bytes | None:
    """Bytes that are in memory; None if not all are: those behind the end of the file never are."""
    if not count:
        return b""
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return None
    buffer = bytearray(count)
    return bytes(buffer) if os.preadv(number, [buffer], offset, flag) == count else None


def _describe(found: os.stat_result) -> Stat:
    seconds, nanoseconds = divmod(found.st_mtime_ns, 1_000_000_000)
    try:
        modified = datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(microsecond=nanoseconds // 1000)
    except (OverflowError, ValueError, OSError):  # a clock gone mad wrote it: not a date at all
        modified = None
    return Stat(found.st_size, modified, _version(found))


def _version(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"


def _close_unwanted(future: asyncio.Future[tuple[int, Stat, bytes]]) -> None:
    """Close what a thread opened for a caller that was cancelled meanwhile."""
    if not future.cancelled() and future.exception() is None:
        os.close(future.result()[0])


def _read(number: int, offset: int, count: int) -> bytes:
    with _disk_errors(f"descriptor {number}"):
        pieces = []
        while count > 0 and (piece := os.pread(number, count, offset)):
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        return b"".join(pieces)


def _read_unchanged(number: int, version: str, offset: int, count: int) -> bytes:
    piece = _read(number, offset, count)
    _check_unchanged(number, version)
    return piece


def _crc32_unchanged(number: int, version: str, offset: int, count: int, value: int) -> int:
    """Read into one small buffer again and again: it stays in the cache of the processor."""
    buffer = memoryview(bytearray(min(count, _COPY_BYTES)))
    stop = offset + count
    with _disk_errors(f"descriptor {number}"):
        while offset < stop:
            read = os.preadv(number, [buffer[: stop - offset]], offset)
            if read == 0:
                raise CopyChangedError(f"the file ends at byte {offset}")
            value = crc32(buffer[:read], value)
            offset += read
    _check_unchanged(number, version)
    return value


def _check_unchanged(number: int, version: str) -> None:
    """See that nobody wrote to the open file: what was sent and what will be would be parts of different files."""
    try:
        found = os.fstat(number)
    except OSError as error:
        raise CopyUnavailableError(f"descriptor {number}: {error.strerror}") from error
    if _version(found) != version:
        raise CopyChangedError("the file was written to while it was read")


def _bytes_in_memory(number: int, offset: int, count: int) -> int:
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return 0
    sample, known = [bytearray(1)], offset
    try:
        for position in (*range(offset, offset + count, _SAMPLE_BYTES), offset + count - 1):
            if not os.preadv(number, sample, position, flag):
                break
            known = position
    except OSError:  # EAGAIN: not there; EOPNOTSUPP: this file system cannot say
        return known - offset
    return count if known == offset + count - 1 else known - offset


def _sendfile(number: int, version: str, offset: int, count: int, socket: int, *, once: bool = False) -> int:
    """Send until all is sent, the socket is full or something is wrong.

    What was sent before something went wrong is told first: it must be charged. The next call meets the same again.
    With ``once`` a socket that took less than it was offered counts as full.
    """
    sent = moved = 0
    while sent < count:
        left = count - sent
        asked = left - _LAST_BYTES if left > _LAST_BYTES else left
        try:
            _check_unchanged(number, version)
            moved = _move(number, offset + sent, asked, socket)
        except BlockingIOError:
            break
        except (ConnectionError, StorageError):
            if sent == 0:
                raise
            break
        sent += moved
        if once and moved < asked:
            break
    return sent


def _move(number: int, offset: int, count: int, socket: int) -> int:
    """Send some bytes, at least one."""
    try:
        moved = os.sendfile(socket, number, offset, count)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_SENDFILE:
            raise _reading_or_peer(error) from error
        moved = _copy(number, offset, min(count, _COPY_BYTES), socket)
    if moved == 0:
        raise CopyChangedError(f"the file ends at or before byte {offset}")
    return moved


def _copy(number: int, offset: int, count: int, socket: int) -> int:
    piece = _read(number, offset, count)
    try:
        return os.write(socket, piece) if piece else 0
    except BlockingIOError:
        raise
    except OSError as error:
        raise _reading_or_peer(error) from error


def _reading_or_peer(error: OSError) -> Exception:
    if isinstance(error, ConnectionError):
        return error
    if error.errno in (errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return ConnectionResetError(error.errno, error.strerror)
    return CopyUnavailableError(f"reading failed: {error.strerror}")


@contextmanager
def _disk_errors(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _ABSENT:
            raise CopyNotFoundError(f"{location}: {error.strerror}") from error
        raise CopyUnavailableError(f"{location}: {error.strerror}") from error
