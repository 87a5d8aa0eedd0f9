"""Answers that web pages of other sites may read, and their preflights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from gateway.http.cors import CrossOrigin, with_origin

_RULES = web.AppKey("cross_origin", CrossOrigin)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def set_up(app: web.Application, rules: CrossOrigin) -> None:
    """Have ``app`` answer pages of other sites by ``rules``. Its other middlewares go first."""
    app[_RULES] = rules
    app.middlewares.append(_answer_preflights)
    app.on_response_prepare.append(_allow)


@web.middleware
async def _answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a preflight, whatever the path: nobody is identified, and nothing is looked up."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    fields = request.app[_RULES].preflight(request.headers.get("Origin", ""))
    return web.Response(status=HTTPStatus.NO_CONTENT, headers=fields)


async def _allow(request: web.Request, response: web.StreamResponse) -> None:
    """Signal ``on_response_prepare``: of errors, too."""
    rules = request.app[_RULES]
    response.headers.update(rules.allowed(request.headers.get("Origin")))
    if rules.varies:
        response.headers["Vary"] = with_origin(response.headers.get("Vary"))
