"""Copies that an operator's own programs restore: of an HSM, a tape library, whatever has a command line."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import errno
import os
import stat as stat_bits
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, cast

from gateway.storage import (
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    OpenFile,
    StageState,
    TapePosition,
    ToStage,
)
from gateway.text import is_storable
from storage_plugins.command.contract import AnswerError, order_question, positions, question, states
from storage_plugins.command.copying import StagedFiles
from storage_plugins.command.options import Options
from storage_plugins.command.programs import ProgramError, Programs
from storage_plugins.local import LocalStorage
from storage_plugins.threads import DaemonThreads

_DOTS = frozenset({".", ".."})
_BLOCK = 512
"""Bytes that st_blocks counts (stat(2))."""


class Commands:
    """Asks the programs of a table by the contract."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._programs = Programs(options.environment, most=options.programs)

    async def stage(self, copies: Sequence[ToStage]) -> dict[str, StageState]:
        """See `gateway.storage.CanStage`."""
        if self._options.stage is None:
            return {copy.key: StageState("ONLINE") for copy in copies}
        return await self._states("stage", self._options.stage, copies)

    async def staged(self, copies: Sequence[ToStage]) -> dict[str, StageState]:
        """See `gateway.storage.CanStage`."""
        if self._options.query is None:
            return await self.stage(copies)
        return await self._states("query", self._options.query, copies)

    async def release(self, copies: Sequence[ToStage]) -> None:
        """See `gateway.storage.CanStage`. What the program answers does not count."""
        if self._options.release is not None and copies:
            await self._run(self._options.release, question("release", copies))

    async def positions(self, locations: Sequence[str]) -> dict[str, TapePosition]:
        """See `gateway.storage.KnowsTape`."""
        if self._options.order is None or not locations:
            return {}
        answer = await self._run(self._options.order, order_question(locations))
        try:
            return positions(answer, frozenset(locations))
        except AnswerError as error:
            raise AnswerError(f"{self._options.order[0]}: {error}") from error

    async def close(self) -> None:
        """End the programs."""
        await self._programs.close()

    async def _states(self, action: str, program: Sequence[str], copies: Sequence[ToStage]) -> dict[str, StageState]:
        if not copies:
            return {}
        answer = await self._run(program, question(action, copies))
        try:
            return states(answer, {copy.key for copy in copies}, datetime.datetime.now(datetime.UTC))
        except AnswerError as error:
            raise AnswerError(f"{program[0]}: {error}") from error

    async def _run(self, program: Sequence[str], asked: bytes) -> bytes:
        return await self._programs.run(program, asked, seconds=self._options.timeout)


