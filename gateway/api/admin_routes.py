"""All routes of administration."""

from __future__ import annotations

from aiohttp import web

from gateway.api import admin_groups, admin_licences, admin_records, admin_rights, admin_roles, admin_tenants


def routes() -> list[web.RouteDef]:
    """The routes."""
    parts = (admin_tenants, admin_groups, admin_rights, admin_licences, admin_roles, admin_records)
    return [route for part in parts for route in part.routes()]
