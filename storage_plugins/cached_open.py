"""Opening files without waiting for a disk: only what the kernel finds in memory is opened (openat2(2))."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

LOCAL_TYPES = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs"})
"""Types of file systems of this machine alone: to open a file asks no server, nor a process that may hang."""

_OPENAT2 = 437
"""Number of the system call, the same on all machines that matter."""
_AT_FDCWD = -100
_NO_XDEV, _NO_SYMLINKS, _BENEATH, _CACHED = 0x01, 0x04, 0x08, 0x20  # <linux/openat2.h>
_DIRECTORY = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC
_MOUNTS = Path("/proc/self/mountinfo")

Open = Callable[[str, int], int | None]
"""Opens a path below the root with flags of open(2), and gives the descriptor. None if it cannot be opened for whatever
reason, or perhaps could if a disk were asked: that is then to be tried where one can wait."""


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def cached_open(root: Path) -> Open | None:
    """What opens files below ``root``; None where that is not to be had.

    It takes Linux 5.12 and a file system of this machine. No symbolic link below the root is followed, and no mount is
    entered, which may be of another kind.
    """
    try:
        if not sys.platform.startswith("linux"):
            return None
        if type_of_mount(root, _MOUNTS.read_text(errors="replace").splitlines()) not in LOCAL_TYPES:
            return None
        # It never waits, so that it need not let other threads run meanwhile, as CDLL does.
        call = ctypes.PyDLL(None).syscall
        call.restype = ctypes.c_long
        call.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t]
    except (OSError, AttributeError):
        return None
    whole, below = os.fsencode(root), _CACHED | _BENEATH | _NO_SYMLINKS | _NO_XDEV

    def open_below(path: str, flags: int) -> int | None:
        directory = _openat2(call, _AT_FDCWD, whole, _DIRECTORY, _CACHED)
        if directory is None:
            return None
        try:
            return _openat2(call, directory, os.fsencode(path), flags, below)
        finally:
            os.close(directory)

    if _openat2(call, _AT_FDCWD, b"/", _DIRECTORY, _CACHED) is None:
        return None
    return open_below


def type_of_mount(path: Path, mounts: Iterable[str]) -> str | None:
    """Type of the file system that ``path`` lies in, by the lines of /proc/self/mountinfo (proc_pid_mountinfo(5)).

    Raises:
        OSError: it cannot be looked at.
    """
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:
        place, _, rest = line.partition(" - ")
        if place.split(" ")[2:3] == [wanted]:
            return rest.split(" ")[0]
    return None


def _openat2(call: Callable[..., Any], directory: int, path: bytes, flags: int, resolve: int) -> int | None:
    how = _How(flags, 0, resolve)
    number: int = call(_OPENAT2, directory, path, how, ctypes.sizeof(how))
    return number if number >= 0 else None
