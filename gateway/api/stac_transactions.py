"""The STAC API Transaction extension, for administrators: Collections and Items are made, replaced, patched, deleted.

Who may is a PROJECT_ADMIN of the tenant, and an API key of his with the scope ``admin``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import web

from gateway.administration.work import no_tenant
from gateway.api.admin import INSTANCE_ADMINS, actor_of, known_query, no_content
from gateway.api.bodies import read_long_json
from gateway.api.callers import administrator
from gateway.api.keys import DOWNLOADS, TRANSACTIONS
from gateway.catalog.transactions.entities import Pusher
from gateway.catalog.transactions.transactions import Written
from gateway.links import base_url
from gateway.stac import entity_tags

MOST_BYTES = 16 * 1024 * 1024
"""Of a body."""
BODY_SECONDS = 60.0
"""That a body may take to come."""
JSON, GEOJSON = "application/json", "application/geo+json"


async def post_collection(request: web.Request) -> web.Response:
    """``POST /collections``."""
    pusher = await _pusher(request)
    written = await request.app[TRANSACTIONS].create_collection(pusher, await _body(request))
    return _created(request, written, JSON)


async def put_collection(request: web.Request) -> web.Response:
    """``PUT /collections/{collectionId}``."""
    pusher = await _pusher(request)
    name, body = request.match_info["collectionId"], await _body(request)
    return _answer(await request.app[TRANSACTIONS].replace_collection(pusher, name, body, _match(request)), JSON)


async def delete_collection(request: web.Request) -> web.Response:
    """``DELETE /collections/{collectionId}``."""
    pusher = await _pusher(request)
    await request.app[TRANSACTIONS].delete_collection(pusher, request.match_info["collectionId"], _match(request))
    return no_content()


async def post_items(request: web.Request) -> web.Response:
    """``POST /collections/{collectionId}/items``: an Item, or an ItemCollection."""
    pusher = await _pusher(request)
    collection = request.match_info["collectionId"]
    written = await request.app[TRANSACTIONS].create_items(pusher, collection, await _body(request))
    if written is None:
        return web.Response(status=HTTPStatus.CREATED, headers={"Cache-Control": "no-store"})
    return _created(request, written, GEOJSON)


async def put_item(request: web.Request) -> web.Response:
    """``PUT /collections/{collectionId}/items/{itemId}``."""
    pusher = await _pusher(request)
    collection, item = _names(request)
    body = await _body(request)
    transactions = request.app[TRANSACTIONS]
    return _answer(await transactions.replace_item(pusher, collection, item, body, _match(request)), GEOJSON)


async def patch_item(request: web.Request) -> web.Response:
    """``PATCH /collections/{collectionId}/items/{itemId}``: a JSON merge patch (RFC 7396)."""
    pusher = await _pusher(request)
    collection, item = _names(request)
    body = await _body(request)
    transactions = request.app[TRANSACTIONS]
    return _answer(await transactions.patch_item(pusher, collection, item, body, _match(request)), GEOJSON)


async def delete_item(request: web.Request) -> web.Response:
    """``DELETE /collections/{collectionId}/items/{itemId}``."""
    pusher = await _pusher(request)
    collection, item = _names(request)
    await request.app[TRANSACTIONS].delete_item(pusher, collection, item, _match(request))
    return no_content()


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``; if that has a parameter ``tenant``, they are of that tenant."""
    collections = f"{prefix}/collections"
    collection = f"{collections}/{{collectionId}}"
    items = f"{collection}/items"
    item = f"{items}/{{itemId}}"
    return [
        web.post(collections, post_collection),
        web.put(collection, put_collection),
        web.delete(collection, delete_collection),
        web.post(items, post_items),
        web.put(item, put_item),
        web.patch(item, patch_item),
        web.delete(item, delete_item),
    ]


async def _pusher(request: web.Request) -> Pusher:
    """Who pushes into which tenant: that of his token; INSTANCE_ADMIN names any with ``?tenant=``.

    Raises:
        GatewayError: 401, 403; 400 an unknown parameter; 404 another tenant, whether it exists or not.
    """
    principal = await administrator(request)
    parameters = known_query(request, ("tenant",))
    tenant = parameters.get("tenant", principal.tenant)
    everywhere = principal.role in INSTANCE_ADMINS
    if tenant != principal.tenant and not everywhere:
        raise no_tenant(tenant)
    return Pusher(tenant, actor_of(request, principal), everywhere)


def _names(request: web.Request) -> tuple[str, str]:
    return request.match_info["collectionId"], request.match_info["itemId"]


async def _body(request: web.Request) -> object:
    body: object = await read_long_json(request, most=MOST_BYTES, seconds=BODY_SECONDS)
    return body


def _match(request: web.Request) -> list[str]:
    return request.headers.getall("If-Match", [])


def _created(request: web.Request, written: Written, media_type: str) -> web.Response:
    identifier = quote(str(written.entity["id"]), safe="")
    base = base_url(request, request.app[DOWNLOADS].public_url)
    location = f"{base}{request.rel_url.raw_path}/{identifier}"
    return _answer(written, media_type, status=HTTPStatus.CREATED, fields={"Location": location})


def _answer(
    written: Written, media_type: str, *, status: int = HTTPStatus.OK, fields: Mapping[str, str] | None = None
) -> web.Response:
    body = json.dumps(written.entity, separators=(",", ":")).encode("ascii")
    headers = {"Cache-Control": "no-store", "ETag": entity_tags.field(written.updated), **(fields or {})}
    return web.Response(body=body, status=status, content_type=media_type, headers=headers)
