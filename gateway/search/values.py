"""Values of queries: what a word may stand for."""

from __future__ import annotations

import datetime
import math
import re
from decimal import Decimal

from gateway.search.query import Box, QueryError, Times

_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,3})?")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
_DIGITS_OF_MICROSECOND = 6


def number(text: str) -> Decimal | None:
    """The number that ``text`` writes as JSON does, of a size that a double has; else None."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        return None
    return Decimal(text)


def truth(text: str) -> bool | None:
    """``true`` or ``false``; else None."""
    return {"true": True, "false": False}.get(text)


def times(text: str) -> Times | None:
    """The time that ``text`` means, from its start to its end: a day, a minute, a second or a part of one; else None.

    Without an offset it is UTC, as in REGARDS.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    day, hour, minute, second, fraction, zone = found.groups()
    micros = (fraction or "")[:_DIGITS_OF_MICROSECOND]
    try:
        start = datetime.datetime.fromisoformat(
            f"{day}T{hour or '00'}:{minute or '00'}:{second or '00'}.{micros:0<6}"
            + ("+00:00" if zone is None or zone in "Zz" else zone)
        )
    except ValueError:
        return None
    # PostgreSQL and both ends of the day line can tell these.
    if not 1 < start.year < 9999:
        return None
    start = start.astimezone(datetime.UTC)
    if hour is None:
        length = datetime.timedelta(days=1)
    elif second is None:
        length = datetime.timedelta(minutes=1)
    else:
        length = datetime.timedelta(microseconds=10 ** (_DIGITS_OF_MICROSECOND - len(micros)))
    return Times(start, start + length)


def box(text: str) -> Box:
    """The box of degrees ``west,south,east,north``.

    Raises:
        QueryError: it is none.
    """
    parts = [number(part.strip()) for part in text.split(",")]
    numbers = [float(part) for part in parts if part is not None]
    if len(parts) != 4 or len(numbers) != len(parts):
        raise QueryError('A box is written as bbox:"west,south,east,north", in degrees.')
    west, south, east, north = numbers
    if not (max(abs(west), abs(east)) <= 180 and -90 <= south <= north <= 90):
        raise QueryError("A box has its west and east between -180 and 180, and its south below its north, up to 90.")
    return Box(west, south, east, north)
