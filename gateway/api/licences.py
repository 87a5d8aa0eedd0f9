"""Licences: REGARDS' ``/license`` of the tenant, and ``/collections/{collectionId}/license``."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from gateway.api.admin import actor_of, no_content
from gateway.api.bodies import answer, bad, read_form
from gateway.api.callers import caller, forbidden, with_role
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.errors import unauthorized
from gateway.identity.login import is_own_path
from gateway.identity.principal import Principal
from gateway.links import CLIENT, base_url, is_by_another_site
from gateway.rights import licences
from gateway.rights.licences import Acceptance, Licence, is_accepted


async def get_license(request: web.Request) -> web.Response:
    """``GET /license``: the licence of the tenant, and whether the caller has accepted it."""
    principal = await caller(request, "download")
    return _as_regards(await licences.of_tenant(request.app[DATABASE], principal), principal)


async def put_license(request: web.Request) -> web.Response:
    """``PUT /license``: accept the licence of the tenant."""
    principal = await _acceptant(request)
    licence = await licences.of_tenant(request.app[DATABASE], principal)
    if licence is not None:
        await _accept(request, principal, licence)
        licence = await licences.of_tenant(request.app[DATABASE], principal)
    return _as_regards(licence, principal)


async def reset_license(request: web.Request) -> web.Response:
    """``PUT /license/reset``: a new version of the tenant's licence, so that everyone is asked again. 204."""
    principal = await with_role(request, "ADMIN")
    await licences.reset(request.app[DATABASE], principal.tenant, actor_of(request, principal))
    return no_content()


async def get_collection_license(request: web.Request) -> web.Response:
    """``GET /collections/{collectionId}/license``: the licence that applies, and whether the caller has accepted it."""
    principal = await caller(request, "download")
    return _told(await _of_collection(request, principal), principal)


async def put_collection_license(request: web.Request) -> web.Response:
    """``PUT /collections/{collectionId}/license``: accept it."""
    principal = await _acceptant(request)
    licence = await _of_collection(request, principal)
    if licence is not None:
        await _accept(request, principal, licence)
        licence = await _of_collection(request, principal)
    return _told(licence, principal)


async def post_collection_license(request: web.Request) -> web.Response:
    """``POST /collections/{collectionId}/license``, by a form on a page: accept it, and go on to ``next`` (303)."""
    if is_by_another_site(request):
        raise forbidden("A page of another site accepts no licence.")
    principal = await _acceptant(request)
    then = (await read_form(request)).get("next", request.rel_url.raw_path)
    if not is_own_path(then):
        raise bad("'next' must be a path of this site.")
    licence = await _of_collection(request, principal)
    if licence is not None:
        await _accept(request, principal, licence)
    location = f"{base_url(request, request.app[DOWNLOADS].public_url)}{then}"
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store", "Location": location})


def routes(prefix: str) -> list[web.RouteDef]:
    """REGARDS' routes below ``prefix``."""
    path = f"{prefix}/license"
    return [
        web.get(path, get_license),
        web.put(path, put_license),
        web.put(f"{path}/reset", reset_license),
    ]


def stac_routes(root: str) -> list[web.RouteDef]:
    """Those of collections below the path of a root of the STAC API."""
    path = f"{root}/collections/{{collectionId}}/license"
    return [
        web.get(path, get_collection_license),
        web.put(path, put_collection_license),
        web.post(path, post_collection_license),
    ]


async def _acceptant(request: web.Request) -> Principal:
    """Who calls, if he can accept a licence by this request.

    Raises:
        GatewayError: 401 he is anonymous, or comes by a link; 403 by a session from a page of others (see `Sessions`).
    """
    principal = await caller(request, "download")
    if principal.is_anonymous:
        raise unauthorized("only known callers can accept a licence")
    if principal.credential not in licences.ACCEPT_BY_PUT:
        raise forbidden(f"A {principal.credential} accepts no licence.")
    return principal


async def _accept(request: web.Request, principal: Principal, licence: Licence) -> None:
    await licences.accept(request.app[DATABASE], licence, Acceptance.by(principal, request[CLIENT].address))


async def _of_collection(request: web.Request, principal: Principal) -> Licence | None:
    hide = request.app[DOWNLOADS].catalog.settings.hide_forbidden
    collection = request.match_info["collectionId"]
    return await licences.of_collection(request.app[DATABASE], principal, collection, hide_forbidden=hide)


def _as_regards(licence: Licence | None, principal: Principal) -> web.Response:
    """As REGARDS has it: a resource with links, of which there are none here."""
    content = {"accepted": is_accepted(licence, principal), "licenseLink": licence.url if licence else None}
    return answer({"content": content, "links": []})


def _told(licence: Licence | None, principal: Principal) -> web.Response:
    accepted_at = licence.accepted_at if licence else None
    return answer(
        {
            "accepted": is_accepted(licence, principal),
            "acceptedAt": accepted_at and accepted_at.isoformat().replace("+00:00", "Z"),
            "licenseLink": licence.url if licence else None,
            "title": licence.title if licence else None,
            "version": licence.version if licence else None,
            "public": licence is None or licence.is_public,
            "links": [{"rel": "license", "href": licence.url}] if licence else [],
        }
    )
