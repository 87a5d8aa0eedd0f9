"""Whom a request comes from, and absolute links to this gateway."""

from __future__ import annotations

import dataclasses
from urllib.parse import quote

from aiohttp import web
from yarl import URL

from gateway.catalog.model import Address, ByChecksum
from gateway.config import Api
from gateway.errors import Family
from gateway.families import family_of
from gateway.http.forwarded import Client
from gateway.identity.principal import Principal
from gateway.identity.shown import Shown

CLIENT = web.RequestKey("client", Client)
"""Where the request comes from and how it was addressed."""
API = web.AppKey("api", Api)
"""Where each API family stands."""
TENANT = "tenant"
"""The part of a path that names the tenant whose paths these are."""
LINK = "link"
"""The parameter of a query that holds the token of a signed link."""
ORDER_TOKEN = "orderToken"  # noqa: S105 - a name
"""The parameter of a query that holds the token of an order."""


@dataclasses.dataclass(frozen=True, slots=True)
class FileUrls:
    """Where files are downloaded from: absolute URLs."""

    regards: str
    """What ``/downloads`` follows."""
    stac: str
    """What ``/collections`` follows."""

    def of(self, address: Address) -> str:
        """The URL of the file at ``address``."""
        parts = [quote(part, safe="") for part in dataclasses.astuple(address)]
        if isinstance(address, ByChecksum):
            return "{}/downloads/{}/files/{}".format(self.regards, *parts)
        return "{}/collections/{}/items/{}/download/{}".format(self.stac, *parts)


def scope_query(principal: Principal) -> str:
    """The query of a URL for ``principal``: anonymous callers are of a tenant only as long as they name it."""
    return f"?scope={quote(principal.tenant, safe='')}" if principal.is_anonymous else ""


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
    default = request.app[API].default_tenant
    return Shown(
        request.headers,
        request.query,
        address,
        request.method,
        request.rel_url.raw_path,
        file,
        tenant=request.match_info.get(TENANT),
        otherwise=default if default is not None and family_of(request) is Family.STAC else None,
    )
