"""The upstream's STAC API, as it passes through: everything below the root that is not served here."""

from __future__ import annotations

from aiohttp import web

from gateway.api.bodies import read_body
from gateway.companion.passing import PassingOn

PATHS = ("", "/", "/conformance", "/queryables", "/sortables", "/search", "/aggregate", "/aggregations", "/children")
"""What is asked of the upstream, beside what lies below `BELOW`."""
BELOW = ("/collections", "/catalogs")

PASSING_ON = web.AppKey("passing_on", PassingOn)


async def pass_on(request: web.Request) -> web.StreamResponse:
    """``GET``, ``HEAD`` and searches by ``POST``."""
    body = await read_body(request) if request.can_read_body else None
    return await request.app[PASSING_ON].answer(request, body)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes below ``prefix``; they must come after all others of the STAC API."""
    paths = [path for path in PATHS if prefix + path]
    paths += [place + rest for place in BELOW for rest in ("", "/{below:.+}")]
    found = [web.get(prefix + path, pass_on) for path in paths]
    return [*found, *(web.post(f"{prefix}{path}", pass_on) for path in ("/search", "/aggregate"))]