class CommandStorage:
    """Copies that programs restore, and that are fetched into the cache before they are read.

    A location is what follows ``{scheme}://{prefix}`` in hrefs, letter for letter. Nobody asks for sizes: the
    catalogue has to tell them. Options: see `storage_plugins.command.options.Options`.
    """

    in_place = False

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.stage_batch = options.batch
        self._options = options
        self._commands = Commands(options)
        self._fetchers = Programs(options.environment, most=options.fetches)
        self._staged = None if options.staged_root is None else StagedFiles(name, options.staged_root, options.threads)
        self._threads = DaemonThreads(options.fetches, f"storage-{name}")

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """See `gateway.storage.Storage.from_options`. With ``in_place`` copies are files of a disk."""
        parsed = Options.parse(options)
        if parsed.root is not None:
            return cast("Self", InPlaceCommandStorage(name, parsed, parsed.root))
        return cls(name, parsed)

    def locate(self, href: str) -> str | None:
        """What follows the scheme and the prefix.

        Raises:
            ValueError: it has a segment ``.`` or ``..``.
        """
        return _location(self._options, href)

    async def stage(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`."""
        return self._checked(await self._commands.stage(copies))

    async def staged(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`."""
        return self._checked(await self._commands.staged(copies))

    async def release(self, copies: Sequence[ToStage]) -> None:
        """See `gateway.storage.CanStage`."""
        await self._commands.release(copies)

    async def positions(self, locations: Sequence[str]) -> Mapping[str, TapePosition]:
        """See `gateway.storage.KnowsTape`."""
        return await self._commands.positions(locations)

    async def fetch(self, copy: ToStage, state: StageState, target: Path) -> None:
        """See `gateway.storage.CanFetch`: by the program, or by copying from below ``staged_root``."""
        if self._options.fetch is None:
            if self._staged is None:
                raise RuntimeError("there is neither a program nor a directory to fetch from")
            await self._staged.copy(state.path, copy.location, target)
            return
        path = None if state.path is None else str(state.path)
        asked = question("fetch", [copy], target=str(target), path=path)
        program = self._options.fetch
        try:
            answer = await self._fetchers.run(program, asked, seconds=self._options.fetch_timeout)
        except ProgramError as error:
            if await self._in_thread(_is_full, target, copy.size or 0):
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {error}", str(target)) from error
            raise
        _heed(answer, copy, program[0])
        if not await self._in_thread(_is_file, target):
            raise CopyUnavailableError(f"{program[0]}: wrote no regular file {target} for {copy.location!r}")

    async def close(self) -> None:
        """End all programs and threads."""
        await asyncio.gather(self._commands.close(), self._fetchers.close())
        if self._staged is not None:
            await self._staged.close()
        self._threads.close()

    def _checked(self, found: dict[str, StageState]) -> dict[str, StageState]:
        """Without paths that lie elsewhere than the operator allows: these have failed."""
        root = self._options.staged_root
        for key, state in found.items():
            if state.path is not None and (root is None or not state.path.is_relative_to(root)):
                where = "there is no staged_root" if root is None else f"not below {root}"
                found[key] = StageState("FAILED", error=f"path {str(state.path)!r}: {where}", retry=False)
        return found

    async def _in_thread(self, look: object, *arguments: object) -> bool:
        return await asyncio.wrap_future(self._threads.submit(look, *arguments))  # type: ignore[arg-type]


class InPlaceCommandStorage(LocalStorage):
    """Files below ``root`` that programs bring online where they are: of an HSM behind a file system."""

    in_place = True

    def __init__(self, name: str, options: Options, root: Path) -> None:
        super().__init__(name, root, options.threads)
        self.stage_batch = options.batch
        self._options = options
        self._commands = Commands(options)

    def locate(self, href: str) -> str | None:
        """As of the plug-in ``local``; besides what follows the scheme and the prefix.

        Raises:
            ValueError: it has a segment ``.`` or ``..``.
        """
        found = super().locate(href)
        return _location(self._options, href) if found is None else found

    async def open(self, location: str, offset: int = 0, count: int = 0) -> OpenFile:
        """See `gateway.storage.OnDisk`.

        Raises:
            CopyOfflineError: with ``sparse_is_offline``, where not all bytes are on the disk.
        """
        if not self._options.sparse_is_offline:
            return await super().open(location, offset, count)
        file = await super().open(location)
        try:
            found = os.fstat(file.descriptor.number)
            if found.st_blocks * _BLOCK < found.st_size:
                raise CopyOfflineError(f"{location}: has {found.st_blocks} blocks for {found.st_size} bytes")
            head = await self.read(file, offset, count) if count else b""
        except BaseException:
            file.close()
            raise
        return dataclasses.replace(file, head=head)

    async def stage(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`. Paths do not matter: copies are read where they are."""
        return _without_paths(await self._commands.stage(copies))

    async def staged(self, copies: Sequence[ToStage]) -> Mapping[str, StageState]:
        """See `gateway.storage.CanStage`."""
        return _without_paths(await self._commands.staged(copies))

    async def release(self, copies: Sequence[ToStage]) -> None:
        """See `gateway.storage.CanStage`."""
        await self._commands.release(copies)

    async def positions(self, locations: Sequence[str]) -> Mapping[str, TapePosition]:
        """See `gateway.storage.KnowsTape`."""
        return await self._commands.positions(locations)

    async def close(self) -> None:
        """End all programs and threads."""
        await self._commands.close()
        await super().close()


def _location(options: Options, href: str) -> str | None:
    scheme, mark, rest = href.partition("://")
    if not mark or scheme.lower() != options.scheme or not rest.startswith(options.prefix):
        return None
    location = rest.removeprefix(options.prefix)
    if not _DOTS.isdisjoint(location.split("/")):
        raise ValueError("has a segment '.' or '..'")
    return location if location and is_storable(location) else None


def _without_paths(found: dict[str, StageState]) -> dict[str, StageState]:
    return {key: dataclasses.replace(state, path=None) for key, state in found.items()}


def _heed(answer: bytes, copy: ToStage, name: str) -> None:
    """What a program that fetches may answer, if anything: that the copy cannot be had after all."""
    if not answer.strip():
        return
    try:
        found = states(answer, {copy.key}, datetime.datetime.now(datetime.UTC)).get(copy.key)
    except AnswerError as error:
        raise AnswerError(f"{name}: {error}") from error
    if found is None or found.state == "ONLINE":
        return
    text = f"{name}: {copy.location!r} is {found.state}: {found.error or 'it does not say why'}"
    if found.state == "LOST":
        raise CopyNotFoundError(text)
    raise CopyUnavailableError(text) if found.state == "FAILED" else CopyOfflineError(text)


def _is_file(target: Path) -> bool:
    try:
        return stat_bits.S_ISREG(target.lstat().st_mode)
    except OSError:
        return False


def _is_full(target: Path, size: int) -> bool:
    """Whether what is missing of a copy has no room where it is written."""
    try:
        disk = os.statvfs(target.parent)
        written = target.lstat().st_blocks * _BLOCK if target.exists() else 0
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < max(size - written, disk.f_frsize)
