"""The one pipeline: from a request for a file to its bytes. Every door leads here.

who        identity.identify      -> Principal   401
what, may  catalog.locate         -> File        404 403 423
where      choose                 -> Copy        404 410 502 503
how much   http.evaluate          -> Verdict     304 412 416
quota      quotas.reserve         -> Lease       429 503
send       delivery.Sender        200 206 502   and the lease is settled, whatever happens
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Literal, cast

from aiohttp import web

from gateway.catalog.locate import Catalog
from gateway.catalog.model import Address, Copy, File
from gateway.delivery.pace import Pace
from gateway.delivery.sender import Sender, head
from gateway.delivery.transfer import Transfer
from gateway.errors import GatewayError, unavailable
from gateway.http.digests import digest_fields, wanted_digests
from gateway.http.disposition import content_disposition
from gateway.http.evaluate import UNKNOWN_TYPE, Representation, Verdict, evaluate
from gateway.http.offload import OFFER, Offload, offloaded_headers
from gateway.identity.chain import IdentityChain
from gateway.identity.principal import Principal
from gateway.links import CLIENT, absolute_url
from gateway.locations import Location
from gateway.quotas.service import Lease, Quotas
from gateway.storage import (
    CopyChangedError,
    CopyNotFoundError,
    OnDisk,
    Stat,
    StorageError,
    answering_within,
)

log = logging.getLogger(__name__)

PRINCIPAL = web.RequestKey("principal", Principal)
"""The caller, for the access log."""
TRANSFER = web.RequestKey("transfer", Transfer)
"""What became of the bytes, for the access log."""

_REFUSED = {
    HTTPStatus.PRECONDITION_FAILED: "The file is not in the state that the request asks for.",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The file has no bytes in the range that the request asks for.",
}

CLOSING_SECONDS = 3.0
"""More than a download needs to end once it is cut."""

SAFETY_FIELDS = {
    "Cache-Control": "private, no-cache",
    "Vary": "Authorization",
    # A browser must neither guess another type nor run what an archive holds.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Fields of every answer that is about a file, 304 included."""

