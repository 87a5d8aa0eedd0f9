"""Browser sessions: ``/login``, ``/login/callback``, ``/logout``; and ``/me``, who one is."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from gateway.administration.keys import time_of
from gateway.api.bodies import answer
from gateway.api.callers import whoever
from gateway.api.keys import LOGINS
from gateway.errors import GatewayError
from gateway.identity.login import LOGIN_SECONDS
from gateway.identity.opening import Logins
from gateway.identity.sessions import COOKIE, cookie
from gateway.links import CLIENT, shown_by

_STATE_COOKIE = "__Host-login"
_NO_STORE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


async def begin(request: web.Request) -> web.Response:
    """``GET /login?next=/path``: 303 to the identity provider."""
    begun = await _logins(request).flow.begin(request.query.get("next", "/me"))
    response = web.Response(status=HTTPStatus.SEE_OTHER, headers={**_NO_STORE, "Location": begun.url})
    _keep(response, _STATE_COOKIE, begun.state, LOGIN_SECONDS)
    return response


async def end(request: web.Request) -> web.Response:
    """``GET /login/callback``: the user is back; 303 to where he wanted to go, with a session."""
    logins = _logins(request)
    shown = shown_by(request)
    ended = await logins.flow.end(request.query, cookie(shown, _STATE_COOKIE))
    value, before = await logins.sessions.begin(ended.principal, request[CLIENT].address), logins.sessions.find(shown)
    if before is not None:
        await logins.sessions.end(before)
    response = web.Response(status=HTTPStatus.SEE_OTHER, headers={**_NO_STORE, "Location": ended.then})
    _keep(response, COOKIE, value, int(logins.sessions.lifetime))
    _drop(response, _STATE_COOKIE)
    return response


async def log_out(request: web.Request) -> web.Response:
    """``POST /logout``, from a page of this site: 204, and the session has ended."""
    logins, shown = _logins(request), shown_by(request)
    value = logins.sessions.find(shown)
    if value is not None:
        logins.sessions.check_origin(shown)
        await logins.sessions.end(value)
    response = web.Response(status=HTTPStatus.NO_CONTENT, headers=_NO_STORE)
    _drop(response, COOKIE)
    return response


async def who(request: web.Request) -> web.Response:
    """``GET /me``: who one is. Any API key tells: whoever has it could know, and asks whether it is good still."""
    principal = await whoever(request)
    return answer(
        {
            "tenant": principal.tenant,
            "subject": principal.subject,
            "email": principal.email,
            "role": principal.role,
            "groups": list(principal.groups),
            "credential": principal.credential,
            "scopes": None if principal.scopes is None else sorted(principal.scopes),
            "expires": time_of(principal.until),
        }
    )


def routes() -> list[web.RouteDef]:
    """The routes."""
    return [
        web.get("/login", begin, allow_head=False),
        web.get("/login/callback", end, allow_head=False),
        web.post("/logout", log_out),
        web.get("/me", who),
    ]


def _logins(request: web.Request) -> Logins:
    logins = request.app[LOGINS]
    if logins is None:
        raise GatewayError(HTTPStatus.NOT_FOUND, "Nobody logs in here: this gateway has no [identity.login].")
    return logins


def _keep(response: web.Response, name: str, value: str, seconds: int) -> None:
    # Lax: the identity provider sends users back by a link from its own site.
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="Lax")


def _drop(response: web.Response, name: str) -> None:
    response.del_cookie(name, path="/", secure=True, httponly=True, samesite="Lax")
