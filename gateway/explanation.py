"""Why a request is answered as it is: the steps of `gateway.downloads`, told one by one. Nothing is spent or sent."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from types import SimpleNamespace
from typing import cast

from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from gateway.api import regards_downloads, stac_downloads
from gateway.catalog.model import Address, ByAsset, ByChecksum, Copy, File
from gateway.downloads import Downloads
from gateway.errors import Family, GatewayError
from gateway.identity.chain import no_tenant
from gateway.identity.principal import Principal
from gateway.identity.shown import Shown
from gateway.links import API, TENANT, without_link
from gateway.locations import Location
from gateway.plans import Plan
from gateway.quotas.standing import Standing
from gateway.quotas.usage import Estimate
from gateway.sources import NOT_ONLINE, Candidate, assess
from gateway.staging.waiting import refused
from gateway.text import shown

_ADDRESSES: dict[object, tuple[str, Callable[[Mapping[str, str]], Address]]] = {
    regards_downloads.download_file: ("REGARDS", regards_downloads.address),
    stac_downloads.get_download: ("STAC", stac_downloads.address),
}
"""Name and reader of an address, by the handler that its path leads to."""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """The request that is asked about."""

    method: str
    """GET or HEAD."""
    url: URL
    """Absolute, or path and query."""
    headers: CIMultiDictProxy[str]
    principal: Principal | None
    """Who asks; None to take who the headers and the query say."""
    by_proxy: bool
    """Whether the request comes by a trusted proxy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What was decided, and how."""

    name: str
    text: str


async def explain(app: web.Application, downloads: Downloads, question: Question) -> AsyncIterator[Step]:
    """What the gateway decides about a request, in the order in which it does.

    Args:
        app: as it serves; only its routes are used.
        downloads: as the application has it.
        question: the request.
    """
    try:
        async for step in _steps(app, downloads, question):
            yield step
    except GatewayError as error:
        if error.__cause__ is not None:
            yield Step("because", f"{type(error.__cause__).__name__}: {error.__cause__}")
        for name, value in (error.body or {}).items():
            yield Step(name, str(value))
        yield Step("answer", f"{_status(error.status)} ({error.code}): {error.detail}")


async def _steps(app: web.Application, downloads: Downloads, question: Question) -> AsyncIterator[Step]:
    target = _target(question.url, downloads.public_url)
    yield Step("request", f"{question.method} {without_link(target)}")
    found = await _address(app, question.method, target)
    if found is None:
        yield Step("address", "of no download, so that nothing is decided here; see the prefixes of [api]")
        return
    kind, address, tenant = found
    yield Step("address", f"{kind}: {_address_text(address)}")
    shown = Shown(
        question.headers,
        target.query,
        "",
        question.method,
        target.raw_path,
        address,
        tenant=tenant,
        otherwise=app[API].default_tenant if isinstance(address, ByAsset) else None,
    )
    principal = question.principal or await downloads.identity.identify(shown)
    yield Step("caller", _caller_text(principal))
    if tenant is not None and tenant != principal.tenant:
        raise no_tenant(tenant)
    if question.method == "GET" and target.query.get("acceptLicense", "").lower() == "true":
        yield Step("licence", "acceptLicense=true accepts it first, which is not done here")
    file = await downloads.catalog.locate(address, principal)
    yield Step("file", _file_text(file))
    for copy in file.copies:
        yield Step("copy", _copy_text(copy, downloads.locations, principal.tenant))
    if not file.copies:
        yield Step("copy", "the catalogue has none")
    try:
        plan = await downloads.plan(question.method, question.headers, file, principal, by_proxy=question.by_proxy)
    except GatewayError as error:
        # What was found out by asking a storage would be taken note of, which is left to a download.
        is_known = error.code == NOT_ONLINE and error.__cause__ is None
        nearline = await downloads.waiting.copy_to_restore(file, principal, error) if is_known else None
        if nearline is None:
            raise refused(Family.STAC if isinstance(address, ByAsset) else Family.REGARDS, error) from error.__cause__
        yield Step("nearline", f"{_name(nearline.copy)} must be restored: a GET asks for that if its quota admits it")
        waits = HTTPStatus(downloads.waiting.settings.answer)
        yield Step("answer", _status(HTTPStatus.OK if question.method == "HEAD" else waits))
        return
    yield Step("order", ", then ".join(_name(it.copy) for it in plan.candidates))
    yield Step("expected", _expected_text(plan))
    yield Step("verdict", _verdict_text(plan))
    if question.method == "HEAD" or plan.verdict.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        yield Step("delivery", "no bytes are sent, nothing is charged")
        yield Step("answer", _status(plan.verdict.status))
        return
    yield Step("delivery", f"{plan.decision.way}: {plan.decision.reason}")
    redirected = plan.decision.way == "redirect"
    answer = _status(HTTPStatus.TEMPORARY_REDIRECT if redirected else plan.verdict.status)
    if plan.file.is_metered:
        estimate = await downloads.estimate(plan, principal)
        for standing in estimate.standings:
            yield Step("limit", _limit_text(standing))
        yield Step("charge", _charge_text(estimate))
        answer = answer if estimate.admitted else _status(HTTPStatus.TOO_MANY_REQUESTS)
    else:
        yield Step("charge", f"nothing: {file.data_type} does not count")
    yield Step("answer", answer)


def _target(url: URL, public_url: str | None) -> URL:
    """Path and query as the gateway gets them: a proxy in front takes the path of the public URL away."""
    if not url.absolute:
        return url
    base = URL(public_url or "/").raw_path.rstrip("/")
    relative = url.relative()
    if base and url.raw_path.startswith(f"{base}/"):
        relative = relative.with_path(url.raw_path.removeprefix(base), encoded=True, keep_query=True)
    return relative


async def _address(app: web.Application, method: str, target: URL) -> tuple[str, Address, str | None] | None:
    """Which API it is of, the file, and the tenant that the path names."""
    # The router looks at nothing else of a request.
    request = cast("web.Request", SimpleNamespace(method=method, rel_url=target))
    match = await app.router.resolve(request)
    if match.http_exception is not None:
        raise GatewayError(HTTPStatus(match.http_exception.status), "There is nothing at this path.")
    if match.handler not in _ADDRESSES:
        return None
    kind, read = _ADDRESSES[match.handler]
    return kind, read(match), match.get(TENANT)


def _address_text(address: Address) -> str:
    if isinstance(address, ByChecksum):
        return f"checksum {address.checksum!r} in product {address.product!r}"
    return f"asset {address.asset!r} of item {address.item!r} in collection {address.collection!r}"


def _caller_text(principal: Principal) -> str:
    groups = f", groups {', '.join(principal.groups)}" if principal.groups else ""
    who = principal.email or "anonymous"
    return f"{who} of tenant {principal.tenant!r}, role {principal.role}{groups}"


def _file_text(file: File) -> str:
    size = "size unknown" if file.size is None else f"{file.size} bytes"
    checksum = f"{file.checksum_algorithm} {file.checksum}" if file.checksum else "no checksum"
    held = ", held by somebody else" if file.reference else ""
    return f"{file.name!r} of {file.product}: {file.data_type}, {file.mime_type or 'no type'}, {size}, {checksum}{held}"


def _name(copy: Copy) -> str:
    return f"{copy.storage}:{shown(copy.location)}"


def _copy_text(copy: Copy, locations: Mapping[str, Location], tenant: str) -> str:
    location = locations.get(copy.storage)
    where = f", location {location.type} with priority {location.priority}" if location is not None else ""
    found = assess(copy, locations, tenant)
    if not isinstance(found, Candidate):
        can = f"cannot be served: {found.value}"
    elif found.is_verified(copy.version):
        can = "can be served"
    else:
        can = "can be served, not verified yet"
    return f"{_name(copy)}: copy {copy.state}{where}: {can}"


def _expected_text(plan: Plan) -> str:
    expected = plan.expected
    modified = f", modified {expected.modified.isoformat()}" if expected.modified is not None else ""
    return f"{expected.size} bytes, version {expected.version!r}{modified}"


def _verdict_text(plan: Plan) -> str:
    verdict = plan.verdict
    place = verdict.headers.get("Content-Range") or verdict.headers.get("Content-Type", "")
    return f"{_status(verdict.status)}, {verdict.length} bytes of body" + (f", {place}" if place else "")


def _charge_text(estimate: Estimate) -> str:
    downloads = "1 download" if estimate.downloads else "no further download"
    return f"{downloads}, {estimate.octets} bytes"


def _limit_text(standing: Standing) -> str:
    limit = standing.limit
    reset = "" if standing.reset is None else f", changes in {standing.reset:.0f} s"
    used = f"used {standing.used} of {limit.value}{reset}"
    return f"{limit.account}: {limit.metric} {limit.period}: {used}: {standing.state}"


def _status(status: HTTPStatus) -> str:
    return f"{status.value} {status.phrase}"
