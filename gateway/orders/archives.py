"""Downloads of whole orders: from a request for an archive to its bytes.

what       kept.chosen            -> the archive whose rest it is, or one of now      409
may        packing, members       -> each member, with the rights of now             403 409 423
how much   archive.answer         -> Verdict                                         304 412 416
quota      quotas.reserve         -> Lease: one transfer, and all bytes that count   429 503
send       delivery.Sender        -> each member counts as a download as it begins   200 206
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from http import HTTPStatus

from aiohttp import web

from gateway.archive.answer import evaluate_archive
from gateway.archive.content import ArchiveContent
from gateway.archive.layout import Layout
from gateway.archive.metering import Meter, Metered
from gateway.crc32_of_files import Found, remember
from gateway.db import Database
from gateway.delivery.allowance import Allowance, AllowanceEndedError
from gateway.delivery.sender import Sender
from gateway.delivery.transfer import Transfer
from gateway.downloads import Downloads
from gateway.errors import GatewayError, unavailable
from gateway.http.disposition import content_disposition
from gateway.http.evaluate import Span, Verdict
from gateway.identity.principal import Principal
from gateway.orders.actions import Actions
from gateway.orders.kept import KeptArchives, Whose, chosen, names_one, uncertain
from gateway.orders.lifecycle import Action, FileState, check
from gateway.orders.members import AHEAD, OrderMembers, refusal_of
from gateway.orders.packing import Packer, does_count, file_of
from gateway.orders.reading import Order
from gateway.plans import SAFETY_FIELDS
from gateway.quotas.leases import Lease
from gateway.quotas.standing import Standing, refusal
from gateway.quotas.standing import fields as rate_limit_fields
from gateway.request_keys import ASKED, TRANSFER
from gateway.sources import failure
from gateway.storage import CopyUnavailableError, StorageError

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Archives that a process lays out at the same time."""
MARKED_AT_ONCE = 5000
EXPIRED = {"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"}
"""As REGARDS has it of what is made for one caller."""

