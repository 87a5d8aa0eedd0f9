"""Keeping files below a directory: all of each or nothing, whatever crashes. These calls block."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems answer that have no hard links."""


def keep(file: Path, root: Path, location: str) -> os.stat_result:
    """Move ``file``, on the same file system, to ``location`` below ``root``, where nothing is, and see that it stays.

    Raises:
        OSError: it cannot be done; EEXIST something is there.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        target = root / location
        _make_folders(root, target.parent)
        try:
            # Unlike a rename it takes no other file's place.
            os.link(file, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS or target.exists():
                raise
            file.rename(target)
        _sync(target.parent)
        file.unlink(missing_ok=True)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def remove(root: Path, location: str) -> None:
    """Remove the file at ``location``, if there is one, for good.

    Raises:
        OSError: it cannot be done.
    """
    target = root / location
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        target.unlink()
        _sync(target.parent)


def files_below(root: Path, seconds: float) -> Iterator[str]:
    """Locations of all regular files that were not written to for ``seconds``; hidden folders are left out.

    Raises:
        OSError: a folder cannot be read.
    """
    before = time.time() - seconds
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            entries = list(os.scandir(root / prefix))
        except FileNotFoundError:
            continue
        for entry in entries:
            location = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    waiting.append(f"{location}/")
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if max(found.st_mtime, found.st_ctime) < before:
                        yield location


def _make_folders(root: Path, folder: Path) -> None:
    """Make ``folder`` and those above it, up to ``root``, each of which is then on the disk."""
    missing = []
    while folder != root and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        _sync(one.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
