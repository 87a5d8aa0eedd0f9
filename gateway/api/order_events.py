"""``GET /user/orders/{orderId}/events``: how an order goes on, as server-sent events."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from gateway.api.event_stream import Event, event_json, stream
from gateway.api.keys import DATABASE
from gateway.api.order_bodies import time_text
from gateway.api.orders import ORDERING, order_id_of, owner, scope_of
from gateway.errors import GatewayError
from gateway.orders import reading
from gateway.orders.lifecycle import Status
from gateway.orders.reading import Order

_GOES_ON = frozenset({Status.PENDING, Status.RUNNING, Status.PAUSED})
REMOVED = "REMOVED"
"""In place of a status: the order was deleted or removed, and is not seen any more."""


async def get_events(request: web.Request) -> web.StreamResponse:
    """``GET /user/orders/{orderId}/events``."""
    principal, ordering = await owner(request), request.app[ORDERING]
    order_id, scope, seen = order_id_of(request), scope_of(principal), False

    async def present(*, renew: bool) -> Event:
        nonlocal scope, seen
        if renew:
            scope = scope_of(await owner(request))
        try:
            event = _event(await reading.one(request.app[DATABASE], scope, order_id))
        except GatewayError as error:
            if error.status != HTTPStatus.NOT_FOUND or not seen:
                raise
            return Event(event_json({"id": order_id, "status": REMOVED}), is_last=True)
        seen = True
        return event

    with ordering.following.follow(order_id, (principal.tenant, principal.email)) as follower:
        return await stream(request, follower, present)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    return [web.get(f"{prefix}/user/orders/{{orderId}}/events", get_events, allow_head=False)]


async def end_streams(app: web.Application) -> None:
    """Signal ``on_shutdown``: streams would go on for as long as the process lets them."""
    app[ORDERING].following.end()


def _event(order: Order) -> Event:
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
    return Event(event_json(told), is_last=order.status not in _GOES_ON)