_REFUSED = {
    HTTPStatus.PRECONDITION_FAILED: "The archive is not in the state that the request asks for.",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The archive has no bytes in the range that the request asks for.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """What is answered, to whom."""

    order: Order
    principal: Principal
    whose: Whose
    layout: Layout
    verdict: Verdict
    spans: Sequence[Span]
    transfer: Transfer


class Archives:
    """Answers requests for the archives of orders."""

    def __init__(self, downloads: Downloads, database: Database, actions: Actions, *, folders: bool) -> None:
        """``database``: for look-ups; what takes longer uses that of ``actions``. ``folders``: one for each product."""
        self._downloads = downloads
        self._database = database
        self._actions = actions
        self._packer = Packer(downloads, actions.database, folders=folders)
        self._kept = KeptArchives(actions.database)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def answer(self, request: web.Request, order: Order, principal: Principal) -> web.StreamResponse:
        """Answer a GET or HEAD for the archive of ``order`` by ``principal``, who may see it.

        Raises:
            RefusedError: none of its files is ready.
            GatewayError: the refusals listed at the top of this module.
        """
        check(Action.DOWNLOAD, order.status, order.counts)
        whose = Whose(order.order_id, principal.email or principal.subject)
        layout, is_kept = await self._layout(request, order, principal, whose)
        verdict = evaluate_archive(request.method, request.headers, layout, self._downloads.clock())
        if verdict.status >= HTTPStatus.BAD_REQUEST:
            raise GatewayError(verdict.status, _REFUSED[verdict.status], headers=verdict.headers)
        name = f"order_{layout.created:%Y-%m-%dT%H-%M-%SZ}.zip"
        fields = {**SAFETY_FIELDS, **EXPIRED, **verdict.headers, "Content-Disposition": content_disposition(name)}
        if request.method == "HEAD" or not verdict.parts:
            return web.StreamResponse(status=verdict.status, headers=fields)
        request[ASKED].way = "stream"
        spans = [part for part in verdict.parts if isinstance(part, Span)]
        transfer = request[TRANSFER] = Transfer(verdict.representation_bytes)
        told = _Answer(order, principal, whose, layout, verdict, spans, transfer)
        members = OrderMembers(self._downloads, self._database, self._packer, layout, principal)
        with self._downloads.settled_before_the_end():
            async with members:
                await (members.check(spans) if is_kept else members.check(spans, AHEAD))
                return await self._counted(request, told, fields, members)

    async def _layout(
        self, request: web.Request, order: Order, principal: Principal, whose: Whose
    ) -> tuple[Layout, bool]:
        """What to answer from, and whether that was answered before."""
        if request.method == "GET" or "If-Match" in request.headers:
            listed = await self._kept.listed(whose)
            kept = chosen(request.method, request.headers, listed)
            layout = await self._kept.get(whose, kept.tag) if kept is not None else None
            if layout is not None:
                return layout, True
            if kept is not None and not names_one(request.headers):
                # It is gone meanwhile, or cannot be read: a part of another one would be taken for its rest.
                raise uncertain(listed)
        async with self._turns:
            layout = await self._packer.pack(order, principal)
        return await self._kept.keep(whose, layout), False

    async def _counted(
        self, request: web.Request, told: _Answer, fields: dict[str, str], members: OrderMembers
    ) -> web.StreamResponse:
        """Send within what quotas leave: bytes as they are sent, and as one transfer."""
        meter = await asyncio.to_thread(Meter, told.layout, told.spans, does_count)
        first = meter.first()
        if first is None:
            return await self._send(request, told, fields, members, None)
        counting, quotas = Transfer(meter.total), self._downloads.quotas
        # As a part of the download of its first member: what it is of is counted there, and once.
        leading = dataclasses.replace(await members.file(first), size=None)
        if not leading.is_metered:
            raise GatewayError(HTTPStatus.CONFLICT, "What counts in quotas has changed: download the archive again.")
        lease = await quotas.reserve(told.principal, leading, counting)
        metered: Metered | None = None
        try:
            await _see_counts(lease, meter, members, told.principal)
            with quotas.pacing(lease) as allowance:
                metered = Metered(meter, allowance, counting, told.transfer)
                return await self._send(request, told, fields | rate_limit_fields(lease.standings), members, metered)
        finally:
            if metered is not None:
                metered.note()
            await quotas.settle(lease, delivered=told.transfer.delivered)

    async def _send(
        self,
        request: web.Request,
        told: _Answer,
        fields: dict[str, str],
        members: OrderMembers,
        allowance: Allowance | None,
    ) -> web.StreamResponse:
        layout, transfer = told.layout, told.transfer
        await self._kept.begun(told.whose, layout.tag)
        response = web.StreamResponse(status=told.verdict.status, headers=fields)
        content = ArchiveContent(layout, members)
        try:
            async with content:
                sender = Sender(
                    request, content, told.verdict, transfer, pace=self._downloads.pace, allowance=allowance
                )
                await sender.send(response)
        except StorageError as error:
            raise refusal_of(error, members) or failure(error) from error
        except AllowanceEndedError as error:
            refused = refusal_of(error, members)
            raise refused or unavailable("The quota service does not answer at the moment; try again.") from error
        finally:
            await self._note(told, members, content)
        if transfer.problem is not None:
            log.warning("archive cut after %s of %s bytes: %r", transfer.sent, transfer.promised, transfer.problem)
        return response

    async def _note(self, told: _Answer, members: OrderMembers, content: ArchiveContent) -> None:
        """Note what became of it; the download itself is over, and does not fail by this."""
        layout, extents = told.layout, _sent(told.spans, told.transfer.sent)
        try:
            for some in _delivered(layout, extents):
                await self._actions.mark_all(told.order.order_id, some, FileState.DOWNLOADED)
            for index, error in content.broken.items():
                if isinstance(error, CopyUnavailableError) and not told.transfer.sent:
                    # It was an error that says so, and may be well in a moment.
                    continue
                file = file_of(layout.columns.keys[index])
                log.warning("order %s: %s cannot be sent: %r", told.order.order_id, layout.member(index).name, error)
                text = "Cannot completely retrieve data file from storage"
                await self._actions.mark_all(told.order.order_id, [file], FileState.DOWNLOAD_ERROR, text)
            await self._remember(members, content)
        except GatewayError as problem:
            log.warning("the download of an order is not noted: %r", problem.__cause__ or problem)

    async def _remember(self, members: OrderMembers, content: ArchiveContent) -> None:
        """Write down the CRC-32 that were computed on the way, so that the next archive can be resumed.

        Where there is a checksum only that of bytes that were held against it: the CRC-32 is one of all copies.
        """
        for index, crc32 in content.found.items():
            sourced, given = members.opened[index]
            used = {(source.copy_id, version) for source, version in given.used}
            if len(used) != 1:
                continue
            copy_id, version = used.pop()
            candidate = next(one for one in sourced.candidates if one.copy.copy_id == copy_id)
            proved = any(holds for source, of, holds in given.proved if (source.copy_id, of) == (copy_id, version))
            if sourced.file.checksum is None or proved or candidate.is_verified(version):
                await remember(self._database, sourced.file, candidate, Found(crc32, sourced.expected.size, version))


async def _see_counts(lease: Lease, meter: Meter, members: OrderMembers, principal: Principal) -> None:
    """See that all members may be counted as downloads, as far as can be known before they are.

    Raises:
        GatewayError: 429, 503.
    """
    hard = [one for one in lease.standings if one.limit.metric == "downloads" and one.limit.slow_rate is None]
    least = min((one.remaining for one in hard), default=None)
    # The first one is counted by now.
    if least is None or await asyncio.to_thread(lambda: sum(1 for _ in meter.members())) - 1 <= least:
        return
    needed = await members.uncounted(meter.members(), least)
    if needed <= least:
        return
    refused = [
        Standing(one.limit, "refused" if one.remaining < needed else "within", one.used + needed, one.reset)
        for one in hard
    ]
    error = refusal(refused, principal.email or principal.subject)
    detail = f"The archive has more files than may be downloaded: {least} more. {error.detail}"
    body = {**(error.body or {}), "messages": [detail]}
    raise GatewayError(error.status, detail, code=error.code, headers=error.headers, body=body)


def _sent(spans: Sequence[Span], sent: int) -> list[tuple[int, int]]:
    """Which bytes of an archive the first ``sent`` bytes of an answer with ``spans`` are."""
    found = []
    for span in spans:
        length = min(sent, span.length)
        if length > 0:
            found.append((span.start, span.start + length))
        sent -= length
    return found


def _delivered(layout: Layout, extents: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """The files of members whose last byte lies in ``extents``, some at a time: of parts, the last ends a download."""
    some: list[int] = []
    for start, stop in extents:
        for index in range(layout.member_at(start), len(layout)):
            _, end = layout.content_of(index)
            if end > stop:
                break
            if end > start and index not in layout.texts:
                some.append(file_of(layout.columns.keys[index]))
            if len(some) == MARKED_AT_ONCE:
                yield some
                some = []
    if some:
        yield some
