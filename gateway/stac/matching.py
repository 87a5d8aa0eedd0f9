"""The exact test of ``intersects``, off the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    _Geometries: TypeAlias = np.ndarray[Any, Any]

_AT_A_TIME = 64
"""Parts of a geometry that are held against all items before those that were met are left out."""


class Matching:
    """Tests geometries. Made by `matching`."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def intersecting(self, asked: str, geometries: Sequence[str | None]) -> list[bool]:
        """Whether each of ``geometries`` has a point in common with ``asked``: all GeoJSON, in the plane of degrees.

        What is apart by whole turns of longitude is the same place. An item without a geometry, or with one that
        cannot be read, has none. Of a ring that crosses itself, what it goes around an odd number of times is within.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, _intersecting, asked, geometries)


@contextlib.contextmanager
def matching() -> Iterator[Matching]:
    """Test in one thread, which ends with the block."""
    threads = ThreadPoolExecutor(1, thread_name_prefix="matching")
    try:
        yield Matching(threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _intersecting(asked: str, geometries: Sequence[str | None]) -> list[bool]:
    """As `Matching.intersecting`.

    Only prepared geometries are tested: these take rings that cross themselves, which are common in catalogues, as they
    are. To take them apart first may last minutes.
    """
    import numpy as np  # noqa: PLC0415 - with shapely it takes a quarter of a second, and few processes need them
    import shapely  # noqa: PLC0415

    # One by one: the loop stands still while one is read.
    items = np.array([shapely.from_geojson(one, on_invalid="ignore") for one in geometries], dtype=object)
    found, item_of = _simple(items)
    parts, _ = _simple(np.array([shapely.from_geojson(asked)]))
    missing = np.ones(len(found), dtype=bool)
    for turn in _turns(found):
        moved = _turned(parts, turn) if turn else parts
        for first in range(0, len(moved), _AT_A_TIME):
            rest = np.flatnonzero(missing)
            missing[rest] = ~_meet(moved[first : first + _AT_A_TIME], found[rest])
    met = set(item_of[~missing].tolist())
    return [number in met for number in range(len(items))]


def _meet(parts: _Geometries, others: _Geometries) -> np.ndarray[Any, Any]:
    """Whether each of ``others`` has a point in common with one of ``parts``."""
    import numpy as np  # noqa: PLC0415 - as above
    import shapely  # noqa: PLC0415

    one, other = parts[:, None], others[None, :]
    # Of those with more positions an index is made.
    if _positions(others) > _positions(parts):
        one, other = other, one
    shapely.prepare(one)
    matches: np.ndarray[Any, Any] = np.any(shapely.intersects(one, other), axis=0)
    return matches


def _positions(geometries: _Geometries) -> float:
    """How many each has on average."""
    import shapely  # noqa: PLC0415 - as above

    return float(shapely.get_num_coordinates(geometries).sum()) / max(1, len(geometries))


def _simple(geometries: _Geometries) -> tuple[_Geometries, np.ndarray[Any, Any]]:
    """The points, lines and polygons of ``geometries``, and in which of them each is.

    Polygons of one geometry may overlap: what is within two of them would count as outside of both.
    """
    import shapely  # noqa: PLC0415 - as above

    found, number_of = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(found) > shapely.GeometryType.POLYGON).any():
        found, within = shapely.get_parts(found, return_index=True)
        number_of = number_of[within]
    return found, number_of


def _turns(items: _Geometries) -> tuple[float, ...]:
    """By what longitudes items are the same places as those asked for: some reach 180° from one side, or go beyond."""
    import shapely  # noqa: PLC0415 - as above

    bounds = shapely.bounds(items)
    return (0, -360, 360) if (bounds[:, 0] <= -180).any() or (bounds[:, 2] >= 180).any() else (0,)


def _turned(parts: _Geometries, longitudes: float) -> _Geometries:
    """``parts``, so many degrees further east."""
    import shapely  # noqa: PLC0415 - as above

    def turned(positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return positions + (longitudes, 0)  # noqa: RUF005 - these are added to each

    found: _Geometries = shapely.transform(parts, turned)
    return found
