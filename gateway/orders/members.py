"""The members of an order's archive while it is sent: looked up again, a few ahead, and counted as they begin."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Self

from gateway.archive.layout import Layout, Member, fingerprint_of
from gateway.catalog.model import File
from gateway.db import Database
from gateway.delivery.allowance import AllowanceEndedError
from gateway.delivery.content import Content
from gateway.downloads import Downloads
from gateway.errors import GatewayError
from gateway.http.evaluate import Span
from gateway.identity.principal import Principal
from gateway.orders import contents
from gateway.orders.packing import Packer, Sourced, does_count, file_of, identity_of
from gateway.storage import CopyChangedError, CopyUnavailableError, StorageError

log = logging.getLogger(__name__)

AHEAD = 200
"""Members that are looked up in one go, at most."""
FRESH_SECONDS = 5.0
"""For so long what was looked up is good: a right that is lost ends a transfer at the next member."""
MOST_CHECKED = 2000
"""Members of the rest of an archive that are looked at before its first byte; later ones as they come."""
_BEHIND_SECONDS = 0.5
_MOST_BEHIND = 60


class OrderMembers:
    """A `gateway.archive.content.MemberSource`. An asynchronous context manager.

    Each member is looked up again shortly before its bytes are sent: what the caller may not have any more, or what is
    not what was laid out, ends the transfer.
    """

    def __init__(
        self, downloads: Downloads, database: Database, packer: Packer, layout: Layout, principal: Principal
    ) -> None:
        self._downloads = downloads
        self._database = database
        self._packer = packer
        self._layout = layout
        self._principal = principal
        self._found = _LookedUp(0, {})
        self._ahead = AHEAD
        self._stop = len(layout)
        self._turn = asyncio.Lock()
        self._next: tuple[int, asyncio.Task[_LookedUp]] | None = None
        self.refusal: GatewayError | None = None
        """Why no more may be sent, if that is so."""
        self.opened: dict[int, tuple[Sourced, Content]] = {}
        """By index: members that were opened of which nobody knows the CRC-32."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._next is not None:
            self._next[1].cancel()
            await asyncio.gather(self._next[1], return_exceptions=True)
            self._next = None

    async def check(self, spans: Sequence[Span], most: int = MOST_CHECKED) -> None:
        """See that the first members of which bytes lie in ``spans`` are for the caller, and what was laid out.

        Args:
            spans: that are going to be sent.
            most: members that are looked at.

        Raises:
            GatewayError: 409 one is not what was laid out; 403, 423 it is not for the caller now; 503.
        """
        left = most
        members = len(self._layout)
        self._stop = max((min(self._layout.member_at(span.stop - 1) + 1, members) for span in spans), default=0)
        for span in spans:
            first = self._layout.member_at(span.start)
            stop = min(self._layout.member_at(span.stop - 1) + 1, first + left, members)
            for start in range(first, stop, AHEAD):
                found = await self._look_up(start, min(start + AHEAD, stop))
                for index, file in found.files.items():
                    await self._sourced(index, file)
                if not self._found.files:
                    self._found = found
            left -= max(stop - first, 0)

    async def file(self, index: int) -> File:
        """The file of the member with this index.

        Raises:
            GatewayError: it is not for the caller now, or gone.
        """
        found = self._found.files.get(index) or (await self._look_up(index, index + 1)).files[index]
        if isinstance(found, GatewayError):
            raise found
        return found

    async def uncounted(self, indices: Iterable[int], most: int) -> int:
        """How many of these members would be counted as downloads now; as soon as they are more than ``most``, so many.

        Raises:
            GatewayError: 503.
        """
        contents_seen, found = set[str](), 0
        left = iter(indices)
        while some := list(islice(left, AHEAD)):
            files = await self._look_up_some(some)
            asked = dict[str, File]()
            for file in files.values():
                if isinstance(file, File) and file.is_metered:
                    asked.setdefault(file.checksum or f"file {file.file_id}", file)
            new = [file for content, file in asked.items() if content not in contents_seen]
            contents_seen.update(asked)
            quotas = self._downloads.quotas
            estimates = [quotas.estimate(self._principal, _alone(file), 0, "whole") for file in new]
            found += sum(estimate.downloads for estimate in await asyncio.gather(*estimates))
            if found > most:
                break
        return found

    @contextlib.asynccontextmanager
    async def opening(self, member: Member) -> AsyncIterator[Content]:
        """See `MemberSource`.

        Raises:
            AllowanceEndedError: a quota refuses it.
        """
        try:
            sourced = await self._sourced(member.index, await self._taken(member.index))
        except GatewayError as error:
            raise _as_storage_error(member, error) from error
        file = sourced.file
        if file.is_metered:
            await self._count(file)
        content = self._downloads.content_of(file, sourced.candidates, sourced.expected)
        try:
            with contextlib.closing(content):
                yield content
        finally:
            self._downloads.learn(file, sourced.candidates, content)
            if member.crc32 is None:
                self.opened[member.index] = sourced, content

    async def _sourced(self, index: int, found: File | GatewayError) -> Sourced:
        """Where a member's bytes are, which are those that were laid out.

        Raises:
            GatewayError: 409 they are not; 403, 423 they are not for the caller; 404, 410, 502, 503.
        """
        if isinstance(found, GatewayError):
            raise _changed() if found.status == HTTPStatus.NOT_FOUND else found
        member = self._layout.member(index)
        sourced = await self._packer.sourced(found, self._principal.tenant)
        same = fingerprint_of(identity_of(found, sourced.expected)) == member.fingerprint
        # What counts now and did not when it was laid out would leave uncounted.
        if not same or sourced.expected.size != member.size or found.is_metered != does_count(member.key):
            raise _changed()
        return sourced

    async def _count(self, file: File) -> None:
        """Count a download, once for each content and window. Its bytes are counted with those of the archive.

        How many may start in a second, or run at a time, the archive as a whole was asked.
        """
        alone = _alone(file)
        for attempt in range(_MOST_BEHIND + 1):
            try:
                await self._downloads.quotas.charge(self._principal, alone, 0)
            except GatewayError as error:
                if error.status == HTTPStatus.SERVICE_UNAVAILABLE and attempt < _MOST_BEHIND:
                    # Redis, or the ledger behind it, may be well again in a moment; the client waits meanwhile.
                    await asyncio.sleep(_BEHIND_SECONDS)
                    continue
                self.refusal = error
                raise AllowanceEndedError(error.detail) from error
            else:
                return

    async def _taken(self, index: int) -> File | GatewayError:
        """What is found of a member. Some of those behind it are looked up meanwhile, fewer where each takes long."""
        async with self._turn:
            if index not in self._found.files:
                self._ahead = min(2 * self._ahead, AHEAD)
                begun, self._next = self._next, None
                if begun is not None and begun[0] == index:
                    self._found = await begun[1]
                elif begun is not None:
                    begun[1].cancel()
            if index not in self._found.files or self._now() - self._found.at > FRESH_SECONDS:
                self._ahead = 1 if index in self._found.files else self._ahead
                self._found = await self._look_up(index, min(index + self._ahead, self._stop))
            behind = max(self._found.files, default=index) + 1
            if self._next is None and behind < self._stop:
                task = asyncio.ensure_future(self._look_up(behind, min(behind + self._ahead, self._stop)))
                self._next = behind, task
            return self._found.files.get(index) or _changed()

    async def _look_up(self, first: int, stop: int) -> _LookedUp:
        """The files of the members from ``first`` up to, not including, ``stop``; of texts there are none.

        Raises:
            GatewayError: 503.
        """
        at = self._now()
        return _LookedUp(at, await self._look_up_some(range(first, stop)))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _look_up_some(self, indices: Iterable[int]) -> dict[int, File | GatewayError]:
        keys = self._layout.columns.keys
        members = {index: file_of(keys[index]) for index in indices if index not in self._layout.texts}
        if not members:
            return {}
        ordered = await contents.some(self._database, list(members.values()))
        located = await self._packer.located(list(ordered.values()), self._principal)
        found: dict[int, File | GatewayError] = {}
        for index, order_file_id in members.items():
            one = ordered.get(order_file_id)
            found[index] = located[one.asset] if one is not None and one.asset is not None else _changed()
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class _LookedUp:
    """Files, or why they are not for the caller, by the indices of their members."""

    at: float
    """When that was asked, by the clock of the loop."""
    files: Mapping[int, File | GatewayError]


def _alone(file: File) -> File:
    """A file as it is counted: as one download, whatever it is of, and of no bytes."""
    limits = tuple(limit for limit in file.limits if limit.metric in ("downloads", "bytes"))
    return dataclasses.replace(file, limits=limits, size=None)


def _changed() -> GatewayError:
    detail = "A file is not what it was when this archive was laid out: download the whole archive again."
    return GatewayError(HTTPStatus.CONFLICT, detail, code="ArchiveChanged")


def _as_storage_error(member: Member, error: GatewayError) -> StorageError:
    """How the transfer ends: so that nobody takes it for whole."""
    text = f"{member.name}: {error.detail}"
    return CopyUnavailableError(text) if error.status == HTTPStatus.SERVICE_UNAVAILABLE else CopyChangedError(text)


def refusal_of(error: StorageError | AllowanceEndedError, members: OrderMembers) -> GatewayError | None:
    """What stands behind an error that came before the first byte, where the gateway itself refused."""
    cause = error.__cause__
    if members.refusal is not None:
        return members.refusal
    return cause if isinstance(cause, GatewayError) else None
