"""A tape library in a folder: slow, and it keeps a journal of who asked it for what, which outlives its processes."""

from __future__ import annotations

import asyncio
import datetime
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.storage import CopyNotFoundError, CopyUnavailableError, StageState, TapePosition, ToStage


class Robot:
    """As `CanFetch`; what is on tape lies in ``tape``, what was restored in ``disk``."""

    in_place = False
    stage_batch = 10

    def __init__(self, folder: Path, *, seconds: float = 0.0, fetch_seconds: float = 0.0) -> None:
        self.name = "tape"
        self.folder = folder
        self.seconds = seconds
        self.fetch_seconds = fetch_seconds
        self.answers: dict[str, StageState | Exception | None] = {}
        """By location: what it says instead, as long as it stands here."""
        self.down: Exception | None = None
        self.fetch_error: Exception | None = None
        self.kept: dict[str, float] = {}
        for name in ("tape", "asked", "disk"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def put(self, location: str, content: bytes) -> None:
        (self.folder / "tape" / location).write_bytes(content)

    def journal(self) -> list[tuple[str, str, str, int, float]]:
        """What was done, begin or end, key and location, process, and when."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            what, edge, key, process, at = line.split(" ")
            found.append((what, edge, key, int(process), float(at)))
        return found

    def asked_for(self, what: str) -> list[str]:
        """Keys that were asked for, in order."""
        return [key for done, edge, key, _, _ in self.journal() if (done, edge) == (what, "begin")]

    def locations(self, what: str) -> list[str]:
        return [key.split(":")[1] for key in self.asked_for(what)]

    async def stage(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        async with self._noted("stage", copies):
            for copy in copies:
                self.kept[copy.key] = copy.seconds
                asked = self.folder / "asked" / copy.location
                if not asked.exists():
                    asked.write_text(str(time.time()))
            return self._states(copies)

    async def staged(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        async with self._noted("staged", copies):
            return self._states(copies)

    async def release(self, copies: Sequence[ToStage]) -> None:
        async with self._noted("release", copies):
            for copy in copies:
                for name in ("asked", "disk"):
                    (self.folder / name / copy.location).unlink(missing_ok=True)

    async def fetch(self, copy: ToStage, state: StageState, target: Path) -> None:
        async with self._noted("fetch", [copy]):
            if self.fetch_error is not None:
                raise self.fetch_error
            source = state.path
            if source is None or not source.exists():
                raise CopyNotFoundError("nothing was restored")
            data = source.read_bytes()
            with target.open("xb") as file:
                for start in range(0, len(data), max(1, len(data) // 4)):
                    file.write(data[start : start + max(1, len(data) // 4)])
                    file.flush()
                    await asyncio.sleep(self.fetch_seconds / 4)

    async def close(self) -> None:
        pass

    def _states(self, copies: Sequence[ToStage]) -> dict[str, StageState]:
        found = {}
        for copy in copies:
            answer = self.answers.get(copy.location)
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                found[copy.key] = answer
            elif copy.location not in self.answers:
                found[copy.key] = self._state(copy.location)
        return found

    def _state(self, location: str) -> StageState:
        tape, asked, disk = (self.folder / name / location for name in ("tape", "asked", "disk"))
        if not tape.exists():
            return StageState("LOST", error="no such file on any tape")
        try:
            ready = float(asked.read_text() or 0) + self.seconds
        except FileNotFoundError:
            return StageState("NEARLINE")
        if time.time() < ready:
            return StageState("STAGING", ready=datetime.datetime.fromtimestamp(ready, datetime.UTC))
        if not disk.exists():
            # Who asks may be killed meanwhile: the library is another machine, and goes on.
            partial = disk.with_suffix(f".{os.getpid()}")
            shutil.copy(tape, partial)
            partial.rename(disk)
        return StageState("ONLINE", path=disk)

    @asynccontextmanager
    async def _noted(self, what: str, copies: Sequence[ToStage]) -> AsyncIterator[None]:
        self._note(what, "begin", copies)
        try:
            if self.down is not None:
                raise self.down
            yield
        finally:
            self._note(what, "end", copies)

    def _note(self, what: str, edge: str, copies: Sequence[ToStage]) -> None:
        lines = "".join(f"{what} {edge} {copy.key}:{copy.location} {os.getpid()} {time.time()}\n" for copy in copies)
        with (self.folder / "journal").open("a") as file:
            file.write(lines)


class OrderedRobot(Robot):
    """Knows its tapes: the first letter of a location is the name of one, the digits are the position."""

    asked = 0

    async def positions(self, locations: Sequence[str]) -> Mapping[str, TapePosition]:
        self.asked += len(locations)
        return {one: TapePosition(one[0], int(one[1:])) for one in locations if one[0] != "?"}


class Glacier(Robot):
    """Its restored copies are read where they lie, until it takes them back."""

    in_place = True
    lasts: float | None = None

    def _state(self, location: str) -> StageState:
        state = super()._state(location)
        if state.state != "ONLINE":
            return state
        until = None
        if self.lasts is not None:
            until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.lasts)
        return StageState("ONLINE", until=until)


DOWN = CopyUnavailableError("the library is closed")
