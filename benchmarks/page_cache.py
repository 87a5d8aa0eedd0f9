"""What of a file the page cache holds, and how to have it forget it (Linux)."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

_TRIES, _PAUSE = 20, 0.05


class NotColdError(Exception):
    """The page cache keeps a file; the message says how much of it."""


def resident_bytes(path: Path) -> int:
    """Bytes of the file, in whole pages, that are in the page cache.

    Asked of mincore(2), which reads nothing; preadv2(2) with RWF_NOWAIT has recent kernels read ahead.
    """
    size = path.stat().st_size
    if size == 0:
        return 0
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages)
        reason = ctypes.get_errno()
        del start  # else the mapping cannot be closed
    if failed:
        raise OSError(reason, os.strerror(reason), str(path))
    # Only the lowest bit of each byte means anything.
    return mmap.PAGESIZE * sum(bytes(pages).count(value) for value in range(1, 256, 2))


def make_cold(path: Path) -> None:
    """Have the page cache forget the file: the next who reads it waits for the disk.

    Raises:
        NotColdError: it keeps some of it, because the file lies in memory (tmpfs) or somebody uses it.
    """
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not yet on the disk would be kept
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        kept = resident_bytes(path)
        if kept == 0:
            return
        time.sleep(_PAUSE)
    raise NotColdError(f"{path}: {kept} bytes of it stay in memory; does it lie on a disk, and does nobody use it?")
