"""REGARDS' availability of files, and restores of products.

``/availability/files``, ``/restore`` and, for services, ``/files/availability/status``. Licences are not looked at, as
in REGARDS: a download does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gateway.api.bodies import answer, bad, members, read_json, text
from gateway.api.callers import caller, forbidden, with_role
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.api.order_bodies import time_text
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.links import base_url, scope_query
from gateway.quotas.standing import refusal
from gateway.request_keys import PRINCIPAL
from gateway.rights.access import access
from gateway.sources import restorable
from gateway.staging.model import ASKED, FileState, State
from gateway.staging.products import ProductFile, files_by_checksum, files_of_products
from gateway.staging.requests import Ask, asking
from gateway.staging.states import states
from gateway.staging.waiting import LEAST_ROLE

_MOST_CHECKSUMS = 100
_MOST_FILES_OF_CHECKSUMS = 10_000
"""That many files may share these checksums."""
_MOST_BYTES = 2 * 1024 * 1024
"""Of a list of URNs: there may be 10,000 by setting."""
_ORDER = (
    FileState.ONLINE,
    FileState.RESTORED,
    FileState.RESTORING,
    FileState.NEARLINE,
    FileState.EXPIRED,
    FileState.OFFLINE,
    FileState.LOST,
)
"""Of several files with the same bytes the first of these counts."""


async def get_availability(request: web.Request) -> web.Response:
    """``GET /availability/files/{productId}``."""
    principal, urn = await _asker(request), request.match_info["productId"]
    await _see(request, principal, urn)
    files = await _files(request, principal, [urn])
    return answer(_product(request, urn, files, await _states(request, files)))


async def post_availability(request: web.Request) -> web.Response:
    """``POST /availability/files``: of several products, those left out that the caller may not download."""
    principal = await _asker(request)
    urns = await _allowed(request, principal)
    files = await _files(request, principal, urns)
    return answer(_products(request, urns, files, await _states(request, files)))


async def get_restore(request: web.Request) -> web.Response:
    """``GET /restore/{product_id}``: has the nearline files of a product restored."""
    principal, urn = await _asker(request), request.match_info["product_id"]
    await _see(request, principal, urn)
    files = await _files(request, principal, [urn])
    found = await _restore(request, principal, files)
    return answer(_product(request, urn, files, found, is_mine=True))


async def post_restore(request: web.Request) -> web.Response:
    """``POST /restore``: as for one, of several products."""
    principal = await _asker(request)
    urns = await _allowed(request, principal)
    files = await _files(request, principal, urns)
    return answer(_products(request, urns, files, await _restore(request, principal, files), is_mine=True))


async def post_status(request: web.Request) -> web.Response:
    """``POST /files/availability/status``: for services; of files of the tenant, whatever product they are of."""
    principal = await with_role(request, LEAST_ROLE)
    checksums = _texts(members(await read_json(request), ("checksums",))["checksums"], "checksums")
    if len(checksums) > _MOST_CHECKSUMS:
        detail = f"A maximum of {_MOST_CHECKSUMS} checksums per call is allowed, there are {len(checksums)}."
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    files, _ = await files_by_checksum(
        request.app[DATABASE], principal.tenant, checksums, most=_MOST_FILES_OF_CHECKSUMS
    )
    by_file = await _states(request, files)
    best: dict[str, State] = {}
    for file in files:
        state, key = by_file[file.file_id], (file.checksum or "").lower()
        if key not in best or _ORDER.index(state.state) < _ORDER.index(best[key].state):
            best[key] = state
    known = [(checksum, best[checksum.lower()]) for checksum in checksums if checksum.lower() in best]
    return answer([_file(request, checksum, state) for checksum, state in known])


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    return [
        web.get(f"{prefix}/availability/files/{{productId}}", get_availability, allow_head=False),
        web.post(f"{prefix}/availability/files", post_availability),
        web.get(f"{prefix}/restore/{{product_id}}", get_restore, allow_head=False),
        web.post(f"{prefix}/restore", post_restore),
        web.post(f"{prefix}/files/availability/status", post_status),
    ]


async def _asker(request: web.Request) -> Principal:
    principal = await caller(request, "download")
    if not await request.app[DOWNLOADS].waiting.may_ask(principal):
        raise forbidden(f"This needs the role {LEAST_ROLE}, or one above it.")
    return principal


async def _see(request: web.Request, principal: Principal, urn: str) -> None:
    """See that the caller may download the files of a product.

    Raises:
        GatewayError: 400, 403, 404, 503.
    """
    _check_urn(urn)
    catalog = request.app[DOWNLOADS].catalog
    verdict = (await access(request.app[DATABASE], catalog.policies, principal, [urn])).get(urn)
    if verdict is None or (catalog.settings.hide_forbidden and verdict.visible is False):
        raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no product {urn!r}.")
    if verdict.visible is False:
        raise forbidden("You have no right to this product.")
    if verdict.visible is None or verdict.downloadable is None:
        raise unavailable("What decides on this product does not answer at the moment.", code="PolicyUnavailable")
    if not verdict.downloadable:
        raise forbidden("You have no right to the files of this product.")


async def _allowed(request: web.Request, principal: Principal) -> list[str]:
    """The products that the body names and the caller may download, in its order, each once.

    Raises:
        GatewayError: 400, 503.
    """
    body = members(await read_json(request.clone(client_max_size=_MOST_BYTES)), ("product_ids",))
    urns, most = _texts(body["product_ids"], "product_ids"), _most(request)
    if len(urns) > most:
        raise bad(f"A maximum of {most} productIds per call is allowed, there are {len(urns)}.")
    for urn in urns:
        _check_urn(urn)
    policies = request.app[DOWNLOADS].catalog.policies
    verdicts = await access(request.app[DATABASE], policies, principal, urns)
    return [urn for urn in urns if urn in verdicts and verdicts[urn].visible and verdicts[urn].downloadable]


async def _files(request: web.Request, principal: Principal, urns: Sequence[str]) -> list[ProductFile]:
    most = _most(request)
    files, total = await files_of_products(request.app[DATABASE], principal.tenant, urns, most=most)
    if total > most:
        raise bad(f"Too many files : Cannot compute more than {most} files in once : found {total} files")
    return files


async def _states(request: web.Request, files: Sequence[ProductFile]) -> Mapping[int, State]:
    waiting = request.app[DOWNLOADS].waiting
    found = await states(request.app[DATABASE], waiting.locations, waiting.settings, [file.file_id for file in files])
    return {file.file_id: found.get(file.file_id, State(file.file_id, FileState.LOST)) for file in files}


async def _restore(request: web.Request, principal: Principal, files: Sequence[ProductFile]) -> Mapping[int, State]:
    """Have those restored that must be; how it stands with all of them then.

    Raises:
        GatewayError: 429, 503; nothing could be asked for.
    """
    downloads = request.app[DOWNLOADS]
    waiting = downloads.waiting
    asks: list[Ask] = []
    for file in files:
        copies = restorable(file.copies, waiting.locations, principal.tenant)
        if copies:
            hours = waiting.settings.hours
            asks.append(asking(principal, file.file_id, file.size, copies[0], hours=hours, priority=ASKED))
    if asks:
        _, standings = await downloads.quotas.standings(principal, await downloads.catalog.limits(principal))
        if any(standing.state == "refused" for standing in standings):
            raise refusal(standings, principal.email or "public")
        answers = await waiting.requests.demand_all(asks)
        errors = [one for one in answers if isinstance(one, GatewayError)]
        if len(errors) == len(answers):
            raise errors[0]
    return await _states(request, files)


def _product(
    request: web.Request,
    urn: str,
    files: Sequence[ProductFile],
    found: Mapping[int, State],
    *,
    is_mine: bool = False,
) -> dict[str, Any]:
    told = [
        _file(request, file.checksum, found[file.file_id], is_mine=is_mine) for file in files if file.product == urn
    ]
    return {"id": urn, "files": told}


def _products(
    request: web.Request,
    urns: Sequence[str],
    files: Sequence[ProductFile],
    found: Mapping[int, State],
    *,
    is_mine: bool = False,
) -> dict[str, Any]:
    return {"products": [_product(request, urn, files, found, is_mine=is_mine) for urn in urns]}


def _file(request: web.Request, checksum: str | None, state: State, *, is_mine: bool = False) -> dict[str, Any]:
    """REGARDS' FileAvailabilityStatusDto, and what else is known; the restore to one who asked for it."""
    told: dict[str, Any] = {"checksum": checksum, "available": state.available}
    if state.until is not None:
        told["expiration_date"] = time_text(state.until)
    told["state"] = state.state.value
    if state.ready is not None:
        told["estimated_date"] = time_text(state.ready)
    if is_mine and state.restore_id is not None:
        downloads = request.app[DOWNLOADS]
        base = f"{base_url(request, downloads.public_url)}{downloads.waiting.prefix}"
        href = f"{base}/restores/{state.restore_id}{scope_query(request[PRINCIPAL])}"
        told["restore"] = {"id": state.restore_id, "href": href}
    return told


def _most(request: web.Request) -> int:
    return request.app[DOWNLOADS].waiting.settings.bulk_limit


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list):
        raise bad(f"{name!r} must be a list of texts.")
    return list(dict.fromkeys(text(one, name) for one in value))


def _check_urn(urn: str) -> None:
    if not urn.upper().startswith("URN:"):
        raise bad(f"{urn!r} is no URN.")
