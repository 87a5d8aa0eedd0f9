"""The members of an archive as columns of numbers: a million of them in some tens of megabytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator


class Columns:
    """One entry for each member, in their order."""

    def __init__(self) -> None:
        self.names = bytearray()
        """All names in UTF-8, one behind the other."""
        self.name_ends = array("Q")
        """Where each ends."""
        self.sizes = array("Q")
        """Bytes."""
        self.crcs = array("I")
        """CRC-32 of each; 0 where it is not known."""
        self.unknown = bytearray()
        """1 where the CRC-32 is not known, else 0."""
        self.modified = array("q")
        """Seconds since 1970, or a negative number."""
        self.keys = array("q")
        self.fingerprints = bytearray()
        """Eight bytes each."""

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def all_crcs_known(self) -> bool:
        """Whether there is a CRC-32 for every member."""
        return 1 not in self.unknown

    def add(self, name: bytes, size: int, crc32: int | None, *, modified: int, key: int, fingerprint: bytes) -> None:
        """Add a member."""
        self.names += name
        self.name_ends.append(len(self.names))
        self.sizes.append(size)
        self.crcs.append(crc32 or 0)
        self.unknown.append(crc32 is None)
        self.modified.append(modified)
        self.keys.append(key)
        self.fingerprints += fingerprint

    def name(self, index: int) -> bytes:
        """A member's name in UTF-8."""
        return bytes(self.names[self._name_start(index) : self.name_ends[index]])

    def crc32(self, index: int) -> int | None:
        """A member's CRC-32, if it is known."""
        return None if self.unknown[index] else self.crcs[index]

    def fingerprint(self, index: int) -> bytes:
        """A member's fingerprint."""
        return bytes(self.fingerprints[8 * index : 8 * index + 8])

    def at(self, index: int) -> tuple[bytes, int, bool, int]:
        """Name, size, whether the CRC-32 is known, and time of a member."""
        return self.name(index), self.sizes[index], not self.unknown[index], self.modified[index]

    def measures(self) -> Iterator[tuple[int, int, bool, int]]:
        """As `at`, for all members, but the length of the name in its place."""
        start = 0
        for end, size, unknown, modified in zip(self.name_ends, self.sizes, self.unknown, self.modified, strict=True):
            yield end - start, size, not unknown, modified
            start = end

    def _name_start(self, index: int) -> int:
        return self.name_ends[index - 1] if index else 0
