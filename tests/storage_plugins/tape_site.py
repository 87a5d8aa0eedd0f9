"""A site with tapes: the WLCG Tape REST API (v1, 2022) beside WebDAV, strict about what it is asked.

Written after the reference document, and after what dCache and EOS answer where that leaves it open.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

from aiohttp import web

_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclasses.dataclass
class TapeFile:
    """A file of the site."""

    content: bytes
    on_disk: bool = False
    on_tape: bool = True
    lost: bool = False
    unavailable: bool = False
    problem: str | None = None
    """Why it cannot be restored."""
    pins: dict[str, datetime.timedelta] = dataclasses.field(default_factory=dict)
    """By the ids of requests."""

    @property
    def locality(self) -> str:
        if self.lost:
            return "LOST"
        if self.unavailable:
            return "UNAVAILABLE"
        return {(True, True): "DISK_AND_TAPE", (True, False): "DISK", (False, True): "TAPE"}.get(
            (self.on_disk, self.on_tape), "NONE"
        )


class TapeSite:
    """Two servers: the front, with the API and WebDAV, and one with the bytes."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.files: dict[str, TapeFile] = {}
        self.requests: dict[str, list[str]] = {}
        """Paths, by id."""
        self.journal: list[tuple[str, str, Any]] = []
        """Method, path and body of what was asked of the API."""
        self.redirects = False
        """Whether readers are sent to the other server."""
        self.redirect_to: str | None = None
        self.front = ""
        self.pool = ""
        self.versions: list[str] = ["v0", "v1"]
        self.api: str | None = None
        """Told instead of the true one."""
        self.fails: int | None = None
        """Status of all answers of the API."""
        self.forbidden: set[str] = set()
        """Paths with which no request is taken."""
        self.unwanted: set[str] = set()
        """Likewise, but for questions where they are."""
        self.etag_of: Callable[[bytes], str] = lambda content: hashlib.md5(content).hexdigest()

    def arrive(self, path: str) -> None:
        """The tape was read."""
        self.files[path].on_disk = True

    async def well_known(self, request: web.Request) -> web.Response:
        self.journal.append(("GET", request.path, None))
        endpoints = [{"uri": self.api or f"{self.front}/api/{one}/tape/", "version": one} for one in self.versions]
        return web.json_response({"sitename": "a-site", "description": "one for tests", "endpoints": endpoints})

    async def call(self, request: web.Request) -> web.StreamResponse:
        """The API."""
        if self.fails is not None:
            return _problem(self.fails, "Overload", "come back later")
        if self.token is not None and request.headers.getall("Authorization", []) != [f"Bearer {self.token}"]:
            return _problem(401, "Unauthorized", "no valid token")
        body = None
        if request.method == "POST":
            if request.content_type != "application/json":
                return _problem(400, "Bad request", f"Content-Type {request.content_type}")
            body = json.loads(await request.read())
        parts = request.path.removeprefix("/api/v1/tape/").split("/")
        self.journal.append((request.method, "/".join(parts), body))
        try:
            self._permit(parts[0], body)
            return self._answer(request.method, parts, body)
        except PermissionError:
            return _problem(403, "Forbidden", "not all of it is yours")
        except KeyError:
            return _problem(404, "Not found", "no such request")
        except ValueError as error:
            return _problem(400, "Bad request", str(error))

    def _answer(self, method: str, parts: list[str], body: Any) -> web.Response:
        match (method, *parts):
            case ("POST", "archiveinfo"):
                return web.json_response([self._info(path) for path in _paths(body)])
            case ("POST", "stage"):
                return self._stage(body)
            case ("GET", "stage", name):
                return web.json_response(self._progress(name))
            case ("POST", "stage", name, "cancel") | ("POST", "release", name):
                self._let_go(name, _paths(body))
                return web.Response()
        return _problem(404, "Not found", "/".join(parts))

    def _permit(self, what: str, body: Any) -> None:
        named = {file["path"] for file in body["files"]} if what == "stage" and body and "files" in body else set()
        if what == "archiveinfo":
            named = set(body["paths"])
        if named & (self.forbidden | (self.unwanted if what == "stage" else set())):
            raise PermissionError

    def _info(self, path: str) -> dict[str, str]:
        if path not in self.files:
            return {"path": path, "error": "USER ERROR: file does not exist or is not accessible to you"}
        return {"path": path, "locality": self.files[path].locality}

    def _stage(self, body: Any) -> web.Response:
        if set(body) != {"files"} or not body["files"]:
            raise ValueError("there must be files, and nothing else")
        name = str(uuid.uuid4())
        paths = []
        for file in body["files"]:
            if set(file) - {"path", "diskLifetime", "targetedMetadata"} or not file["path"].startswith("/"):
                raise ValueError(f"file {file}")
            found = _DURATION.fullmatch(file["diskLifetime"])
            if found is None or not any(found.groups()):
                raise ValueError(f"diskLifetime {file['diskLifetime']}")
            days, hours, minutes, seconds = (int(group or 0) for group in found.groups())
            kept = datetime.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
            paths.append(file["path"])
            if file["path"] in self.files:
                self.files[file["path"]].pins[name] = kept
        self.requests[name] = paths
        location = {"Location": f"{self.front}/api/v1/tape/stage/{name}"}
        return web.json_response({"requestId": name}, status=201, headers=location)

    def _progress(self, name: str) -> dict[str, object]:
        files: list[dict[str, object]] = []
        for path in self.requests[name]:
            file = self.files.get(path)
            if file is None or file.problem is not None:
                files.append({"path": path, "onDisk": False, "error": "no such file" if file is None else file.problem})
            else:
                files.append({"path": path, "onDisk": file.on_disk})
        return {"id": name, "createdAt": 1_700_000_000_000, "startedAt": 1_700_000_001_000, "files": files}

    def _let_go(self, name: str, paths: list[str]) -> None:
        if not set(paths) <= set(self.requests[name]):
            raise ValueError("File missing from stage request")
        for path in paths:
            file = self.files[path]
            file.pins.pop(name, None)
            if not file.pins and file.on_tape:
                file.on_disk = False

    async def read(self, request: web.Request) -> web.StreamResponse:
        """WebDAV, as far as it is HTTP."""
        if self.token is not None and request.headers.getall("Authorization", []) != [f"Bearer {self.token}"]:
            return web.Response(status=401)
        path = unquote(request.raw_path)
        file = self.files.get(path)
        if file is None:
            return web.Response(status=404)
        if request.method == "GET" and not file.on_disk:
            return web.Response(status=503, text="the file is not online")
        tag = f'"{self.etag_of(file.content)}"'
        if request.headers.get("If-Match", tag) != tag:
            return web.Response(status=412)
        if request.method == "GET" and (self.redirects or self.redirect_to):
            place = self.redirect_to or f"{self.pool}{request.raw_path}?transfer=secret-of-the-pool"
            return web.Response(status=307, headers={"Location": place})
        return _bytes(request, file.content, {"ETag": tag})

    async def give(self, request: web.Request) -> web.StreamResponse:
        """Bytes, to those who were sent: without a token and an entity-tag."""
        if "Authorization" in request.headers or request.query_string != "transfer=secret-of-the-pool":
            return web.Response(status=400)
        return _bytes(request, self.files[unquote(request.raw_path.partition("?")[0])].content, {})


