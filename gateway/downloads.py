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
from gateway.delivery.sender import Sender, Transfer
from gateway.errors import GatewayError, unavailable
from gateway.http.digests import digest_fields
from gateway.http.disposition import content_disposition
from gateway.http.evaluate import UNKNOWN_TYPE, Representation, Verdict, evaluate
from gateway.identity.chain import IdentityChain
from gateway.identity.principal import Principal
from gateway.links import absolute_url
from gateway.quotas.service import Lease, Quotas
from gateway.storage import (
    CopyChangedError,
    CopyNotFoundError,
    Location,
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


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of an answer come from, and what they must be."""

    copy: Copy
    storage: OnDisk
    expected: Stat


@dataclasses.dataclass(frozen=True, slots=True)
class Downloads:
    """Answers requests for files."""

    identity: IdentityChain
    catalog: Catalog
    locations: Mapping[str, Location]
    """Storage locations of this gateway by name."""
    quotas: Quotas
    send_timeout: float
    """Seconds that a client may take no byte."""
    storage_timeout: float
    """Seconds that a storage may take for one step."""
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
        copy, storage = choose(file, self.locations)
        source = Source(copy, storage, await self._expect(file, copy, storage, ask=request.method == "HEAD"))
        verdict = evaluate(request.method, request.headers, _representation(file, source.expected), self.clock())
        response = web.StreamResponse(status=verdict.status, headers=_fields(request, file, verdict))
        if verdict.status >= HTTPStatus.BAD_REQUEST:
            raise GatewayError(verdict.status, _REFUSED[verdict.status], headers=verdict.headers)
        if request.method == "HEAD" or verdict.status == HTTPStatus.NOT_MODIFIED:
            return response
        with self._holding_a_lease():
            lease = await self._reserve(principal, file, verdict)
            transfer = request[TRANSFER] = Transfer(verdict.representation_bytes)
            try:
                await self._send(request, response, source, verdict)
            finally:
                if lease is not None:
                    await self.quotas.settle(lease, sent=transfer.sent, delivered=transfer.delivered)
        return response

    async def close(self) -> None:
        """Wait, within bounds, for downloads that were cut at the end of the process: they are to be settled, too."""
        if self.running:
            await asyncio.wait(self.running, timeout=CLOSING_SECONDS)

    @contextlib.contextmanager
    def _holding_a_lease(self) -> Iterator[None]:
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

    async def _expect(self, file: File, copy: Copy, storage: OnDisk, *, ask: bool) -> Stat:
        """What the copy must be when it is opened: as recorded at ingest, else as the storage says now.

        With ``ask`` the storage is asked in any case, so that HEAD tells what a GET would find.

        Raises:
            GatewayError: 404 the copy is gone; 502 it is not the catalogue's file; 503 the storage does not answer.
        """
        recorded = copy.recorded
        if recorded is not None and not ask:
            return recorded
        try:
            async with answering_within(self.storage_timeout):
                found = await storage.stat(copy.location)
            if recorded is not None and found.version != recorded.version:
                raise CopyChangedError(f"{copy.location}: changed since it was ingested")
            if file.size is not None and found.size != file.size:
                raise CopyChangedError(f"{copy.location}: has {found.size} bytes, the catalogue says {file.size}")
        except StorageError as error:
            raise _storage_failure(error) from error
        return found

    async def _reserve(self, principal: Principal, file: File, verdict: Verdict) -> Lease | None:
        if not file.is_metered:
            return None
        return await self.quotas.reserve(principal, file, verdict.representation_bytes)

    async def _send(self, request: web.Request, response: web.StreamResponse, source: Source, verdict: Verdict) -> None:
        transfer = request[TRANSFER]
        try:
            async with answering_within(self.storage_timeout):
                opened = await source.storage.open(source.copy.location)
            with contextlib.closing(opened):
                if opened.stat.version != source.expected.version:
                    raise CopyChangedError(f"{source.copy.location}: changed since it was ingested")
                sender = Sender(
                    request,
                    source.storage,
                    opened,
                    verdict,
                    transfer,
                    send_timeout=self.send_timeout,
                    storage_timeout=self.storage_timeout,
                )
                await sender.send(response)
        except StorageError as error:
            raise _storage_failure(error) from error
        if transfer.problem is not None:
            log.warning("cut after %s of %s bytes: %r", transfer.sent, transfer.promised, transfer.problem)


def choose(file: File, locations: Mapping[str, Location]) -> tuple[Copy, OnDisk]:
    """The copy to serve: of those that are online here, the one at the location with the lowest priority number.

    Raises:
        GatewayError: 410 all copies would have to be restored first; 503 no location of this gateway has a copy.
    """
    held = [copy for copy in file.copies if copy.storage in locations]
    for copy in sorted(held, key=lambda copy: locations[copy.storage].priority):
        location = locations[copy.storage]
        if copy.state == "ONLINE" and location.type == "ONLINE" and isinstance(location.storage, OnDisk):
            return copy, location.storage
    if held:
        raise GatewayError(HTTPStatus.GONE, "This file is not online; it must be restored first.", code="NotOnline")
    raise unavailable("No storage location of this gateway holds this file.", retry_after=300, code="NoStorage")


def _representation(file: File, expected: Stat) -> Representation:
    """The entity-tag is the checksum where it is known, so that it is the same for every copy and for ever."""
    tag = file.checksum.lower() if file.checksum else expected.version
    return Representation(expected.size, f'"{tag}"', expected.modified, file.mime_type or UNKNOWN_TYPE)


def _fields(request: web.Request, file: File, verdict: Verdict) -> dict[str, str]:
    kind: Literal["inline", "attachment"] = "inline" if _flag(request, "isContentInline") else "attachment"
    fields = {**SAFETY_FIELDS, **digest_fields(file.checksum_algorithm, file.checksum), **verdict.headers}
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
