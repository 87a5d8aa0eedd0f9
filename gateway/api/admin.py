"""What all routes of administration have in common: who acts on which tenant, and pages of names."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web

from gateway.administration.changes import Actor
from gateway.administration.work import Outcome, no_tenant
from gateway.api.bodies import answer, bad, instant
from gateway.api.callers import administrator
from gateway.api.keys import DATABASE
from gateway.db import Database
from gateway.identity.principal import Principal
from gateway.links import CLIENT
from gateway.ops.request_context import REQUEST_ID
from gateway.text import is_storable

INSTANCE_ADMINS = frozenset({"INSTANCE_ADMIN"})
PAGE, MOST = 100, 1000
"""Entries of a page, unless ``?limit=`` says otherwise, and at most."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Acting:
    """An administrator at work."""

    database: Database
    tenant: str
    """That he acts on."""
    actor: Actor


async def acting(request: web.Request, query: Collection[str] = ()) -> Acting:
    """Who administers which tenant: that of his token; INSTANCE_ADMIN names any with ``?tenant=``.

    Args:
        request: of the administrator.
        query: names of parameters that this request may have beside ``tenant``.

    Raises:
        GatewayError: 401, 403; 400 an unknown parameter; 404 another tenant, whether it exists or not.
    """
    principal = await administrator(request)
    parameters = known_query(request, (*query, "tenant"))
    tenant = parameters.get("tenant", principal.tenant)
    if tenant != principal.tenant and principal.role not in INSTANCE_ADMINS:
        raise no_tenant(tenant)
    return Acting(request.app[DATABASE], tenant, actor_of(request, principal))


async def acting_on_all(request: web.Request, query: Collection[str] = ()) -> Acting:
    """As `acting`, for what only INSTANCE_ADMIN may, which concerns no tenant.

    Raises:
        GatewayError: 401, 403; 400 an unknown parameter.
    """
    principal = await administrator(request, INSTANCE_ADMINS)
    known_query(request, query)
    return Acting(request.app[DATABASE], principal.tenant, actor_of(request, principal))


def actor_of(request: web.Request, principal: Principal) -> Actor:
    """Whom a change is recorded for."""
    name = principal.email or principal.subject
    return Actor(name, request[CLIENT].address or None, request[REQUEST_ID], principal.api_key)


def known_query(request: web.Request, known: Collection[str]) -> dict[str, str]:
    """The parameters of the query, each known, there once, and not beyond what can be compared.

    A filter that nobody knows would be taken for one that lets everything through.

    Raises:
        GatewayError: 400.
    """
    for name in request.query:
        if name not in known:
            raise bad(f"The query has {name!r}; it may have {', '.join(sorted(known)) or 'nothing'}.")
        if len(request.query.getall(name)) > 1:
            raise bad(f"The query has {name!r} twice.")
        if not is_storable(request.query[name]):
            raise bad(f"The value of {name!r} is no text that could be stored.")
    return dict(request.query)


def limit_of(parameters: Mapping[str, str], most: int = MOST) -> int:
    """``?limit=``.

    Raises:
        GatewayError: 400.
    """
    text = parameters.get("limit", str(PAGE))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= most):
        raise bad(f"'limit' must be a number from 1 to {most}.")
    return int(text)


def cursor_text(place: Sequence[str | int]) -> str:
    """A place in a list, as what ``?cursor=`` takes: opaque, since it may change."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def cursor_of(text: str, *kinds: type) -> Any:
    """The place that a cursor stands for: a list of one value of each of ``kinds``.

    Raises:
        GatewayError: 400.
    """
    try:
        place = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise bad("'cursor' is none that was given out here.") from error
    if not isinstance(place, list) or [type(value) for value in place] != list(kinds):
        raise bad("'cursor' is none that was given out here.")
    if not all(is_storable(value) for value in place if isinstance(value, str)):
        raise bad("'cursor' is none that was given out here.")
    return place


def cursor_time(text: str) -> datetime.datetime:
    """A time in a cursor.

    Raises:
        GatewayError: 400.
    """
    found = instant(text)
    if found is None:
        raise bad("'cursor' is none that was given out here.")
    return found


LISTING = ("limit", "cursor")
"""Parameters of a list."""


def asked_page(request: web.Request) -> tuple[str, int]:
    """After which name a page begins, and how many entries it has at most.

    Raises:
        GatewayError: 400.
    """
    after = cursor_of(request.query["cursor"], str)[0] if "cursor" in request.query else ""
    return after, limit_of(request.query)


async def answer_list(
    request: web.Request,
    name: str,
    find: Callable[..., Awaitable[Sequence[T]]],
    *where: str,
    told: Callable[[T], object],
    key: Callable[[T], str],
) -> web.Response:
    """A page of a list of the tenant, in order of ``key``.

    Args:
        request: of an administrator.
        name: of the member that is the list.
        find: gives entries; called with the database, the tenant, ``where``, ``after`` and ``limit``.
        where: what the list is of.
        told: an entry as JSON.
        key: of an entry.

    Raises:
        GatewayError: as `acting`, `asked_page` and ``find``.
    """
    work, (after, limit) = await acting(request, LISTING), asked_page(request)
    found = await find(work.database, work.tenant, *where, after=after, limit=limit + 1)
    return answer_page(name, found, limit, told, lambda one: [key(one)])


def answer_page(
    name: str, found: Sequence[T], limit: int, told: Callable[[T], object], place: Callable[[T], Sequence[str | int]]
) -> web.Response:
    """A page of what was found, which is one more than ``limit`` if more follow."""
    kept = found[:limit]
    following = cursor_text(place(kept[-1])) if len(found) > limit else None
    return answer({name: [told(one) for one in kept], "next": following})


def answer_put(value: object, outcome: Outcome) -> web.Response:
    """201 for what is new, else 200."""
    return answer(value, status=HTTPStatus.CREATED if outcome == "created" else HTTPStatus.OK)


def no_content() -> web.Response:
    """204."""
    return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
