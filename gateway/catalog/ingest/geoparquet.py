"""Items of a stac-geoparquet file (specification 1.x, and files older than it), row group by row group.

The extra ``geoparquet`` brings what reads Parquet.
"""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from gateway.catalog.ingest.events import IngestError, Place, RefusedError, Rejection
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import Json, JsonObject

SUFFIXES = frozenset((".parquet", ".geoparquet"))
BATCH_ROWS = 500
"""Rows of a row group that are decoded at a time."""

_MEMBERS = frozenset(
    ("type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "links", "assets")
)
"""Columns that are members of an Item; all others are properties."""
_GEOMETRIES = frozenset(("geometry", "proj:geometry"))
"""Columns that hold WKB."""
_METADATA = (b"stac-geoparquet", b"stac")
_BOUNDS = (("xmin", "ymin", "zmin"), ("xmax", "ymax", "zmax"))


def entries(path: Path, place: Place) -> Iterator[tuple[Place, JsonObject] | Rejection]:
    """The Collections and Items of the file; a Rejection stands for a row that is none.

    Raises:
        IngestError: what reads Parquet is not installed.
        OSError: the file cannot be read.
    """
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise IngestError(
            f"{path}: to read Parquet, install the extra 'geoparquet' (pip install 'download-gateway[geoparquet]')"
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _collections(file.schema_arrow.metadata or {}, place)
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], use_threads=False):
                    for row in batch.to_pylist():
                        yield _entry(row, Place(place.file, index=number, id=_identifier(row)))
                        number += 1
    except (pyarrow.ArrowException, ValueError) as error:
        yield Rejection(place, f"cannot be read as Parquet from row {number} on: {error}"[:500])


def item(row: dict[str, Any]) -> JsonObject:
    """The Item that a row stands for.

    Raises:
        RefusedError: it has a value that JSON has not.
    """
    found: JsonObject = {"type": "Feature", "geometry": None, "links": []}
    properties: JsonObject = {}
    for name, value in row.items():
        if name == "bbox" and isinstance(value, dict):
            found["bbox"] = _bounds(value)
        elif name in _MEMBERS:
            if value is not None:
                found[name] = _json(value, name)
        elif value is not None or name == "datetime":
            properties[name] = _json(value, name)
    found["properties"] = properties
    found.setdefault("assets", {})
    return found


def _entry(row: dict[str, Any], place: Place) -> tuple[Place, JsonObject] | Rejection:
    try:
        return place, item(row)
    except RefusedError as error:
        return Rejection(place, str(error))


def _collections(metadata: dict[bytes, bytes], place: Place) -> Iterator[tuple[Place, JsonObject]]:
    """The Collections that the metadata of the file describe; other metadata are nothing to us."""
    for key in _METADATA:
        try:
            described = json.loads(metadata.get(key, b"{}"))
        except (ValueError, RecursionError):
            continue
        if not isinstance(described, dict):
            continue
        several = described.get("collections")
        values = [described.get("collection"), *(several.values() if isinstance(several, dict) else ())]
        yield from ((place, value) for value in values if isinstance(value, dict) and value.get("type") == "Collection")


def _identifier(row: dict[str, Any]) -> str | None:
    identifier = row.get("id")
    return identifier[:200] if isinstance(identifier, str) else None


def _bounds(value: dict[str, Any]) -> Json:
    """A box of GeoParquet's columns as one of GeoJSON."""
    axes = [index for index, name in enumerate(_BOUNDS[0]) if value.get(name) is not None]
    return [value.get(names[index]) for names in _BOUNDS for index in axes]


def _json(value: Any, name: str) -> Json:
    """``value`` as JSON has it. What is null in a struct is what the entry has not: the columns are those of all."""
    if isinstance(value, dict):
        return {key: _json(part, key) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        if value and all(isinstance(part, tuple) and len(part) == 2 for part in value):  # a map
            return {str(key): _json(part, str(key)) for key, part in value if part is not None}
        return [_json(part, name) for part in value]
    if isinstance(value, datetime.datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
        return moment.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, bytes):
        return _geometry(value, name)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RefusedError(f"the column {short(name)} has a value that JSON has not")


def _geometry(value: bytes, name: str) -> Json:
    """GeoJSON of WKB."""
    if name not in _GEOMETRIES:
        raise RefusedError(f"the column {short(name)} has bytes, which JSON has not")
    import shapely  # noqa: PLC0415 - it takes a quarter of a second, and few files need it
    import shapely.geometry  # noqa: PLC0415

    try:
        geometry = shapely.from_wkb(value)
    except shapely.errors.ShapelyError as error:
        raise RefusedError(f"the column {short(name)} is no WKB") from error
    return cast("Json", json.loads(json.dumps(shapely.geometry.mapping(geometry))))
