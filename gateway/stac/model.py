"""What is asked of the catalogue, and what it gives: the seam between SQL and documents."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Literal

from gateway.staging.model import RestoreState

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west > east crosses 180°."""


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """From ``start`` to ``end``, both included; None is open (RFC 3339 interval of OGC API - Features, ``..``)."""

    start: datetime.datetime | None
    end: datetime.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """The items that are asked for; None asks for nothing special."""

    collections: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    bbox: Box | None = None
    datetime: Interval | None = None
    intersects: str | None = None
    """A GeoJSON geometry, checked, as text."""
    limit: int = 10
    newest_first: bool = True
    """Sorted by datetime (of an interval its start; items without count as the oldest), then by an order that never
    changes."""
    token: str | None = None
    """Of a page of the same search, as it was given with another page."""


@dataclasses.dataclass(frozen=True, slots=True)
class LastRestore:
    """What has become of the last restore of a nearline file."""

    state: RestoreState
    expires: datetime.datetime | None
    """Until when it can be read, or could be."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileRow:
    """An asset, as documents show it."""

    asset_key: str
    data_type: str
    """REGARDS' data type."""
    body: str
    """The STAC Asset, or the file of REGARDS, as it came: JSON."""
    checksum: str | None
    checksum_algorithm: str | None
    """``MD5``, ``SHA-1``, ``SHA-256``, ``SHA-384`` or ``SHA-512``."""
    size: int | None
    """Bytes."""
    mime_type: str | None
    file_name: str
    reference: bool
    """Held by somebody else: only its URL is known."""
    states: tuple[str, ...]
    """Of its copies: ``ONLINE``, ``NEARLINE``, ``OFFLINE``, ``LOST``."""
    restore: LastRestore | None
    """The last one, if the file has no copy that is always online."""
    needs_login: bool
    """Whether an anonymous caller of its tenant would be refused it."""


@dataclasses.dataclass(frozen=True, slots=True)
class ItemRow:
    """An item that the caller may see."""

    product_id: int
    collection_id: str
    item_id: str
    urn: str
    properties: str
    """JSON."""
    geometry: str | None
    """JSON."""
    bbox: Box | None
    body: str
    """The entity as it came, without properties, geometry and assets: JSON."""
    start: datetime.datetime | None
    end: datetime.datetime | None
    created: datetime.datetime
    updated: datetime.datetime
    files: tuple[FileRow, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class CollectionName:
    """A collection that the caller may see, for a link."""

    collection_id: str
    title: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection that the caller may see."""

    collection_id: str
    urn: str
    title: str | None
    body: str
    """The STAC Collection as it came: JSON."""
    licence_url: str | None
    """Of the licence that its private files ask for."""
    updated: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Some of the items that were asked for."""

    items: tuple[ItemRow, ...]
    next: str | None
    """Token of the page after it; None if there is none."""
    previous: str | None
    """Token of the page before it."""


@dataclasses.dataclass(frozen=True, slots=True)
class CollectionPage:
    """Some of the collections that the caller may see, by id."""

    collections: tuple[CollectionRow, ...]
    next: str | None
    """Token of the page after it; None if there is none."""


Direction = Literal["next", "previous"]
