"""Every route by every kind of caller: who gets what, and that nobody learns what another tenant has.

A route that is registered and not in the table fails a test; so does a row without a route. HEAD answers as GET does,
and has no row of its own. Without [identity.login] nobody logs in: 404.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.api.openapi import routes_of
from gateway.app import create_app
from gateway.config import Config
from gateway.identity.principal import Principal
from tests.api.support import INSTANCE_ADMIN, PROJECT_ADMIN
from tests.credentials import LINK_SECRET, new_key, new_link, shown_key
from tests.harness import (
    OUTSIDER,
    SCIENTIST,
    SECRET,
    Entry,
    RunningGateway,
    bearer,
    config_for,
    principal,
    running_gateway,
    token,
)

CALLERS: Mapping[str, Principal | None] = {
    "non": None,
    "any": None,
    "A": SCIENTIST,
    "B": OUTSIDER,
    "C": principal("stranger", "science", tenant="other"),
    "adm": PROJECT_ADMIN,
    "ins": INSTANCE_ADMIN,
    "old": SCIENTIST,
    "far": principal("project", role="PROJECT_ADMIN", tenant="other"),
    "key": SCIENTIST,
    "lnk": SCIENTIST,
}
"""No credential; anonymous with the name of the tenant; a user with the right to the file, one without, one of another
tenant; the administrator of the tenant, that of the instance; an old token of A; the administrator of another tenant;
an API key of A with the scope download; a signed link of A to the checksum of the file.
"""

TABLE = """
                                                                     non any A   B   C   adm ins old far key lnk
