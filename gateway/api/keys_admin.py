"""API keys: one's own below ``/me/keys``, those of a tenant below ``/admin/keys``."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web

from gateway.administration import keys
from gateway.administration.keys import FIRST, ApiKey, NewKey, Place
from gateway.api.admin import (
    LISTING,
    Acting,
    acting,
    actor_of,
    answer_page,
    cursor_of,
    cursor_time,
    limit_of,
    no_content,
)
from gateway.api.bodies import answer, bad, email, instant, members, read_json, text
from gateway.api.callers import caller, forbidden
from gateway.api.keys import DATABASE
from gateway.config import Config
from gateway.errors import unauthorized
from gateway.http.forwarded import Network
from gateway.identity.principal import SCOPES, Principal, Scope
from gateway.request_keys import PRINCIPAL
from gateway.text import is_storable

MOST_LABEL = 200
"""Characters."""
MOST_NAMES = 1000
"""Groups of a key."""
MOST_NAME = 1024
"""Bytes of the name of a group, role or user."""
MOST_NETWORKS = 100

_OPTIONAL = ("scopes", "networks", "expires")


_MAX_LIFETIME: web.AppKey[int | None] = web.AppKey("max_lifetime")
"""Seconds that a key may work; None for as long as its maker likes."""


def set_up(app: web.Application, config: Config) -> None:
    """Have ``app`` make keys."""
    app.add_routes(routes())
    app[_MAX_LIFETIME] = config.identity.api_keys.max_lifetime


async def get_own(request: web.Request) -> web.Response:
    """``GET /me/keys``: the caller's keys; the newest come first, revoked ones last."""
    principal = await _owner(request)
    found = await keys.list_keys(request.app[DATABASE], principal.tenant, principal.email)
    return answer([key.told() for key in found])


async def post_own(request: web.Request) -> web.Response:
    """``POST /me/keys``: makes a key for the caller, with his role and groups. Its text is told once, here.

    No more, which he has not; and no less, as they limit him, too.
    """
    principal = await _owner(request)
    body = members(await read_json(request), ("label",), _OPTIONAL)
    new = _new(body, principal.subject, str(principal.email), principal.role, principal.groups)
    return await _create(request, _work(request, principal), new, principal.role)


async def delete_own(request: web.Request) -> web.Response:
    """``DELETE /me/keys/{id}``: revokes one of the caller's keys."""
    principal = await _owner(request)
    return await _revoke(request, _work(request, principal), principal.email)


async def get_all(request: web.Request) -> web.Response:
    """``GET /admin/keys``, of which ``?email=…`` picks those of one user; in the same order."""
    work, query = await acting(request, ("email", *LISTING)), request.query
    of, limit = email(query["email"]) if "email" in query else None, limit_of(query)
    found = await keys.list_keys(work.database, work.tenant, of, after=_after(query), limit=limit + 1)
    return answer_page("keys", found, limit, ApiKey.told, _place)


async def post_any(request: web.Request) -> web.Response:
    """``POST /admin/keys``: makes a key for a user of the tenant. An API key cannot make another."""
    work = await acting(request)
    principal = request[PRINCIPAL]
    if principal.credential == "api key":
        raise forbidden("An API key cannot make another.")
    body = members(await read_json(request), ("label", "email"), ("subject", "role", "groups", *_OPTIONAL))
    who = email(body["email"])
    subject, role = _name(body.get("subject", who), "subject"), _name(body.get("role", "REGISTERED_USER"), "role")
    new = _new(body, subject, who, role, _groups(body.get("groups", [])))
    return await _create(request, work, new, principal.role)


async def delete_any(request: web.Request) -> web.Response:
    """``DELETE /admin/keys/{id}``: revokes a key of the tenant."""
    return await _revoke(request, await acting(request), None)


