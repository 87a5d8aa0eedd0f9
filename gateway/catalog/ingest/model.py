"""What an ingest writes: entries checked and brought into the form of the catalogue's tables."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import uuid
from typing import TypeAlias

from gateway.catalog.ingest.events import Place, RefusedError
from gateway.text import is_storable

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]

MAX_KEY_BYTES = 1000
"""Longest id or asset key in UTF-8: PostgreSQL indexes them, and an index entry ends at about 2,700 bytes."""
MAX_LOCATION_BYTES = 2400
"""Longest storage name and location together in UTF-8, for the same reason."""

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What a tenant may be called: the name is a part of every URN."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:download-gateway:catalogue")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A row of ``copies``."""

    storage: str
    location: str
    state: str = "ONLINE"
    size: int | None = None
    modified: datetime.datetime | None = None
    version: str | None = None
    verified_version: str | None = None
    """``version``, if its bytes were read and have the file's checksum."""
    unanswered: bool = False
    """Whether its storage was asked and did not answer: what the catalogue knows of the copy still holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum that is well-formed: as many hexadecimal digits as its algorithm makes."""

    algorithm: str
    """``MD5``, ``SHA-1``, ``SHA-256``, ``SHA-384`` or ``SHA-512``."""
    value: str
    """Hexadecimal digits, in the case that the catalogue wrote them."""


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A row of ``files`` and its copies."""

    asset_key: str
    data_type: str
    checksum: Checksum | None
    size: int | None
    crc32: int | None
    mime_type: str | None
    file_name: str
    reference: bool
    body: str
    copies: tuple[Copy, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Extent:
    """Where and when a product was taken; all None where it does not say."""

    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees; west > east crosses 180°."""
    start: datetime.datetime | None = None
    end: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Quality:
    """How good a product is; None where it is not rated."""

    score: float | None = None
    level: str | None = None
    """``ACCEPTED``, ``ACCEPTED_WITH_WARNINGS`` or ``REJECTED``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """A row of ``products`` and its files."""

    place: Place
    collection: str
    """Id of the collection, or URN of the dataset."""
    urn: str
    urn_given: bool
    """True where the entry itself names the URN (REGARDS); False where it is made from collection and id (STAC)."""
    provider_id: str
    properties: str
    geometry: str | None
    extent: Extent
    body: str
    files: tuple[File, ...]
    quality: Quality = Quality()


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """A row of ``datasets``."""

    place: Place
    collection_id: str
    title: str | None
    body: str


def to_json(value: Json) -> str:
    """The JSON text of ``value`` as PostgreSQL takes it in a ``jsonb``.

    Raises:
        RefusedError: it holds what ``jsonb`` cannot: NUL, half of a surrogate pair, an infinite number.
    """
    try:
        text = _ENCODER.encode(value)
        text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError("has a string with half of a surrogate pair") from error
    except ValueError as error:
        raise RefusedError("has a number that is too large or not finite") from error
    if "\\u0000" in text and _NUL.search(text):
        raise RefusedError("has a string with the character NUL (\\u0000)")
    return text


def key(value: str, what: str) -> str:
    """``value``, fit for an indexed column.

    Raises:
        RefusedError: it is empty, too long, a dot segment, or holds NUL or half of a surrogate pair; the message starts
            with ``what``.
    """
    if not value:
        raise RefusedError(f"{what} is empty")
    if value in (".", ".."):
        # Clients take such a segment out of a path, however it is encoded (RFC 3986 §5.2.4).
        raise RefusedError(f"{what} is {value!r}, to which no URL can lead")
    if not is_storable(value):
        raise RefusedError(f"{what} has the character NUL or half of a surrogate pair")
    length = len(value.encode())
    if length > MAX_KEY_BYTES:
        raise RefusedError(f"{what} has {length} bytes; at most {MAX_KEY_BYTES} are taken")
    return value


def product_urn(tenant: str, collection: str, item: str) -> str:
    """The URN of a STAC Item: always the same for the same tenant, collection and id."""
    return f"URN:FEATURE:DATA:{tenant}:{_name_uuid(tenant, collection, item)}:V1"


def dataset_urn(tenant: str, collection: str) -> str:
    """The URN of a collection: the collection's id itself if that is one, else made from tenant and id."""
    if is_dataset_urn(collection, tenant):
        return collection
    return f"URN:AIP:DATASET:{tenant}:{_name_uuid(tenant, collection)}:V1"


def is_dataset_urn(value: str, tenant: str) -> bool:
    """Whether ``value`` is the URN of a dataset of ``tenant``."""
    return re.fullmatch(_URN_FORM.format("AIP:DATASET", re.escape(tenant)), value) is not None


def is_product_urn(value: str) -> bool:
    """Whether ``value`` is the URN of a product of whatever tenant: of an AIP (older REGARDS) or a feature."""
    return re.fullmatch(_URN_FORM.format("(?:AIP|FEATURE):DATA", TENANT.pattern), value) is not None


_URN_FORM = "URN:{}:{}:[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}:V[0-9]{{1,9}}"


def _name_uuid(*parts: str) -> uuid.UUID:
    # As JSON no two lists of parts make the same name, whatever characters the parts hold.
    return uuid.uuid5(_NAMESPACE, json.dumps(parts))