GET    /downloads/{aip_id}/files/{checksum}                          401 403 200 403 404 200 200 401 404 200 200
GET    /collections/{collectionId}/items/{itemId}/download/{assetId} 401 403 200 403 404 200 200 401 404 200 401
GET    /quota                                                        401 200 200 200 200 200 200 401 200 403 401
GET    /quota/current                                                401 200 200 200 200 200 200 401 200 403 401
POST   /quota/currents                                               401 403 403 403 403 200 200 401 200 403 401
GET    /quota/max                                                    401 403 403 403 403 200 200 401 200 403 401
GET    /quota/defaults                                               401 403 403 403 403 200 200 401 200 403 401
PUT    /quota/defaults                                               401 403 403 403 403 200 200 401 200 403 401
GET    /quota/current/{user_email}                                   401 403 403 403 403 200 200 401 200 403 401
GET    /quota/{user_email}                                           401 403 403 403 403 200 200 401 200 403 401
PUT    /quota/{user_email}                                           401 403 403 403 403 200 200 401 200 403 401
GET    /quotas                                                       401 403 200 403 403 200 200 401 200 403 401
GET    /quota/rules                                                  401 403 403 403 403 200 200 401 200 403 401
PUT    /quota/rules                                                  401 403 403 403 403 200 200 401 200 403 401
DELETE /quota/rules                                                  401 403 403 403 403 204 204 401 404 403 401
GET    /settings                                                     401 403 403 403 403 200 200 401 200 403 401
GET    /settings/{name}                                              401 403 403 403 403 200 200 401 200 403 401
PUT    /settings/{name}                                              401 403 403 403 403 200 200 401 200 403 401
DELETE /settings/{name}                                              401 403 403 403 403 200 200 401 200 403 401
GET    /entities/{urn}/access                                        401 200 200 200 404 200 200 401 404 200 401
POST   /entities/access                                              401 200 200 200 200 200 200 401 200 200 401
GET    /license                                                      401 200 200 200 200 200 200 401 200 200 401
PUT    /license                                                      401 401 200 200 200 200 200 401 200 200 401
PUT    /license/reset                                                401 403 403 403 403 204 204 401 204 403 401
GET    /collections/{collectionId}/license                           401 403 200 403 404 200 200 401 404 200 401
PUT    /collections/{collectionId}/license                           401 401 200 403 404 200 200 401 404 200 401
GET    /login                                                        404 404 404 404 404 404 404 404 404 404 404
GET    /login/callback                                               404 404 404 404 404 404 404 404 404 404 404
POST   /logout                                                       404 404 404 404 404 404 404 404 404 404 404
GET    /me                                                           401 200 200 200 200 200 200 401 200 403 401
GET    /me/keys                                                      401 401 200 200 200 200 200 401 200 403 401
POST   /me/keys                                                      401 401 201 201 201 201 201 401 201 403 401
DELETE /me/keys/{id}                                                 401 401 204 404 404 404 404 401 404 403 401
GET    /admin/keys                                                   401 403 403 403 403 200 200 401 200 403 401
POST   /admin/keys                                                   401 403 403 403 403 201 201 401 201 403 401
DELETE /admin/keys/{id}                                              401 403 403 403 403 204 204 401 404 403 401
POST   /links                                                        401 401 201 403 404 201 201 401 404 201 401
DELETE /links/{id}                                                   401 401 204 404 404 204 204 401 404 204 401
GET    /me/usage                                                     401 200 200 200 200 200 200 401 200 403 401
GET    /health                                                       200 200 200 200 200 200 200 200 200 200 200
GET    /health/ready                                                 200 200 200 200 200 200 200 200 200 200 200
GET    /health/live                                                  200 200 200 200 200 200 200 200 200 200 200
GET    /api                                                          200 200 200 200 200 200 200 200 200 200 200
GET    /admin/tenants                                                401 403 403 403 403 403 200 401 403 403 401
PUT    /admin/tenants/{name}                                         401 403 403 403 403 403 200 401 403 403 401
DELETE /admin/tenants/{name}                                         401 403 403 403 403 403 204 401 403 403 401
GET    /admin/groups                                                 401 403 403 403 403 200 200 401 200 403 401
GET    /admin/groups/{group}                                         401 403 403 403 403 200 200 401 404 403 401
PUT    /admin/groups/{group}                                         401 403 403 403 403 200 200 401 201 403 401
DELETE /admin/groups/{group}                                         401 403 403 403 403 204 204 401 404 403 401
GET    /admin/groups/{group}/members                                 401 403 403 403 403 200 200 401 404 403 401
PUT    /admin/groups/{group}/members                                 401 403 403 403 403 200 200 401 404 403 401
PUT    /admin/groups/{group}/members/{email}                         401 403 403 403 403 204 204 401 404 403 401
DELETE /admin/groups/{group}/members/{email}                         401 403 403 403 403 204 204 401 404 403 401
GET    /admin/collections/{collectionId}/rights                      401 403 403 403 403 200 200 401 404 403 401
GET    /admin/collections/{collectionId}/rights/{group}              401 403 403 403 403 200 200 401 404 403 401
PUT    /admin/collections/{collectionId}/rights/{group}              401 403 403 403 403 200 200 401 404 403 401
DELETE /admin/collections/{collectionId}/rights/{group}              401 403 403 403 403 204 204 401 404 403 401
GET    /admin/licences                                               401 403 403 403 403 200 200 401 200 403 401
GET    /admin/licences/{licence}                                     401 403 403 403 403 200 200 401 404 403 401
PUT    /admin/licences/{licence}                                     401 403 403 403 403 200 200 401 201 403 401
DELETE /admin/licences/{licence}                                     401 403 403 403 403 204 204 401 404 403 401
POST   /admin/licences/{licence}/versions                            401 403 403 403 403 201 201 401 404 403 401
GET    /admin/collections/{collectionId}/licence                     401 403 403 403 403 200 200 401 404 403 401
PUT    /admin/collections/{collectionId}/licence                     401 403 403 403 403 200 200 401 404 403 401
GET    /admin/licence                                                401 403 403 403 403 200 200 401 200 403 401
PUT    /admin/licence                                                401 403 403 403 403 200 200 401 200 403 401
GET    /admin/roles                                                  401 403 403 403 403 200 200 401 200 403 401
GET    /admin/roles/{role}                                           401 403 403 403 403 200 200 401 404 403 401
PUT    /admin/roles/{role}                                           401 403 403 403 403 200 200 401 201 403 401
DELETE /admin/roles/{role}                                           401 403 403 403 403 204 204 401 404 403 401
GET    /admin/downloads                                              401 403 403 403 403 200 200 401 200 403 401
GET    /admin/changes                                                401 403 403 403 403 200 200 401 200 403 401
"""
"""The status that each caller gets, by route and caller."""

LIMITS = {"maxQuota": 7, "rateLimit": -1}
RULE = {"subject": "group", "name": "doomed", "metric": "downloads", "period": "day", "value": 3}
RIGHT = {"metadataAccessLevel": "FULL_ACCESS", "fileAccessLevel": "NO_ACCESS"}
BODIES: Mapping[tuple[str, str], object] = {
    ("POST", "/quota/currents"): [SCIENTIST.email],
    ("PUT", "/quota/defaults"): LIMITS,
    ("PUT", "/quota/{user_email}"): {"email": "{user_email}", **LIMITS},
    ("PUT", "/quota/rules"): RULE,
    ("PUT", "/settings/{name}"): {"value": 7},
    ("POST", "/entities/access"): ["URN:AIP:DATASET:esa:restricted:V1"],
    ("POST", "/me/keys"): {"label": "made"},
    ("POST", "/admin/keys"): {"label": "made", "email": "a@example.org"},
    ("POST", "/links"): {"collection": "restricted", "item": "it-7f3", "asset": "as-7f3"},
    ("PUT", "/admin/tenants/{name}"): {},
    ("PUT", "/admin/groups/{group}"): {"isPublic": False},
    ("PUT", "/admin/groups/{group}/members"): {"members": ["b@example.org"]},
    ("PUT", "/admin/collections/{collectionId}/rights/{group}"): RIGHT,
    ("PUT", "/admin/licences/{licence}"): {"url": "https://example.org"},
    ("POST", "/admin/licences/{licence}/versions"): {},
    ("PUT", "/admin/collections/{collectionId}/licence"): {"licence": None},
    ("PUT", "/admin/licence"): {"licence": None},
    ("PUT", "/admin/roles/{role}"): {"parent": "EXPLOIT"},
}
QUERIES: Mapping[tuple[str, str], str] = {
    ("GET", "/quotas"): f"user_email={SCIENTIST.email}",
    ("DELETE", "/quota/rules"): "subject=group&name=doomed&metric=downloads&period=day",
}

RESTORE = """
DELETE FROM groups WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'other');
DELETE FROM licences WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'other');
DELETE FROM roles WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = 'other');
DELETE FROM quota_limits;
DELETE FROM api_keys WHERE label = 'made' OR key_id = 'doomedkey000';
INSERT INTO api_keys (key_id, tenant_id, secret_sha256, label, subject, email, role, created_by)
    SELECT 'doomedkey000', tenant_id, sha256('secret'), 'doomed', 'scientist', 'scientist@example.org', 'PUBLIC', 'test'
    FROM tenants WHERE name = 'esa';
