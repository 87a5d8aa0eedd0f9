"""Where and when: dates of RFC 3339, bounding boxes and geometries of RFC 7946."""

from __future__ import annotations

import datetime
import math
import re
from typing import TypeGuard

from gateway.catalog.ingest.events import RefusedError
from gateway.catalog.ingest.model import Json, JsonObject

_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_GEOMETRIES = frozenset(("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"))

_FIRST, _LAST = (
    datetime.datetime.min.replace(tzinfo=datetime.UTC) + datetime.timedelta(microseconds=1),
    datetime.datetime.max.replace(tzinfo=datetime.UTC) - datetime.timedelta(microseconds=1),
)
"""What lies beyond these, PostgreSQL gets as infinite (asyncpg)."""

Box = tuple[float, float, float, float]


def moment(value: Json, what: str) -> datetime.datetime:
    """Read a date-time of RFC 3339 §5.6 into UTC; digits below the microsecond are cut.

    Raises:
        RefusedError: it is none, or has no timezone; the message starts with ``what``.
    """
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise RefusedError(f"{what} is {short(value)}, not a date-time with timezone like '2023-04-13T13:56:55Z'")
    day, minute, second, fraction, zone = match.groups()
    # RFC 3339 allows a leap second, which datetime does not know: the second after the 59th.
    leap = second == "60"
    text = f"{day}T{minute}:{'59' if leap else second}.{(fraction or '0')[:6]:<06}{'+00:00' if zone in 'Zz' else zone}"
    try:
        read = datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
        return finite(read + datetime.timedelta(seconds=int(leap)))
    except (ValueError, OverflowError) as error:
        raise RefusedError(f"{what} is {short(value)}, which is no date") from error


def finite(moment: datetime.datetime) -> datetime.datetime:
    """``moment``, which may be the first or last that there is: catalogues have these where they do not know a time."""
    return min(max(moment, _FIRST), _LAST)


def period(properties: JsonObject) -> tuple[datetime.datetime, datetime.datetime]:
    """Start and end of a STAC Item: its range if it has one, else its ``datetime`` twice.

    Raises:
        RefusedError: it has neither, a part is no date-time, or the end is before the start.
    """
    single = None
    if properties.get("datetime") is not None:
        single = moment(properties["datetime"], "properties.datetime")
    first, last = properties.get("start_datetime"), properties.get("end_datetime")
    if first is None or last is None:
        if single is None:
            raise RefusedError(
                "has no properties.datetime; without one both start_datetime and end_datetime are required"
            )
        return single, single
    start, end = moment(first, "properties.start_datetime"), moment(last, "properties.end_datetime")
    if end < start:
        raise RefusedError("properties.end_datetime is before start_datetime")
    return start, end


def bounds(value: Json) -> Box:
    """Read a ``bbox`` of 4 or 6 numbers (RFC 7946 §5) as west, south, east, north; heights are dropped.

    Raises:
        RefusedError: it is none, or south lies north of north.
    """
    numbers = [float(part) for part in value if is_number(part)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(value) not in (4, 6) or len(numbers) != len(value):
        raise RefusedError(f"bbox is {short(value)}, not 4 or 6 numbers")
    half = len(numbers) // 2
    west, south, east, north = (*numbers[:2], *numbers[half : half + 2])
    if south > north:
        raise RefusedError(f"bbox has its south ({south}) north of its north ({north})")
    return west, south, east, north


def bounds_of_geometry(value: Json) -> Box | None:
    """The smallest box around a GeoJSON geometry (RFC 7946 §3.1); None around one without positions.

    Raises:
        RefusedError: it is no GeoJSON geometry.
    """
    points: list[tuple[float, float]] = []
    geometries = [value]
    while geometries:
        geometry = geometries.pop()
        if not isinstance(geometry, dict):
            raise RefusedError(f"geometry is {short(geometry)}, neither null nor a GeoJSON geometry")
        kind, members = geometry.get("type"), geometry.get("geometries")
        if kind == "GeometryCollection" and isinstance(members, list):
            geometries.extend(members)
        elif isinstance(kind, str) and kind in _GEOMETRIES and isinstance(geometry.get("coordinates"), list):
            points.extend(_positions(geometry["coordinates"]))
        else:
            raise RefusedError(f"geometry of type {short(kind)} is no GeoJSON geometry or lacks its coordinates")
    if not points:
        return None
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)


def _positions(coordinates: Json) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    level = [coordinates]
    while level:
        below: list[Json] = []
        for part in level:
            if not isinstance(part, list):
                raise RefusedError("geometry has coordinates that are not arrays of numbers")
            if part and not isinstance(part[0], list):
                if len(part) < 2 or not (is_number(part[0]) and is_number(part[1])):
                    raise RefusedError(f"geometry has the position {short(part)}, which is no pair of numbers")
                found.append((float(part[0]), float(part[1])))
            else:
                below.extend(part)
        level = below
    return found


def is_number(value: Json) -> TypeGuard[int | float]:
    """Whether ``value`` is a JSON number that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def short(value: Json) -> str:
    """``value`` for a message, cut to some 60 characters."""
    if isinstance(value, list | dict):
        return f"{'an array' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = ascii(value[:60]) if isinstance(value, str) else str(value)
    return text[:60]
