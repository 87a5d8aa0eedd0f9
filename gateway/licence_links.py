"""How an answer shows the licence of a file, and the way to accept it."""

from __future__ import annotations

import re
from urllib.parse import quote

from aiohttp import web
from yarl import URL

from gateway.identity.principal import Principal
from gateway.links import absolute_url, is_by_another_site
from gateway.rights.licences import ACCEPT_BY_DOWNLOAD, ACCEPT_BY_PUT, NotAcceptedError
from gateway.stac.roots import root_url

_TARGET = re.compile(r"[!#-;=?-~]+")


def licence_field(url: str) -> dict[str, str]:
    """``Link`` with relation ``license`` (RFC 8288, RFC 4946); nothing for what would break out of it."""
    return {"Link": f'<{url}>; rel="license"'} if _TARGET.fullmatch(url) else {}


def accepts_licence(request: web.Request) -> bool:
    """Whether ``request`` is to accept the licence of the file that it asks for (``acceptLicense=true``)."""
    asks = request.method == "GET" and request.query.get("acceptLicense", "").lower() == "true"
    return asks and not is_by_another_site(request)


def show_way_to_accept(
    error: NotAcceptedError, request: web.Request, principal: Principal, public_url: str | None
) -> None:
    """Have ``error`` say where the licence of the file that ``request`` asks for is read, and how it is accepted.

    By REGARDS' link, which is the download itself with ``acceptLicense=true``. Where the caller is known by a browser
    session a download accepts nothing, so that the link is to the licence of the collection, which takes a PUT.
    """
    download = absolute_url(request, public_url, "dryRun", acceptLicense="true")
    show_way(error, principal, download, root_url(request, principal))


def show_way(error: NotAcceptedError, principal: Principal, download: str, root: str) -> None:
    """As `show_way_to_accept`, for any file.

    Args:
        error: is given its links.
        principal: the caller.
        download: URL of the file with ``acceptLicense=true``.
        root: what ``/collections`` follows in absolute links.
    """
    method = "PUT" if principal.credential in ACCEPT_BY_PUT - ACCEPT_BY_DOWNLOAD else "GET"
    if method == "PUT":
        accept = f"{root}/collections/{quote(error.collection, safe='')}/license"
    else:
        accept = _readable(download)
    error.headers = licence_field(error.url)
    error.body = {"license": error.url, "accept": accept}
    error.links = (
        {"rel": "license", "href": error.url},
        {"rel": "accept", "href": accept, "method": method},
    )


def _readable(url: str) -> str:
    """``url`` with what needs no percent-encoding decoded, as in REGARDS: ``URN:…`` instead of ``URN%3A…``.

    Whatever else is encoded (a slash, a space, a question mark) means something else when it is not, and stays.
    """
    return str(URL(url))