DELETE FROM revoked_links;
INSERT INTO tenants (name) VALUES ('empty') ON CONFLICT DO NOTHING;
INSERT INTO groups (tenant_id, name) SELECT tenant_id, 'doomed' FROM tenants WHERE name = 'esa' ON CONFLICT DO NOTHING;
INSERT INTO group_members SELECT group_id, 'a@example.org' FROM groups WHERE name = 'doomed' ON CONFLICT DO NOTHING;
INSERT INTO access_rights (dataset_id, group_id)
    SELECT dataset_id, group_id FROM datasets, groups WHERE collection_id = 'restricted' AND name = 'doomed'
    ON CONFLICT DO NOTHING;
INSERT INTO licences (tenant_id, name, url) SELECT tenant_id, 'doomed', 'https://example.org' FROM tenants
    WHERE name = 'esa' ON CONFLICT DO NOTHING;
INSERT INTO roles (tenant_id, name, parent) SELECT tenant_id, 'doomed', 'PUBLIC' FROM tenants WHERE name = 'esa'
    ON CONFLICT DO NOTHING;
INSERT INTO quota_limits (tenant_id, subject, name, metric, period, value)
    SELECT tenant_id, 'group', 'doomed', 'downloads', 'day', 3 FROM tenants WHERE name = 'esa';
