"""Copies restored files from a directory of this machine into the cache, in threads."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

from gateway.storage import CopyUnavailableError
from storage_plugins.local import LocalStorage
from storage_plugins.threads import DaemonThreads

_STEP_BYTES = 16 * 1024 * 1024
"""That are copied before a thread looks whether anybody still wants them."""
_LETTING_GO_SECONDS = 5
"""That a copy which nobody wants any more is waited for: its disk may hang."""
_READ_BYTES = 1024 * 1024
"""At a time, where the file system does not copy by itself."""
_NO_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
"""Of copy_file_range: other file systems, or one that cannot."""


class StagedFiles:
    """Files below a directory, symbolic links below it excepted."""

    def __init__(self, name: str, root: Path, threads: int) -> None:
        self._root = root
        self._files = LocalStorage(f"{name}-staged", root, threads)
        self._copiers = DaemonThreads(threads, f"storage-{name}-copy")

    async def copy(self, path: Path | None, location: str, target: Path) -> None:
        """Copy the file at ``path``, else at ``location`` below the directory, into the new file ``target``.

        Where the file system can, the bytes are shared until somebody changes them.

        Raises:
            CopyNotFoundError, CopyUnavailableError: see these; it lies elsewhere, for instance.
            OSError: ``target`` could not be written.
        """
        if path is not None and not path.is_relative_to(self._root):
            raise CopyUnavailableError(f"{str(path)!r} is not below {self._root}")
        below = location if path is None else str(path.relative_to(self._root))
        file = await self._files.open(below)
        try:
            wanted = _Wanted()
            future = asyncio.wrap_future(
                self._copiers.submit(_copy, file.descriptor.number, file.stat.size, target, wanted)
            )
            file.descriptor.held_by(future)
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError:
                wanted.ended = True
                # Whoever cancelled removes the target then: it must not be made later.
                await asyncio.wait((future,), timeout=_LETTING_GO_SECONDS)
                raise
            after = await self._files.stat(below)
            if after != file.stat:
                raise CopyUnavailableError(f"{below!r} was written to while it was copied")
        finally:
            file.close()

    async def close(self) -> None:
        """Let the threads end; one that hangs is not waited for."""
        await self._files.close()
        self._copiers.close()


class _Wanted:
    """Whether anybody still wants a copy; told from the loop, and seen in the thread."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False


def _copy(source: int, size: int, target: Path, wanted: _Wanted) -> None:
    number = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        offset, by_kernel = 0, hasattr(os, "copy_file_range")
        while offset < size and not wanted.ended:
            moved = 0
            if by_kernel:
                try:
                    moved = os.copy_file_range(source, number, min(_STEP_BYTES, size - offset), offset)
                except OSError as error:
                    if error.errno not in _NO_COPY:
                        raise
                    by_kernel = False
            if not by_kernel:
                moved = _copy_some(source, number, offset, min(_READ_BYTES, size - offset))
            if not moved:
                raise CopyUnavailableError(f"the restored file ends at byte {offset} instead of {size}")
            offset += moved
    finally:
        os.close(number)


def _copy_some(source: int, number: int, offset: int, count: int) -> int:
    try:
        piece = os.pread(source, count, offset)
    except OSError as error:
        raise CopyUnavailableError(f"the restored file cannot be read: {error.strerror}") from error
    left = memoryview(piece)
    while left:
        left = left[os.write(number, left) :]
    return len(piece)
