"""REGARDS' orders of the caller: ``/user/orders``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gateway.api.bodies import answer, bad, integer, members, read_json, text
from gateway.api.callers import caller, is_administrator
from gateway.api.keys import DATABASE
from gateway.api.order_bodies import answer_page, page_of, time_text, told
from gateway.db import Connection
from gateway.errors import GatewayError, unauthorized
from gateway.identity.principal import Principal
from gateway.orders import reading
from gateway.orders.baskets import NOTHING
from gateway.orders.creation import LIMIT_REACHED, EmptyOrderError
from gateway.orders.dating import selection_date
from gateway.orders.lifecycle import WITHOUT_FILES, RefusedError
from gateway.orders.model import ORDERABLE, DatasetSelection, FileFilters, Wish
from gateway.orders.reading import Filters, Scope, no_order
from gateway.orders.service import Ordering
from gateway.quotas.limits import MOST
from gateway.search.composition import any_of, dated
from gateway.text import is_storable

ORDERING = web.AppKey("ordering", Ordering)
MESSAGE = "X-Message"
"""What a 204 has to say: it cannot have a body."""
_MOST_QUERIES = 100
_MOST_TEXT = 2000
_MOST_CORRELATION = 255


async def post_order(request: web.Request) -> web.Response:
    """``POST /user/orders``: orders what is in the caller's basket."""
    principal, ordering = await owner(request), request.app[ORDERING]
    wish = await _wish(request, ordering)

    taken: list[DatasetSelection] = []

    async def choose(connection: Connection) -> Sequence[DatasetSelection]:
        taken.extend(await ordering.basket.take(connection, principal))
        return taken

    try:
        order_id = await ordering.creator.create(principal, wish, choose)
    except EmptyOrderError:
        # What was selected may be nothing that he may have any more.
        return nothing(NOTHING if taken else "Basket is empty")
    return await _created(request, principal, order_id)


async def post_apply(request: web.Request) -> web.Response:
    """``POST /user/orders/apply``: orders what queries select, in one call."""
    principal, ordering = await owner(request), request.app[ORDERING]
    optional = ("filters", "correlationId", "user", "sizeLimitInBytes", "label", "onSuccessUrl")
    body = members(await read_json(request), ("queries",), optional)
    queries, filters, correlation = _queries(body["queries"]), _filters(body.get("filters")), body.get("correlationId")
    query = "" if "" in queries else any_of(queries)
    if correlation is not None and not 0 < len(stored(correlation, "correlationId")) <= _MOST_CORRELATION:
        raise bad(f"'correlationId' has 1 to {_MOST_CORRELATION} characters.")
    most = body.get("sizeLimitInBytes")
    if most is not None and not 0 <= integer(most, "sizeLimitInBytes") <= MOST:
        raise bad(f"'sizeLimitInBytes' must be from 0 to {MOST}.")
    wish = _wish_of(body, ordering, correlation_id=correlation, most_bytes=most)

    async def choose(connection: Connection) -> Sequence[DatasetSelection]:
        date = await selection_date(connection, principal.tenant)
        return await ordering.creator.datasets(connection, principal, dated(query, date), filters)

    def denied(kind: str, message: str) -> web.Response:
        told = {"status": "DENIED", "errorType": kind, "message": message, "correlationId": correlation}
        return answer(told, status=HTTPStatus.UNPROCESSABLE_ENTITY)

    if body.get("user") not in (None, principal.email):
        return denied("FORBIDDEN", "Orders are made for oneself.")
    try:
        # Each by itself: what is no query could be one with what is written around it, and mean something else.
        for one in filter(None, queries):
            await ordering.creator.translate(one)
        order_id = await ordering.creator.create(principal, wish, choose)
    except EmptyOrderError:
        return denied("EMPTY_ORDER", NOTHING)
    except GatewayError as error:
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        return denied("ORDER_LIMIT_REACHED" if error.code == LIMIT_REACHED else "INVALID_CONTENT", error.detail)
    return answer({"status": "GRANTED", "orderId": order_id, "correlationId": correlation})


async def get_order(request: web.Request) -> web.Response:
    """``GET /user/orders/{orderId}``."""
    principal, ordering = await owner(request), request.app[ORDERING]
    found = await reading.one(request.app[DATABASE], scope_of(principal), order_id_of(request))
    return answer(told(request, ordering, found))


