"""Licences, and what is under which: ``/admin/licences``, ``/admin/licence``, ``/admin/collections/{id}/licence``."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.administration import licences
from gateway.administration.licences import Licence
from gateway.api.admin import acting, answer_list, answer_put, no_content
from gateway.api.bodies import answer, bad, members, read_json, text


async def get_licences(request: web.Request) -> web.Response:
    """``GET /admin/licences``: all, by name."""
    return await answer_list(request, "licences", licences.licences, told=_told, key=lambda one: one.name)


async def get_licence(request: web.Request) -> web.Response:
    """``GET /admin/licences/{licence}``."""
    work = await acting(request)
    return answer(_told(await licences.licence(work.database, work.tenant, request.match_info["licence"])))


async def put_licence(request: web.Request) -> web.Response:
    """``PUT /admin/licences/{licence}``: make one, or change it without asking anyone again."""
    work, name = await acting(request), request.match_info["licence"]
    body = members(await read_json(request), ("url",), ("title", "isPublic"))
    is_public = body.get("isPublic", False)
    if not isinstance(is_public, bool):
        raise bad("'isPublic' must be true or false.")
    url, title = text(body["url"], "url"), _text_or_none(body, "title")
    outcome = await licences.put_licence(
        work.database, work.tenant, name, work.actor, url=url, title=title, is_public=is_public
    )
    return answer_put(_told(await licences.licence(work.database, work.tenant, name)), outcome)


async def delete_licence(request: web.Request) -> web.Response:
    """``DELETE /admin/licences/{licence}``: 409 if it is in use, or was accepted."""
    work = await acting(request)
    await licences.delete_licence(work.database, work.tenant, request.match_info["licence"], work.actor)
    return no_content()


async def post_version(request: web.Request) -> web.Response:
    """``POST /admin/licences/{licence}/versions``: everyone is asked again."""
    work, name = await acting(request), request.match_info["licence"]
    url = _text_or_none(members(await read_json(request), (), ("url",)), "url")
    await licences.new_version(work.database, work.tenant, name, work.actor, url=url)
    return answer_put(_told(await licences.licence(work.database, work.tenant, name)), "created")


async def get_licence_of(request: web.Request) -> web.Response:
    """``GET /admin/collections/{collectionId}/licence``: the one it names; null: the default of the tenant."""
    work = await acting(request)
    collection = request.match_info["collectionId"]
    return answer({"licence": await licences.licence_of(work.database, work.tenant, collection)})


async def put_licence_of(request: web.Request) -> web.Response:
    """``PUT /admin/collections/{collectionId}/licence``: name one, or with null none."""
    work, collection = await acting(request), request.match_info["collectionId"]
    name = _text_or_none(members(await read_json(request), ("licence",)), "licence")
    await licences.assign_licence(work.database, work.tenant, collection, name, work.actor)
    return answer({"licence": name})


async def get_default(request: web.Request) -> web.Response:
    """``GET /admin/licence``: that of the collections which name none."""
    work = await acting(request)
    return answer({"licence": await licences.default_licence(work.database, work.tenant)})


async def put_default(request: web.Request) -> web.Response:
    """``PUT /admin/licence``: name one, or with null none."""
    work = await acting(request)
    name = _text_or_none(members(await read_json(request), ("licence",)), "licence")
    await licences.put_default_licence(work.database, work.tenant, name, work.actor)
    return answer({"licence": name})


def routes() -> list[web.RouteDef]:
    """The routes."""
    one, of_collection = "/admin/licences/{licence}", "/admin/collections/{collectionId}/licence"
    return [
        web.get("/admin/licences", get_licences),
        web.get(one, get_licence),
        web.put(one, put_licence),
        web.delete(one, delete_licence),
        web.post(f"{one}/versions", post_version),
        web.get(of_collection, get_licence_of),
        web.put(of_collection, put_licence_of),
        web.get("/admin/licence", get_default),
        web.put("/admin/licence", put_default),
    ]


def _text_or_none(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    return None if value is None else text(value, name)


def _told(licence: Licence) -> dict[str, object]:
    return {
        "name": licence.name,
        "title": licence.title,
        "url": licence.url,
        "isPublic": licence.is_public,
        "version": licence.version,
        "isDefault": licence.is_default,
    }
