"""What a process has in hand: it shows signs of life, and stops whoever works on what is his no more."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from gateway.errors import GatewayError
from gateway.staging.queue import Held, Queue

log = logging.getLogger(__name__)

_HAND_BACK_SECONDS = 2.0
"""That it may take to leave to others what was in hand when the process ends."""


@dataclasses.dataclass(eq=False, slots=True)
class _Work:
    task: asyncio.Task[None]
    until_ended: bool
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True
        self.task.cancel()


@dataclasses.dataclass(slots=True)
class _Entry:
    held: Held
    work: _Work | None
    """None: it waits inside this process."""


class Leases:
    """The leases of a process."""

    def __init__(self, queue: Queue, seconds: float) -> None:
        self._queue = queue
        self._seconds = seconds
        self._entries: dict[tuple[int, uuid.UUID], _Entry] = {}

    def holds(self, held: Held) -> bool:
        """Whether it is ours still, as far as is known."""
        return (held.restore_id, held.lease) in self._entries

    def wait(self, held: Sequence[Held]) -> None:
        """Keep it, though nobody works on it at the moment."""
        for one in held:
            self._entries[one.restore_id, one.lease] = _Entry(one, None)

    def drop(self, held: Iterable[Held]) -> None:
        """Show no more signs of life."""
        for one in held:
            self._entries.pop((one.restore_id, one.lease), None)

    async def keep(self, held: Sequence[Held], doing: Coroutine[Any, Any, None], *, until_ended: bool = False) -> bool:
        """Do something with what is held; stop once no lease is left, or with ``until_ended`` once a restore has ended.

        What `wait` was told of meanwhile is kept; all else is not held any more after that. False if it was stopped.
        """
        work = _Work(asyncio.ensure_future(doing), until_ended)
        for one in held:
            self._entries[one.restore_id, one.lease] = _Entry(one, work)
        try:
            await work.task
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not work.stopped or (task is not None and task.cancelling()):
                raise  # what is in hand is handed back at the end of all
        except BaseException:
            self._forget(work)
            raise
        self._forget(work)
        return not work.stopped

    async def beat(self) -> None:
        """Show signs of life, until this is cancelled."""
        loop = asyncio.get_running_loop()
        alive = loop.time()
        while True:
            await asyncio.sleep(self._seconds / 3)
            began = loop.time()
            if not self._entries:
                alive = began
                continue
            entries = dict(self._entries)
            try:
                async with asyncio.timeout(self._seconds / 3):
                    ours = await self._queue.prolong([one.held for one in entries.values()])
            except (GatewayError, TimeoutError):
                if loop.time() - alive >= self._seconds * 2 / 3:
                    log.warning("leases of %s restores end: PostgreSQL does not answer", len(entries))
                    self._stop(entries.values())
                continue
            alive = began
            self._lost({key: entry for key, entry in entries.items() if key not in ours}, entries)
            for key, entry in entries.items():
                if ours.get(key) and entry.work is not None and entry.work.until_ended:
                    entry.work.stop()

    async def hand_back(self) -> None:
        """Leave to others what is in hand still."""
        held = [entry.held for entry in self._entries.values()]
        self._entries.clear()
        if held:
            with contextlib.suppress(GatewayError, TimeoutError):
                async with asyncio.timeout(_HAND_BACK_SECONDS):
                    await self._queue.let_go(held)

    def _lost(
        self, lost: Mapping[tuple[int, uuid.UUID], _Entry], known: Mapping[tuple[int, uuid.UUID], _Entry]
    ) -> None:
        """Stop whoever has nothing left: what he let go himself is not ours, either, but he goes on with the rest."""
        going_on = {id(entry.work) for key, entry in known.items() if key not in lost}
        for key, entry in lost.items():
            if self._entries.get(key) is entry:
                del self._entries[key]
            if entry.work is not None and id(entry.work) not in going_on:
                entry.work.stop()

    def _stop(self, entries: Iterable[_Entry]) -> None:
        for entry in list(entries):
            self._entries.pop((entry.held.restore_id, entry.held.lease), None)
            if entry.work is not None:
                entry.work.stop()

    def _forget(self, work: _Work) -> None:
        for key in [key for key, entry in self._entries.items() if entry.work is work]:
            del self._entries[key]
