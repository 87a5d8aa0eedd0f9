"""One storage, and what is done about restores of its copies: asked for, looked at, fetched, given back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from gateway.config.staging import Staging as Settings
from gateway.errors import GatewayError
from gateway.locations import Location
from gateway.staging import rules
from gateway.staging.cache import Cache, CacheFullError, Kept, NotOursError, Room
from gateway.staging.leases import Leases
from gateway.staging.queue import Held, Queue
from gateway.storage import (
    CanFetch,
    CanStage,
    CopyBrokenError,
    CopyUnavailableError,
    KnowsTape,
    StageState,
    StorageError,
    ToStage,
    answering_within,
)

log = logging.getLogger(__name__)

_LONGEST_REST = 600.0
"""Seconds that a storage is left alone at most because it does not answer."""
_FULL_SECONDS = 10.0
"""After which room is asked for again where there was none, without being woken."""
_LEAST_ASKED = 4
"""Restores that ask for room together while there is little."""
_GIVEN_UP = 3600.0
"""Seconds after which a storage need not be told any more that a copy is not needed."""

Ask = Callable[[Sequence[ToStage]], Awaitable[Mapping[str, StageState]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What all stations of a process share."""

    settings: Settings
    queue: Queue
    leases: Leases
    cache: Cache | None
    """None: there is none, and only what is read in place can be restored."""
    storages: Sequence[str]
    """Names of all that can restore, the best first."""
    ended: Callable[[Iterable[int]], None]
    """Told the ids of restores that came to an end, well or not."""
    broken: Callable[[], None]
    """Told that a copy was found to be broken: an alarm."""


