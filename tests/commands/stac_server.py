"""A small STAC API with downloads, right in all or deliberately wrong in one thing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import web

CONTENT = bytes(range(256)) * 40
TAG = '"v1"'
DOWNLOAD = "https://api.stacspec.org/v1.0.0/download"
CLASSES = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    DOWNLOAD,
]
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


class StacServer:
    """Collection ``c``, item ``i``, asset ``data``; ``faults`` says what is wrong with it."""

    def __init__(self, faults: Iterable[str], token: str | None) -> None:
        self.faults = frozenset(faults)
        self.token = token
        self.root = ""
        self.storage = ""
        """Root of another host; the gateway redirects there unless this is empty."""
        self.shown_to_storage: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        with_head = "no head" not in self.faults
        for path, handler in (
            ("/", self.landing),
            ("/conformance", self.conformance),
            ("/api", self.api),
            ("/object", self.object),
            ("/collections", self.collections),
            ("/collections/{c}/items", self.items),
            ("/collections/{c}/items/{i}", self.item),
            ("/collections/{c}/items/{i}/download/{a}", self.download),
        ):
            app.router.add_get(path, handler, allow_head=with_head)
        return app

    def storage_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/object", self.object)
        return app

    async def landing(self, _: web.Request) -> web.Response:
        classes = [one for one in CLASSES if one != DOWNLOAD or "no class" not in self.faults]
        links = [{"rel": "service-desc", "type": "application/json", "href": f"{self.root}/api"}]
        return web.json_response({"conformsTo": classes, "links": links})

    async def conformance(self, _: web.Request) -> web.Response:
        if "nonsense" in self.faults:
            return web.json_response({"conformsTo": 5})
        if "conformance as html" in self.faults:
            return web.Response(text="<p>nothing</p>", content_type="text/html")
        return web.json_response({"conformsTo": CLASSES})

    async def api(self, _: web.Request) -> web.Response:
        if "nonsense" in self.faults:
            return web.json_response({"paths": [1]})
        name = "getDownload" if "no operation" not in self.faults else "other"
        return web.json_response({"paths": {"/x": {"parameters": [], "get": {"operationId": name}}}})

    async def collections(self, _: web.Request) -> web.Response:
        if "nonsense" in self.faults:
            return web.json_response({"collections": [1, {}, {"id": ""}, {"id": "\ud800"}, {"id": 5}, {"id": "c"}]})
        found: list[Any] = [] if "empty" in self.faults else [{"id": "none"}, {"id": "c"}]
        return web.json_response({"collections": found})

    def described(self) -> dict[str, Any]:
        digest = hashlib.sha256(CONTENT if "other checksum" not in self.faults else b"").hexdigest()
        href = f"{self.root}/collections/c/items/i/download/data"
        asset = {
            "href": "s3://bucket/key" if "no link" in self.faults else href,
            "type": "image/tiff",
            "file:size": len(CONTENT) + ("other size" in self.faults),
            "file:checksum": f"1220{digest}",
        }
        return {"id": "i", "assets": {"thumbnail": {"href": "https://example.org/t.png"}, "data": asset}}

    async def items(self, request: web.Request) -> web.Response:
        if "nonsense" in self.faults:
            odd = {
                "id": "i",
                "assets": {"": {}, "\ud800": {}, "data": {"href": "http://[", "alternate": [], "type": 5}},
            }
            return web.json_response({"features": [1, {}, {"id": 1}, {"id": "i", "assets": [1]}, odd]})
        features = [self.described()] if request.match_info["c"] == "c" else []
        return web.json_response({"features": features})

    async def item(self, request: web.Request) -> web.Response:
        if (request.match_info["c"], request.match_info["i"]) != ("c", "i"):
            return self.error(404, "NotFound")
        return web.json_response(self.described())

    def error(self, status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
        shape: dict[str, Any] = {"code": code, "description": f"It is {code}."}
        if "bare string" in self.faults and status == 404:
            return web.json_response(f"Failed to find {code}", status=status)
        if "html errors" in self.faults:
            return web.Response(text="<h1>Error</h1>", content_type="text/html", status=status, headers=headers)
        if "number as code" in self.faults:
            shape["code"] = status
        if "no code" in self.faults:
            shape = {"detail": "x"}
        ok = "200 with an error" in self.faults and status == 404
        return web.json_response(shape, status=200 if ok else status, headers=headers)

    async def download(self, request: web.Request) -> web.StreamResponse:
        if "hangs" in self.faults and request.match_info["a"] == "data" and request.method == "GET":
            await asyncio.sleep(3600)
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            if "to the log-in" in self.faults:
                raise web.HTTPFound(f"{self.root}/login")
            challenge = {} if "no challenge" in self.faults else {"WWW-Authenticate": "Bearer"}
            return self.error(401, "Unauthorized", challenge)
        if request.match_info["c"] != "c" or request.match_info["i"] != "i":
            return self.error(404, "NotFound")
        if request.match_info["a"] != "data":
            return self.error(500 if "500 for an asset" in self.faults else 404, "NotFound")
        if "to nowhere" in self.faults:
            return web.Response(status=307, headers={"Location": "http://[::1"})
        if "to a mailbox" in self.faults:
            return web.Response(status=307, headers={"Location": "mailto:somebody@example.org"})
        if "307 alone" in self.faults:
            return web.Response(status=307)
        if "302" in self.faults:
            return web.Response(status=302, headers={"Location": f"{self.storage}/object"})
        if "round and round" in self.faults:
            return web.Response(status=307, headers={"Location": str(request.rel_url)})
        if self.storage:
            location = "/object" if "relative" in self.faults else f"{self.storage}/object?X-Signature=secret"
            return web.Response(status=307, headers={"Location": location})
        return self.give(request)

    async def object(self, request: web.Request) -> web.StreamResponse:
        self.shown_to_storage += request.headers.getall("Authorization", [])
        if "token at the storage" in self.faults:
            return web.Response(status=403)
        return self.give(request)

    def give(self, request: web.Request) -> web.StreamResponse:
        headers = {"ETag": TAG, "Content-Type": "image/tiff", "Accept-Ranges": "bytes"}
        if "text" in self.faults:
            headers["Content-Type"] = "text/plain"
        if request.headers.get("If-Match", TAG) != TAG and "no If-Match" not in self.faults:
            return self.error(412, "PreconditionFailed")
        if request.headers.get("If-None-Match") == TAG and "no If-None-Match" not in self.faults:
            return web.Response(status=304, headers={"ETag": TAG})
        field = request.headers.get("Range", "")
        if request.headers.get("If-Range", TAG) != TAG and "no If-Range" not in self.faults:
            field = ""
        if field and "any unit" in self.faults:
            field = field.replace("items=", "bytes=")
        asked = _RANGE.fullmatch(field) if "no ranges" not in self.faults else None
        if asked is None:
            return self.whole(headers)
        first, last = self.bounds(asked[1], asked[2])
        if first > last:
            return self.error(416, "Range", {"Content-Range": f"bytes */{len(CONTENT)}"})
        shift = "shifted" in self.faults
        headers["Content-Range"] = f"bytes {first}-{last}/{len(CONTENT)}"
        if "no Content-Range" in self.faults:
            del headers["Content-Range"]
        return web.Response(status=206, body=CONTENT[first + shift : last + 1 + shift], headers=headers)

    def whole(self, headers: dict[str, str]) -> web.StreamResponse:
        if "chunked" not in self.faults:
            return web.Response(body=CONTENT, headers=headers)
        response = web.Response(body=CONTENT, headers=headers)
        response.enable_chunked_encoding()
        return response

    def bounds(self, first: str, last: str) -> tuple[int, int]:
        size = len(CONTENT)
        if not first:
            return size - int(last), size - 1
        return int(first), min(int(last or size), size - 1)


@contextlib.asynccontextmanager
async def stac_server(*faults: str, token: str | None = None, redirects: bool = False) -> AsyncIterator[StacServer]:
    """One that listens; with ``redirects`` its files lie at another host."""
    server = StacServer(faults, token)
    async with contextlib.AsyncExitStack() as stack:
        for name, app in (("root", server.app()), ("storage", server.storage_app())):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            if name == "root" or redirects:
                setattr(server, name, url)
        yield server
