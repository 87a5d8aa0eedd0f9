"""REGARDS' basket of the caller: ``/order/basket``."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.api.basket_bodies import read_filters, read_selection, read_upload, told
from gateway.api.bodies import answer, bad, instant
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.api.orders import ORDERING, nothing, owner, path_number
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.orders.basket_page import BasketPage, basket_of
from gateway.orders.baskets import NOTHING, EmptySelectionError
from gateway.quotas.outlook import Outlook, outlook

_NONE = "There is no basket"
_FEW = 10
"""Datasets whose selections are told in no time."""
_QUOTA_SECONDS = 2.0
"""That a basket waits to be told what is left of quotas; then it is shown without that."""


async def post_selection(request: web.Request) -> web.Response:
    """``POST /order/basket/selection``: adds what a query finds, all of it but some products, or some products."""
    principal = await owner(request)
    return await _add(request, principal, await read_selection(request))


async def post_upload(request: web.Request) -> web.Response:
    """``POST /order/basket/selection/upload``: adds the products that a file names, one on each line."""
    principal = await owner(request)
    return await _add(request, principal, await read_upload(request))


async def get_basket(request: web.Request) -> web.Response:
    """``GET /order/basket``."""
    principal = await owner(request)
    return await _shown(request, principal, await basket_of(request.app[DATABASE], principal))


async def delete_basket(request: web.Request) -> web.Response:
    """``DELETE /order/basket``."""
    principal = await owner(request)
    await request.app[ORDERING].basket.empty(principal)
    return web.Response(headers={"Cache-Control": "no-store", "Vary": "Authorization"})


async def delete_dataset(request: web.Request) -> web.Response:
    """``DELETE /order/basket/dataset/{datasetSelectionId}``."""
    principal, selection = await owner(request), _selection_id(request)
    return await _shown(request, principal, await request.app[ORDERING].basket.remove_dataset(principal, selection))


async def delete_items(request: web.Request) -> web.Response:
    """``DELETE /order/basket/dataset/{datasetSelectionId}/{itemsSelectionDate}``."""
    principal, selection = await owner(request), _selection_id(request)
    date = instant(request.match_info["itemsSelectionDate"])
    if date is None:
        raise bad("The date of a selection is a time like 2026-11-21T00:00:00.000Z (RFC 3339).")
    basket = await request.app[ORDERING].basket.remove_items(principal, selection, date)
    return await _shown(request, principal, basket)


async def put_filters(request: web.Request) -> web.Response:
    """``PUT /order/basket/dataset/{datasetSelectionId}/updateFileFilters``."""
    principal, selection = await owner(request), _selection_id(request)
    filters = await read_filters(request)
    return await _shown(request, principal, await request.app[ORDERING].basket.filter(principal, selection, filters))


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    base = f"{prefix}/order/basket"
    found = [
        web.post(f"{base}/selection", post_selection),
        web.post(f"{base}/selection/upload", post_upload),
        web.get(base, get_basket, allow_head=False),
        web.delete(base, delete_basket),
        web.put(f"{base}/dataset/{{datasetSelectionId}}/updateFileFilters", put_filters),
    ]
    # REGARDS' guide has a slash too many; its clients have one or two.
    for dataset in (f"{base}/dataset/{{datasetSelectionId}}", f"{base}//dataset/{{datasetSelectionId}}"):
        found += [
            web.delete(dataset, delete_dataset),
            web.delete(f"{dataset}/{{itemsSelectionDate}}", delete_items),
        ]
    return found


async def _add(request: web.Request, principal: Principal, query: str) -> web.Response:
    try:
        basket = await request.app[ORDERING].basket.add(principal, query)
    except EmptySelectionError:
        return nothing(NOTHING)
    return await _shown(request, principal, basket)


async def _shown(request: web.Request, principal: Principal, basket: BasketPage | None) -> web.Response:
    if basket is None:
        return nothing(_NONE)
    left = await _left(request, principal)

    def made() -> web.Response:
        return answer(told(request, request.app[ORDERING], basket, left))

    # It may be megabytes of JSON.
    return await asyncio.to_thread(made) if len(basket.datasets) > _FEW else made()


async def _left(request: web.Request, principal: Principal) -> Outlook | None:
    """What is left of the quotas of ``principal``; None where nobody knows: a basket is shown all the same."""
    downloads = request.app[DOWNLOADS]
    try:
        async with asyncio.timeout(_QUOTA_SECONDS):
            limits = await downloads.catalog.limits(principal)
            _, standings = await downloads.quotas.standings(principal, limits)
    except (GatewayError, TimeoutError):
        return None
    return outlook(standings)


def _selection_id(request: web.Request) -> int:
    return path_number(request, "datasetSelectionId", bad("The id of a selection is a whole number, from 0 on."))
