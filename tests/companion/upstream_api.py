"""A STAC API that existed before the gateway, and the web server of its files."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONTENT = {"a.tif": b"tiff " * 1000, "b.tif": b"other" * 500}
COLLECTION = "s2 l2a"


@dataclasses.dataclass
class UpstreamApi:
    """What it has, and how it behaves."""

    root: str = ""
    items: dict[str, dict[str, object]] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = dataclasses.field(default_factory=list)
    """Method, path with query, and the Authorization field of what it was asked."""
    bodies: list[bytes] = dataclasses.field(default_factory=list)
    fails: bool = False
    """Every answer is 500."""
    stalls: bool = False
    """No answer comes."""
    breaks: bool = False
    """Pages break off in the middle."""
    tells: str | None = None
    """Every answer is this text."""

    def item(self, identifier: str, asset: str = "a.tif") -> dict[str, object]:
        """Add an item."""
        here = f"{self.root}/collections/{quote(COLLECTION, safe='')}/items/{quote(identifier, safe='')}"
        files = self.root.removesuffix("/stac")
        found: dict[str, object] = {
            "type": "Feature",
            "stac_version": "1.1.0",
            "id": identifier,
            "collection": COLLECTION,
            "geometry": {"type": "Point", "coordinates": [1, 2]},
            "bbox": [1, 2, 1, 2],
            "properties": {"datetime": "2026-01-01T00:00:00Z"},
            "links": [{"rel": "self", "href": here}, {"rel": "root", "href": self.root}],
            "assets": {
                "data": {
                    "href": f"{files}/files/{asset}",
                    "type": "image/tiff",
                    "file:checksum": "1220" + hashlib.sha256(CONTENT[asset]).hexdigest(),
                },
                "docs": {"href": "https://elsewhere.example.org/docs.html"},
            },
        }
        self.items[identifier] = found
        return found

    async def landing(self, _: web.Request) -> web.StreamResponse:
        links = [
            {"rel": "self", "href": self.root},
            {"rel": "data", "href": f"{self.root}/collections"},
            {"rel": "search", "href": f"{self.root}/search", "method": "POST"},
        ]
        return _json(
            {"type": "Catalog", "id": "up", "conformsTo": ["https://api.stacspec.org/v1.0.0/core"], "links": links}
        )

    async def get_item(self, request: web.Request) -> web.StreamResponse:
        item = self.items.get(request.match_info["item"])
        if item is None or request.match_info["collection"] != COLLECTION:
            return _json({"code": "NotFoundError", "description": "no such item"}, status=404)
        tag = f'"{hashlib.sha256(json.dumps(item).encode()).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return _json(item, ETag=tag)

    async def search(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        text = json.dumps({"type": "FeatureCollection", "features": list(self.items.values()), "links": []})
        if not self.breaks:
            return web.Response(text=text, content_type="application/geo+json")
        response = web.StreamResponse(headers={"Content-Type": "application/geo+json"})
        response.content_length = len(text)
        await response.prepare(request)
        await response.write(text[: len(text) // 2].encode())
        await asyncio.sleep(0.05)
        if request.transport is not None:
            request.transport.abort()
        return response

    async def moved(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{self.root}/collections/moved"})

    async def file(self, request: web.Request) -> web.StreamResponse:
        content = CONTENT[request.match_info["name"]]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:8]}"', "Accept-Ranges": "bytes"}
        if "Range" in request.headers:
            start, _, stop = request.headers["Range"].removeprefix("bytes=").partition("-")
            part = content[int(start) : int(stop or len(content) - 1) + 1]
            headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
            return web.Response(status=206, body=part, headers=headers)
        return web.Response(body=content, headers=headers)


@contextlib.asynccontextmanager
async def upstream_api() -> AsyncIterator[UpstreamApi]:
    """One that listens on a free port."""
    api = UpstreamApi()

    @web.middleware
    async def behaving(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/files/"):
            return await handler(request)
        api.asked.append((request.method, request.path_qs, request.headers.get("Authorization")))
        if api.stalls:
            await asyncio.sleep(60)
        if api.fails:
            return web.Response(status=500, text="oops")
        if api.tells is not None:
            return web.Response(text=api.tells, content_type="application/json")
        return await handler(request)

    app = web.Application(middlewares=[behaving])
    app.add_routes(
        [
            web.get("/stac", api.landing),
            web.get("/stac/", api.landing),
            web.get("/stac/collections/moved-away", api.moved),
            web.get("/stac/collections/{collection}/items/{item}", api.get_item),
            web.get("/stac/search", api.search),
            web.post("/stac/search", api.search),
            web.get("/files/{name}", api.file),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.root = f"http://127.0.0.1:{runner.addresses[0][1]}/stac"
    try:
        yield api
    finally:
        await runner.cleanup()


def _json(value: object, *, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(value, status=status, headers=headers)
