"""Tenants, for INSTANCE_ADMIN: ``/admin/tenants``."""

from __future__ import annotations

from aiohttp import web

from gateway.administration import tenants
from gateway.administration.tenants import Tenant
from gateway.api.admin import LISTING, acting_on_all, answer_page, answer_put, asked_page, no_content
from gateway.api.bodies import members, read_json


async def get_tenants(request: web.Request) -> web.Response:
    """``GET /admin/tenants``: all, by name."""
    work = await acting_on_all(request, LISTING)
    after, limit = asked_page(request)
    found = await tenants.tenants(work.database, after=after, limit=limit + 1)
    return answer_page("tenants", found, limit, _told, lambda tenant: [tenant.name])


async def put_tenant(request: web.Request) -> web.Response:
    """``PUT /admin/tenants/{name}`` with ``{}``: there is such a tenant from now on."""
    work, name = await acting_on_all(request), request.match_info["name"]
    members(await read_json(request), ())
    created = await tenants.create_tenant(work.database, name, work.actor)
    return answer_put({"name": name}, "created" if created else "same")


async def delete_tenant(request: web.Request) -> web.Response:
    """``DELETE /admin/tenants/{name}``: 409 unless it is empty."""
    work = await acting_on_all(request)
    await tenants.delete_tenant(work.database, request.match_info["name"], work.actor)
    return no_content()


def routes() -> list[web.RouteDef]:
    """The routes."""
    return [
        web.get("/admin/tenants", get_tenants),
        web.put("/admin/tenants/{name}", put_tenant),
        web.delete("/admin/tenants/{name}", delete_tenant),
    ]


def _told(tenant: Tenant) -> dict[str, object]:
    return {"name": tenant.name, "createdAt": tenant.created_at.isoformat(), "licence": tenant.licence}
