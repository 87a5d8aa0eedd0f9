"""Access groups and their members: ``/admin/groups``."""

from __future__ import annotations

from aiohttp import web

from gateway.administration import groups
from gateway.administration.groups import Group
from gateway.api.admin import acting, answer_list, answer_put, no_content
from gateway.api.bodies import answer, bad, members, read_json, text


async def get_groups(request: web.Request) -> web.Response:
    """``GET /admin/groups``: all, by name."""
    return await answer_list(request, "groups", groups.groups, told=_told, key=lambda group: group.name)


async def get_group(request: web.Request) -> web.Response:
    """``GET /admin/groups/{group}``."""
    work = await acting(request)
    return answer(_told(await groups.group(work.database, work.tenant, request.match_info["group"])))


async def put_group(request: web.Request) -> web.Response:
    """``PUT /admin/groups/{group}``: make a group, or change it. A name stays: tokens and rules of quota carry it."""
    work, name = await acting(request), request.match_info["group"]
    is_public = members(await read_json(request), ("isPublic",))["isPublic"]
    if not isinstance(is_public, bool):
        raise bad("'isPublic' must be true or false.")
    outcome = await groups.put_group(work.database, work.tenant, name, work.actor, is_public=is_public)
    return answer_put({"name": name, "isPublic": is_public}, outcome)


async def delete_group(request: web.Request) -> web.Response:
    """``DELETE /admin/groups/{group}``: with its memberships and rights."""
    work = await acting(request)
    await groups.delete_group(work.database, work.tenant, request.match_info["group"], work.actor)
    return no_content()


async def get_members(request: web.Request) -> web.Response:
    """``GET /admin/groups/{group}/members``: e-mail addresses, in order."""
    return await answer_list(request, "members", groups.members, request.match_info["group"], told=str, key=str)


async def put_members(request: web.Request) -> web.Response:
    """``PUT /admin/groups/{group}/members``: have exactly these members."""
    work, name = await acting(request), request.match_info["group"]
    emails = members(await read_json(request), ("members",))["members"]
    if not isinstance(emails, list):
        raise bad("'members' must be a list of e-mail addresses.")
    wanted = [text(email, "members") for email in emails]
    added, removed = await groups.put_members(work.database, work.tenant, name, wanted, work.actor)
    return answer({"added": added, "removed": removed})


async def put_member(request: web.Request) -> web.Response:
    """``PUT /admin/groups/{group}/members/{email}``: add a member."""
    work, name = await acting(request), request.match_info["group"]
    await groups.add_members(work.database, work.tenant, name, [request.match_info["email"]], work.actor)
    return no_content()


async def delete_member(request: web.Request) -> web.Response:
    """``DELETE /admin/groups/{group}/members/{email}``: remove a member."""
    work, parts = await acting(request), request.match_info
    await groups.remove_member(work.database, work.tenant, parts["group"], parts["email"], work.actor)
    return no_content()


def routes() -> list[web.RouteDef]:
    """The routes."""
    one = "/admin/groups/{group}"
    return [
        web.get("/admin/groups", get_groups),
        web.get(one, get_group),
        web.put(one, put_group),
        web.delete(one, delete_group),
        web.get(f"{one}/members", get_members),
        web.put(f"{one}/members", put_members),
        web.put(f"{one}/members/{{email}}", put_member),
        web.delete(f"{one}/members/{{email}}", delete_member),
    ]


def _told(group: Group) -> dict[str, object]:
    return {"name": group.name, "isPublic": group.is_public, "members": group.members}
