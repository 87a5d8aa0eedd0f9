"""Whom a request comes from, and absolute links to this gateway."""

from __future__ import annotations

from aiohttp import web

from gateway.catalog.model import Address
from gateway.http.forwarded import Client
from gateway.identity.shown import Shown

CLIENT = web.RequestKey("client", Client)
"""Where the request comes from and how it was addressed."""


LINK = "link"
"""The parameter of a query that holds the token of a signed link."""


def base_url(request: web.Request, public_url: str | None) -> str:
    """What absolute links begin with, as the client of ``request`` sees it."""
    client = request[CLIENT]
    return public_url if public_url is not None else f"{client.scheme}://{client.host}"


def absolute_url(request: web.Request, public_url: str | None, *without: str, **query: str) -> str:
    """The URL of ``request`` as its client sees it: parameters ``without`` left out of its query, ``query`` added.

    The token of a signed link is left out, always.
    """
    target = request.rel_url.without_query_params(LINK, *without).update_query(query)
    return f"{base_url(request, public_url)}{target}"


def shown_by(request: web.Request, file: Address | None = None) -> Shown:
    """What ``request`` shows of its caller; ``file`` is what a download asks for."""
    address = request[CLIENT].address
    return Shown(request.headers, request.query, address, request.method, request.rel_url.raw_path, file)
