"""The exact test of ``intersects``, off the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor


class Matching:
    """Tests geometries. Made by `matching`."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def intersecting(self, asked: str, geometries: Sequence[str | None]) -> list[bool]:
        """Whether each of ``geometries`` has a point in common with ``asked``: all GeoJSON, in the plane of degrees.

        An item without a geometry, or with one that cannot be read, has none.
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
    import shapely  # noqa: PLC0415 - with numpy it takes a quarter of a second, and few processes need it

    # Rings that cross themselves are common in catalogues, and would make the test fail or err.
    area = shapely.make_valid(shapely.from_geojson(asked))
    shapely.prepare(area)
    read = shapely.make_valid(shapely.from_geojson(list(geometries), on_invalid="ignore"))
    return [bool(match) for match in shapely.intersects(area, read)]
