"""The description of this API: ``GET /api``, OpenAPI 3.1, made from the routes that there are; and ``/api.html``.

Both stand at the roots of the STAC API, too.

`gateway.api.openapi_operations` says of each route what its table of routes does not: a route without such words is
described by its path alone, and a test fails.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import web

from gateway import __version__
from gateway.api import openapi_page
from gateway.api.openapi_operation import FORM, UPLOAD, Operation
from gateway.api.openapi_operations import OPERATIONS
from gateway.api.openapi_schemas import LOCATION, PARAMETERS, PATH_PARAMETERS, SCHEMAS, SECURITY_SCHEMES, TAGS
from gateway.api.openapi_stac import STAC_PARAMETERS, STAC_SCHEMAS, WITHOUT_SLASH
from gateway.config import Api
from gateway.errors import Family, phrase
from gateway.links import TENANT
from gateway.stac.links import GEOJSON
from gateway.stac.roots import roots

MEDIA_TYPE = "application/vnd.oai.openapi+json;version=3.1"

_PARAMETER = re.compile(r"\{(\w+)\}")
_ERRORS = {Family.REGARDS: "RegardsError", Family.STAC: "exception", Family.PROBLEM: "Problem"}
_ERROR_TYPES = {Family.PROBLEM: "application/problem+json"}
_ROLES = {
    "administrator": "Role PROJECT_ADMIN, or INSTANCE_ADMIN, or where REGARDS has it so ADMIN.",
    "instance": "Role INSTANCE_ADMIN.",
}

Json = dict[str, Any]


class Route(NamedTuple):
    """A route as it is registered."""

    method: str
    path: str
    """Its template."""
    handler: str
    """A name of what answers, which no other route of the same method has."""


class Made(NamedTuple):
    """The description, in both forms."""

    document: bytes
    page: bytes


class Description:
    """Describes routes once it is asked to: few processes ever are, and it takes them a while."""

    def __init__(self, routes: Sequence[Route], api: Api) -> None:
        self._routes = routes
        self._api = api
        self._made: Made | None = None

    async def made(self) -> Made:
        """The description."""
        if self._made is None:
            self._made = await asyncio.to_thread(self._make)
        return self._made

    def _make(self) -> Made:
        described = document(self._routes, self._api)
        text = json.dumps(described, separators=(",", ":")).encode("ascii")
        return Made(text, openapi_page.page(described))


DESCRIPTION = web.AppKey("openapi", Description)


async def get_api(request: web.Request) -> web.Response:
    """``GET /api``."""
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "public, max-age=300"}
    described = await request.app[DESCRIPTION].made()
    return web.Response(body=described.document, headers=headers)


async def get_page(request: web.Request) -> web.Response:
    """``GET /api.html``."""
    headers = {"Cache-Control": "public, max-age=300", **openapi_page.FIELDS}
    described = await request.app[DESCRIPTION].made()
    return web.Response(body=described.page, content_type="text/html", charset="utf-8", headers=headers)


def routes(stac_prefix: str) -> list[web.RouteDef]:
    """The routes."""
    return [
        route
        for prefix in dict.fromkeys(("", *roots(stac_prefix)))
        for route in (web.get(f"{prefix}/api", get_api), web.get(f"{prefix}/api.html", get_page))
    ]


def routes_of(app: web.Application) -> list[Route]:
    """All routes of ``app``."""
    return [
        Route(route.method, route.resource.canonical, f"{route.handler.__module__}.{route.handler.__name__}")
        for route in app.router.routes()
        if route.resource is not None
    ]


def describe(app: web.Application, api: Api) -> None:
    """Have ``app``, which has all of its routes, described once somebody asks."""
    app[DESCRIPTION] = Description(routes_of(app), api)


def document(routes: Iterable[Route], api: Api) -> Json:
    """The description of ``routes``."""
    paths: dict[str, Json] = {}
    for route in sorted(routes, key=lambda route: (route.path, route.method)):
        family, operation = described(route, api)
        told = _operation(route, family, operation or Operation("Not described."))
        paths.setdefault(route.path, {})[route.method.lower()] = told
    for path, item in paths.items():
        item["parameters"] = [_path_parameter(name) for name in _PARAMETER.findall(path)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Download gateway",
            "version": __version__,
            "description": "Downloads by REGARDS' catalogue and by the STAC API Download extension; administration.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": api.public_url or "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **STAC_SCHEMAS},
            "parameters": {**PARAMETERS, **STAC_PARAMETERS},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def described(route: Route, api: Api) -> tuple[Family, Operation | None]:
    """The API family of a route, and the words on it; those of GET for a HEAD that has none."""
    for family, prefix in _places(api):
        if not f"{route.path}/".startswith(f"{prefix}/"):
            continue
        path = route.path.removeprefix(prefix)
        for method in (route.method, "GET") if route.method == "HEAD" else (route.method,):
            if operation := _operations(family, prefix).get((method, path)):
                return family, operation
    return Family.PROBLEM, None


def _operation(route: Route, family: Family, operation: Operation) -> Json:
    role = _ROLES.get(operation.access)
    told: Json = {
        "operationId": _standard_identifier(route, operation) or _identifier(route),
        "summary": operation.summary,
        "tags": [operation.tag or (family.value if family is not Family.PROBLEM else "gateway")],
        "security": _security(operation),
        "responses": _responses(route, family, operation),
    }
    if operation.text or role:
        told["description"] = " ".join(filter(None, (operation.text, role)))
    if operation.query:
        told["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in operation.query]
    if operation.body is not None:
        told["requestBody"] = {
            "required": True,
            "content": {operation.body_type: _content(operation.body_type, operation.body)},
        }
    return told


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    """What the caller shows, one of these; the names beside an API key are the scopes that it must have."""
    if operation.access == "public":
        return []
    ways: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]
    scope = "admin" if operation.access in _ROLES and not operation.in_person else operation.scope
    if scope is not None:
        ways += [{"apiKey": [scope]}, {"basic": [scope]}]
    elif operation.any_key:
        ways += [{"apiKey": []}, {"basic": []}]
    if operation.link:
        ways.append({"link": []})
    if operation.access == "anyone":
        ways.append({"scope": []})
    return ways


def _responses(route: Route, family: Family, operation: Operation) -> Json:
    responses: Json = {}
    for status in operation.statuses:
        answer: Json = {"description": phrase(HTTPStatus(status))}
        types = operation.types or (("application/json",) if operation.answer else ())
        if route.method != "HEAD" and types and status not in (204, 304, 307):
            answer["content"] = {one: _content(one, operation.answer) for one in types}
        if status in (303, 307):
            answer["headers"] = {"Location": LOCATION}
        responses[str(status)] = answer
    refusals = set(operation.refusals)
    if operation.access != "public":
        # 403: an API key without the scope, or a session from another site's page, may not whoever the caller is.
        refusals |= {401, 403}
    if operation.body is not None:
        refusals |= {400, 408, 413}
    for status in sorted(refusals):
        media_type = _ERROR_TYPES.get(family, "application/json")
        responses[str(status)] = {
            "description": phrase(HTTPStatus(status)),
            "content": {media_type: _content(media_type, _ERRORS[family])},
        }
    return responses


def _content(media_type: str, schema: str | None) -> Json:
    """What a body of a media type looks like; only JSON and forms have a schema."""
    if schema is None or media_type not in ("application/json", "application/problem+json", GEOJSON, FORM, UPLOAD):
        return {}
    return {"schema": {"$ref": f"#/components/schemas/{schema}"}}


def _path_parameter(name: str) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": PATH_PARAMETERS.get(name, name),
        "schema": {"type": "string"},
    }


def _standard_identifier(route: Route, operation: Operation) -> str:
    """The one that a standard names, of which there can be one: not HEAD's, and not at the roots of tenants."""
    return "" if route.method == "HEAD" or f"{{{TENANT}}}" in route.path else operation.identifier


def _identifier(route: Route) -> str:
    name = route.handler.rpartition("api.")[2].replace(".", "_")
    path = re.sub(r"[^a-z0-9]+", "_", route.path.lower()).strip("_")
    slash = "_slash" if route.path.endswith("/") else "_slashes" if "//" in route.path else ""
    return f"{name}_{path}{slash}_{route.method.lower()}"


def described_routes(api: Api) -> Mapping[tuple[str, str], Operation]:
    """Everything there are words for, by method and path."""
    return {
        (method, f"{prefix}{path}"): operation
        for family, prefix in _places(api)
        for (method, path), operation in _operations(family, prefix).items()
    }


def _operations(family: Family, prefix: str) -> Mapping[tuple[str, str], Operation]:
    return {**OPERATIONS[family], **WITHOUT_SLASH} if family is Family.STAC and prefix else OPERATIONS[family]


def _places(api: Api) -> list[tuple[Family, str]]:
    """Where each family stands."""
    stac = [(Family.STAC, root) for root in roots(api.stac_prefix)]
    return [(Family.REGARDS, api.regards_prefix), *stac, (Family.PROBLEM, "")]
