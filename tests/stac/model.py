"""What a search finds, said once more: without SQL."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from gateway.stac.model import Box, Interval, Search

OLDEST = datetime.datetime.min.replace(tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True)
class Item:
    """An item, beside who may see it."""

    number: int
    """In the order in which items came."""
    collection: str
    name: str
    start: datetime.datetime | None
    end: datetime.datetime | None
    box: Box | None


def expected(items: Sequence[Item], search: Search) -> list[Item]:
    """Those of ``items`` that ``search`` asks for, in its order."""
    return sorted(
        (item for item in items if _is_asked_for(item, search)),
        key=lambda item: (item.start or OLDEST, item.number),
        reverse=search.newest_first,
    )


def _is_asked_for(item: Item, search: Search) -> bool:
    return (
        (search.collections is None or item.collection in search.collections)
        and (search.ids is None or item.name in search.ids)
        and (search.bbox is None or (item.box is not None and overlap(item.box, search.bbox)))
        and (search.datetime is None or _lasts_in(item, search.datetime))
    )


def _lasts_in(item: Item, interval: Interval) -> bool:
    if item.start is None or item.end is None:
        return False
    return (interval.end is None or item.start <= interval.end) and (
        interval.start is None or item.end >= interval.start
    )


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes on the Earth have a point in common, if only on their edges."""
    return (
        one[1] <= other[3]
        and other[1] <= one[3]
        and any(
            first[0] <= second[1] and second[0] <= first[1]
            for first in _arcs(one[0], one[2])
            for second in _arcs(other[0], other[2])
        )
    )


def _arcs(west: float, east: float) -> list[tuple[float, float]]:
    """The pieces of a circle of latitude, cut at 180°, which both of its sides have."""
    pieces = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    edges = {abs(end) for piece in pieces for end in piece}
    return [*pieces, (180.0, 180.0), (-180.0, -180.0)] if 180.0 in edges else pieces
