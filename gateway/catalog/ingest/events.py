"""What an ingest tells while it runs, and what it says at its end."""

from __future__ import annotations

import dataclasses


class IngestError(Exception):
    """The whole ingest cannot be done; of an ingest of files nothing was written. The message says why."""


class SourceError(Exception):
    """What is loaded from cannot be read any further; what was written before stays. The message says why."""


class RefusedError(Exception):
    """One entry cannot be taken into the catalogue; the others can. The message is the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands."""

    file: str
    """Path as it was given or found."""
    line: int | None = None
    """Line on which the entry starts, from 1; None for the file as a whole."""
    index: int | None = None
    """Position in the array that holds the entry, from 0; None if none does."""
    id: str | None = None
    """``id`` of the entry, where it has one that is a string; cut short where it is very long."""

    def __str__(self) -> str:
        parts = [self.file]
        if self.line is not None:
            parts.append(f"line {self.line}")
        if self.index is not None:
            parts.append(f"index {self.index}")
        if self.id is not None:
            parts.append(f"id {self.id!r}")
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """An entry that was not taken."""

    place: Place
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Remark:
    """Something odd about an entry that was taken all the same."""

    place: Place
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far the ingest has come."""

    entries: int
    """Entries looked at so far, rejected ones included."""
    rejected: int
    """Of these, how many were rejected."""


Event = Rejection | Remark | Progress


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """Entries of one kind that were written."""

    accepted: int = 0
    """Not in the catalogue before."""
    updated: int = 0
    """In the catalogue before, or earlier in the same ingest."""

    def __add__(self, other: Count) -> Count:
        return Count(self.accepted + other.accepted, self.updated + other.updated)


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What an ingest did."""

    collections: Count
    items: Count
    files: int
    """Files of the accepted and updated items."""
    rejected: int
    """Entries, unreadable lines and unreadable files."""
    remarks: int
    undescribed: tuple[str, ...]
    """Ids of the collections that this ingest made for items that name them, and whose description did not come."""