def routes() -> list[web.RouteDef]:
    """The routes of this family."""
    return [
        web.get("/me/keys", get_own),
        web.post("/me/keys", post_own),
        web.delete("/me/keys/{id}", delete_own),
        web.get("/admin/keys", get_all),
        web.post("/admin/keys", post_any),
        web.delete("/admin/keys/{id}", delete_any),
    ]


def network(value: Any, name: str) -> Network:
    """An IP address or network.

    Raises:
        GatewayError: 400.
    """
    try:
        return ipaddress.ip_network(text(value, name))
    except ValueError as error:
        raise bad(f"{name!r} must be an IP address or network, like '192.0.2.0/24'.") from error


def end(value: Any, name: str) -> datetime.datetime:
    """A time to come (RFC 3339, with its offset).

    Raises:
        GatewayError: 400.
    """
    when = instant(text(value, name))
    if when is None:
        raise bad(f"{name!r} must be a time like '2030-12-31T23:59:59Z'.")
    if when <= datetime.datetime.now(datetime.UTC):
        raise bad(f"{name!r} is over.")
    return when


async def _owner(request: web.Request) -> Principal:
    """Who calls, if he is known by a token or a session: no scope of an API key is for keys."""
    principal = await caller(request)
    if principal.is_anonymous:
        raise unauthorized("keys belong to users: show a bearer token")
    return principal


def _place(key: ApiKey) -> tuple[bool, str, str]:
    return key.revoked is not None, key.created.isoformat(), key.key_id


def _after(query: Mapping[str, str]) -> Place:
    if "cursor" not in query:
        return FIRST
    revoked, created, key_id = cursor_of(query["cursor"], bool, str, str)
    return revoked, cursor_time(created), key_id


def _work(request: web.Request, principal: Principal) -> Acting:
    """What a user does for himself."""
    return Acting(request.app[DATABASE], principal.tenant, actor_of(request, principal))


async def _create(request: web.Request, work: Acting, new: NewKey, creator_role: str) -> web.Response:
    key, shown = await keys.create(
        work.database, work.actor, work.tenant, new, creator_role=creator_role, max_lifetime=request.app[_MAX_LIFETIME]
    )
    return answer({**key.told(), "key": shown}, status=HTTPStatus.CREATED)


async def _revoke(request: web.Request, work: Acting, owner: str | None) -> web.Response:
    await keys.revoke(work.database, work.actor, work.tenant, request.match_info["id"], owner)
    return no_content()


def _new(body: Mapping[str, Any], subject: str, of: str, role: str, groups: tuple[str, ...]) -> NewKey:
    label = text(body["label"], "label")
    if not is_storable(label) or not 0 < len(label) <= MOST_LABEL:
        raise bad(f"'label' must have 1 to {MOST_LABEL} characters.")
    networks = None
    if body.get("networks") is not None:
        networks = [network(one, "networks") for one in _list(body["networks"], "networks", MOST_NETWORKS)]
    return NewKey(
        label=label,
        subject=subject,
        email=of,
        role=role,
        groups=groups,
        scopes=_scopes(body.get("scopes", ["download"])),
        networks=networks,
        expires=None if body.get("expires") is None else end(body["expires"], "expires"),
    )


def _scopes(value: Any) -> tuple[Scope, ...]:
    found = tuple(text(one, "scopes") for one in _list(value, "scopes", len(SCOPES)))
    unknown = set(found) - SCOPES
    if unknown or not found:
        raise bad(f"'scopes' must be some of {', '.join(sorted(SCOPES))}.")
    return cast("tuple[Scope, ...]", tuple(dict.fromkeys(found)))


def _groups(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(one, "groups") for one in _list(value, "groups", MOST_NAMES)))


def _name(value: Any, name: str) -> str:
    found = text(value, name)
    if not is_storable(found) or not 0 < len(found.encode()) <= MOST_NAME:
        raise bad(f"{name!r} must have names of 1 to {MOST_NAME} bytes, without NUL.")
    return found


def _list(value: Any, name: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise bad(f"{name!r} must be a list of at most {most}.")
    return value