class Station:
    """Works for one storage. Any number of stations in any number of processes may for the same."""

    def __init__(self, name: str, location: Location, storage: CanStage, around: Surroundings) -> None:
        self.name = name
        self._location = location
        self._storage = storage
        self._around = around
        self._settings, self._queue, self._leases = around.settings, around.queue, around.leases
        self._batch = max(1, storage.stage_batch)
        self._next = self._batch
        self._backlog: asyncio.PriorityQueue[tuple[tuple[int, str, int, int], int, Held, StageState]]
        self._backlog = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._rests = 0
        self._rest_until = 0.0
        self._full_until = 0.0
        self._calls = 0

    def room_may_have_come(self) -> None:
        """Ask for room again."""
        self._calls += 1
        self._full_until = 0.0

    async def step(self) -> bool:
        """Do what there is to do now, as far as one batch goes; whether there was something.

        Raises:
            GatewayError: 503.
        """
        now = asyncio.get_running_loop().time()
        if now < self._rest_until:
            return False
        ended = await self._claim(self._queue.claim_ended(self.name, most=self._batch))
        if ended:
            await self._leases.keep(ended, self._give_back(ended))
        due: Sequence[Held] = ()
        if self._backlog.qsize() < max(self._batch, 4 * self._settings.fetches):
            due = await self._claim(self._queue.claim_due(self.name, most=self._batch))
        if due:
            await self._leases.keep(due, self._look_again(due))
        queued: Sequence[Held] = ()
        if now >= self._full_until:
            await self._find_places()
            most, busy = min(self._next, self._batch), self._settings.store_files
            in_cache = not self._storage.in_place
            queued = await self._claim(self._queue.claim_queued(self.name, most=most, busy=busy, roomed=in_cache))
        if queued:
            await self._leases.keep(queued, self._begin(queued))
        return bool(ended or due or queued)

    async def fetch(self) -> None:
        """Fetch one copy into the cache, when there is one.

        Raises:
            GatewayError: 503.
        """
        _, _, held, state = await self._backlog.get()
        if self._leases.holds(held) and not await self._leases.keep([held], self._fetch(held, state), until_ended=True):
            await self._queue.leave_ended([held])

    async def _claim(self, claiming: Awaitable[list[Held]]) -> list[Held]:
        task = asyncio.ensure_future(claiming)
        try:
            held = await asyncio.shield(task)
        except asyncio.CancelledError:
            # PostgreSQL may have given us something already.
            await asyncio.wait([task], timeout=1)
            if task.done() and not task.cancelled() and task.exception() is None:
                self._leases.wait(task.result())
            task.cancel()
            raise
        self._leases.wait(held)
        return held

    async def _find_places(self) -> None:
        if not isinstance(self._storage, KnowsTape):
            return
        while waiting := await self._queue.unplaced(self.name):
            try:
                async with answering_within(self._settings.timeout):
                    places = await self._storage.positions([location for _, location in waiting])
            except StorageError as error:
                log.warning("storage %s does not tell where copies lie: %s", self.name, error)
                return
            except Exception:
                log.exception("the plug-in of storage %s failed", self.name)
                return
            found = [(number, places.get(location)) for number, location in waiting]
            await self._queue.place(
                [(number, place.tape if place else "", place.position if place else None) for number, place in found]
            )

    async def _begin(self, held: Sequence[Held]) -> None:
        """Ask for what waited, as far as there is room for it."""
        held = await self._allowed(held)
        if held and not self._storage.in_place:
            calls = self._calls
            roomy, without = await self._with_room(held)
            if without:
                await self._queue.leave(without)
                await self._queue.leave_ended(without)
                if calls == self._calls:  # else some may have come since we asked
                    self._full_until = asyncio.get_running_loop().time() + _FULL_SECONDS
                self._next = max(_LEAST_ASKED, 2 * len(roomy))
            else:
                self._next = min(self._batch, 2 * self._next)
            held = roomy
        if not held:
            return
        ours = await self._queue.begin(held)
        if len(ours) < len(held):
            await self._queue.leave_ended([one for one in held if one.restore_id not in ours])
        if ours:
            await self._ask(self._storage.stage, [one for one in held if one.restore_id in ours])

    async def _allowed(self, held: Sequence[Held]) -> list[Held]:
        """Those that may be restored at all; the others have failed."""
        found = []
        for one in held:
            if not one.has_file:
                await self._failed(one, "its file is gone", again=False)
            elif not self._location.serves(one.tenant, one.location):
                # In the cache nobody would see any more where it came from.
                await self._failed(one, "it lies where files of its tenant may not", again=False)
            else:
                found.append(one)
        return found

    async def _with_room(self, held: Sequence[Held]) -> tuple[list[Held], list[Held]]:
        """Those that have room, and those that have none yet; those that never will have failed."""
        cache = self._around.cache
        fitting = list[tuple[Held, Room]]()
        for one in held:
            if cache is None:
                await self._failed(one, "there is no cache to restore it to", again=False)
            elif one.size is None:
                await self._failed(one, "its size is not known, so no room can be kept for it", again=False)
            elif not cache.can_hold(room := Room(one.restore_id, one.tenant, one.file_id, one.size)):
                await self._failed(one, "it is larger than the cache, or that is not for its tenant", again=False)
            else:
                fitting.append((one, room))
        if cache is None or not fitting:
            return [], []
        found = await cache.reserve([room for _, room in fitting])
        return (
            [one for one, _ in fitting if one.restore_id in found],
            [one for one, _ in fitting if one.restore_id not in found],
        )

    async def _look_again(self, held: Sequence[Held]) -> None:
        in_place = self._storage.in_place
        extended = [one for one in held if one.state == "RESTORED"]
        staged = [one for one in held if one.state != "RESTORED"]
        if extended and in_place:
            await self._ask(self._storage.stage, extended)
        elif extended:
            await self._queue.extend_cached(extended)
            if untold := [one for one in extended if one.asked]:
                await self._is_cached(untold)
        # Who had it in hand may have died before he asked.
        unsure = [one for one in staged if one.was_held]
        if unsure and not in_place:
            roomy, without = await self._with_room(unsure)
            if without:
                await self._queue.requeue(without, _FULL_SECONDS, "there is no room for it any more")
            unsure = roomy
        if unsure:
            await self._ask(self._storage.stage, unsure)
        if known := [one for one in staged if not one.was_held]:
            await self._ask(self._storage.staged, known)

    async def _ask(self, ask: Ask, held: Sequence[Held]) -> None:
        answers: Mapping[str, StageState]
        try:
            async with answering_within(self._settings.timeout):
                answers = await ask([one.to_stage for one in held])
        except StorageError as error:
            await self._rest(held, str(error))
            return
        except Exception:
            log.exception("the plug-in of storage %s failed", self.name)
            answers = {one.to_stage.key: StageState("FAILED", error="the plug-in failed") for one in held}
        self._rests = 0
        await self._answered(held, answers)

    async def _rest(self, held: Sequence[Held], error: str) -> None:
        """Leave alone for a while a storage that does not answer: that is no fault of the copies."""
        self._rests += 1
        pause = min(_LONGEST_REST, rules.pause_after(self._rests, self._settings.poll))
        self._rest_until = asyncio.get_running_loop().time() + pause
        log.warning("storage %s is left alone for %.3g s: %s", self.name, pause, error)
        await self._queue.let_go(held, pause, error)

    async def _answered(self, held: Sequence[Held], answers: Mapping[str, StageState]) -> None:
        now = datetime.datetime.now(datetime.UTC)
        online = list[tuple[Held, datetime.datetime | None]]()
        coming = list[tuple[Held, float, datetime.datetime | None]]()
        silent = list[Held]()
        for one in held:
            state = answers.get(one.to_stage.key)
            if state is None:
                silent.append(one)
            elif state.state == "STAGING":
                ready = None if state.ready is None else (state.ready - now).total_seconds()
                coming.append((one, rules.next_poll(self._settings.poll, one.age, ready), state.ready))
            elif state.state != "ONLINE":
                await self._did_not_come(one, state)
            elif state.until is not None and state.until <= now:
                await self._failed(one, "it was restored, and is not any more")
            elif self._storage.in_place:
                online.append((one, state.until))
            else:
                self._leases.wait([one])
                self._backlog.put_nowait((one.order, next(self._numbers), one, state))
        if online:
            soonest = self._settings.poll
            self._around.ended(await self._queue.restored(online, soonest=soonest))
        if coming:
            await self._queue.poll(coming)
        if silent:
            await self._queue.let_go(silent, self._settings.poll)
        await self._queue.leave_ended(held)

    async def _did_not_come(self, held: Held, state: StageState) -> None:
        error = state.error or f"the storage says {state.state}"
        if held.state != "RESTORED":
            if state.state == "LOST":
                log.error("storage %s has lost a copy: %s: %s", self.name, held.location, error)
                await self._failed(held, error, again=False, copy="lost")
            else:
                await self._failed(held, error, again=state.retry)
        elif state.state == "FAILED":
            log.warning("storage %s does not keep a copy longer: %s: %s", self.name, held.location, error)
            await self._queue.not_extended([held], error)
        else:
            log.warning("storage %s has a restored copy no more: %s: %s", self.name, held.location, error)
            await self._queue.gone([held], error)

    async def _failed(
        self, held: Held, error: str, *, again: bool = True, copy: Literal["lost", "broken"] | None = None
    ) -> None:
        """It is tried again later, or from another copy, or not at all."""
        if (held.restore_id, held.lease) not in await self._queue.prolong([held]):
            return  # what the cache has for it is somebody else's
        pause = None
        if again and held.tries + 1 < self._settings.tries:
            pause = rules.pause_after(held.tries + 1, self._settings.retry)
        if self._around.cache is not None and not self._storage.in_place:
            await self._around.cache.give_back([held.restore_id])
        if pause is None and held.state == "STAGING":
            await self._release([held])
        became = await self._queue.failed(held, error, pause=pause, others=self._around.storages, copy=copy)
        told = "restore %s of %s:%s did not come: %s; %s"
        log.log(
            logging.ERROR if became == "failed" else logging.WARNING,
            told,
            *(held.restore_id, self.name, held.location, error, became),
        )
        if became == "failed":
            self._around.ended([held.restore_id])

    async def _fetch(self, held: Held, state: StageState) -> None:
        storage, cache = self._storage, self._around.cache
        if cache is None or not isinstance(storage, CanFetch):
            await self._failed(held, "the storage cannot give it", again=False)
            return
        copy = held.to_stage

        async def fetch(target: Path) -> None:
            async with answering_within(rules.fetch_deadline(held.size, self._settings.fetch_timeout)):
                await storage.fetch(copy, state, target)

        try:
            kept = await cache.fill(held.restore_id, held.checksum, held.algorithm, fetch)
        except NotOursError as error:
            # Whoever died with it has a lease there, too, which may end a little later.
            log.info("restore %s waits for its place in the cache: %s", held.restore_id, error)
            await self._queue.let_go([held], self._settings.lease / 3)
            return
        except CopyBrokenError as error:
            self._around.broken()
            log.error("alarm: a copy is broken: %s:%s: %s", self.name, held.location, error)  # noqa: TRY400 - no bug
            await self._failed(held, f"broken: {error}", again=False, copy="broken")
            return
        except CacheFullError as error:
            log.error("the cache has no room, against what its bound says: %s", error)  # noqa: TRY400 - as above
            self._full_until = asyncio.get_running_loop().time() + _FULL_SECONDS
            await cache.give_back([held.restore_id])
            await self._queue.requeue([held], rules.pause_after(1, self._settings.retry), str(error))
            return
        except CopyUnavailableError as error:
            if await self._is_silent(copy):
                await self._rest([held], str(error))
            else:
                await self._failed(held, str(error))
            return
        except (StorageError, OSError) as error:
            await self._failed(held, f"{type(error).__name__}: {error}")
            return
        except GatewayError:
            raise
        except Exception:
            log.exception("fetching from storage %s failed", self.name)
            await self._failed(held, "the plug-in failed")
            return
        await self._publish(held, kept)

    async def _publish(self, held: Held, kept: Kept) -> None:
        published = await self._queue.publish(held, kept)
        if published == "done":
            self._around.ended([held.restore_id])
            await self._is_cached([held])
        elif published == "other file":
            await self._failed(held, "its file was changed meanwhile")
        else:
            await self._queue.let_go([held])
            await self._queue.leave_ended([held])

    async def _is_cached(self, held: Sequence[Held]) -> None:
        """Tell the storage that it need not keep what lies in the cache, by and by if that cannot be done now."""
        if await self._release(held):
            await self._queue.released(held)
        else:
            oldest = max(one.age for one in held)
            await self._queue.let_go(held, rules.next_poll(self._settings.retry, oldest))

    async def _is_silent(self, copy: ToStage) -> bool:
        """Whether all of the storage does not answer, rather than that one copy cannot be had."""
        try:
            async with answering_within(self._settings.timeout):
                await self._storage.staged([copy])
        except StorageError:
            return True
        except Exception:  # noqa: BLE001 - it answers, at least
            return False
        return False

    async def _give_back(self, held: Sequence[Held]) -> None:
        """Tell storage and cache that what has ended is needed no more."""
        if (asked := [one for one in held if one.asked]) and not await self._release(asked):
            late = [one for one in asked if one.ended_for < _GIVEN_UP]
            if late:
                await self._queue.let_go(late, rules.pause_after(1, self._settings.retry))
            held = [one for one in held if one not in late]
        if not held:
            return
        roomed = [one.restore_id for one in held if one.roomed]
        if roomed and self._around.cache is not None:
            await self._around.cache.give_back(roomed)
        await self._queue.cleaned(held)

    async def _release(self, held: Sequence[Held]) -> bool:
        with contextlib.suppress(GatewayError):
            try:
                async with answering_within(self._settings.timeout):
                    await self._storage.release([one.to_stage for one in held])
            except StorageError as error:
                log.warning("storage %s cannot be told that it need not keep copies: %s", self.name, error)
                return False
            except Exception:
                log.exception("the plug-in of storage %s failed", self.name)
                return False
        return True
