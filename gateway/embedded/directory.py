"""Where the servers keep their files while they run."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from gateway.errors import ConfigurationError

MEMORY_FILES = Path("/dev/shm")  # noqa: S108 - the name is random, mode 0700
"""Linux' file system in memory, where a database is created ten times faster than on disk; TMPDIR overrules it."""
MEMORY_NEEDED = 1 << 30
"""Bytes that must be free there; a new cluster takes 40 MiB, each test database 10 MiB, the WAL up to 256 MiB."""


def new_directory_name() -> Path:
    """A name below a directory for temporary files; the supervisor makes it, so that nobody is left with it.

    Raises:
        ConfigurationError: root has no directory that the servers' account may enter.
    """
    parents = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - the name is random, mode 0700
    if "TMPDIR" not in os.environ and _has_room(MEMORY_FILES):
        parents.insert(0, MEMORY_FILES)
    usable = parents if os.geteuid() else [parent for parent in parents if _others_may_pass(parent)]
    if not usable:
        raise ConfigurationError(f"TMPDIR: PostgreSQL does not run as root, and no other user may enter {parents[0]}.")
    return usable[0].resolve() / f"gateway-{secrets.token_hex(8)}"


def remove(directory: Path) -> None:
    """Remove everything; the children of a killed server may still write for a moment."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


def _has_room(directory: Path) -> bool:
    """Whether our servers fit in, and may be executed from there: containers often have 64 MiB, and not executable."""
    if sys.platform != "linux" or not os.access(directory, os.W_OK | os.X_OK):
        return False
    system = os.statvfs(directory)
    return system.f_bavail * system.f_frsize >= MEMORY_NEEDED and not system.f_flag & os.ST_NOEXEC


def _others_may_pass(directory: Path) -> bool:
    path = directory.resolve()
    return path.is_dir() and all(step.stat().st_mode & 0o001 for step in (path, *path.parents))
