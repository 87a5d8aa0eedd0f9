"""Whom a request comes from, and absolute links to this gateway."""

from __future__ import annotations

from aiohttp import web
from yarl import URL

from gateway.catalog.model import Address
from gateway.http.forwarded import Client
from gateway.identity.shown import Shown

CLIENT = web.RequestKey("client", Client)
"""Where the request comes from and how it was addressed."""
LINK = "link"
"""The parameter of a query that holds the token of a signed link."""
ORDER_TOKEN = "orderToken"  # noqa: S105 - a name
"""The parameter of a query that holds the token of an order."""


def base_url(request: web.Request, public_url: str | None) -> str:
    """What the paths of this gateway follow for the client of ``request``: ``public_url``, else how it asked."""
    client = request[CLIENT]
    return public_url or f"{client.scheme}://{client.host}"


def is_by_another_site(request: web.Request) -> bool:
    """Whether a page of another site had a browser send ``request``, with what browsers add by themselves.

    That is a user and password (Basic) that it knows from before. Browsers tell in Sec-Fetch-Site (Fetch Metadata)
    whose page it was. What else goes into Authorization or X-API-Key, a page would have to know itself.
    """
    is_basic = request.headers.get("Authorization", "").lower().startswith("basic ")
    return is_basic and request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")


def without_link(url: URL) -> URL:
    """``url`` without the token of a signed link or an order."""
    return url.without_query_params(LINK, ORDER_TOKEN)


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
