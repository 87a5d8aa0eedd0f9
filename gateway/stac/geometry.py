"""GeoJSON geometries that are asked for (RFC 7946 §3.1): checked, and the box around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.stac.links import Json, JsonObject
from gateway.stac.model import Box

MOST_POSITIONS = 10_000
"""Of a geometry that is asked for: testing against it takes time for each."""
_DEEPEST = 10
"""GeometryCollections within each other."""
_DEPTHS: Mapping[str, int] = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""How deep in arrays the positions of each type lie."""
_LEAST: Mapping[str, int] = {"LineString": 2, "MultiLineString": 2, "Polygon": 4, "MultiPolygon": 4}
"""Positions of each line or ring."""
_RINGS = frozenset(("Polygon", "MultiPolygon"))

_Position = tuple[float, float]


def number(value: object) -> float | None:
    """``value`` as a finite number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def checked(value: object) -> JsonObject:
    """The geometry ``value`` without members that mean nothing here: what reads it next may not take all of JSON.

    Raises:
        ValueError: it is no GeoJSON geometry, is empty, lies outside the coordinates of the Earth, or has more than
            `MOST_POSITIONS`; the message says what is wrong.
    """
    return _read(value, [], 0)


def bounds(value: object) -> Box:
    """The smallest box around the geometry ``value``.

    Raises:
        ValueError: as `checked`.
    """
    positions: list[_Position] = []
    _read(value, positions, 0)
    longitudes, latitudes = zip(*positions, strict=True)
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def _read(value: object, found: list[_Position], depth: int) -> JsonObject:
    if not isinstance(value, dict):
        raise ValueError("it must be a GeoJSON geometry, an object")  # noqa: TRY004 - what is refused is a value
    kind = value.get("type")
    if kind == "GeometryCollection":
        members = value.get("geometries")
        if not isinstance(members, list) or not members:
            raise ValueError("a GeometryCollection must have 'geometries', an array of at least one")
        if depth == _DEEPEST:
            raise ValueError(f"there are more than {_DEEPEST} GeometryCollections within each other")
        return {"type": kind, "geometries": [_read(member, found, depth + 1) for member in members]}
    if not isinstance(kind, str) or kind not in _DEPTHS:
        raise ValueError(f"its 'type' must be one of {', '.join(_DEPTHS)} and GeometryCollection")
    return {"type": kind, "coordinates": _read_coordinates(kind, value.get("coordinates"), _DEPTHS[kind], found)}


def _read_coordinates(kind: str, value: object, depth: int, found: list[_Position]) -> list[Json]:
    if not isinstance(value, list) or (depth and not value):
        what = "arrays of positions, and none of them empty" if depth else "positions, which are arrays of numbers"
        raise ValueError(f"the 'coordinates' of a {kind} must be {what}")
    if depth == 0:
        found.append(_position(value))
        if len(found) > MOST_POSITIONS:
            raise ValueError(f"it has more than {MOST_POSITIONS} positions")
        return value[:3]
    before = len(found)
    parts: list[Json] = [_read_coordinates(kind, part, depth - 1, found) for part in value]
    if depth == 1 and len(value) < _LEAST.get(kind, 1):
        raise ValueError(f"each line or ring of a {kind} must have at least {_LEAST[kind]} positions")
    if depth == 1 and kind in _RINGS and found[before] != found[-1]:
        raise ValueError(f"each ring of a {kind} must end where it begins")
    return parts


def _position(value: Sequence[object]) -> _Position:
    numbers: Sequence[Any] = [number(part) for part in value]
    if not 2 <= len(numbers) <= 4 or None in numbers:
        raise ValueError("a position must be an array of 2 or 3 numbers: longitude, latitude, height")
    longitude, latitude = numbers[:2]
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
        raise ValueError("a position must lie within longitudes of -180 to 180 and latitudes of -90 to 90")
    return longitude, latitude
