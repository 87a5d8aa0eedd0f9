"""REGARDS' orders of all users, for administrators: ``/orders``, ``/orders/search``, ``/orders/csv``."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from gateway.api.admin_records import PIECE_SECONDS, STREAM_SECONDS, cell
from gateway.api.bodies import bad, instant, members, read_json
from gateway.api.callers import administrator
from gateway.api.keys import DATABASE
from gateway.api.order_bodies import answer_page, page_of, time_text, told
from gateway.api.orders import ORDERING, stored
from gateway.errors import unavailable
from gateway.identity.principal import Principal
from gateway.orders import reading
from gateway.orders.lifecycle import Status
from gateway.orders.reading import Filters, Order, Scope

_CSV = frozenset({"text/csv", "test/csv"})
"""The latter is how REGARDS' guide has it."""
_HEADER = "ORDER_ID;CREATION_DATE;EXPIRATION_DATE;OWNER;STATUS;STATUS_DATE;PERCENT_COMPLETE;FILES_IN_ERROR\r\n"


async def get_orders(request: web.Request) -> web.StreamResponse:
    """``GET /orders``: of all users or one (``?user=``), by pages; with ``Accept: text/csv`` all of them as CSV."""
    principal = await administrator(request)
    filters = Filters(owner=_user(request))
    if _wants_csv(request):
        return await _stream(request, principal, filters)
    return await _page(request, principal, filters)


async def get_csv(request: web.Request) -> web.StreamResponse:
    """``GET /orders/csv``."""
    principal = await administrator(request)
    return await _stream(request, principal, Filters(owner=_user(request)))


async def post_csv(request: web.Request) -> web.StreamResponse:
    """``POST /orders/csv``: those that the body asks for."""
    principal = await administrator(request)
    return await _stream(request, principal, await _filters(request))


async def post_search(request: web.Request) -> web.Response:
    """``POST /orders/search``: pages of those that the body asks for."""
    principal = await administrator(request)
    return await _page(request, principal, await _filters(request))


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    return [
        web.get(f"{prefix}/orders", get_orders, allow_head=False),
        web.get(f"{prefix}/orders/csv", get_csv, allow_head=False),
        web.post(f"{prefix}/orders/csv", post_csv),
        web.post(f"{prefix}/orders/search", post_search),
    ]


def _user(request: web.Request) -> str | None:
    return stored(request.query["user"], "user") if request.query.get("user") else None


def _wants_csv(request: web.Request) -> bool:
    accepted = ",".join(request.headers.getall("Accept", []))
    return any(part.partition(";")[0].strip().lower() in _CSV for part in accepted.split(","))


async def _page(request: web.Request, principal: Principal, filters: Filters) -> web.Response:
    number, size = page_of(request)
    everyone = Scope(principal.tenant, None)
    found, total = await reading.page(request.app[DATABASE], everyone, filters, limit=size, offset=number * size)
    ordering = request.app[ORDERING]
    response = answer_page(request, ordering, found, total, lambda one: told(request, ordering, one))
    response.headers["Vary"] = "Authorization, Accept"
    return response


async def _stream(request: web.Request, principal: Principal, filters: Filters) -> web.StreamResponse:
    """All orders by id, as they are read. What goes wrong before the first is an error; later the answer is cut."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": 'attachment; filename="orders.csv"',
            "Cache-Control": "no-store",
            "Vary": "Authorization, Accept",
            "X-Content-Type-Options": "nosniff",
        }
    )
    pieces = reading.pieces(request.app[DATABASE], Scope(principal.tenant, None), filters)
    try:
        async with contextlib.aclosing(pieces), asyncio.timeout(STREAM_SECONDS):
            lines = _HEADER + _lines(await anext(pieces))
            await response.prepare(request)
            await _write(response, lines)
            async for some in pieces:
                await _write(response, _lines(some))
    except TimeoutError as error:
        raise unavailable("The client takes the orders too slowly.") from error
    except ConnectionError:
        response.force_close()
    return response


async def _write(response: web.StreamResponse, text: str) -> None:
    if text:
        async with asyncio.timeout(PIECE_SECONDS):
            await response.write(text.encode("utf-8", "replace"))


def _lines(orders: Iterable[Order]) -> str:
    return "".join(
        ";".join(
            map(
                cell,
                (
                    order.order_id,
                    time_text(order.created),
                    time_text(order.expires),
                    order.owner,
                    order.status.value,
                    time_text(order.status_at),
                    order.percent,
                    order.counts.errors,
                ),
            )
        )
        + "\r\n"
        for order in orders
    )


async def _filters(request: web.Request) -> Filters:
    """The body: REGARDS' SearchRequestParameters."""
    body = await read_json(request) if request.can_read_body else {}
    body = members(body, (), ("owner", "statuses", "creationDate", "waitingForUser"))
    owner, waiting = body.get("owner"), body.get("waitingForUser")
    if waiting is not None and not isinstance(waiting, bool):
        raise bad("'waitingForUser' must be true or false.")
    times = members(body.get("creationDate") or {}, (), ("after", "before"))
    return Filters(
        owner=None if owner is None else stored(owner, "owner"),
        statuses=_statuses(body.get("statuses")),
        after=_time(times, "after"),
        before=_time(times, "before"),
        waiting=waiting,
    )


def _statuses(value: Any) -> frozenset[Status] | None:
    if value is None:
        return None
    body = members(value, ("values",), ("mode", "matchMode", "ignoreCase"))
    mode, values = body.get("mode") or "INCLUDE", body["values"]
    if mode not in ("INCLUDE", "EXCLUDE") or not isinstance(values, list):
        raise bad("'statuses' has a 'mode', INCLUDE or EXCLUDE, and 'values', a list.")
    try:
        found = frozenset(Status(one) for one in values)
    except ValueError as error:
        raise bad(f"'values' of 'statuses' may be {', '.join(Status)}.") from error
    return found if mode == "INCLUDE" else frozenset(Status) - found


def _time(times: dict[str, Any], name: str) -> datetime.datetime | None:
    value = times.get(name)
    if value is None:
        return None
    found = instant(value) if isinstance(value, str) else None
    if found is None:
        raise bad(f"{name!r} must be a time with its offset, like 2026-11-21T00:00:00Z (RFC 3339).")
    return found