INSERT INTO quota_limits (tenant_id, subject, name, metric, period, value)
    SELECT tenant_id, 'user', 'scientist@example.org', 'downloads', 'total', 5 FROM tenants WHERE name = 'esa';
"""
"""What the routes look for is there, in the tenant ``esa`` alone."""


@dataclasses.dataclass(frozen=True)
class Row:
    method: str
    path: str
    statuses: Mapping[str, int]


def rows() -> list[Row]:
    header, *lines = TABLE.strip("\n").splitlines()
    assert header.split() == list(CALLERS)
    found = []
    for line in lines:
        method, path, *statuses = line.split()
        found.append(Row(method, path, dict(zip(CALLERS, map(int, statuses), strict=True))))
    return found


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    body: str
    fields: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A gateway, and what is in it."""

    gateway: RunningGateway
    entry: Entry
    key: str
    """That the caller ``key`` shows."""
    link: str
    """Token of the link that the caller ``lnk`` shows."""
    link_id: str
    """Of a link that A might have made, which nobody shows."""

    def parts_of(self, path: str) -> dict[str, str]:
        """What stands for the parameters of a path: all of it is there, in the tenant ``esa``."""
        entry = self.entry
        return {
            "urn": entry.product,
            "id": self.link_id if path.startswith("/links") else "doomedkey000",
            "aip_id": entry.product,
            "checksum": entry.checksum,
            "collectionId": entry.collection,
            "itemId": entry.item,
            "assetId": entry.asset,
            "user_email": SCIENTIST.email or "",
            "email": "a@example.org",
            "group": "doomed",
            "licence": "doomed",
            "role": "doomed",
            "name": "empty" if path.startswith("/admin/tenants") else "maxQuota",
        }

    async def restore(self) -> None:
        await self.gateway.catalogue.connection.execute(RESTORE)

    async def ask(
        self, method: str, path: str, caller: str, parts: Mapping[str, str] | None = None, query: str | None = None
    ) -> Answer:
        """What ``caller`` is answered at a path with these parts, else with those that are there."""
        parts = parts or self.parts_of(path)
        key = ("GET" if method == "HEAD" else method, path)
        url = path.format_map({name: quote(value, safe="") for name, value in parts.items()})
        shown = {"any": "scope=esa", "lnk": f"link={self.link}"}.get(caller, "")
        queries = [QUERIES.get(key, "") if query is None else query, shown]
        fields = shown_key(self.key) if caller == "key" else credentials(caller)
        body = filled(BODIES[key], parts) if key in BODIES and method != "HEAD" else None
        address = f"{self.gateway.url}{url}?{'&'.join(filter(None, queries))}"
        data = None if body is None else json.dumps(body)
        async with self.gateway.session.request(method, address, headers=fields, data=data) as response:
            text = (await response.read()).decode("latin-1")
        return Answer(response.status, text, dict(response.headers))


def filled(value: object, parts: Mapping[str, str]) -> object:
    """A body with the parts of the path in it."""
    if isinstance(value, dict):
        return {name: filled(one, parts) for name, one in value.items()}
    if isinstance(value, str) and value.startswith("{"):
        return parts[value.strip("{}")]
    return value


def credentials(caller: str) -> dict[str, str]:
    who = CALLERS[caller]
    if who is None or caller == "lnk":
        return {}
    return {"Authorization": f"Bearer {token(who, lifetime=-3600)}"} if caller == "old" else bearer(who)


def config_with_links(dsn: str, redis_url: str, root: Path) -> Config:
    identity = {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}], "links": {"secret": LINK_SECRET}}
    return config_for(dsn, redis_url, root, identity=identity)


@pytest.fixture
async def stage(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with running_gateway(config_with_links(database, redis_url, tmp_path), tmp_path) as gateway:
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group("science"))
        await gateway.catalogue.tenant("other")
        entry = await gateway.catalogue.file(b"content", item="it-7f3", asset="as-7f3")
        key = await new_key(gateway, SCIENTIST)
        link = await new_link(gateway, SCIENTIST, product=entry.product, checksum=entry.checksum)
        other_link = f"{link['id'].partition('-')[0]}-{'A' * 12}"
        stage = Stage(gateway, entry, key["key"], link["url"].partition("link=")[2], other_link)
        await stage.restore()
        yield stage


