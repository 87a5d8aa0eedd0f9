"""Absolute links to this gateway."""

from __future__ import annotations

from aiohttp import web

from gateway.http.forwarded import Client

CLIENT = web.RequestKey("client", Client)
"""Where the request comes from and how it was addressed."""


def absolute_url(request: web.Request, public_url: str | None, *without: str, **query: str) -> str:
    """The URL of ``request`` as its client sees it: parameters ``without`` left out of its query, ``query`` added."""
    target = request.rel_url.without_query_params(*without).update_query(query)
    if public_url is not None:
        return f"{public_url}{target}"
    client = request[CLIENT]
    return f"{client.scheme}://{client.host}{target}"
