"""The STAC API: landing page, conformance classes, collections, items, search.

What the caller may not see is not there. A single item or collection that he may not see is answered as a download of
it would be.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from http import HTTPStatus
from typing import Literal

from aiohttp import web
from multidict import MultiDict
from yarl import URL

from gateway.api.bodies import read_json
from gateway.api.callers import caller
from gateway.api.keys import DATABASE
from gateway.api.openapi import MEDIA_TYPE
from gateway.api.openapi_stac import ITEMS
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.identity.chain import no_tenant
from gateway.identity.principal import Principal
from gateway.links import API, LINK, base_url
from gateway.locations import Location
from gateway.stac import documents, entity_tags
from gateway.stac.assets import Showing
from gateway.stac.documents import Service
from gateway.stac.links import GEOJSON, JSON, JsonObject, Urls, is_for_all, link, scheme_of
from gateway.stac.model import ItemRow, Search
from gateway.stac.roots import root_url
from gateway.stac.search import from_body, from_query, page_of_collections
from gateway.stac.searching import Searching
from gateway.storage import can_sign

MOST_ITEM_LINKS = 50
"""A collection with more items has no links to each of them; its ``items`` are read page by page."""
SMALL = 64 * 1024
"""Characters of rows that are made into documents at once, which takes some milliseconds; more of them in a thread."""
_THREADS = 2
_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Authorization", "X-Content-Type-Options": "nosniff"}


@dataclasses.dataclass(frozen=True, slots=True)
class Catalogue:
    """What the handlers ask, and how they show it."""

    searching: Searching
    showing: Showing
    threads: Executor

    async def written(self, characters: int, make: Callable[[], str]) -> bytes:
        """What ``make`` gives, which it makes of so many ``characters`` of rows."""
        if characters <= SMALL:
            return make().encode()
        return await asyncio.get_running_loop().run_in_executor(self.threads, lambda: make().encode())


CATALOGUE = web.AppKey("catalogue", Catalogue)


@contextlib.asynccontextmanager
async def catalogue(searching: Searching, assets: Showing) -> AsyncIterator[Catalogue]:
    """What the handlers need, for as long as they answer."""
    threads = ThreadPoolExecutor(_THREADS, "stac")
    try:
        yield Catalogue(searching, assets, threads)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def showing(locations: Mapping[str, Location], href: Literal["gateway", "origin"]) -> Showing:
    """How assets are shown: where the catalogue has a file is told, unless that is a URL that no client is led to."""
    untold = [one.storage for one in locations.values() if can_sign(one.storage) is None]

    def tells(href: str) -> bool:
        if not is_for_all(href):
            return False
        if scheme_of(href) not in ("http", "https"):
            return True
        try:
            return all(storage.locate(href) is None for storage in untold)
        except ValueError:
            return False

    return Showing(href, tells)


async def get_landing(request: web.Request) -> web.Response:
    """``GET /``: the landing page, a STAC Catalog."""
    urls, principal = await _asked(request)
    rows = await request.app[CATALOGUE].searching.collection_names(principal, documents.MOST_CHILDREN + 1)
    await _see_tenant(request, principal, rows)
    service = Service(principal.tenant, f"{base_url(request, request.app[API].public_url)}/api", MEDIA_TYPE)
    return _answer(documents.to_text(documents.landing(service, rows, urls)).encode(), JSON)


async def get_conformance(request: web.Request) -> web.Response:
    """``GET /conformance``."""
    await _asked(request)
    return _answer(documents.to_text(documents.conformance()).encode(), JSON)


async def get_collections(request: web.Request) -> web.Response:
    """``GET /collections``: page by page, with ``limit`` and ``token`` as in searches for items."""
    urls, principal = await _asked(request)
    made = request.app[CATALOGUE]
    after, limit = page_of_collections(request.query)
    page = await made.searching.collections(principal, after=after, limit=limit)
    rows = page.collections
    await _see_tenant(request, principal, rows)
    query = _query(request)
    links = [link("self", str(URL(urls.collections).with_query(query)))]
    if page.next is not None:
        query["token"] = page.next
        links.append(link("next", str(URL(urls.collections).with_query(query)), method="GET"))
    body = await made.written(
        sum(len(row.body) for row in rows),
        lambda: documents.to_text(documents.collections(rows, urls, made.showing, links)),
    )
    return _answer(body, JSON)


async def get_collection(request: web.Request) -> web.Response:
    """``GET /collections/{collectionId}``."""
    urls, principal = await _asked(request)
    made = request.app[CATALOGUE]
    row = await made.searching.collection(principal, request.match_info["collectionId"])
    items: list[str] = []
    # Links to items are a help for those who browse: where nobody can tell who sees which, there are none.
    with contextlib.suppress(GatewayError):
        search = Search(collections=(row.collection_id,), limit=MOST_ITEM_LINKS)
        # Nor are they looked for, where the caller may see few of many.
        page = await made.searching.search(principal, search, seconds=0)
        items = [one.item_id for one in page.items] if page.next is None else []
    text = documents.to_text(documents.collection(row, urls, made.showing, items))
    return _answer(text.encode(), JSON, row.updated)


async def get_items(request: web.Request) -> web.Response:
    """``GET /collections/{collectionId}/items``."""
    urls, principal = await _asked(request)
    search = from_query(request.query)
    unknown = sorted(set(request.query) - {*ITEMS, "scope"})
    if unknown:
        # OGC API - Features 1.0, /req/core/query-param-unknown: it may be meant to narrow what is found.
        raise GatewayError(HTTPStatus.BAD_REQUEST, f"Parameter {unknown[0]!r} is not known here.")
    collection = await request.app[CATALOGUE].searching.collection(principal, request.match_info["collectionId"])
    wanted = search.collections is None or collection.collection_id in search.collections
    search = dataclasses.replace(search, collections=(collection.collection_id,) if wanted else ())
    of_collection = urls.collection(collection.collection_id)
    more = [link("collection", of_collection), link("parent", of_collection)]
    return await _found(request, urls, principal, search, urls.items(collection.collection_id), more=more)


async def get_item(request: web.Request) -> web.Response:
    """``GET /collections/{collectionId}/items/{itemId}``."""
    urls, principal = await _asked(request)
    made = request.app[CATALOGUE]
    parts = request.match_info
    row = await made.searching.item(principal, parts["collectionId"], parts["itemId"])
    body = await made.written(_length(row), lambda: documents.item(row, urls, made.showing))
    return _answer(body, GEOJSON, row.updated)


async def get_search(request: web.Request) -> web.Response:
    """``GET /search``."""
    urls, principal = await _asked(request)
    return await _found(request, urls, principal, from_query(request.query), urls.search)


async def post_search(request: web.Request) -> web.Response:
    """``POST /search``."""
    urls, principal = await _asked(request)
    body = await read_json(request)
    search = from_body(body)
    page = await request.app[CATALOGUE].searching.search(principal, search)
    links = [link("root", urls.landing)]
    for rel, token in (("next", page.next), ("prev", page.previous)):
        if token is not None:
            links.append(link(rel, urls.search, GEOJSON, method="POST", body={**body, "token": token}))
    return await _page(request, page.items, urls, links)


def routes(root: str) -> list[web.RouteDef]:
    """The routes below the path of a root."""
    landing = [web.get(f"{root}/", get_landing)]
    if root:
        landing.append(web.get(root, get_landing))
    return [
        *landing,
        web.get(f"{root}/conformance", get_conformance),
        web.get(f"{root}/collections", get_collections),
        web.get(f"{root}/collections/{{collectionId}}", get_collection),
        web.get(f"{root}/collections/{{collectionId}}/items", get_items),
        web.get(f"{root}/collections/{{collectionId}}/items/{{itemId}}", get_item),
        web.get(f"{root}/search", get_search),
        web.post(f"{root}/search", post_search),
    ]


async def _asked(request: web.Request) -> tuple[Urls, Principal]:
    """The URLs that the caller is led on by, and the caller.

    Raises:
        GatewayError: 401, 403, 404.
    """
    principal = await caller(request, "download")
    return Urls(root_url(request, principal)), principal


async def _see_tenant(request: web.Request, principal: Principal, seen: Sequence[object]) -> None:
    """See that the caller's tenant exists, unless he has ``seen`` collections of it.

    Raises:
        GatewayError: 404, 503.
    """
    if not seen and not await _exists(request.app[DATABASE], principal.tenant):
        raise no_tenant(principal.tenant)


def _query(request: web.Request) -> MultiDict[str]:
    """The query of ``request``, without what the root of a tenant says, or nobody else is to know."""
    query = MultiDict(request.query)
    for name in ("scope", LINK):
        query.popall(name, None)
    return query


async def _exists(database: Database, tenant: str) -> bool:
    return bool(await database.fetch("SELECT FROM tenants WHERE name = $1", tenant))


async def _found(
    request: web.Request,
    urls: Urls,
    principal: Principal,
    search: Search,
    address: str,
    *,
    more: Sequence[JsonObject] = (),
) -> web.Response:
    """A page of what a GET of ``address`` asks for."""
    page = await request.app[CATALOGUE].searching.search(principal, search)
    query = _query(request)
    links = [link("self", str(URL(address).with_query(query)), GEOJSON), link("root", urls.landing), *more]
    for rel, token in (("next", page.next), ("prev", page.previous)):
        if token is not None:
            query["token"] = token
            links.append(link(rel, str(URL(address).with_query(query)), GEOJSON, method="GET"))
    return await _page(request, page.items, urls, links)


async def _page(request: web.Request, rows: Sequence[ItemRow], urls: Urls, links: Sequence[JsonObject]) -> web.Response:
    made = request.app[CATALOGUE]
    now = datetime.datetime.now(datetime.UTC)
    body = await made.written(
        sum(map(_length, rows)), lambda: documents.item_collection(rows, urls, made.showing, links=links, now=now)
    )
    return _answer(body, GEOJSON)


def _length(row: ItemRow) -> int:
    own = len(row.body) + len(row.properties) + len(row.geometry or "")
    return own + sum(len(file.body) + 500 for file in row.files)


def _answer(body: bytes, media_type: str, updated: datetime.datetime | None = None) -> web.Response:
    # Without a charset, which these types do not have (RFC 8259 §8.1).
    fields = {**_HEADERS, "Content-Type": media_type}
    if updated is not None:
        fields["ETag"] = entity_tags.field(updated)  # what transactions take in If-Match
    return web.Response(body=body, headers=fields)
