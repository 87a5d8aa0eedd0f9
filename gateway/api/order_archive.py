"""A whole order as one file: ``/user/orders/{orderId}/download``."""

from __future__ import annotations

from aiohttp import web

from gateway.api.callers import caller
from gateway.api.keys import DATABASE
from gateway.api.orders import order_id_of, plain, scope_of
from gateway.catalog.model import ByAsset
from gateway.errors import unauthorized
from gateway.orders import reading
from gateway.orders.archives import Archives
from gateway.request_keys import ASKED, Asked

ARCHIVES = web.AppKey("archives", Archives)


async def download_order(request: web.Request) -> web.StreamResponse:
    """``GET`` and ``HEAD /user/orders/{orderId}/download``: all files that are ready as a ZIP.

    For whoever may see the order, with his own rights and quota.
    """
    request[ASKED] = Asked(ByAsset("orders", request.match_info["orderId"], "archive"))
    principal = await caller(request, "download")
    if principal.is_anonymous:
        raise unauthorized("orders belong to users: show a bearer token or an API key")
    order = await reading.one(request.app[DATABASE], scope_of(principal), order_id_of(request))
    with plain():
        return await request.app[ARCHIVES].answer(request, order, principal)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    path = f"{prefix}/user/orders/{{orderId}}/download"
    return [web.get(path, download_order, allow_head=False), web.head(path, download_order)]
