"""Holding what the cache says against what lies there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.staging.cache_names import is_entry, lease_of
from gateway.staging.cache_rows import Entry, Rows
from gateway.storage import CanKeep, CopyNotFoundError, CopyUnavailableError, answering_within

log = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0
"""Between two looks at all that lies in the storage."""
LEFT_SECONDS = 3600.0
"""That a file without an entry is left in peace since it was last written to."""
CHECKED = 500
"""Entries whose files are looked at in one call."""
_AT_A_TIME = 8
_STORAGE_SECONDS = 30.0


class Tidying:
    """Looks after the files of a cache."""

    def __init__(self, rows: Rows, storage: CanKeep, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows = rows
        self._storage = storage
        self._clock = clock
        self._checked = 0
        """The entry that was looked at last."""
        self._swept: float | None = None

    async def check(self) -> None:
        """Look at the files of some entries, of others each time; drop entries whose files are gone or not theirs.

        Raises:
            GatewayError: 503.
            CopyUnavailableError: the storage does not answer.
        """
        page = await self._rows.to_check(self._checked, CHECKED)
        self._checked = page[-1].entry_id if len(page) == CHECKED else 0
        turns = asyncio.Semaphore(_AT_A_TIME)

        async def is_whole(entry: Entry) -> bool:
            async with turns, answering_within(_STORAGE_SECONDS):
                try:
                    stat = await self._storage.stat(entry.location)
                except CopyNotFoundError:
                    return False
            return (stat.size, stat.version) == (entry.size, entry.version)

        async with asyncio.TaskGroup() as group:
            looks = [(entry, group.create_task(_unless_silent(is_whole(entry)))) for entry in page]
        silent = [error for _, look in looks if isinstance(error := look.result(), CopyUnavailableError)]
        lost = [entry for entry, look in looks if look.result() is False]
        if lost:
            log.warning("%s files of the cache are gone or were changed: the first is %s", len(lost), lost[0].location)
            await self._rows.drop([entry.entry_id for entry in lost])
        if silent:
            raise silent[0]

    async def sweep(self) -> None:
        """Remove what no entry knows: half-written files of dead processes at once, others after a while. Once an hour.

        Raises:
            GatewayError: 503.
            CopyUnavailableError: the storage does not answer.
            OSError: the folder for new files cannot be read.
        """
        await self._sweep_scratch()
        if self._swept is not None and self._clock() - self._swept < SWEEP_SECONDS:
            return
        self._swept = self._clock()
        async for locations in self._storage.kept(LEFT_SECONDS):
            # Only what has a name of the cache: should its storage be an archive by mistake, nothing is lost.
            own = [location for location in locations if is_entry(location)]
            known = await self._rows.at(own)
            for location in own:
                if location not in known:
                    async with answering_within(_STORAGE_SECONDS):
                        await self._storage.remove(location)

    async def _sweep_scratch(self) -> None:
        folder = self._storage.scratch
        assert folder is not None  # noqa: S101 - it was looked at when the cache was opened
        async with answering_within(_STORAGE_SECONDS):
            found = await asyncio.to_thread(_names, folder)
        names = {name: written for name in found if (written := lease_of(name))}
        # A file is written after its lease was taken, and until that has ended: nobody alive has one that is not found.
        live = await self._rows.live([entry_id for entry_id, _ in names.values()])
        dead = [folder / name for name, written in names.items() if written not in live]
        async with answering_within(_STORAGE_SECONDS):
            await asyncio.to_thread(_unlink, dead)


async def _unless_silent(look: Awaitable[bool]) -> bool | CopyUnavailableError:
    try:
        return await look
    except CopyUnavailableError as error:
        return error


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
