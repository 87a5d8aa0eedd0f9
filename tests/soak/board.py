"""Numbers that processes write and everyone may read, whoever of them is killed."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Self

NAMES = ("granted", "refused", "unavailable", "settled")
"""Reservations that were granted, refused (429), and of which nobody knew (503); granted ones that ended."""
_PLACES = 4096
_ROW = struct.Struct(f"{len(NAMES)}q")


class Board:
    """A file in memory with a row for each process that ever was started."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._numbers = memoryview(self._memory).cast("q")

    @classmethod
    def make(cls, path: Path) -> Self:
        path.write_bytes(bytes(_PLACES * _ROW.size))
        return cls(path)

    def add(self, row: int, name: str) -> None:
        self._numbers[row * len(NAMES) + NAMES.index(name)] += 1

    def row(self, row: int) -> dict[str, int]:
        return dict(zip(NAMES, _ROW.unpack_from(self._memory, row * _ROW.size), strict=True))

    def total(self, rows: int) -> dict[str, int]:
        """Sums over the first ``rows``."""
        found = [self.row(number) for number in range(rows)]
        return {name: sum(row[name] for row in found) for name in NAMES}