async def get_orders(request: web.Request) -> web.Response:
    """``GET /user/orders``: those of the caller, the newest first."""
    principal, ordering = await owner(request), request.app[ORDERING]
    number, size = page_of(request)
    mine = Scope(principal.tenant, principal.email)
    found, total = await reading.page(request.app[DATABASE], mine, Filters(), limit=size, offset=number * size)
    return answer_page(request, ordering, found, total, lambda one: told(request, ordering, one))


async def put_pause(request: web.Request) -> web.Response:
    """``PUT /user/orders/pause/{orderId}``."""
    return await _act(request, "pause")


async def put_resume(request: web.Request) -> web.Response:
    """``PUT /user/orders/resume/{orderId}``."""
    return await _act(request, "resume")


async def put_retry(request: web.Request) -> web.Response:
    """``PUT /user/orders/{orderId}/retry``."""
    return await _act(request, "retry")


async def delete_order(request: web.Request) -> web.Response:
    """``DELETE /user/orders/{orderId}``."""
    return await _act(request, "delete")


async def remove_order(request: web.Request) -> web.Response:
    """``DELETE /user/orders/remove/{orderId}``."""
    return await _act(request, "remove")


async def post_restart(request: web.Request) -> web.Response:
    """``POST /user/orders/{orderId}/restart``: orders the same again, as the caller."""
    principal, ordering = await owner(request), request.app[ORDERING]
    wish = await _wish(request, ordering)
    # An administrator may not order by the rights of somebody else, nor have his order for his own.
    mine = Scope(principal.tenant, principal.email)
    try:
        with plain():
            order_id = await ordering.actions.restart(mine, principal, order_id_of(request), wish)
    except EmptyOrderError:
        return nothing(NOTHING)
    return await _created(request, principal, order_id)


async def get_token(request: web.Request) -> web.Response:
    """``GET /user/orders/{orderId}/token``: what opens its files without a credential."""
    principal, ordering = await owner(request), request.app[ORDERING]
    if ordering.tokens is None:
        raise GatewayError(HTTPStatus.NOT_FOUND, "This gateway makes no order tokens.")
    order_id, mine = order_id_of(request), Scope(principal.tenant, principal.email)
    generation, status, expires = await reading.generation(request.app[DATABASE], mine, order_id)
    if status in WITHOUT_FILES:
        raise no_order(order_id)
    token = ordering.tokens.make(order_id, generation)
    return answer({"orderToken": token, "expirationDate": time_text(expires)})


async def delete_token(request: web.Request) -> web.Response:
    """``DELETE /user/orders/{orderId}/token``: whatever was given out opens nothing any more."""
    principal, ordering = await owner(request), request.app[ORDERING]
    await ordering.actions.revoke_token(scope_of(principal), order_id_of(request))
    return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    base = f"{prefix}/user/orders"
    return [
        web.post(base, post_order),
        web.get(base, get_orders, allow_head=False),
        web.post(f"{base}/apply", post_apply),
        web.put(f"{base}/pause/{{orderId}}", put_pause),
        web.put(f"{base}/resume/{{orderId}}", put_resume),
        web.delete(f"{base}/remove/{{orderId}}", remove_order),
        web.get(f"{base}/{{orderId}}", get_order, allow_head=False),
        web.delete(f"{base}/{{orderId}}", delete_order),
        web.post(f"{base}/{{orderId}}/restart", post_restart),
        web.put(f"{base}/{{orderId}}/retry", put_retry),
        web.get(f"{base}/{{orderId}}/token", get_token, allow_head=False),
        web.delete(f"{base}/{{orderId}}/token", delete_token),
    ]


async def owner(request: web.Request) -> Principal:
    """Who calls, who has orders.

    Raises:
        GatewayError: 401, 403.
    """
    principal = await caller(request, "order")
    if principal.is_anonymous:
        raise unauthorized("orders belong to users: show a bearer token or an API key")
    return principal


def scope_of(principal: Principal) -> Scope:
    """The orders that ``principal`` reaches: his own; an administrator all of his tenant, if his key may do that."""
    return Scope(principal.tenant, None if is_administrator(principal) else principal.email)


