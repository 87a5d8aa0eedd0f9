"""What is asked of PostgreSQL for a search: the statement, and its parameters."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence

from gateway.stac import geometry
from gateway.stac.finding import Shape
from gateway.stac.model import Search
from gateway.stac.statements import Statement, page
from gateway.stac.tokens import OLDEST, Place
from gateway.text import is_storable

_NEWEST = datetime.datetime.max.replace(tzinfo=datetime.UTC)
_MOST = 2**63 - 1
_SHORT = datetime.timedelta(hours=24)
"""What lasts no longer is found by its start (`gateway.stac.finding.LONG`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A search, read in one direction."""

    statement: Statement
    down: bool
    """Whether the order is read downwards: from the newest to the oldest."""
    edge: Place | None
    """Where the items begin, in this direction, that may last in the time that is asked for; None if any may."""
    values: Mapping[str, object]
    """Of the parameters that stay the same on every page."""

    def after(self, place: Place) -> dict[str, object]:
        """The parameters for what comes after ``place``."""
        begin = place
        if self.edge is not None:
            begin = min(place, self.edge) if self.down else max(place, self.edge)
        return {
            **self.values,
            "start": _start(place),
            "product": place.product_id,
            "begin": _start(begin),
            "begin_product": begin.product_id,
        }


def outermost(*, down: bool) -> Place:
    """Before all items."""
    return Place(_NEWEST, _MOST) if down else Place(OLDEST, 0)


def question(search: Search, *, down: bool, on: bool = False) -> Question:
    """What ``search`` asks, reading the order ``down`` or up; ``on`` has it look for items in a box by walking on."""
    box = geometry.bounds(json.loads(search.intersects)) if search.intersects is not None else search.bbox
    values: dict[str, object] = {"collections": _storable(search.collections), "ids": _storable(search.ids)}
    edge = None
    if search.datetime is not None:
        since, until = search.datetime.start, search.datetime.end
        early = _before(since)
        # Of those without a datetime, which come first, the last is passed by.
        first = Place(OLDEST, _MOST) if early is None else Place(early, 0)
        edge = Place(until or _NEWEST, _MOST) if down else first
        values |= {"since": since, "until": until, "early": early}
    if box is not None:
        west, south, east, north = box
        crossing = west > east
        values |= {
            "west": west,
            "south": south,
            "east": east + 360 if crossing else east,
            "north": north,
            "wests": [west, -180.0] if crossing else [west],
            "easts": [180.0, east] if crossing else [east],
        }
    shape = Shape(
        down=down,
        collections=search.collections is not None,
        ids=search.ids is not None,
        box=box is not None,
        time=search.datetime is not None,
        on=on,
    )
    return Question(page(shape), down, edge, values)


def _start(place: Place) -> datetime.datetime | None:
    return None if place.start == OLDEST else place.start


def _before(since: datetime.datetime | None) -> datetime.datetime | None:
    try:
        return None if since is None else since - _SHORT
    except OverflowError:
        return None


def _storable(names: Sequence[str] | None) -> list[str]:
    """Those of ``names`` that anything can have."""
    return [name for name in names or () if is_storable(name)]
