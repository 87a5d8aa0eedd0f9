"""Where the STAC API stands: at its prefix, and for each tenant below ``/tenants/{tenant}``, with the very same paths.

Whatever is linked keeps to the root by which the caller came. Whoever named his tenant in a query or a header, which no
link can pass on, is led to the root of the tenant.
"""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from gateway.identity.principal import Principal
from gateway.links import API, TENANT, base_url

_OF_TENANT = f"/tenants/{{{TENANT}}}"


def roots(prefix: str) -> tuple[str, str]:
    """Templates of the paths of all roots, without a slash at the end."""
    return prefix, f"{prefix}{_OF_TENANT}"


def places(prefix: str) -> tuple[str, ...]:
    """What the paths of the STAC API begin with: its prefix, if it has one to itself."""
    return (prefix,) if prefix else ("/", "/conformance", "/collections", "/search", "/download", "/tenants")


def root_url(request: web.Request, principal: Principal) -> str:
    """The absolute URL of the root that ``principal`` is led on from, without a slash at the end."""
    api = request.app[API]
    plain = f"{base_url(request, api.public_url)}{api.stac_prefix}"
    names_tenant = principal.is_anonymous and principal.tenant != api.default_tenant
    if TENANT not in request.match_info and not names_tenant:
        return plain
    return f"{plain}{_OF_TENANT.format_map({TENANT: quote(principal.tenant, safe='')})}"
