"""What surrounds every request: its id, and errors in the shape of its API family."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

import structlog
from aiohttp import HttpVersion11, web

from gateway.errors import GatewayError, render
from gateway.families import family_of
from gateway.http.accept import is_navigation
from gateway.http.forwarded import Client, Network, find_client, is_host
from gateway.links import CLIENT, base_url, without_link
from gateway.ops import error_page
from gateway.ops.error_page import Site
from gateway.request_keys import PRINCIPAL
from gateway.staging.model import RESTORING

log = logging.getLogger(__name__)

REQUEST_ID = web.RequestKey("request_id", str)
SITE = web.AppKey("site", Site)
"""For pages that people see."""
PROXIES = web.AppKey("proxies", Sequence[Network])
"""The proxies that are believed."""

SERVER = "download-gateway"
"""Without versions: those who need them ask the operator."""
_STARTED = web.RequestKey("started", bool)
"""Set once the header of an answer is on its way."""

_GOOD_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

PROBLEM = web.RequestKey("problem", str)
"""Code of the error that the request became."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def request_context(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id (the caller's, if it sent a sane X-Request-ID) and turn errors into answers."""
    shown = request.headers.get("X-Request-ID", "")
    request[REQUEST_ID] = shown if _GOOD_REQUEST_ID.fullmatch(shown) else secrets.token_hex(8)
    structlog.contextvars.bind_contextvars(request_id=request[REQUEST_ID])
    try:
        request[CLIENT] = _client(request)
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        problem = _from_framework(error)
    except GatewayError as error:
        # Who waits for a tape asks again and again, and nothing is wrong.
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.code != RESTORING:
            log.warning("%s %s: %s: %r", error.status.value, error.code, error.detail, error.__cause__)
        problem = error
    except Exception:
        log.exception("a request failed")
        problem = GatewayError(HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed; this is logged.")
    if request.get(_STARTED) and request.transport is not None:
        # A second header would become file content of the first answer.
        request.transport.abort()
    return _answer(request, problem)


def _client(request: web.Request) -> Client:
    """Who asks, and by which host.

    Raises:
        GatewayError: 400; the Host field is missing or is no host (RFC 9112 §3.2), or nobody can tell what of the
            forwarding fields the proxy wrote.
    """
    host = request.headers.get("Host", "")
    if not host and request.version < HttpVersion11 and request.transport is not None:
        address, port = request.transport.get_extra_info("sockname")[:2]
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    if not is_host(host):
        raise GatewayError(HTTPStatus.BAD_REQUEST, "The Host field is missing or is no host name.", code="BadHost")
    try:
        return find_client(request.remote or "", request.scheme, host, request.headers, request.app[PROXIES])
    except ValueError as error:
        raise GatewayError(HTTPStatus.BAD_REQUEST, str(error), code="BadForwarded") from None


async def mark_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Name the request in its answer, so that a user can quote it (signal ``on_response_prepare``)."""
    response.headers["Server"] = SERVER
    if REQUEST_ID in request:
        request[_STARTED] = True
        response.headers["X-Request-ID"] = request[REQUEST_ID]


def _from_framework(error: web.HTTPException) -> GatewayError:
    status = HTTPStatus(error.status)
    detail = {
        HTTPStatus.NOT_FOUND: "There is nothing at this path.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take that method.",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body of the request is too large.",
    }.get(status, status.phrase)
    return GatewayError(status, detail, headers={"Allow": error.headers["Allow"]} if "Allow" in error.headers else {})


def _answer(request: web.Request, error: GatewayError) -> web.Response:
    request[PROBLEM] = error.code
    fields = {"Cache-Control": "no-store", **error.headers}
    if is_navigation(request.headers):
        fields |= error_page.FIELDS
        media_type, body = error_page.MEDIA_TYPE, _page(request, error)
    else:
        media_type, body = render(error, family_of(request), request_id=request[REQUEST_ID])
    response = web.Response(status=error.status, body=body, headers=fields)
    response.content_type = media_type
    if media_type == error_page.MEDIA_TYPE:
        response.charset = "utf-8"
    return response


def _page(request: web.Request, error: GatewayError) -> bytes:
    """``error`` for a person, who can log in where that helps: his request was anonymous, or its session has ended."""
    site, path = request.app[SITE], str(without_link(request.rel_url))
    if path.startswith("/login"):
        path = "/me"  # to begin anew, not to come back with what did not hold
    principal = request.get(PRINCIPAL)
    unknown = error.status == HTTPStatus.UNAUTHORIZED or (
        error.status == HTTPStatus.FORBIDDEN and principal is not None and principal.is_anonymous
    )
    login = None
    if site.has_login and unknown and CLIENT in request:
        login = error_page.login_link(base_url(request, site.public_url), path)
    return error_page.page(error, request_id=request[REQUEST_ID], login=login, path=path)
