"""The one pipeline: from a request for a file to its bytes. Every door leads here.

who        identity.identify      -> Principal   401
what, may  catalog.locate         -> File        404 403 423
where      sources.choose         -> Candidates  404 410 502 503
how much   http.evaluate          -> Verdict     304 412 416
how        policy.decide          -> Decision    stream, redirect or accel

Then what is streamed:
quota      quotas.reserve         -> Lease       429 503
send       delivery.Sender        200 206        and the lease is settled, whatever happens

And what is handed over, to the storage itself or the proxy in front:
hand over  handover               200 307        404 502 503
quota      quotas.charge                         429 503; whole, since nobody will tell what was sent

And where no copy can be read before it is restored (``NotOnline``), and that is the gateway's to do:
quota      quotas.estimate                       429 503; nothing changes
restore    waiting.begin          202            429 503; whoever comes back later begins above

And what is only asked about (``?dryRun=true``; HEAD with ``Prefer: quota``):
quota      quotas.estimate        200            503; nothing changes
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import cast

from aiohttp import web
from multidict import CIMultiDict, MultiMapping

from gateway import preview
from gateway.catalog.locate import Catalog
from gateway.catalog.model import Address, ByAsset, File
from gateway.companion.items import Items
from gateway.delivery.allowance import Allowance, AllowanceEndedError
from gateway.delivery.content import Content
from gateway.delivery.pace import Pace
from gateway.delivery.policy import Circumstances, decide
from gateway.delivery.sender import Sender
from gateway.delivery.transfer import Transfer
from gateway.errors import GatewayError, unavailable
from gateway.families import family_of
from gateway.handover import offload, redirect
from gateway.http.evaluate import Verdict, evaluate
from gateway.http.offload import OFFER
from gateway.identity.chain import IdentityChain
from gateway.identity.principal import Principal
from gateway.identity.scopes import require_scope
from gateway.licence_links import accepts_licence, show_way_to_accept
from gateway.links import CLIENT, shown_by
from gateway.locations import Location
from gateway.plans import SAFETY_FIELDS, Plan, fields_of, is_dry_run, representation
from gateway.quotas.service import Quotas, Way
from gateway.quotas.standing import fields as rate_limit_fields
from gateway.quotas.standing import refusal
from gateway.quotas.usage import Estimate
from gateway.request_keys import ASKED, PRINCIPAL, TRANSFER, Asked
from gateway.rights.licences import NotAcceptedError
from gateway.sources import NOT_ONLINE, Candidate, Nearline, Resting, choose, expect, failure
from gateway.staging.pins import Readers
from gateway.staging.waiting import Waiting, refused, state_fields
from gateway.storage import Stat, StorageError, can_sign
from gateway.verification import Verifier

log = logging.getLogger(__name__)

_REFUSED = {
    HTTPStatus.PRECONDITION_FAILED: "The file is not in the state that the request asks for.",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The file has no bytes in the range that the request asks for.",
}

_MAY_BE_RESTORED = frozenset({NOT_ONLINE, "FileMissing", "FileChanged", "FileBroken"})
"""Codes of refusals that may be due to a copy that must be restored, or was and is gone."""

CLOSING_SECONDS = 3.0
"""More than a download needs to end once it is cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Downloads:
    """Answers requests for files."""

    identity: IdentityChain
    catalog: Catalog
    locations: Mapping[str, Location]
    """Storage locations of this gateway by name."""
    quotas: Quotas
    pace: Pace
    verifier: Verifier
    redirect_agents: Sequence[str]
    """Clients, with their oldest version, that keep a token from other hosts."""
    public_url: str | None
    """Base of absolute links; None takes the request's Host."""
    clock: Callable[[], datetime.datetime]
    resting: Resting
    """The storage locations that failed a moment ago."""
    pins: Readers
    """Keep what is read from the cache of restored copies."""
    waiting: Waiting
    """Has files restored that are not online."""
    upstream: Items | None = None
    """The catalogue that the one here follows, if it does."""
    running: set[asyncio.Task[object]] = dataclasses.field(default_factory=set)
    """Requests that hold a lease."""

    async def answer(
        self,
        request: web.Request,
        address: Address,
        principal: Principal | None = None,
        *,
        accepts_waiting: bool = False,
    ) -> web.StreamResponse:
        """Answer a GET or HEAD for the file at ``address``; for ``principal``, where another door has let him in.

        Query parameters: ``isContentInline=true`` has a browser show the file instead of saving it;
        ``acceptLicense=true`` (GET with a token or an API key) accepts the licence of its dataset first (both are
        REGARDS');
        ``dryRun=true`` (GET) tells what the download would be charged, as JSON, and changes nothing.

        A file that must be restored first is 503, or 202 where the client prefers that (``Prefer: respond-async``) or
        all clients of the door are used to it (``accepts_waiting``).

        Raises:
            GatewayError: the refusals listed at the top of this module.
        """
        asked = request[ASKED] = Asked(address)
        if principal is None:
            principal = await self.identity.identify(shown_by(request, address))
        request[PRINCIPAL] = principal
        require_scope(principal, "download")
        file = asked.file = await self._locate(request, address, principal)
        if principal.link is not None and principal.link.is_counted and not file.is_metered:
            raise GatewayError(HTTPStatus.FORBIDDEN, "What this link is good for cannot be counted for this file.")
        try:
            return await self._deliver(request, file, principal)
        except GatewayError as error:
            copy = await self._to_restore(file, principal, error)
            if copy is None:
                raise refused(family_of(request), error) from error.__cause__
        return await self._have_restored(request, file, principal, copy, accepted=accepts_waiting)

    async def _deliver(self, request: web.Request, file: File, principal: Principal) -> web.StreamResponse:
        plan = await self.plan(request.method, request.headers, file, principal, by_proxy=request[CLIENT].by_proxy)
        asked = request[ASKED]
        asked.way, asked.storage = plan.decision.way, plan.candidates[0].copy.storage
        fields = fields_of(request, plan)
        status = plan.verdict.status
        if status >= HTTPStatus.BAD_REQUEST:
            raise GatewayError(status, _REFUSED[status], headers=plan.verdict.headers)
        if is_dry_run(request):
            return await self._dry_run(plan, principal)
        if request.method == "HEAD":
            fields |= await self._preview(request, file, principal)
            return web.StreamResponse(status=status, headers=fields)
        if status == HTTPStatus.NOT_MODIFIED:
            return web.StreamResponse(status=status, headers=fields)
        if plan.decision.way != "stream":
            return await self._hand_over(request, plan, fields, principal)
        transfer = Transfer(plan.charged)
        with self.settled_before_the_end():
            if not file.is_metered:
                return await self._send(request, plan, fields, transfer, None)
            lease = await self.quotas.reserve(principal, file, transfer)
            try:
                with self.quotas.pacing(lease) as allowance:
                    fields |= rate_limit_fields(lease.standings)
                    return await self._send(request, plan, fields, transfer, allowance)
            finally:
                await self.quotas.settle(lease, delivered=transfer.delivered)

    async def _to_restore(self, file: File, principal: Principal, error: GatewayError) -> Nearline | None:
        """The copy that must be restored first, where that is why a download was refused, and may be done."""
        if error.code not in _MAY_BE_RESTORED:
            return None
        return await self.waiting.copy_to_restore(file, principal, error)

    async def _have_restored(
        self, request: web.Request, file: File, principal: Principal, copy: Nearline, *, accepted: bool
    ) -> web.StreamResponse:
        """Answer what can be answered without the bytes; else have the file restored, if its download is admitted."""
        plan = self._plan_of_nearline(request, file, copy)
        status = plan.verdict.status if plan is not None else HTTPStatus.OK
        if plan is not None and status >= HTTPStatus.BAD_REQUEST:
            raise GatewayError(status, _REFUSED[status], headers=plan.verdict.headers)
        only_asks = is_dry_run(request)
        if request.method == "HEAD" or status == HTTPStatus.NOT_MODIFIED or only_asks:
            state = state_fields(await self.waiting.state(file))
            if only_asks:
                if plan is None:
                    raise unavailable("What it is charged is known once it is restored.")
                response = await self._dry_run(plan, principal)
                response.headers.update(state)
                return response
            if plan is None:
                return web.StreamResponse(headers=SAFETY_FIELDS | state)
            fields = fields_of(request, plan) | state
            if request.method == "HEAD":
                of_get = self._plan_of_nearline(request, file, copy, method="GET")
                fields |= await self._preview(request, file, principal, of_get)
            return web.StreamResponse(status=status, headers=fields)
        if file.is_metered:
            size = file.size if file.size is not None else copy.copy.size
            estimate = await self.quotas.estimate(principal, file, size or 0)
            if not estimate.admitted:
                raise refusal(estimate.standings, principal.email or "public")
        return await self.waiting.begin(request, file, principal, copy, accepted=accepted)

    async def plan(
        self, method: str, headers: MultiMapping[str], file: File, principal: Principal, *, by_proxy: bool
    ) -> Plan:
        """How a request for ``file`` is answered if the quota allows it. Nothing is opened, spent or changed.

        Args:
            method: GET or HEAD.
            headers: of the request.
            file: that ``principal`` may have.
            principal: the caller.
            by_proxy: whether the request came by a trusted proxy.

        Raises:
            GatewayError: 404, 410, 502 or 503; no copy can give the file.
        """
        candidates = choose(file, self.locations, principal.tenant, resting=self.resting)
        unseen = file.reference and candidates[0].copy.recorded is None
        if method == "GET" and unseen and can_sign(candidates[0].location.storage):
            # Held by somebody else, who is best asked by the client itself. Its ranges and preconditions, too.
            stand_in = Stat(file.size or 0, None, "unseen")
            verdict = evaluate(method, CIMultiDict(), representation(file, stand_in), self.clock())
            plan = self._plan(headers, file, candidates, stand_in, verdict, by_proxy=by_proxy)
            if plan.decision.way == "redirect":
                return plan
        ask = method == "HEAD" or file.size == 0
        expected, candidates = await expect(
            file, candidates, self.resting, ask=ask, storage_timeout=self.pace.storage_timeout
        )
        verdict = evaluate(method, headers, representation(file, expected), self.clock())
        return self._plan(headers, file, candidates, expected, verdict, by_proxy=by_proxy)

    async def estimate(self, plan: Plan, principal: Principal) -> Estimate:
        """What a GET that is answered by ``plan`` would be charged now. Nothing is changed.

        Raises:
            GatewayError: 503 nobody knows at the moment.
        """
        if not plan.file.is_metered or plan.verdict.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return preview.NOTHING
        way: Way = "stream" if plan.decision.way == "stream" else "whole"
        return await self.quotas.estimate(principal, plan.file, plan.charged, way)

    async def close(self) -> None:
        """Wait, within bounds, for downloads that were cut at the end of the process: they are to be settled, too."""
        if self.running:
            await asyncio.wait(self.running, timeout=CLOSING_SECONDS)

    def _plan(
        self,
        headers: MultiMapping[str],
        file: File,
        candidates: Sequence[Candidate],
        expected: Stat,
        verdict: Verdict,
        *,
        by_proxy: bool,
    ) -> Plan:
        best = candidates[0]
        offload = best.location.offload
        circumstances = Circumstances(
            delivery=best.location.delivery,
            passes_through=best.location.verify == "always",
            can_sign=can_sign(best.location.storage) is not None,
            offered=by_proxy
            and offload is not None
            and headers.get(OFFER) == offload.field
            and offload.suits("GET", headers, verdict, best.copy.location),
            several_parts=len(verdict.parts) > 1,
            partial=verdict.status == HTTPStatus.PARTIAL_CONTENT,
            size=expected.size if file.size is not None else max(expected.size, best.location.redirect_min_size),
            redirect_min_size=best.location.redirect_min_size,
            agents=self.redirect_agents,
        )
        return Plan(file, candidates, expected, verdict, decide(circumstances, headers))

    def _plan_of_nearline(
        self, request: web.Request, file: File, copy: Nearline, *, method: str | None = None
    ) -> Plan | None:
        """How a download will be answered once ``copy`` is restored; None as long as nobody knows what it is."""
        # Without a checksum what is fetched into the cache has a tag of its own.
        recorded = copy.copy.recorded if file.checksum is not None or copy.storage.in_place else None
        if recorded is None and file.checksum is not None and file.size is not None:
            recorded = Stat(file.size, copy.copy.modified, "unseen")
        if recorded is None or (file.size is not None and recorded.size != file.size):
            return None
        candidates = [Candidate(copy.copy, copy.location)]
        verdict = evaluate(method or request.method, request.headers, representation(file, recorded), self.clock())
        by_proxy = request[CLIENT].by_proxy
        return self._plan(request.headers, file, candidates, recorded, verdict, by_proxy=by_proxy)

    @contextlib.contextmanager
    def settled_before_the_end(self) -> Iterator[None]:
        """Have `close` wait for the request that is served in the block."""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self.running.add(task)
        try:
            yield
        finally:
            self.running.discard(task)

    async def _locate(self, request: web.Request, address: Address, principal: Principal) -> File:
        if accepts_licence(request) and not is_dry_run(request):
            await self.catalog.accept_licence(address, principal, request[CLIENT].address)
        hindrance = None
        if self.upstream is not None and isinstance(address, ByAsset) and principal.tenant == self.upstream.tenant:
            hindrance = await self.upstream.ensure(address.collection, address.item)
        try:
            return await self.catalog.locate(address, principal)
        except NotAcceptedError as error:
            show_way_to_accept(error, request, principal, self.public_url)
            raise
        except GatewayError as error:
            if hindrance is not None and error.status == HTTPStatus.NOT_FOUND:
                # It may well be there: nobody could be asked.
                raise hindrance from error
            raise

    async def _dry_run(self, plan: Plan, principal: Principal) -> web.Response:
        estimate = await self.estimate(plan, principal)
        fields = {"Cache-Control": "no-store", "Vary": "Authorization", **rate_limit_fields(estimate.standings)}
        return web.json_response(preview.body_of(estimate, plan.decision.way), headers=fields)

    async def _preview(
        self, request: web.Request, file: File, principal: Principal, plan: Plan | None = None
    ) -> Mapping[str, str]:
        """The fields that tell whoever prefers to know what the GET would be charged; none if nobody knows.

        ``plan``: of the GET, where that is known.
        """
        if not preview.is_preferred(request.headers):
            return {}
        with contextlib.suppress(GatewayError):
            by_proxy = request[CLIENT].by_proxy
            plan = plan or await self.plan("GET", request.headers, file, principal, by_proxy=by_proxy)
            return preview.fields_of(await self.estimate(plan, principal))
        return {}

    async def _hand_over(
        self, request: web.Request, plan: Plan, fields: Mapping[str, str], principal: Principal
    ) -> web.StreamResponse:
        best, storage_timeout = plan.candidates[0], self.pace.storage_timeout
        accel = plan.decision.way == "accel"
        try:
            if accel:
                response = await offload(best, plan.expected, fields, storage_timeout=storage_timeout)
            else:
                response = await redirect(best, fields, storage_timeout=storage_timeout)
        except StorageError as error:
            raise failure(error) from error
        if plan.file.is_metered:
            response.headers.update(rate_limit_fields(await self.quotas.charge(principal, plan.file, plan.charged)))
        transfer = request[TRANSFER] = Transfer(plan.charged)
        transfer.hand_over("offloaded" if accel else "redirected")
        if best.copy.entry_id is not None:
            self.pins.handed_over(best.copy.storage, best.copy.location, best.location.redirect_ttl)
        self.verifier.touched(plan.file, best, plan.expected.version)
        return response

    async def _send(
        self,
        request: web.Request,
        plan: Plan,
        fields: Mapping[str, str],
        transfer: Transfer,
        allowance: Allowance | None,
    ) -> web.StreamResponse:
        request[TRANSFER] = transfer
        response = web.StreamResponse(status=plan.verdict.status, headers=fields)
        content = self.content_of(plan.file, plan.candidates, plan.expected)
        try:
            with contextlib.closing(content), self._pinned(plan):
                sender = Sender(request, content, plan.verdict, transfer, pace=self.pace, allowance=allowance)
                await sender.send(response)
        except StorageError as error:
            raise failure(error) from error
        except AllowanceEndedError as error:
            raise unavailable("The quota service does not answer at the moment; try again.") from error
        finally:
            self.learn(plan.file, plan.candidates, content)
            if content.used:
                request[ASKED].storage = content.used[-1][0].storage_name
        if transfer.problem is not None:
            log.warning("cut after %s of %s bytes: %r", transfer.sent, transfer.promised, transfer.problem)
        return response

    def _pinned(self, plan: Plan) -> contextlib.AbstractContextManager[object]:
        """Keep what the block reads from the cache, whichever copy it is."""
        stack = contextlib.ExitStack()
        for copy in (one.copy for one in plan.candidates if one.copy.entry_id is not None):
            stack.enter_context(self.pins.reading(copy.storage, copy.location))
        return stack

    def content_of(self, file: File, candidates: Sequence[Candidate], expected: Stat) -> Content:
        """The bytes of ``file``, from the first of ``candidates`` that can give them; the best must be ``expected``."""
        begin_proof = self.verifier.proof_of(file)
        best, *others = candidates
        sources = [best.source(expected, provable=begin_proof is not None)]
        sources += [other.source(other.copy.recorded, provable=begin_proof is not None) for other in others]
        return Content(sources, expected.size, storage_timeout=self.pace.storage_timeout, begin_proof=begin_proof)

    def learn(self, file: File, candidates: Sequence[Candidate], content: Content) -> None:
        """Keep what an answer has shown of copies and storages."""
        by_id = {candidate.copy.copy_id: candidate for candidate in candidates}
        for source in content.unavailable:
            self.resting.add(source.storage_name)
        for source, version, holds in content.proved:
            self.verifier.proved(by_id[source.copy_id], version, holds=holds)
        proved = {source.copy_id for source, _, _ in content.proved}
        for source, version in content.used:
            if source.copy_id not in proved:
                self.verifier.touched(file, by_id[source.copy_id], version)
