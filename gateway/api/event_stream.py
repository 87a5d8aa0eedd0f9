"""Streams of server-sent events: how something goes on, until it is over.

Source: the HTML standard, "Server-sent events". An event is all of the present state, so that nothing has to be sent
again: whoever comes back, with ``Last-Event-ID`` or without, gets the present one at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import random
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from gateway.delivery.watch import reset
from gateway.errors import GatewayError
from gateway.following import Follower

BEAT_SECONDS = 15.0
"""How often a comment is sent where nothing happens, and the caller's credential is looked at again."""
LOOK_SECONDS = 1.0
"""How often it is looked whether the client is there still: one that left takes nobody's place."""
GAP_SECONDS = 0.5
"""Between two events of a stream, at least."""
WRITE_SECONDS = 10.0
"""That a client may take nothing before it is cut."""
_RETRY_MILLISECONDS = 2000, 6000
"""After which clients come back, some sooner than others."""


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """The present state."""

    data: str
    is_last: bool

    @property
    def identifier(self) -> str:
        """The same for the same state."""
        return hashlib.sha256(self.data.encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """As it is sent; the data is on one line, as JSON without indentation is."""
        name = "end" if self.is_last else "progress"
        return f"id: {self.identifier}\nevent: {name}\ndata: {self.data}\n\n"


class Present(Protocol):
    """Tells how it is now."""

    async def __call__(self, *, renew: bool) -> Event:
        """The present state; with ``renew`` the caller's credential is looked at again.

        Raises:
            GatewayError: he may not know any more, or nobody can tell.
        """
        ...


async def stream(request: web.Request, follower: Follower, present: Present) -> web.StreamResponse:
    """Send the present state and what becomes of it, until it is over, or the caller may not know.

    Raises:
        GatewayError: as ``present`` at the beginning.
    """
    first = await present(renew=False)
    if first.is_last and request.headers.get("Last-Event-ID") == first.identifier:
        # It has seen the end: this keeps an EventSource from coming back again.
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "Vary": "Authorization",
            "X-Accel-Buffering": "no",  # nginx would keep events until there are enough of them
            "X-Content-Type-Options": "nosniff",
        }
    )
    try:
        await response.prepare(request)
        retry = random.randint(*_RETRY_MILLISECONDS)  # noqa: S311 - no secret
        await _write(response, f"retry: {retry}\n\n{first.text}")
        await _follow(request, response, follower, present, first)
    except TimeoutError:
        if isinstance(request.transport, asyncio.Transport):
            reset(request.transport)
    except ConnectionError:
        response.force_close()
    return response


def event_json(value: Mapping[str, object]) -> str:
    """The data of an event."""
    return json.dumps(value, separators=(",", ":"))


async def _follow(
    request: web.Request, response: web.StreamResponse, follower: Follower, present: Present, shown: Event
) -> None:
    clock = asyncio.get_running_loop().time
    beat = clock() + BEAT_SECONDS
    while not shown.is_last:
        is_woken = await follower.news(min(LOOK_SECONDS, max(0.0, beat - clock())))
        if follower.ended or request.transport is None or request.transport.is_closing():
            return
        is_beat = clock() >= beat
        if not (is_woken or is_beat):
            continue
        if is_beat:
            beat = clock() + BEAT_SECONDS
        try:
            event = await present(renew=is_beat)
        except GatewayError:
            # His credential is over, or nobody can tell: he comes back and is told which.
            return
        if event != shown:
            await _write(response, event.text)
            shown = event
            await asyncio.sleep(GAP_SECONDS)
        elif is_beat:
            await _write(response, ":\n\n")


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(text.encode())
