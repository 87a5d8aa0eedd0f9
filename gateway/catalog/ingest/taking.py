"""Rows on their way into the catalogue: read in a thread a batch ahead, looked at, written, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from gateway.catalog.ingest.events import Count, Event, Progress, Rejection, Remark, Summary
from gateway.catalog.ingest.inspection import Inspector
from gateway.catalog.ingest.model import Dataset, Product
from gateway.catalog.ingest.writing import Catalogue

BATCH_ENTRIES = 1000
"""Entries that are written together, at most."""
BATCH_CHARACTERS = 8 * 1024 * 1024
"""JSON text after which a batch is closed even with fewer entries: it bounds the memory of an ingest."""
PROGRESS_INTERVAL = 0.25
"""Seconds between two Progress events, at least."""
STOP_TIMEOUT = 10.0
"""Seconds that an interrupted ingest waits for its reading thread, which a disk may hold up."""

Row = Dataset | Product | Rejection | Remark
"""What reading gives."""


async def take(rows: Iterator[Row], catalogue: Catalogue, inspector: Inspector, reporter: Reporter) -> None:
    """Write ``rows``, which a thread takes from their iterator, in the transaction that ``catalogue`` is open in."""
    async with _Reader(rows) as reader:
        while batch := await reader.next_batch():
            await _take(batch, catalogue, inspector, reporter)


async def _take(batch: Sequence[Row], catalogue: Catalogue, inspector: Inspector, reporter: Reporter) -> None:
    datasets: list[Dataset] = []
    products: list[Product] = []
    for row in batch:
        if isinstance(row, Dataset):
            datasets.append(row)
        elif isinstance(row, Product):
            products.append(row)
        else:
            reporter.tell(row)
            reporter.looked_at(int(isinstance(row, Rejection)))
    sound = await inspector.inspect(products, tell=reporter.tell, done=reporter.looked_at)
    if datasets:
        reporter.collections += await catalogue.write_datasets(datasets)
        reporter.looked_at(len(datasets))
    if sound:
        count, files, rejections = await catalogue.write_products(sound)
        for rejection in rejections:
            reporter.tell(rejection)
        reporter.items += count
        reporter.files += files


class _Reader:
    """Takes rows from their iterator in a thread, one batch ahead of whoever asks. A context manager."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ingest-reader")
        self._ahead: asyncio.Future[list[Row]] | None = None
        self._stopped = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        if self._ahead is not None:
            await asyncio.wait([self._ahead], timeout=STOP_TIMEOUT)
        self._thread.shutdown(wait=False)

    async def next_batch(self) -> list[Row]:
        """The next rows; empty when there are no more."""
        loop = asyncio.get_running_loop()
        self._ahead = self._ahead or loop.run_in_executor(self._thread, self._batch)
        batch = await asyncio.shield(self._ahead)
        self._ahead = loop.run_in_executor(self._thread, self._batch)
        return batch

    def _batch(self) -> list[Row]:
        batch: list[Row] = []
        characters = 0
        for row in self._rows:
            if self._stopped:
                return []
            batch.append(row)
            characters += _characters(row)
            if len(batch) >= BATCH_ENTRIES or characters >= BATCH_CHARACTERS:
                break
        return batch


def _characters(row: Row) -> int:
    if isinstance(row, Product):
        return len(row.properties) + len(row.geometry or "") + len(row.body) + sum(len(file.body) for file in row.files)
    return len(row.body) if isinstance(row, Dataset) else 0


class Reporter:
    """Passes events on and keeps the figures of the summary."""

    def __init__(self, on_event: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self.collections = Count()
        self.items = Count()
        self.files = 0
        self._on_event = on_event
        self._clock = clock
        self._last = clock()
        self._entries = self._rejected = self._remarks = 0

    def tell(self, event: Rejection | Remark) -> None:
        """Pass ``event`` on."""
        if isinstance(event, Rejection):
            self._rejected += 1
        else:
            self._remarks += 1
        self._on_event(event)

    def looked_at(self, entries: int) -> None:
        """So many entries more were looked at."""
        self._entries += entries
        if self._clock() - self._last >= PROGRESS_INTERVAL:
            self._last = self._clock()
            self._on_event(Progress(self._entries, self._rejected))

    def summary(self, undescribed: tuple[str, ...]) -> Summary:
        """What was done."""
        return Summary(self.collections, self.items, self.files, self._rejected, self._remarks, undescribed)
