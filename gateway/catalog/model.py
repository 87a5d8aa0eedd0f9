"""What the catalogue says of a file."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Literal

from gateway.quotas.limits import Limit
from gateway.storage import Stat

CopyState = Literal["ONLINE", "NEARLINE", "OFFLINE", "LOST"]


@dataclasses.dataclass(frozen=True, slots=True)
class ByChecksum:
    """REGARDS' address of a file: ``/downloads/{aip_id}/files/{checksum}``."""

    product: str
    """URN."""
    checksum: str
    """Hexadecimal, in any case; it must belong to the product."""


@dataclasses.dataclass(frozen=True, slots=True)
class ByAsset:
    """STAC's address of a file: ``/collections/{collection}/items/{item}/download/{asset}``."""

    collection: str
    item: str
    asset: str


Address = ByChecksum | ByAsset


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A file at one storage location. size, modified and version are as recorded at ingest, None where unknown."""

    copy_id: int
    storage: str
    location: str
    state: CopyState
    size: int | None
    """Bytes."""
    modified: datetime.datetime | None
    version: str | None
    verified_version: str | None = None
    """The version whose bytes were read once and had the file's checksum."""
    broken_version: str | None = None
    """The version whose bytes were read once and had not."""
    restored_until: datetime.datetime | None = None
    """Until when it can be read although it is nearline; None if it cannot at the moment."""
    entry_id: int | None = None
    """Of the entry of the cache that it is; None for a copy of the archive."""

    @property
    def recorded(self) -> Stat | None:
        """What the storage said of these bytes at ingest, if it was asked."""
        if self.size is None or self.version is None:
            return None
        return Stat(self.size, self.modified, self.version)


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file that the caller may have."""

    file_id: int
    product: str
    """URN of the product it belongs to."""
    data_type: str
    name: str
    """What the user's copy is called; from the catalogue, so not to be trusted in a header or path."""
    mime_type: str | None
    size: int | None
    """Bytes; None if neither catalogue nor storage said."""
    checksum: str | None
    checksum_algorithm: str | None
    """MD5, SHA-1, SHA-256, SHA-384 or SHA-512."""
    reference: bool
    """Held by somebody else: only its URL is known."""
    copies: tuple[Copy, ...]
    visible_to_all: bool
    """Whether everyone sees its product, anonymous callers included."""
    is_open: bool
    """Whether whoever sees its product may download it: no licence, no right to files (setting ``open_data_types``)."""
    is_metered: bool
    """Whether a download of it counts in quotas."""
    limits: tuple[Limit, ...]
    """What bounds the caller's downloads of it, of every account; none unless it is metered."""
    licence: str | None = None
    """URL of the licence of its dataset, which the caller has accepted or need not accept."""

    @property
    def is_public(self) -> bool:
        """Whether everyone may download it: an open data type of a product that everyone sees, and not metered."""
        return self.visible_to_all and self.is_open and not self.is_metered
