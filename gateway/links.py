"""Whom a request comes from, and absolute links to this gateway."""

from __future__ import annotations

from aiohttp import web

from gateway.http.forwarded import Client
from gateway.identity.shown import Shown

CLIENT = web.RequestKey("client", Client)
"""Where the request comes from and how it was addressed."""


def absolute_url(request: web.Request, public_url: str | None, *without: str, **query: str) -> str:
    """The URL of ``request`` as its client sees it: parameters ``without`` left out of its query, ``query`` added."""
    target = request.rel_url.without_query_params(*without).update_query(query)
    if public_url is not None:
        return f"{public_url}{target}"
    client = request[CLIENT]
    return f"{client.scheme}://{client.host}{target}"


def shown_by(request: web.Request) -> Shown:
    """What ``request`` shows of its caller."""
    return Shown(request.headers, request.query, request[CLIENT].address, request.method, request.rel_url.raw_path)
