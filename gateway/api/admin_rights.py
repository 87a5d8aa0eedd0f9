"""Rights of groups to collections: ``/admin/collections/{collectionId}/rights``. Members have REGARDS' names."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.administration import rights
from gateway.administration.rights import Right
from gateway.api.admin import acting, answer_list, answer_put, no_content
from gateway.api.bodies import answer, bad, members, read_json, text
from gateway.api.keys import DOWNLOADS

_MEMBERS = ("metadataAccessLevel", "fileAccessLevel")
_OPTIONAL = ("qualityFilter", "policy", "policyOptions")
_FILTER = ("minScore", "maxScore", "qualityLevels")


async def get_rights(request: web.Request) -> web.Response:
    """``GET /admin/collections/{collectionId}/rights``: of all groups, by name."""
    collection = request.match_info["collectionId"]
    return await answer_list(
        request,
        "rights",
        rights.rights,
        collection,
        told=lambda one: {"group": one[0], **_told(one[1])},
        key=lambda one: one[0],
    )


async def get_right(request: web.Request) -> web.Response:
    """``GET /admin/collections/{collectionId}/rights/{group}``."""
    work, parts = await acting(request), request.match_info
    found = await rights.right(work.database, work.tenant, parts["collectionId"], parts["group"])
    return answer({"group": parts["group"], **_told(found)})


async def put_right(request: web.Request) -> web.Response:
    """``PUT /admin/collections/{collectionId}/rights/{group}``: in place of the right it has."""
    work, parts = await acting(request), request.match_info
    body = members(await read_json(request), _MEMBERS, (*_OPTIONAL, "group"))
    if body.get("group", parts["group"]) != parts["group"]:
        raise bad("'group' of the body is not the group of the path.")
    wanted = _right(body)
    outcome = await rights.put_right(
        work.database,
        work.tenant,
        parts["collectionId"],
        parts["group"],
        wanted,
        actor=work.actor,
        policies=request.app[DOWNLOADS].catalog.policies.names,
    )
    return answer_put({"group": parts["group"], **_told(wanted)}, outcome)


async def delete_right(request: web.Request) -> web.Response:
    """``DELETE /admin/collections/{collectionId}/rights/{group}``."""
    work, parts = await acting(request), request.match_info
    await rights.delete_right(work.database, work.tenant, parts["collectionId"], parts["group"], work.actor)
    return no_content()


def routes() -> list[web.RouteDef]:
    """The routes."""
    all_groups = "/admin/collections/{collectionId}/rights"
    one = f"{all_groups}/{{group}}"
    return [
        web.get(all_groups, get_rights),
        web.get(one, get_right),
        web.put(one, put_right),
        web.delete(one, delete_right),
    ]


def _right(body: dict[str, Any]) -> Right:
    """The right that a body describes; whether it makes sense is seen when it is written."""
    quality, options, policy = body.get("qualityFilter"), body.get("policyOptions"), body.get("policy")
    found: dict[str, Any] = {} if quality is None else members(quality, (), _FILTER)
    levels = found.get("qualityLevels")
    if levels is not None and not isinstance(levels, list):
        raise bad("'qualityLevels' must be a list.")
    if options is not None and not isinstance(options, dict):
        raise bad("'policyOptions' must be an object.")
    return Right(
        text(body["metadataAccessLevel"], "metadataAccessLevel"),
        text(body["fileAccessLevel"], "fileAccessLevel"),
        _score(found.get("minScore"), "minScore"),
        _score(found.get("maxScore"), "maxScore"),
        None if levels is None else tuple(text(level, "qualityLevels") for level in levels),
        None if policy is None else text(policy, "policy"),
        options,
    )


def _score(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 10**300:
        raise bad(f"{name!r} must be a number.")
    return float(value)


def _told(right: Right) -> dict[str, object]:
    levels = right.quality_levels
    quality = {
        "minScore": right.quality_min,
        "maxScore": right.quality_max,
        "qualityLevels": None if levels is None else list(levels),
    }
    return {
        "metadataAccessLevel": right.metadata_level,
        "fileAccessLevel": right.file_level,
        "qualityFilter": None if not any(value is not None for value in quality.values()) else quality,
        "policy": right.policy,
        "policyOptions": right.policy_options,
    }