def _bytes(request: web.Request, content: bytes, fields: dict[str, str]) -> web.Response:
    if request.method == "HEAD":
        return web.Response(headers={**fields, "Content-Length": str(len(content))})
    found = _RANGE.fullmatch(request.headers["Range"])
    assert found is not None
    first, last = int(found[1]), min(int(found[2]), len(content) - 1)
    place = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return web.Response(status=206, body=content[first : last + 1], headers={**fields, **place})


def _paths(body: Any) -> list[str]:
    if set(body) != {"paths"} or not body["paths"] or not all(path.startswith("/") for path in body["paths"]):
        raise ValueError("there must be paths, and nothing else")
    return list(body["paths"])


def _problem(status: int, title: str, detail: str) -> web.Response:
    return web.json_response({"title": title, "status": status, "detail": detail}, status=status)


@contextlib.asynccontextmanager
async def tape_site(token: str | None = "to-ken") -> AsyncIterator[TapeSite]:
    """Run one on free ports."""
    site = TapeSite(token)
    front, pool = web.Application(), web.Application()
    front.router.add_get("/.well-known/wlcg-tape-rest-api", site.well_known)
    front.router.add_route("*", "/api/v1/tape/{rest:.*}", site.call)
    front.router.add_route("*", "/data/{rest:.*}", site.read)
    pool.router.add_route("*", "/{rest:.*}", site.give)
    async with contextlib.AsyncExitStack() as stack:
        for application in (front, pool):
            runner = web.AppRunner(application, shutdown_timeout=0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            if application is front:
                site.front = url
            else:
                site.pool = url
        yield site
