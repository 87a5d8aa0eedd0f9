"""``GET /user/orders/{orderId}/events``: how an order goes on, as server-sent events.

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

from aiohttp import web

from gateway.api.keys import DATABASE
from gateway.api.order_bodies import time_text
from gateway.api.orders import ORDERING, order_id_of, owner, scope_of
from gateway.delivery.watch import reset
from gateway.errors import GatewayError
from gateway.orders import reading
from gateway.orders.following import Follower
from gateway.orders.lifecycle import Status
from gateway.orders.reading import Order, Scope

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
_GOES_ON = frozenset({Status.PENDING, Status.RUNNING, Status.PAUSED})
REMOVED = "REMOVED"
"""In place of a status: the order was deleted or removed, and is not seen any more."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Event:
    data: str
    is_last: bool

    @property
    def identifier(self) -> str:
        return hashlib.sha256(self.data.encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """As it is sent; the data is on one line, as JSON without indentation is."""
        name = "end" if self.is_last else "progress"
        return f"id: {self.identifier}\nevent: {name}\ndata: {self.data}\n\n"


async def get_events(request: web.Request) -> web.StreamResponse:
    """``GET /user/orders/{orderId}/events``."""
    principal, ordering = await owner(request), request.app[ORDERING]
    order_id = order_id_of(request)
    with ordering.following.follow(order_id, (principal.tenant, principal.email)) as follower:
        scope = scope_of(principal)
        first = _event(await reading.one(request.app[DATABASE], scope, order_id))
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
            await _follow(request, response, follower, scope, first)
        except TimeoutError:
            if isinstance(request.transport, asyncio.Transport):
                reset(request.transport)
        except ConnectionError:
            response.force_close()
        return response


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    return [web.get(f"{prefix}/user/orders/{{orderId}}/events", get_events, allow_head=False)]


async def end_streams(app: web.Application) -> None:
    """Signal ``on_shutdown``: streams would go on for as long as the process lets them."""
    app[ORDERING].following.end()


async def _follow(
    request: web.Request, response: web.StreamResponse, follower: Follower, scope: Scope, shown: _Event
) -> None:
    """Send what becomes of the order, until it is over, or its follower may not know."""
    clock, order_id = asyncio.get_running_loop().time, order_id_of(request)
    beat = clock() + BEAT_SECONDS
    while not shown.is_last:
        is_woken = await follower.news(min(LOOK_SECONDS, max(0.0, beat - clock())))
        if follower.ended or request.transport is None or request.transport.is_closing():
            return
        is_beat = clock() >= beat
        if not (is_woken or is_beat):
            continue
        try:
            if is_beat:
                scope, beat = scope_of(await owner(request)), clock() + BEAT_SECONDS
            event = await _present(request, scope, order_id)
        except GatewayError:
            # His credential is over, or nobody can tell: he comes back and is told which.
            return
        if event != shown:
            await _write(response, event.text)
            shown = event
            await asyncio.sleep(GAP_SECONDS)
        elif is_beat:
            await _write(response, ":\n\n")


async def _present(request: web.Request, scope: Scope, order_id: int) -> _Event:
    try:
        return _event(await reading.one(request.app[DATABASE], scope, order_id))
    except GatewayError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return _Event(_json({"id": order_id, "status": REMOVED}), is_last=True)


def _event(order: Order) -> _Event:
    told = {
        "id": order.order_id,
        "status": order.status.value,
        "statusDate": time_text(order.status_at),
        "expirationDate": time_text(order.expires),
        "percentCompleted": order.percent,
        "filesCount": order.counts.files,
        "availableFilesCount": order.counts.available,
        "downloadedFilesCount": order.counts.downloaded,
        "filesInErrorCount": order.counts.errors,
        "waitingForUser": order.waiting,
    }
    return _Event(_json(told), is_last=order.status not in _GOES_ON)


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(text.encode())


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
