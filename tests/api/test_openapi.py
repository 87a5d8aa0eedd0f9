"""``GET /api``: valid OpenAPI 3.1, of the routes that there are and no others, and true of what they answer."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api.openapi import MEDIA_TYPE, described, described_routes, document, routes_of
from gateway.api.openapi_page import page
from gateway.app import create_app
from gateway.config import Api
from tests.api.matrix import COLLECTION, ITEM
from tests.api.stage import running_stage
from tests.api.support import INSTANCE_ADMIN, PROJECT_ADMIN, USER, call
from tests.harness import Entry, RunningGateway, config_for, running_gateway

LATER = "2999-12-31T23:59:59Z"
PREFIXES: tuple[dict[str, str], ...] = ({}, {"regards_prefix": "/api/v1/rs-catalog", "stac_prefix": "/stac"})


def app_with(**api: str) -> tuple[web.Application, Api]:
    config = config_for("postgresql://u@h/d", "redis://h", Path("/nowhere"), api=api)
    return create_app(config), config.api


@pytest.mark.parametrize("prefixes", PREFIXES)
def test_every_route_is_described_and_nothing_else(prefixes: dict[str, str]) -> None:
    app, api = app_with(**prefixes)
    routes = routes_of(app)
    undescribed = [(route.method, route.path) for route in routes if described(route, api)[1] is None]
    assert undescribed == [], "say what they do in gateway/api/openapi_operations.py"
    registered = {(route.method, route.path) for route in routes}
    assert set(described_routes(api)) <= registered, "words on routes that are not there"
    told = document(routes, api)["paths"]
    assert {(method.upper(), path) for path, item in told.items() for method in item if method != "parameters"} == (
        registered
    )


@pytest.mark.parametrize("prefixes", PREFIXES)
def test_the_document_is_valid(prefixes: dict[str, str]) -> None:
    app, api = app_with(**prefixes)
    told = document(routes_of(app), api)
    assert list(OpenAPIV31SpecValidator(told).iter_errors()) == []
    identifiers = [
        item[method]["operationId"] for item in told["paths"].values() for method in item if method != "parameters"
    ]
    assert len(set(identifiers)) == len(identifiers)
    assert "getDownload" in identifiers
    text = json.dumps(told)
    for part, group in told["components"].items():
        if part != "securitySchemes":
            unused = [name for name in group if f'"#/components/{part}/{name}"' not in text]
            assert unused == []


async def test_the_document_is_served_to_everybody(gateway: RunningGateway) -> None:
    response, body = await gateway.get("/api")
    assert (response.status, response.headers["Content-Type"]) == (200, MEDIA_TYPE)
    assert json.loads(body)["openapi"] == "3.1.0"


async def test_answers_have_the_shape_that_is_described(database: str, redis_url: str, tmp_path: Path) -> None:
    async with running_stage(database, redis_url, tmp_path) as stage:
        await see_that_answers_have_their_shape(stage.gateway, stage.entry)


async def see_that_answers_have_their_shape(gateway: RunningGateway, entry: Entry) -> None:
    told = json.loads((await gateway.get("/api"))[1])
    right: dict[str, object] = {"metadataAccessLevel": "FULL_ACCESS", "fileAccessLevel": "NO_ACCESS"}
    right |= {"qualityFilter": {"minScore": 1, "qualityLevels": ["ACCEPTED"]}, "policy": None, "policyOptions": None}
    of_licence = "/admin/collections/restricted/licence"
    steps: list[tuple[str, str, object]] = [
        ("POST", "/collections", {**COLLECTION, "id": "c"}),
        ("POST", "/collections", {"type": "Catalog"}),
        ("PUT", "/collections/c", COLLECTION),
        ("POST", "/collections/c/items", {**ITEM, "id": "i"}),
        ("POST", "/collections/c/items", {**ITEM, "id": "i"}),
        ("PUT", "/collections/c/items/i", ITEM),
        ("PATCH", "/collections/c/items/i", {"properties": {"title": None}}),
        ("PATCH", "/collections/c/items/i", {"type": "Other"}),
        ("DELETE", "/collections/c", None),
        ("DELETE", "/collections/c/items/i", None),
        ("DELETE", "/collections/c", None),
        ("PUT", "/admin/groups/g", {"isPublic": True}),
        ("GET", "/admin/groups/g", None),
        ("GET", "/admin/groups", None),
        ("PUT", "/admin/groups/g/members", {"members": ["a@x"]}),
        ("PUT", "/admin/groups/g/members/b@x", None),
        ("GET", "/admin/groups/g/members?limit=1", None),
        ("DELETE", "/admin/groups/g/members/b@x", None),
        ("PUT", "/admin/collections/restricted/rights/g", right),
        ("GET", "/admin/collections/restricted/rights/g", None),
        ("GET", "/admin/collections/restricted/rights", None),
        ("DELETE", "/admin/collections/restricted/rights/g", None),
        ("PUT", "/admin/licences/l", {"url": "https://example.org", "title": "T"}),
        ("POST", "/admin/licences/l/versions", {"url": None}),
        ("GET", "/admin/licences/l", None),
        ("GET", "/admin/licences", None),
        ("PUT", of_licence, {"licence": "l"}),
        ("GET", of_licence, None),
        ("GET", "/collections/restricted/license", None),
        ("PUT", "/collections/restricted/license", None),
        ("GET", "/collections/none/license", None),
        ("DELETE", "/admin/licences/l", None),
        ("PUT", "/admin/licence", {"licence": None}),
        ("GET", "/admin/licence", None),
        ("GET", "/license", None),
        ("PUT", "/license", None),
        ("PUT", "/license/reset", None),
        ("GET", "/engines/legacy/dataobjects/search?q=id:*&size=1&sort=id,desc", None),
        ("GET", "/engines/legacy/dataobjects/search?q=none:x", None),
        ("GET", f"/engines/legacy/dataobjects/{entry.product}", None),
        ("GET", "/engines/legacy/dataobjects/none", None),
        ("GET", f"/entities/{entry.product}/access", None),
        ("GET", "/entities/none/access", None),
        ("POST", "/entities/access", [entry.product, "none"]),
        ("POST", "/entities/access", [1]),
        ("GET", f"/availability/files/{entry.product}", None),
        ("GET", "/availability/files/none", None),
        ("POST", "/availability/files", {"product_ids": [entry.product]}),
        ("GET", f"/restore/{entry.product}", None),
        ("POST", "/restore", {"product_ids": [entry.product]}),
        ("POST", "/files/availability/status", {"checksums": [entry.checksum]}),
        ("GET", "/restores", None),
        ("GET", "/restores/71001", None),
        ("PATCH", "/restores/71001", {"hours": 48}),
        ("PATCH", "/restores/71003", {"hours": 1}),
        ("DELETE", "/restores/71001", None),
        ("GET", "/restores/1", None),
        ("GET", "/me", None),
        ("POST", "/me/keys", {"label": "l", "scopes": ["quota"], "networks": ["192.0.2.0/24"], "expires": LATER}),
        ("POST", "/me/keys", {"label": ""}),
        ("GET", "/me/keys", None),
        ("DELETE", "/me/keys/none", None),
        ("POST", "/admin/keys", {"label": "l", "email": "a@x", "subject": "a", "groups": ["g"], "networks": None}),
        ("GET", "/admin/keys?email=a@x", None),
        ("DELETE", "/admin/keys/none", None),
        ("POST", "/links", {"product": entry.product, "checksum": entry.checksum, "downloads": 1, "bytes": None}),
        ("POST", "/links", {"collection": "restricted", "item": "it-7f3", "asset": "as-7f3", "network": "192.0.2.1"}),
        ("POST", "/links", {"collection": "restricted", "item": "it-7f3", "asset": "none"}),
        ("DELETE", "/links/none", None),
        ("DELETE", "/links?email=a@x", None),
        ("POST", "/download", [{"product": entry.product, "checksum": entry.checksum}]),
        ("POST", "/download", {"files": [{"collection": "none", "item": "i", "asset": "a"}], "network": None}),
        ("POST", "/download", [{"collection": "c"}]),
        ("GET", "/login?next=evil", None),
        ("GET", "/login/callback", None),
        ("POST", "/logout", None),
        ("PUT", "/admin/roles/r", {"parent": "EXPLOIT"}),
        ("GET", "/admin/roles/r", None),
        ("GET", "/admin/roles", None),
        ("DELETE", "/admin/roles/r", None),
        ("GET", "/admin/roles/r", None),
        ("GET", "/admin/changes", None),
        ("GET", "/admin/downloads", None),
        ("PUT", "/admin/tenants/t", {}),
        ("GET", "/admin/tenants", None),
        ("DELETE", "/admin/tenants/t", None),
        ("DELETE", "/admin/groups/g", None),
        ("PUT", "/admin/groups/g", []),
        ("GET", "/", None),
        ("GET", "/conformance", None),
        ("GET", "/collections", None),
        ("GET", "/collections/restricted", None),
        ("GET", "/collections/restricted/items?limit=1", None),
        ("GET", "/collections/restricted/items?limit=0", None),
        ("GET", "/collections/restricted/items/it-7f3", None),
        ("GET", "/collections/restricted/items/none", None),
        ("GET", "/search?bbox=1,2,3", None),
        ("POST", "/search", {"collections": ["restricted"], "bbox": [-180, -90, 180, 90]}),
        ("POST", "/search", {"limit": "many"}),
        ("GET", "/tenants/esa", None),
        ("GET", "/tenants/ghost/collections", None),
        ("GET", "/me/usage", None),
        ("GET", "/health", None),
        ("GET", "/health/live", None),
        ("GET", "/quota", None),
        ("GET", "/quota/rules", None),
    ]
    for method, path, body in steps:
        who = INSTANCE_ADMIN if path.startswith("/admin/tenants") else PROJECT_ADMIN
        status, answer = await call(gateway, method, path, who, body)
        check(told, method, path, body, status, answer)
    for path in ("/admin/groups", "/quota/rules"):
        status, answer = await call(gateway, "GET", path, USER)
        check(told, "GET", path, None, status, answer)


def check(told: dict[str, Any], method: str, path: str, body: object, status: int, answer: object) -> None:
    """See that a request and its answer are as described."""
    operation = operation_at(told, method, path.partition("?")[0])
    response = operation["responses"].get(str(status))
    assert response is not None, (method, path, status, answer)
    if body is not None and status < 400:
        validate(told, operation["requestBody"]["content"]["application/json"]["schema"], body)
    if answer is None:
        assert "content" not in response
        return
    content = response["content"]
    # Of what others have a standard for, the description says no more than its media type.
    media_type = next(iter(content))
    validate(told, content[media_type].get("schema", {}), answer)


def operation_at(told: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    """The operation of a path, by its template."""
    parts = path.split("/")
    for template, item in told["paths"].items():
        wanted = template.split("/")
        same = len(wanted) == len(parts) and all(
            one.startswith("{") or one == part for one, part in zip(wanted, parts, strict=True)
        )
        if same and method.lower() in item:
            found: dict[str, Any] = item[method.lower()]
            return found
    raise AssertionError((method, path))


def validate(told: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    Draft202012Validator({**schema, "components": told["components"]}).validate(value)


async def test_the_page_shows_every_operation_and_runs_and_fetches_nothing(gateway: RunningGateway) -> None:
    told = json.loads((await gateway.get("/api"))[1])
    response, body = await gateway.get("/api.html")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = response.headers["Content-Security-Policy"]
    style = re.findall(rb"<style>(.*?)</style>", body)
    digest = base64.b64encode(hashlib.sha256(style[0]).digest()).decode()
    assert (policy.split(";")[0], f"'sha256-{digest}'" in policy, len(style)) == ("default-src 'none'", True, 1)
    text = body.decode()
    assert re.findall(r"<(?:script|img|link|iframe|object)|\s(?:src|on\w+)=", text) == []
    targets = re.findall(r'href="([^"]*)"', text)
    identifiers = re.findall(r'id="([^"]*)"', text)
    assert len(set(identifiers)) == len(identifiers)
    assert {target.removeprefix("#") for target in targets} <= set(identifiers), "all links stay on the page"
    for item in told["paths"].values():
        for method, operation in item.items():
            if method != "parameters":
                assert f"<code>{operation['operationId']}</code>" in text
    assert text.count("<details>") == sum(len(item) - ("parameters" in item) for item in told["paths"].values())


async def test_both_stand_at_the_root_of_the_stac_api_too(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path, api={"stac_prefix": "/stac"})
    async with running_gateway(config, tmp_path) as gateway:
        for name in ("api", "api.html"):
            one, other = [await gateway.get(f"{prefix}/{name}") for prefix in ("", "/stac")]
            assert (one[0].status, one[1], one[0].content_type) == (200, other[1], other[0].content_type)


def test_the_page_escapes_what_a_description_holds() -> None:
    told = document(routes_of(app_with()[0]), Api())
    told["info"]["title"] = "<script>"
    told["components"]["schemas"]["exception"]["description"] = "</pre><script>"
    assert b"<script>" not in page(told)
