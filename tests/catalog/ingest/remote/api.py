"""A small STAC API and static catalogue on a real socket, which pages, fails, stalls and lies as a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

Json = dict[str, Any]
CORE = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/ogcapi-features"]
SEARCH = "https://api.stacspec.org/v1.0.0/item-search"

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Answers a request in place of the source; None leaves it to the source."""


def item(number: int, collection: str = "scenes", **more: object) -> Json:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": f"scene-{number:05}",
        "collection": collection,
        "geometry": {"type": "Point", "coordinates": [number % 180, number % 90]},
        "bbox": [number % 180, number % 90, number % 180, number % 90],
        "properties": {"datetime": "2024-01-02T03:04:05Z", "updated": f"2024-01-{number % 28 + 1:02}T00:00:00Z"},
        "links": [],
        "assets": {"data": {"href": f"https://archive.example/{collection}/{number}.tif", "type": "image/tiff"}},
        **more,
    }


def collection(identifier: str) -> Json:
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": identifier,
        "title": f"The {identifier}",
        "description": "of a test",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [],
    }


@dataclasses.dataclass
class StacApi:
    """What the source holds, and how it behaves."""

    items: dict[str, list[Json]]
    """By the id of their collection."""
    conformance: list[str] = dataclasses.field(default_factory=lambda: list(CORE))
    landing: Json = dataclasses.field(default_factory=dict)
    """Members of the landing page in place of its own."""
    page_links: Callable[[Json], Json] = lambda link: link
    """Turns the link to the next page into what is sent."""
    faults: list[Fault] = dataclasses.field(default_factory=list)
    """Taken one after the other by requests for items."""
    documents: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of a static catalogue, by path."""
    asked: list[str] = dataclasses.field(default_factory=list)
    """Method and path with query of each request, with its body."""
    fields: list[dict[str, str]] = dataclasses.field(default_factory=list)
    url: str = ""

    def pages_asked(self) -> list[str]:
        return [one for one in self.asked if "/items" in one or "/search" in one]


async def _landing(request: web.Request) -> web.Response:
    api = _note(request, "")
    links = [
        {"rel": "self", "href": api.url},
        {"rel": "data", "href": f"{api.url}/collections"},
        {"rel": "conformance", "href": f"{api.url}/conformance"},
        {"rel": "search", "href": f"{api.url}/search", "method": "GET"},
        {"rel": "search", "href": f"{api.url}/search", "method": "POST"},
    ]
    return web.json_response(
        {"type": "Catalog", "id": "s", "conformsTo": api.conformance, "links": links} | api.landing
    )


async def _conformance(request: web.Request) -> web.Response:
    return web.json_response({"conformsTo": _note(request, "").conformance})


async def _collections(request: web.Request) -> web.Response:
    api = _note(request, "")
    found = [collection(name) for name in api.items]
    page, size = int(request.query.get("page", "0")), 2
    links = [{"rel": "next", "href": f"?page={page + 1}"}] if len(found) > (page + 1) * size else []
    return web.json_response({"collections": found[page * size : (page + 1) * size], "links": links})


async def _collection(request: web.Request) -> web.Response:
    api = _note(request, "")
    if request.match_info["id"] not in api.items:
        return web.json_response({"code": "NotFound"}, status=404)
    return web.json_response(collection(request.match_info["id"]))


async def _items(request: web.Request) -> web.StreamResponse:
    api = _note(request, "")
    if api.faults and (answer := await api.faults.pop(0)(request)) is not None:
        return answer
    name, limit = request.match_info["id"], int(request.query.get("limit", "10"))
    token = int(request.query.get("token", "0"))
    following = {"rel": "next", "href": f"{api.url}/collections/{name}/items?limit={limit}&token={token + limit}"}
    return _page(api, api.items[name], token, limit, following)


async def _search(request: web.Request) -> web.StreamResponse:
    text = await request.text()
    api = _note(request, text)
    if api.faults and (answer := await api.faults.pop(0)(request)) is not None:
        return answer
    if request.method == "GET":
        asked: Json = dict(request.query) | {"collections": request.query["collections"].split(",")}
    else:
        asked = json.loads(text)
    token, limit = int(asked.get("token", 0)), int(asked["limit"])
    found = [one for name in asked["collections"] for one in api.items[name]]
    since = asked.get("query", {}).get("updated", {}).get("gte", "")
    found = [one for one in found if one["properties"]["updated"] >= since]
    following: Json = {"rel": "next", "href": f"{api.url}/search", "method": "POST", "merge": True}
    following["body"] = {"token": token + limit}
    if request.method == "GET":
        following = {"rel": "next", "href": f"{api.url}{request.rel_url.update_query(token=token + limit)}"}
    return _page(api, found, token, limit, following)


def _page(api: StacApi, found: list[Json], token: int, limit: int, following: Json) -> web.Response:
    links = [api.page_links(following)] if len(found) > token + limit else []
    features = found[token : token + limit]
    return web.json_response({"type": "FeatureCollection", "features": features, "links": links})


async def _document(request: web.Request) -> web.Response:
    api = _note(request, "")
    found = api.documents.get(request.path)
    if found is None:
        return web.Response(status=404)
    return web.Response(text=found if isinstance(found, str) else json.dumps(found), content_type="application/json")


API = web.AppKey("api", StacApi)


def _note(request: web.Request, body: str) -> StacApi:
    api = request.app[API]
    api.asked.append(f"{request.method} {request.path_qs}{f' {body}' if body else ''}")
    api.fields.append(dict(request.headers))
    return api


@contextlib.asynccontextmanager
async def running_api(**items: int) -> AsyncIterator[StacApi]:
    """A source with so many items in each collection."""
    api = StacApi({name: [item(number, name) for number in range(count)] for name, count in items.items()})
    app = web.Application()
    app[API] = api
    app.add_routes(
        [
            web.get("/", _landing),
            web.get("/conformance", _conformance),
            web.get("/collections", _collections),
            web.get("/collections/{id}", _collection),
            web.get("/collections/{id}/items", _items),
            web.get("/search", _search),
            web.post("/search", _search),
            web.get("/{path:.+}", _document),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        api.url = f"http://{host}:{port}"
        yield api
    finally:
        await runner.cleanup()


def status(code: int, **fields: str) -> Fault:
    async def fault(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers={name.replace("_", "-"): value for name, value in fields.items()})

    return fault


def body(text: str) -> Fault:
    async def fault(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type="application/json")

    return fault


async def cut(request: web.Request) -> web.StreamResponse:
    """Half of a page."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"type": "FeatureCollection", "features": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def stall(request: web.Request) -> web.StreamResponse:
    """Never another byte."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.Event().wait()
    return response


async def fine(request: web.Request) -> None:
    """Nothing wrong with this one."""
