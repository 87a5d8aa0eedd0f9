"""What a request asks for: the parameters of GET and the members of POST, checked (STAC API 1.0.0, Item Search).

A parameter that would change which items are found, and that is not served here, is refused; others are left alone.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from multidict import MultiMapping

from gateway.catalog.ingest.extent import finite
from gateway.errors import GatewayError
from gateway.stac import geometry
from gateway.stac.model import Box, Interval, Search
from gateway.text import is_storable

MOST = 10_000
"""Items of a page; who asks for more gets this many (OGC API - Features 1.0, /req/core/fc-limit-response-1)."""
MOST_COLLECTIONS = 1_000
"""Collections of a page, and of one for which nobody says how many: clients that read no further have them all."""
LONGEST_TEXT = 1024
"""Characters of a token."""

_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NUMBER = re.compile(r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
_SORTED_BY = ("datetime", "properties.datetime")
_NARROWING = ("filter", "query", "q")
"""Of extensions that are not served: without them more would be found than was asked for."""

_Member = Callable[[Any], Any]


def from_query(query: MultiMapping[str]) -> Search:
    """What the parameters of a GET ask for.

    Raises:
        GatewayError: 400; the message names the parameter and says what is wrong with it.
    """
    return _search(_single(query, (*_FROM_TEXT, *_NARROWING)), _FROM_TEXT)


def page_of_collections(query: MultiMapping[str]) -> tuple[str, int]:
    """The collection after which a page begins, and how many it may have.

    Raises:
        GatewayError: 400; the message names the parameter and says what is wrong with it.
    """
    given = _single(query, ("limit", "token"))
    after = given.pop("token", "")
    if not is_storable(after):
        raise _bad("token", "it must be the token of a link to a page")
    limit = _search(given, {"limit": _FROM_TEXT["limit"]}).limit if given else MOST_COLLECTIONS
    return after, min(limit, MOST_COLLECTIONS)


def from_body(body: object) -> Search:
    """What the JSON object of a POST asks for; a member that is null asks for nothing.

    Raises:
        GatewayError: 400; the message names the member and says what is wrong with it.
    """
    if not isinstance(body, dict):
        raise GatewayError(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.", code="InvalidParameterValue")
    return _search({name: value for name, value in body.items() if value is not None}, _FROM_JSON)


def _single(query: MultiMapping[str], names: Iterable[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name in names:
        values = query.getall(name, [])
        if len(values) > 1:
            raise _bad(name, "it is there more than once")
        if values:
            given[name] = values[0]
    return given


def _search(given: Mapping[str, Any], readers: Mapping[str, tuple[str, _Member]]) -> Search:
    for name in _NARROWING:
        if name in given:
            raise _bad(name, "searching by it is not possible here")
    if "bbox" in given and "intersects" in given:
        raise _bad("intersects", "it cannot be combined with 'bbox'")
    found: dict[str, Any] = {}
    for name, (field, reader) in readers.items():
        if name in given:
            try:
                found[field] = reader(given[name])
            except ValueError as error:
                raise _bad(name, str(error)) from error
    return Search(**found)


def _bad(name: str, what: str) -> GatewayError:
    return GatewayError(HTTPStatus.BAD_REQUEST, f"Parameter {name!r}: {what}.", code="InvalidParameterValue")


def _list(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("it must be an array of strings")
    return tuple(dict.fromkeys(value))


def _numbers(text: str) -> list[float]:
    parts = text.split(",")
    if not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError("it must be 4 or 6 numbers with commas between them")
    return [float(part) for part in parts]


def _bbox(value: Any) -> Box:
    numbers: Sequence[Any] = [geometry.number(part) for part in value] if isinstance(value, list) else ()
    if len(numbers) not in (4, 6) or None in numbers:
        raise ValueError(
            "it must be 4 or 6 numbers: west, south, east, north, with a height after each latitude or not"
        )
    half = len(numbers) // 2
    west, south, east, north = (*numbers[:2], *numbers[half : half + 2])
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise ValueError("longitudes must lie between -180 and 180")
    if not -90 <= south <= north <= 90:
        raise ValueError("latitudes must lie between -90 and 90, the southern one first")
    if half == 3 and numbers[2] > numbers[5]:
        raise ValueError("the lower height must come first")
    return west, south, east, north


def _datetime(value: Any) -> Interval:
    if not isinstance(value, str):
        raise ValueError("it must be a string")  # noqa: TRY004 - what is refused is a value of the caller
    first, slash, last = value.partition("/")
    if not slash:
        moment = _moment(first)
        return Interval(moment, moment)
    start, end = (None if part in ("", "..") else _moment(part) for part in (first, last))
    if start is None and end is None:
        raise ValueError("an interval must have a start or an end")
    if start is not None and end is not None and end < start:
        raise ValueError("the end of the interval lies before its start")
    return Interval(start, end)


def _moment(text: str) -> datetime.datetime:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("it must be a date-time with timezone like '2023-04-13T13:56:55Z', or two of them with '/'")
    day, minute, second, fraction, zone = match.groups()
    # RFC 3339 allows a leap second, which datetime does not know: the second after the 59th.
    leap = second == "60"
    written = f"{day}T{minute}:{'59' if leap else second}.{(fraction or '0')[:6]:<06}"
    try:
        moment = datetime.datetime.fromisoformat(written + ("+00:00" if zone in "Zz" else zone))
        return finite(moment.astimezone(datetime.UTC) + datetime.timedelta(seconds=int(leap)))
    except (ValueError, OverflowError) as error:
        raise ValueError("there is no such date-time") from error


def _intersects(value: Any) -> str:
    return json.dumps(geometry.checked(value), separators=(",", ":"))


def _geojson(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("it must be a GeoJSON geometry, which is JSON") from error
    return _intersects(value)


def _limit(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"it must be a whole number from 1 to {MOST}")
    return min(value, MOST)


def _limit_text(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"it must be a whole number from 1 to {MOST}")
    return _limit(int(text[-10:]) if len(text.lstrip("0")) <= 10 else MOST)


def _newest_first(field: Any, direction: Any) -> bool:
    if field not in _SORTED_BY:
        raise ValueError("items can be sorted by 'datetime' alone")
    if direction not in ("asc", "desc"):
        raise ValueError("the direction must be 'asc' or 'desc'")
    return bool(direction == "desc")


def _sortby(text: str) -> bool:
    # An unescaped plus sign in a query means a space.
    return _newest_first(text.lstrip("+- "), "desc" if text.startswith("-") else "asc")


def _sortby_objects(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("it must be an array of objects with 'field' and 'direction'")
    if len(value) != 1:
        raise ValueError("items can be sorted by one field")
    return _newest_first(value[0].get("field"), value[0].get("direction", "asc"))


def _token(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT:
        raise ValueError("it must be the token of a link to a page")
    return value


_FROM_TEXT: Mapping[str, tuple[str, _Member]] = {
    "collections": ("collections", _list),
    "ids": ("ids", _list),
    "bbox": ("bbox", lambda text: _bbox(_numbers(text))),
    "datetime": ("datetime", _datetime),
    "intersects": ("intersects", _geojson),
    "limit": ("limit", _limit_text),
    "sortby": ("newest_first", _sortby),
    "token": ("token", _token),
}
_FROM_JSON: Mapping[str, tuple[str, _Member]] = {
    "collections": ("collections", _strings),
    "ids": ("ids", _strings),
    "bbox": ("bbox", _bbox),
    "datetime": ("datetime", _datetime),
    "intersects": ("intersects", _intersects),
    "limit": ("limit", _limit),
    "sortby": ("newest_first", _sortby_objects),
    "token": ("token", _token),
}
"""The reader of each parameter, and the field of `Search` that it gives."""