PUBLIC_CACHING = "public, max-age=300"
"""Cache-Control of quicklooks and the like in datasets that everyone sees. A right withdrawn works after that time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of an answer come from, and what they must be."""

    copy: Copy
    storage: OnDisk
    offload: Offload | None
    """How the proxy in front can send it, where it can."""

    def hands_over(self, request: web.Request, verdict: Verdict) -> bool:
        """Whether the proxy in front sends the bytes: it is a listed one, offers to, and answers as we would."""
        return (
            self.offload is not None
            and request[CLIENT].by_proxy
            and request.headers.get(OFFER) == self.offload.field
            and self.offload.suits(request.method, request.headers, verdict, self.copy.location)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Downloads:
    """Answers requests for files."""

    identity: IdentityChain
    catalog: Catalog
    locations: Mapping[str, Location]
    """Storage locations of this gateway by name."""
    quotas: Quotas
    pace: Pace
    public_url: str | None
    """Base of absolute links; None takes the request's Host."""
    clock: Callable[[], datetime.datetime]
    running: set[asyncio.Task[object]] = dataclasses.field(default_factory=set)
    """Requests that hold a lease."""

    async def answer(self, request: web.Request, address: Address) -> web.StreamResponse:
        """Answer a GET or HEAD for the file at ``address``.

        Query parameters, both of REGARDS: ``isContentInline=true`` has a browser show the file instead of saving it;
        ``acceptLicense=true`` (GET with a token) accepts the licence of its dataset first.

        Raises:
            GatewayError: the refusals listed at the top of this module.
        """
        principal = self.identity.identify(request.headers, request.query)
        request[PRINCIPAL] = principal
        file = await self._locate(request, address, principal)
        source = choose(file, self.locations)
        expected = await _expect(file, source, ask=request.method == "HEAD", storage_timeout=self.pace.storage_timeout)
        verdict = evaluate(request.method, request.headers, _representation(file, expected), self.clock())
        fields = _fields(request, file, verdict)
        if verdict.status >= HTTPStatus.BAD_REQUEST:
            raise GatewayError(verdict.status, _REFUSED[verdict.status], headers=verdict.headers)
        if request.method == "HEAD" or verdict.status == HTTPStatus.NOT_MODIFIED:
            return web.StreamResponse(status=verdict.status, headers=fields)
        with self._settled_before_the_end():
            lease = await self._reserve(principal, file, verdict)
            transfer = request[TRANSFER] = Transfer(verdict.representation_bytes)
            try:
                if source.hands_over(request, verdict):
                    timeout = self.pace.storage_timeout
                    return await _hand_over(source, expected, fields, transfer, storage_timeout=timeout)
                return await self._send(request, source, expected, verdict, fields)
            finally:
                if lease is not None:
                    await self.quotas.settle(lease, sent=transfer.sent, delivered=transfer.delivered)

    async def close(self) -> None:
        """Wait, within bounds, for downloads that were cut at the end of the process: they are to be settled, too."""
        if self.running:
            await asyncio.wait(self.running, timeout=CLOSING_SECONDS)

    @contextlib.contextmanager
    def _settled_before_the_end(self) -> Iterator[None]:
        """Have `close` wait for the request that is served in the block."""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self.running.add(task)
        try:
            yield
        finally:
            self.running.discard(task)

    async def _locate(self, request: web.Request, address: Address, principal: Principal) -> File:
        if request.method == "GET" and _flag(request, "acceptLicense"):
            await self.catalog.accept_licence(address, principal)
        try:
            return await self.catalog.locate(address, principal)
        except GatewayError as error:
            if error.status is HTTPStatus.LOCKED:
                link = absolute_url(request, self.public_url, acceptLicense="true")
                error.body = {**(error.body or {}), "accept": link}
            raise

    async def _reserve(self, principal: Principal, file: File, verdict: Verdict) -> Lease | None:
        if not file.is_metered:
            return None
        return await self.quotas.reserve(principal, file, verdict.representation_bytes)

    async def _send(
        self, request: web.Request, source: Source, expected: Stat, verdict: Verdict, fields: Mapping[str, str]
    ) -> web.StreamResponse:
        transfer = request[TRANSFER]
        response = web.StreamResponse(status=verdict.status, headers=fields)
        try:
            async with answering_within(self.pace.storage_timeout):
                opened = await source.storage.open(source.copy.location, *head(verdict))
            with contextlib.closing(opened):
                _check_version(source.copy, expected, opened.stat)
                sender = Sender(request, source.storage, opened, verdict, transfer, pace=self.pace)
                await sender.send(response)
        except StorageError as error:
            raise _storage_failure(error) from error
        if transfer.problem is not None:
            log.warning("cut after %s of %s bytes: %r", transfer.sent, transfer.promised, transfer.problem)
        return response


def choose(file: File, locations: Mapping[str, Location]) -> Source:
    """Where to take the bytes from: the copy that is online here, at the location with the lowest priority number.

    Raises:
        GatewayError: 410 all copies would have to be restored first; 503 no location of this gateway has a copy.
    """
    held = [copy for copy in file.copies if copy.storage in locations]
    for copy in sorted(held, key=lambda copy: locations[copy.storage].priority):
        location = locations[copy.storage]
        if copy.state == "ONLINE" and location.type == "ONLINE" and isinstance(location.storage, OnDisk):
            return Source(copy, location.storage, location.offload)
    if held:
        raise GatewayError(HTTPStatus.GONE, "This file is not online; it must be restored first.", code="NotOnline")
    raise unavailable("No storage location of this gateway holds this file.", retry_after=300, code="NoStorage")


async def _hand_over(
    source: Source, expected: Stat, fields: Mapping[str, str], transfer: Transfer, *, storage_timeout: float
) -> web.StreamResponse:
    """Tell the proxy in front to send the file, after a last look that it is still the one."""
    assert source.offload is not None  # noqa: S101 - Source.hands_over said so
    try:
        async with answering_within(storage_timeout):
            found = await source.storage.stat(source.copy.location)
        _check_version(source.copy, expected, found)
    except StorageError as error:
        raise _storage_failure(error) from error
    transfer.sent, transfer.finished, transfer.offloaded = transfer.promised, True, True
    return web.Response(headers=offloaded_headers(fields, source.offload, source.copy.location))


async def _expect(file: File, source: Source, *, ask: bool, storage_timeout: float) -> Stat:
    """What the copy must be when it is opened: as recorded at ingest, else as the storage says now.

    With ``ask`` the storage is asked in any case, so that HEAD tells what a GET would find.

    Raises:
        GatewayError: 404 the copy is gone; 502 it is not the file of the catalogue; 503 the storage does not answer.
    """
    copy, recorded = source.copy, source.copy.recorded
    if recorded is not None and not ask:
        return recorded
    try:
        async with answering_within(storage_timeout):
            found = await source.storage.stat(copy.location)
        if recorded is not None:
            _check_version(copy, recorded, found)
        if file.size is not None and found.size != file.size:
            raise CopyChangedError(f"{copy.location}: has {found.size} bytes, the catalogue says {file.size}")
    except StorageError as error:
        raise _storage_failure(error) from error
    return found


def _check_version(copy: Copy, expected: Stat, found: Stat) -> None:
    if found.version != expected.version:
        raise CopyChangedError(f"{copy.location}: changed since it was ingested")


def _representation(file: File, expected: Stat) -> Representation:
    """The entity-tag is the checksum where it is known, so that it is the same for every copy and for ever."""
    tag = file.checksum.lower() if file.checksum else expected.version
    return Representation(expected.size, f'"{tag}"', expected.modified, file.mime_type or UNKNOWN_TYPE)


def _fields(request: web.Request, file: File, verdict: Verdict) -> dict[str, str]:
    kind: Literal["inline", "attachment"] = "inline" if _flag(request, "isContentInline") else "attachment"
    digests = wanted_digests(digest_fields(file.checksum_algorithm, file.checksum), request.headers)
    fields = {**SAFETY_FIELDS, **digests, **verdict.headers}
    if file.is_public:
        fields["Cache-Control"] = PUBLIC_CACHING
    if verdict.status != HTTPStatus.NOT_MODIFIED:
        fields["Content-Disposition"] = content_disposition(file.name, kind)
    return fields


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


def _storage_failure(error: StorageError) -> GatewayError:
    if isinstance(error, CopyNotFoundError):
        return GatewayError(HTTPStatus.NOT_FOUND, "The file is missing from its storage location.", code="FileMissing")
    if isinstance(error, CopyChangedError):
        detail = "What is stored is no longer the file that the catalogue describes, so it is not delivered."
        return GatewayError(HTTPStatus.BAD_GATEWAY, detail, code="FileChanged", headers={"Retry-After": "300"})
    return unavailable("The storage location does not answer at the moment; try again.", retry_after=30)
