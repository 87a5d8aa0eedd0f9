"""Restores of the caller: ``/restores``. Not of REGARDS, which tells nobody what becomes of one."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from aiohttp import web

from gateway.api.bodies import answer, bad, members, read_json
from gateway.api.callers import caller, forbidden, is_administrator
from gateway.api.event_stream import Event, event_json, stream
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.api.order_bodies import page_of, time_text
from gateway.api.orders import path_number
from gateway.errors import GatewayError, unauthorized, unavailable
from gateway.following import Following
from gateway.identity.principal import Principal
from gateway.links import base_url, scope_query
from gateway.rights.access import access
from gateway.staging import wishes
from gateway.staging.estimates import retry_after
from gateway.staging.states import of_restore
from gateway.staging.waiting import state_fields
from gateway.staging.wishes import Scope, Told, no_restore

FOLLOWING = web.AppKey("following_restores", Following)
_GOES_ON = frozenset({"QUEUED", "STAGING"})


async def get_restores(request: web.Request) -> web.Response:
    """``GET /restores``: what the caller, or an order of his, asked for; the newest first."""
    principal, (number, size) = await _user(request), page_of(request)
    mine = Scope(principal.tenant, principal.email or "")
    settings = request.app[DOWNLOADS].waiting.settings
    found, total = await wishes.page(request.app[DATABASE], settings, mine, limit=size, offset=number * size)
    metadata = {"size": size, "totalElements": total, "totalPages": -(-total // size), "number": number}
    return answer({"metadata": metadata, "content": [_body(request, one, principal) for one in found]})


async def get_restore(request: web.Request) -> web.Response:
    """``GET /restores/{restoreId}``: how it stands, and in Retry-After when to ask again."""
    principal = await caller(request, "download")
    return await _told(request, principal)


async def patch_restore(request: web.Request) -> web.Response:
    """``PATCH /restores/{restoreId}`` with ``{"hours": …}``: it is to be readable so long, from now or then on."""
    principal = await _user(request)
    body = members(await read_json(request), ("hours",))
    waiting = request.app[DOWNLOADS].waiting
    hours, most = body["hours"], waiting.settings.max_hours
    if not isinstance(hours, int | float) or isinstance(hours, bool) or not 0 < hours <= most:
        raise bad(f"'hours' must be a number above 0, and at most {most:g}.")
    restore_id, scope = _restore_id(request), scope_of(principal)
    await _see(request, principal, await wishes.one(request.app[DATABASE], waiting.settings, scope, restore_id))
    await wishes.extend(request.app[DATABASE], scope, restore_id, float(hours))
    return await _told(request, principal)


async def delete_restore(request: web.Request) -> web.Response:
    """``DELETE /restores/{restoreId}``: the caller does not want it any more; it ends if nobody else does."""
    principal = await _user(request)
    await wishes.cancel(request.app[DATABASE], scope_of(principal), _restore_id(request))
    return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})


async def get_events(request: web.Request) -> web.StreamResponse:
    """``GET /restores/{restoreId}/events``: how it goes on, until it is restored or comes to nothing."""
    principal, restore_id = await caller(request, "download"), _restore_id(request)
    settings = request.app[DOWNLOADS].waiting.settings

    async def present(*, renew: bool) -> Event:
        nonlocal principal
        if renew:
            principal = await caller(request, "download")
        told = await wishes.one(request.app[DATABASE], settings, scope_of(principal), restore_id)
        body = _body(request, told, principal)
        del body["links"]
        if told.restore.state == "QUEUED" and told.restore.ready_at is not None:
            # What is only reckoned changes each time it is.
            del body["estimatedDate"]
        return Event(event_json(body), is_last=told.restore.state not in _GOES_ON)

    with request.app[FOLLOWING].follow(restore_id, (principal.tenant, principal.email)) as follower:
        return await stream(request, follower, present)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    one = f"{prefix}/restores/{{restoreId}}"
    return [
        web.get(f"{prefix}/restores", get_restores, allow_head=False),
        web.get(one, get_restore, allow_head=False),
        web.patch(one, patch_restore),
        web.delete(one, delete_restore),
        web.get(f"{one}/events", get_events, allow_head=False),
    ]


async def end_streams(app: web.Application) -> None:
    """Signal ``on_shutdown``: streams would go on for as long as the process lets them."""
    app[FOLLOWING].end()


def scope_of(principal: Principal) -> Scope:
    """The restores that ``principal`` reaches: those he wished; an administrator all of his tenant."""
    return Scope(principal.tenant, principal.email or "", is_administrator(principal))


async def _user(request: web.Request) -> Principal:
    principal = await caller(request, "download")
    if principal.is_anonymous:
        raise unauthorized("anonymous callers share what they ask for: show a bearer token or an API key")
    return principal


def _restore_id(request: web.Request) -> int:
    return path_number(request, "restoreId", no_restore(request.match_info["restoreId"]))


async def _see(request: web.Request, principal: Principal, told: Told) -> None:
    """See that the caller has a right to the file still: nothing stays for one whose right was withdrawn.

    Raises:
        GatewayError: 403, 409, 503.
    """
    if told.product is None:
        raise GatewayError(HTTPStatus.CONFLICT, "The file of this restore is gone.")
    catalog = request.app[DOWNLOADS].catalog
    verdict = (await access(request.app[DATABASE], catalog.policies, principal, [told.product])).get(told.product)
    may: bool | None = False
    if verdict is not None:
        may = verdict.visible
        if may and told.data_type not in catalog.settings.open_data_types:
            may = verdict.downloadable
    if may is None:
        raise unavailable("What decides on this product does not answer at the moment.", code="PolicyUnavailable")
    if not may:
        raise forbidden("You have no right to this file any more.")


async def _told(request: web.Request, principal: Principal) -> web.Response:
    settings = request.app[DOWNLOADS].waiting.settings
    told = await wishes.one(request.app[DATABASE], settings, scope_of(principal), _restore_id(request))
    response = answer(_body(request, told, principal))
    response.headers.update(state_fields(of_restore(told.restore)))
    if told.restore.state in _GOES_ON:
        response.headers["Retry-After"] = str(retry_after(told.restore.ready_at, _now(told)))
    return response


def _body(request: web.Request, told: Told, principal: Principal) -> dict[str, Any]:
    restore, downloads = told.restore, request.app[DOWNLOADS]
    base = f"{base_url(request, downloads.public_url)}{downloads.waiting.prefix}"
    scope = scope_query(principal)
    links = [{"rel": "self", "href": f"{base}/restores/{restore.restore_id}{scope}"}]
    if told.product is not None and told.checksum is not None:
        path = f"/downloads/{quote(told.product, safe='')}/files/{told.checksum}"
        links.append({"rel": "download", "href": f"{base}{path}{scope}"})
    dates = {
        "requestDate": restore.requested_at,
        "estimatedDate": restore.ready_at,
        "restoreDate": restore.restored_at,
        "expirationDate": restore.expires_at,
        "endDate": restore.ended_at,
    }
    return {
        "id": restore.restore_id,
        "status": restore.state,
        "state": of_restore(restore).state.value,
        "productId": told.product,
        "checksum": told.checksum,
        "filename": told.name,
        "filesize": told.size,
        "hours": _number(restore.hours),
        **{name: time_text(value) for name, value in dates.items() if value is not None},
        **({"error": restore.error} if restore.error is not None else {}),
        "links": links,
    }


def _number(hours: float) -> float:
    return int(hours) if math.isfinite(hours) and hours == int(hours) else hours


def _now(told: Told) -> Any:
    return told.restore.now or told.restore.requested_at
