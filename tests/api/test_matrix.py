"""Every route by every kind of caller: who gets what, and that nobody learns what another tenant has.

A route that is registered and not in matrix.txt fails a test; so does a row without a route.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.api.openapi import document, routes_of
from gateway.app import create_app
from tests.api.matrix import Row, rows
from tests.api.stage import Answer, Stage, running_stage
from tests.harness import config_for
from tests.identity.browser import ORIGIN

OF_TENANT = "/tenants/{tenant}"
DESCRIPTIONS = {f"{root}/{name}" for root in ("", OF_TENANT) for name in ("api", "api.html")}
PUBLIC = {"/health", "/health/ready", "/health/live", "/login", "/login/callback", "/logout", *DESCRIPTIONS}
PUBLIC.add("/orders/public/files/{dataFileId}")
PUBLIC |= {f"/user/orders/metalink/download{extension}" for extension in ("", ".metalink", ".meta4")}
OF_ASSETS = {
    f"{root}/collections/{{collectionId}}/items/{{itemId}}/{name}/{{assetId}}"
    for root in ("", OF_TENANT)
    for name in ("download", "assets")
}
BATCHES = {"/download", f"{OF_TENANT}/download"}


@pytest.fixture
async def stage(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with running_stage(database, redis_url, tmp_path) as made:
        yield made


def test_every_route_is_in_the_table_and_nothing_else() -> None:
    app = create_app(config_for("postgresql://u@h/d", "redis://h", Path("/nowhere")))
    registered = {(route.method, route.path) for route in routes_of(app)}
    told = {(row.method, row.path) for row in rows()}
    assert {key for key in registered if key[0] != "HEAD"} == told, "say in the table who may"
    assert {path for method, path in registered if method == "HEAD"} <= {
        path for method, path in told if method == "GET"
    }


async def test_everybody_gets_what_the_table_says(stage: Stage) -> None:
    wrong = []
    for row in rows():
        for caller, status in row.statuses.items():
            found = await stage.ask(row, caller, stage.parts | row.own())
            # RFC 9110 §15.5.2: a 401 says how to show who one is.
            if found.status != status or (status == 401 and "WWW-Authenticate" not in found.fields):
                wrong.append((row.method, row.path, caller, status, found.status, found.body[:200]))
    assert wrong == []


async def test_head_answers_as_get_does(stage: Stage) -> None:
    app = create_app(stage.gateway.config)
    expected = {row.path: row for row in rows() if row.method == "GET"}
    wrong = []
    for path in sorted(route.path for route in routes_of(app) if route.method == "HEAD"):
        row = Row("HEAD", path, expected[path].statuses)
        for caller, status in row.statuses.items():
            found = await stage.ask(row, caller, stage.parts | row.own())
            if (found.status, found.body) != (status, ""):
                wrong.append((path, caller, status, found))
    assert wrong == []


async def test_from_a_page_of_the_gateway_a_session_does_what_its_user_may(stage: Stage) -> None:
    """And from a page of anybody else what none of his may."""
    wrong = []
    for row in rows():
        # To log out is tested with sessions: it would end this one.
        if row.method == "GET" or row.path == "/logout":
            continue
        for origin, status in ((ORIGIN, row.statuses["A"]), ("https://evil.example", 403), ("null", 403)):
            found = await stage.ask(row, "ses", stage.parts | row.own(), Origin=origin)
            if found.status != status:
                wrong.append((row.method, row.path, origin, status, found))
    assert wrong == []


@pytest.mark.parametrize("caller", ["C", "far", "B"])
async def test_what_another_tenant_has_is_as_what_is_not_there(stage: Stage, caller: str) -> None:
    """The same status, fields and body, but for what was asked for itself."""
    wrong = []
    for row in rows():
        told = row.statuses["B"] != row.statuses["C"] or row.path in BATCHES
        if not row.names or (caller == "B" and told):
            # What one's own tenant has without the right to it is 403, as in REGARDS.
            continue
        answers = [
            blurred(await stage.ask(row, caller, parts), parts, row.names)
            for parts in (stage.parts | row.own(), stage.missing | row.own(missing=True))
        ]
        if answers[0] != answers[1]:
            wrong.append((row.method, row.path, answers))
    assert wrong == []


@pytest.mark.parametrize(("caller", "tenant"), [("far", "esa"), ("akey", "other")])
async def test_another_tenant_is_as_one_that_does_not_exist(stage: Stage, caller: str, tenant: str) -> None:
    answers: dict[tuple[str, str], list[Answer]] = {}
    for row in rows():
        if not row.path.startswith(("/admin/", "/quota/rules")) or "/admin/tenants" in row.path:
            continue
        for name in (tenant, "ghost"):
            found = await stage.ask(row, caller, stage.parts | row.own(), query=f"tenant={name}")
            assert found.status == 404, (row, found)
            answers.setdefault((row.method, row.path), []).append(blurred(found, {"tenant": name}, ["tenant"]))
    assert answers
    assert [key for key, (one, other) in answers.items() if one != other] == []


def blurred(answer: Answer, parts: dict[str, str], names: list[str]) -> Answer:
    """An answer without what was asked for, and without what differs from one request to the next."""
    body = re.sub(r"urn:request:[0-9a-f]+", "urn:request:…", answer.body)
    for name in names:
        for text in (parts[name], json.dumps(parts[name])[1:-1], quote(parts[name], safe="")):
            body = body.replace(text, f"<{name}>")
    passing = ("Date", "X-Request-ID", "Content-Length")
    return Answer(answer.status, body, {name: value for name, value in answer.fields.items() if name not in passing})


def test_the_table_has_no_cell_that_lets_strangers_in() -> None:
    """Whatever changes something, or tells of others, is for administrators of the tenant."""
    of_oneself = {"/quota", "/quota/current", "/quotas", "/me", "/me/usage", "/me/keys", "/license", "/links"}
    of_oneself |= {"/user/orders", "/user/orders/apply", *(row.path for row in rows() if "/order/basket" in row.path)}
    # What one may see of a catalogue.
    listing = {"", "/", "/conformance", "/collections", "/search"}
    # What one has no right to is left out, false, or told as an error.
    of_oneself |= {"/restores"}
    asks_of_oneself = {"/availability/files", "/restore"}
    asks_of_oneself |= {"/entities/access", "/entities/{urn}/access", "/engines/legacy/dataobjects/search", *BATCHES}
    found: list[Any] = []
    for row in rows():
        if row.path in PUBLIC:
            continue
        found += [(row, caller) for caller in ("old", "dead") if row.statuses[caller] != 401]
        # Below the path of a tenant one need not name him.
        if row.statuses["none"] != (401 if OF_TENANT not in row.path else row.statuses["anon"]):
            found.append((row, "none"))
        path = row.path.removeprefix(OF_TENANT)
        if path in listing and row.method in ("GET", "POST"):
            assert OF_TENANT not in row.path or (row.statuses["C"], row.statuses["far"]) == (404, 404)
            continue
        if row.path not in OF_ASSETS and row.statuses["link"] != 401:
            found.append((row, "link"))
        if row.method != "GET" and (row.statuses["anon"] not in (401, 403) and row.path not in asks_of_oneself):
            found.append((row, "anon"))
        if row.path not in of_oneself | asks_of_oneself:
            found += [(row, caller) for caller in ("anon", "B", "C") if row.statuses[caller] not in (401, 403, 404)]
    assert found == []


def test_the_description_names_the_credentials_that_the_table_lets_in() -> None:
    config = config_for("postgresql://u@h/d", "redis://h", Path("/nowhere"))
    paths = document(routes_of(create_app(config)), config.api)["paths"]
    wrong: list[Any] = []
    for row in rows():
        security = paths[row.path][row.method.lower()]["security"]
        ways = {way: scopes for one in security for way, scopes in one.items()}
        assert (security == []) == (row.path in PUBLIC), row
        if row.path in PUBLIC:
            continue
        told = {
            "key": row.statuses["A"] if ways.get("apiKey") in (["download"], []) else 403,
            "akey": row.statuses["adm"] if ways.get("apiKey") in (["admin"], []) else 403,
            "ses": row.statuses["A"] if row.method == "GET" else 403,
        }
        wrong += [(row, caller) for caller, status in told.items() if row.statuses[caller] != status]
        assert ways.get("basic") == ways.get("apiKey"), row
        assert {"bearer", "session"} <= set(ways), row
        # By which of the two addresses a link was made is not to be seen in a path.
        if "link" in ways and row.path not in OF_ASSETS | {"/downloads/{aip_id}/files/{checksum}"}:
            wrong.append((row, "link"))
        if "scope" not in ways and row.statuses["anon"] not in (401, 403):
            wrong.append((row, "anon"))
        if "scope" in ways and row.statuses["anon"] == 401:
            wrong.append((row, "anon"))
    assert wrong == []
