"""Which API family a request belongs to: the shape of its errors, and whose rules hold."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import Family

FAMILIES = web.AppKey("families", dict[str, Family])
"""API family by path prefix, the longest that fits."""


def family_of(request: web.Request) -> Family:
    """The API family that the path lies in."""
    path = request.path
    fitting = [prefix for prefix in request.app[FAMILIES] if path == prefix or path.startswith(f"{prefix}/")]
    return request.app[FAMILIES][max(fitting, key=len)] if fitting else Family.PROBLEM