def test_every_route_is_in_the_table_and_nothing_else() -> None:
    app = create_app(config_with_links("postgresql://u@h/d", "redis://h", Path("/nowhere")))
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
            if row.method != "GET":
                await stage.restore()
            found = await stage.ask(row.method, row.path, caller)
            if found.status != status:
                wrong.append((row.method, row.path, caller, status, found.status, found.body[:200]))
    assert wrong == []


async def test_head_answers_as_get_does(stage: Stage) -> None:
    app = create_app(stage.gateway.config)
    expected = {row.path: row.statuses for row in rows() if row.method == "GET"}
    wrong = []
    for path in sorted(route.path for route in routes_of(app) if route.method == "HEAD"):
        for caller, status in expected[path].items():
            found = await stage.ask("HEAD", path, caller)
            if (found.status, found.body) != (status, ""):
                wrong.append((path, caller, status, found))
    assert wrong == []


@pytest.mark.parametrize("caller", ["C", "far", "B"])
async def test_what_another_tenant_has_is_as_what_is_not_there(stage: Stage, caller: str) -> None:
    """The same status, fields and body, but for what was asked for itself."""
    wrong = []
    for row in rows():
        names = re.findall(r"\{(\w+)\}", row.path)
        if not names or (caller == "B" and row.statuses["B"] != row.statuses["C"]):
            # What one's own tenant has without the right to it is 403, as in REGARDS.
            continue
        answers = []
        there = stage.parts_of(row.path)
        missing = {name: f"zz{at}" for at, name in enumerate(there)}
        missing |= {"name": there["name"], "id": there["id"][:-1] + "Z"}
        for parts in (there, missing):
            await stage.restore()
            answers.append(blurred(await stage.ask(row.method, row.path, caller, parts), parts, names))
        if answers[0] != answers[1]:
            wrong.append((row.method, row.path, answers))
    assert wrong == []


async def test_another_tenant_is_as_one_that_does_not_exist(stage: Stage) -> None:
    answers: dict[tuple[str, str], list[Answer]] = {}
    for row in rows():
        if not row.path.startswith("/admin/") or "/admin/tenants" in row.path:
            continue
        for tenant in ("esa", "ghost"):
            await stage.restore()
            found = await stage.ask(row.method, row.path, "far", query=f"tenant={tenant}")
            assert found.status == 404, (row, found)
            answers.setdefault((row.method, row.path), []).append(blurred(found, {"tenant": tenant}, ["tenant"]))
    assert answers
    assert [key for key, (one, other) in answers.items() if one != other] == []


def blurred(answer: Answer, parts: Mapping[str, str], names: list[str]) -> Answer:
    """An answer without what was asked for, and without what differs from one request to the next."""
    body = re.sub(r"urn:request:[0-9a-f]+", "urn:request:…", answer.body)
    for name in names:
        for text in (parts[name], json.dumps(parts[name])[1:-1], quote(parts[name], safe="")):
            body = body.replace(text, f"<{name}>")
    passing = ("Date", "X-Request-ID", "Content-Length")
    return Answer(answer.status, body, {name: value for name, value in answer.fields.items() if name not in passing})


def test_the_table_has_no_cell_that_lets_strangers_in() -> None:
    """Whatever changes something, or tells of others, is for administrators of the tenant."""
    open_to_all = {"/health", "/health/ready", "/health/live", "/api", "/login", "/login/callback", "/logout"}
    of_oneself = {"/quota", "/quota/current", "/quotas", "/me/usage", "/me", "/me/keys", "/license"}
    of_oneself |= {"/entities/access", "/entities/{urn}/access"}
    found: list[Any] = []
    for row in rows():
        if row.path in open_to_all:
            continue
        found += [(row, caller) for caller in ("non", "old") if row.statuses[caller] != 401]
        if row.path not in of_oneself:
            found += [(row, caller) for caller in ("any", "B", "C") if row.statuses[caller] not in (401, 403, 404)]
    assert found == []
