"""Absolute links to this gateway."""

from __future__ import annotations

import re
from http import HTTPStatus

from aiohttp import web

from gateway.errors import GatewayError

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def absolute_url(request: web.Request, public_url: str | None, **query: str) -> str:
    """The URL of ``request`` as its client sees it, with ``query`` added to its query.

    Raises:
        GatewayError: 400; no public URL is configured and the request's Host is no host name.
    """
    target = request.rel_url.update_query(query)
    if public_url is not None:
        return f"{public_url}{target}"
    if not _HOST.fullmatch(request.host):
        raise GatewayError(HTTPStatus.BAD_REQUEST, "The Host field is no host name.")
    return f"{request.scheme}://{request.host}{target}"
