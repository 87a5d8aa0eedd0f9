"""Whom a request comes from, and absolute links to this gateway."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web
from yarl import URL

from gateway.catalog.model import Address
from gateway.http.forwarded import Client
from gateway.identity.shown import Shown

CLIENT = web.RequestKey("client", Client)
"""Where the request comes from and how it was addressed."""
LINK = "link"
"""The parameter of a query that holds the token of a signed link."""


def base_url(request: web.Request, public_url: str | None) -> str:
    """What the paths of this gateway follow for the client of ``request``: ``public_url``, else how it asked."""
    client = request[CLIENT]
    return public_url or f"{client.scheme}://{client.host}"


def is_same_origin(request: web.Request, public_url: str | None) -> bool:
    """Whether ``request`` comes from a page of this gateway.

    Its Origin (RFC 6454) must be that of ``public_url``, or the one that the request is sent to. What browsers send
    along by themselves, like cookies, says nothing of whose page had it sent; Origin does.
    """
    fields = request.headers.getall("Origin", [])
    own = {_origin(base_url(request, None)), _origin(public_url) if public_url else None}
    return len(fields) == 1 and (origin := _origin(fields[0])) is not None and origin in own


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None of what has none (``null``)."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def without_link(url: URL) -> URL:
    """``url`` without the token of a signed link."""
    return url.without_query_params(LINK)


def absolute_url(request: web.Request, public_url: str | None, *without: str, **query: str) -> str:
    """The URL of ``request`` as its client sees it: parameters ``without`` left out of its query, ``query`` added.

    The token of a signed link is left out, always.
    """
    target = without_link(request.rel_url).without_query_params(*without).update_query(query)
    return f"{base_url(request, public_url)}{target}"


def shown_by(request: web.Request, file: Address | None = None) -> Shown:
    """What ``request`` shows of its caller; ``file`` is what a download asks for."""
    address = request[CLIENT].address
    return Shown(request.headers, request.query, address, request.method, request.rel_url.raw_path, file)
