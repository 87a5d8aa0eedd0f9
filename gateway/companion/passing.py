"""Requests that the upstream answers, and its answers, which lead here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from urllib.parse import unquote

from aiohttp import web

from gateway.companion.rewriting import Rewriting
from gateway.companion.stream import Rewriter
from gateway.companion.upstream import Answer, Upstream, Wish, unreachable
from gateway.errors import GatewayError
from gateway.links import LINK, ORDER_TOKEN, base_url, without_link
from gateway.locations import Location
from gateway.storage import OnDisk

_SENT_ON = ("Accept", "Accept-Language", "Content-Type", "X-Request-ID")
_PASSED_BACK = ("Cache-Control", "Content-Language", "Last-Modified", "Retry-After", "WWW-Authenticate")
_SLASHES = re.compile(r"[/\\]")
THREADS = 4
"""In which documents are changed: a page of a thousand items takes longer than others should wait."""


@dataclasses.dataclass(frozen=True, slots=True)
class PassingOn:
    """Passes requests on, and the answers back."""

    upstream: Upstream
    prefix: str
    """Path of the root of the STAC API here."""
    public_url: str | None
    delivers: Callable[[str], bool]
    """Whether this gateway can deliver what lies at an absolute href."""
    threads: ThreadPoolExecutor

    async def answer(self, request: web.Request, body: bytes | None) -> web.StreamResponse:
        """Answer ``request``, which came with ``body``, as the upstream does, but for what leads to it.

        Raises:
            GatewayError: 400 the path has dot segments; 502, 504 the upstream gave no answer that can be used.
        """
        path = self._path(request)
        headers = {name: request.headers[name] for name in _SENT_ON if name in request.headers}
        authorization = request.headers.get("Authorization")
        async with self.upstream.ask(Wish(request.method, path, headers, body), authorization) as answer:
            response = web.StreamResponse(status=answer.status, headers=self._fields(answer, request, path))
            if request.method == "HEAD" or answer.status < HTTPStatus.OK or 300 <= answer.status < 400:
                return web.Response(status=answer.status, headers=response.headers)
            rewriter = Rewriter(self._rewriting(request, path))
            await self._pass_back(request, response, self._changed(answer, rewriter))
        return response

    async def _pass_back(
        self, request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes]
    ) -> None:
        """Send the document; what fails before its first byte can still be an error, later the answer is cut."""
        try:
            first = await anext(pieces, b"")
            await response.prepare(request)
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
            await response.write_eof()
        except GatewayError:
            if not response.prepared:
                raise
            response.force_close()
            if request.transport is not None:
                request.transport.abort()

    async def _changed(self, answer: Answer, rewriter: Rewriter) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        try:
            async for piece in answer.pieces():
                changed = await loop.run_in_executor(self.threads, rewriter.feed, piece)
                if changed:
                    yield changed
            yield await loop.run_in_executor(self.threads, rewriter.end)
        except (ValueError, RecursionError) as error:  # the latter of what nests too deep to be written again
            raise unreachable("The catalogue behind this gateway gave what is no JSON.") from error

    def _path(self, request: web.Request) -> str:
        url = request.rel_url
        if not url.query.keys().isdisjoint((LINK, ORDER_TOKEN)):
            url = without_link(url)
        # Some servers take a backslash for a slash, and what follows a semicolon for no part of the segment.
        segments = (segment.partition(";")[0] for segment in _SLASHES.split(unquote(url.raw_path)))
        if not {".", ".."}.isdisjoint(segments):
            raise GatewayError(HTTPStatus.BAD_REQUEST, "The path has dot segments.")
        query = f"?{url.raw_query_string}" if url.raw_query_string else ""
        return url.raw_path.removeprefix(self.prefix) + query

    def _rewriting(self, request: web.Request, path: str) -> Rewriting:
        root = base_url(request, self.public_url) + self.prefix
        return Rewriting(self.upstream.root, root, self.upstream.root + path, self.delivers)

    def _fields(self, answer: Answer, request: web.Request, path: str) -> dict[str, str]:
        """The fields of the answer here.

        Raises:
            GatewayError: 502; it is none that can be passed back.
        """
        fields = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
        fields["Vary"] = "Accept, Accept-Language, Authorization"
        if 300 <= answer.status < 400:
            location = self._rewriting(request, path).link(answer.headers.get("Location", ""))
            if location.startswith(self.upstream.root):
                raise unreachable("The catalogue behind this gateway sends its callers elsewhere.")
            return {**fields, "Location": location}
        if not (answer.media_type == "application/json" or answer.media_type.endswith("+json")):
            if 400 <= answer.status < 500:
                raise GatewayError(HTTPStatus(answer.status), "The catalogue behind this gateway refuses this request.")
            raise unreachable("The catalogue behind this gateway gave what is no JSON.")
        return {**fields, "Content-Type": answer.headers.get("Content-Type", "application/json")}


def deliverable(locations: Iterable[Location], tenant: str) -> Callable[[str], bool]:
    """Whether one of ``locations`` takes an href of ``tenant`` that came over the network."""
    usable = [location for location in locations if not isinstance(location.storage, OnDisk)]

    def delivers(href: str) -> bool:
        for location in usable:
            with contextlib.suppress(ValueError):
                found = location.storage.locate(href)
                if found is not None and location.serves(tenant, found):
                    return True
        return False

    return delivers
