"""A storage like a dead network mount: its threads block in a system call until it comes back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gateway.storage import Descriptor, OpenFile, Stat
from storage_plugins.local import LocalStorage

PLUGIN = "hanging"
_GATE = "gate"


class HangingStorage(LocalStorage):
    """Local files, whose every call blocks while a FIFO without a writer lies in the root."""

    def _open(self, location: str, offset: int, count: int) -> tuple[int, Stat, bytes]:
        self._pass_gate()
        return super()._open(location, offset, count)

    def _open_from_memory(self, location: str, offset: int, count: int) -> OpenFile | None:
        return None

    def bytes_in_memory(self, file: OpenFile, offset: int, count: int) -> int:
        return 0

    async def sendfile(self, file: OpenFile, offset: int, count: int, socket: Descriptor) -> int:
        await self._submit(self._pass_gate)
        return await super().sendfile(file, offset, count, socket)

    def _pass_gate(self) -> None:
        if (self.root / _GATE).exists():
            (self.root / _GATE).open("rb").close()


def hang(root: Path) -> None:
    """From now on every call blocks, until `come_back`."""
    os.mkfifo(root / _GATE)


def come_back(root: Path) -> None:
    """Let all calls go on."""
    with contextlib.suppress(FileNotFoundError):
        number = os.open(root / _GATE, os.O_RDWR)
        (root / _GATE).unlink()
        os.close(number)


def announce(directory: Path) -> Path:
    """Make a directory that, on the path of Python modules, announces the plug-in as an installed package does."""
    information = directory / f"{PLUGIN}-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: 1\n", encoding="ascii")
    entry = f"[gateway.storage]\n{PLUGIN} = {__name__}:{HangingStorage.__name__}\n"
    (information / "entry_points.txt").write_text(entry, encoding="ascii")
    return directory
