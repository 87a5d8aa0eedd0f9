"""Roles of a tenant beside REGARDS' own: ``/admin/roles``."""

from __future__ import annotations

from aiohttp import web

from gateway.administration import roles
from gateway.administration.roles import Role
from gateway.api.admin import acting, answer_list, answer_put, no_content
from gateway.api.bodies import answer, members, read_json, text


async def get_roles(request: web.Request) -> web.Response:
    """``GET /admin/roles``: all, by name."""
    return await answer_list(request, "roles", roles.roles, told=_told, key=lambda role: role.name)


async def get_role(request: web.Request) -> web.Response:
    """``GET /admin/roles/{role}``."""
    work = await acting(request)
    return answer(_told(await roles.role(work.database, work.tenant, request.match_info["role"])))


async def put_role(request: web.Request) -> web.Response:
    """``PUT /admin/roles/{role}``: make a role, or give it another parent."""
    work, name = await acting(request), request.match_info["role"]
    parent = text(members(await read_json(request), ("parent",))["parent"], "parent")
    outcome = await roles.put_role(work.database, work.tenant, name, parent, work.actor)
    return answer_put(_told(Role(name, parent)), outcome)


async def delete_role(request: web.Request) -> web.Response:
    """``DELETE /admin/roles/{role}``."""
    work = await acting(request)
    await roles.delete_role(work.database, work.tenant, request.match_info["role"], work.actor)
    return no_content()


def routes() -> list[web.RouteDef]:
    """The routes."""
    one = "/admin/roles/{role}"
    return [
        web.get("/admin/roles", get_roles),
        web.get(one, get_role),
        web.put(one, put_role),
        web.delete(one, delete_role),
    ]


def _told(role: Role) -> dict[str, object]:
    return {"name": role.name, "parent": role.parent}
