"""Who calls, and whether he may administer."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.errors import GatewayError
from gateway.identity.principal import Principal, Scope
from gateway.identity.scopes import require_scope
from gateway.links import shown_by
from gateway.request_keys import PRINCIPAL
from gateway.rights.custom_roles import holds

PROJECT_ADMINS = frozenset({"PROJECT_ADMIN", "INSTANCE_ADMIN"})
"""REGARDS' roles that administer users and their limits; within the tenant of their token, whichever it is."""


async def whoever(request: web.Request) -> Principal:
    """Who calls, anonymous callers and API keys of any scope included.

    Raises:
        GatewayError: 401, 403.
    """
    principal = await request.app[DOWNLOADS].identity.identify(shown_by(request))
    request[PRINCIPAL] = principal
    return principal


async def caller(request: web.Request, scope: Scope | None = None) -> Principal:
    """Who calls, anonymous callers included; by an API key only if that has ``scope``, by none if no scope is named.

    Raises:
        GatewayError: 401, 403.
    """
    principal = await whoever(request)
    require_scope(principal, scope)
    return principal


async def administrator(request: web.Request, roles: frozenset[str] = PROJECT_ADMINS) -> Principal:
    """Who calls, if his role is one of ``roles``; an API key must have the scope ``admin``, too.

    Raises:
        GatewayError: 401, 403.
    """
    principal = await caller(request, "admin")
    if principal.role not in roles:
        raise forbidden(f"This needs the role {' or '.join(sorted(roles))}.")
    return principal


def is_administrator(principal: Principal, roles: frozenset[str] = PROJECT_ADMINS) -> bool:
    """Whether his role is one of ``roles``, and the credential that he shows is good for the scope ``admin``."""
    return principal.role in roles and (principal.scopes is None or "admin" in principal.scopes)


async def with_role(request: web.Request, least: str) -> Principal:
    """Who calls, if his role is ``least`` or one above it; a role of the tenant's own counts as its parent.

    An API key must have the scope ``admin``, too.

    Raises:
        GatewayError: 401, 403; 503 PostgreSQL does not answer.
    """
    principal = await caller(request, "admin")
    if not await holds(request.app[DATABASE], principal, least):
        raise forbidden(f"This needs the role {least}, or one above it.")
    return principal


def forbidden(detail: str) -> GatewayError:
    """403: he is known, and may not."""
    return GatewayError(HTTPStatus.FORBIDDEN, detail)