def order_id_of(request: web.Request) -> int:
    """The id in the path.

    Raises:
        GatewayError: 404.
    """
    return path_number(request, "orderId", no_order(request.match_info["orderId"]))


def path_number(request: web.Request, name: str, missing: GatewayError) -> int:
    """A number of the path; ``missing`` is raised where there is none that could be."""
    found = request.match_info[name]
    if not (found.isascii() and found.isdecimal() and len(found) <= len(str(2**62)) and int(found) < 2**62):
        raise missing
    return int(found)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Say in REGARDS' words that an action is not possible.

    Raises:
        GatewayError: 401, as REGARDS has it.
    """
    try:
        yield
    except RefusedError as error:
        raise unauthorized(error.message) from error


def stored(value: Any, name: str) -> str:
    """Text that PostgreSQL can hold.

    Raises:
        GatewayError: 400.
    """
    found = text(value, name)
    if not is_storable(found):
        raise bad(f"{name!r} is no text that could be stored.")
    return found


async def _act(request: web.Request, name: str) -> web.Response:
    principal, actions = await owner(request), request.app[ORDERING].actions
    act = {
        "pause": actions.pause,
        "resume": actions.resume,
        "retry": actions.retry,
        "delete": actions.delete,
        "remove": actions.remove,
    }[name]
    with plain():
        await act(scope_of(principal), order_id_of(request))
    return web.Response(headers={"Cache-Control": "no-store", "Vary": "Authorization"})


async def _created(request: web.Request, principal: Principal, order_id: int) -> web.Response:
    ordering = request.app[ORDERING]
    mine = Scope(principal.tenant, principal.email)
    found = await reading.one(request.app[DATABASE], mine, order_id)
    return answer(told(request, ordering, found), status=ordering.settings.created_status)


async def _wish(request: web.Request, ordering: Ordering) -> Wish:
    body = await read_json(request) if request.can_read_body else {}
    return _wish_of(members(body, (), ("label", "onSuccessUrl")), ordering)


def _wish_of(
    body: dict[str, Any], ordering: Ordering, *, correlation_id: str | None = None, most_bytes: int | None = None
) -> Wish:
    label, url = body.get("label"), body.get("onSuccessUrl")
    if label is not None:
        stored(label, "label")
    if url is not None and not _leads_home(stored(url, "onSuccessUrl"), ordering.settings.success_urls):
        raise bad("'onSuccessUrl' must be a path that begins with '/', or lie below one of the URLs of the settings.")
    return Wish(label, url, correlation_id, most_bytes)


def _leads_home(url: str, allowed: Sequence[str]) -> bool:
    if len(url) > _MOST_TEXT or not url.isprintable() or "\\" in url:
        return False
    return (url.startswith("/") and not url.startswith("//")) or url.startswith(tuple(allowed))


def _queries(queries: Any) -> list[str]:
    """An empty one stands for everything."""
    if not isinstance(queries, list) or not 0 < len(queries) <= _MOST_QUERIES:
        raise bad(f"'queries' must be a list of 1 to {_MOST_QUERIES} queries.")
    return [stored(query, "queries").strip() for query in queries]


def _filters(value: Any) -> FileFilters:
    if value is None:
        return FileFilters()
    body = members(value, (), ("dataTypes", "filenameRegExp"))
    pattern = body.get("filenameRegExp")
    types = data_types(body.get("dataTypes"), "dataTypes")
    return FileFilters(types, None if pattern is None else stored(pattern, "filenameRegExp"))


def data_types(value: Any, name: str) -> tuple[str, ...]:
    """Types of files that can be ordered, of a list, or of nothing; ``QUICKLOOK`` stands for all three of these.

    Raises:
        GatewayError: 400.
    """
    if value is not None and not isinstance(value, list):
        raise bad(f"{name!r} must be a list.")
    found: list[str] = []
    for one in value or ():
        those = [kind for kind in ORDERABLE if kind == one or (one == "QUICKLOOK" and kind.startswith("QUICKLOOK_"))]
        if not those:
            raise bad(f"{name!r} may have RAWDATA, QUICKLOOK and {', '.join(ORDERABLE[1:])}.")
        found += [kind for kind in those if kind not in found]
    return tuple(found)


def nothing(message: str) -> web.Response:
    """204, and in a field why: it has no body."""
    return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store", MESSAGE: message})
