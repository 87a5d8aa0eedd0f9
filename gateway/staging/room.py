"""The seam to the cache of restored copies: who restores needs room, fills it, and gives it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from gateway.storage import Stat, StorageError


class CacheFullError(StorageError):
    """There is no room on the disk of the cache, whatever its bound says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What a restored copy needs."""

    restore_id: int
    tenant: str
    """Name."""
    file_id: int
    size: int
    """Bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A copy in the cache."""

    entry_id: int
    cache: str
    """Name of its [[storage]]."""
    location: str
    stat: Stat


class Cache(Protocol):
    """Room for restored copies that cannot be read where they lie."""

    async def reserve(self, wanted: Sequence[Room]) -> set[int]:
        """The ``restore_id`` of those that have room now; others go for it, if need be.

        To ask again for one that has room is well.
        """

    async def fill(
        self, restore_id: int, checksum: str | None, algorithm: str | None, fetch: Callable[[Path], Awaitable[None]]
    ) -> Kept:
        """Keep what ``fetch`` writes. Without a checksum it is held against the size alone.

        Raises:
            CopyBrokenError: these are not the bytes of the checksum, or not as many.
            CacheFullError, StorageError: see these.
        """

    async def give_back(self, restore_ids: Sequence[int]) -> None:
        """Tell that room, or what lies there, is needed no more."""

    async def upkeep(self) -> None:
        """Do what is left to do; called every minute."""
