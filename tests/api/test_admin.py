"""Administration by REST: what is written is there, takes effect, is recorded, and is refused in plain words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import pytest

from gateway.administration.tenants import CONTENT
from gateway.administration.work import MOST_NAME
from tests.api.support import INSTANCE_ADMIN, PLAIN_ADMIN, PROJECT_ADMIN, SCOPE, USER, ask, call, nested
from tests.credentials import new_key, send, shown_key
from tests.harness import OUTSIDER, SCIENTIST, RunningGateway, bearer, principal

OTHER_ADMIN = principal("project", role="PROJECT_ADMIN", tenant="other")
FULL = {"metadataAccessLevel": "FULL_ACCESS", "fileAccessLevel": "INHERITED_ACCESS"}
TEXT = "https://example.org/text"


async def changes(gateway: RunningGateway) -> list[tuple[str, str]]:
    """Actions and objects, the oldest first."""
    rows = await gateway.catalogue.connection.fetch("SELECT action, object FROM changes ORDER BY change_id")
    return [(row["action"], row["object"]) for row in rows]


async def expect(
    gateway: RunningGateway, status: int, method: str, path: str, body: object = None, who: Any = PROJECT_ADMIN
) -> Any:
    """The JSON of an answer with that status."""
    found, told = await call(gateway, method, path, who, body)
    assert found == status, (method, path, told)
    return told


async def test_tenants_are_made_listed_and_deleted_when_they_are_empty(gateway: RunningGateway) -> None:
    for name in ("b", "a", "c d/e"):
        path = f"/admin/tenants/{quote(name, safe='')}"
        assert await expect(gateway, 201, "PUT", path, {}, INSTANCE_ADMIN) == {"name": name}
        await expect(gateway, 200, "PUT", path, {}, INSTANCE_ADMIN)
    page = await expect(gateway, 200, "GET", "/admin/tenants?limit=3", who=INSTANCE_ADMIN)
    assert [one["name"] for one in page["tenants"]] == ["a", "b", "c d/e"]
    page = await expect(gateway, 200, "GET", f"/admin/tenants?cursor={page['next']}", who=INSTANCE_ADMIN)
    assert ([one["name"] for one in page["tenants"]], page["next"]) == (["esa"], None)
    await expect(gateway, 204, "DELETE", "/admin/tenants/a", who=INSTANCE_ADMIN)
    await expect(gateway, 404, "DELETE", "/admin/tenants/a", who=INSTANCE_ADMIN)
    refused = await expect(gateway, 409, "DELETE", "/admin/tenants/esa", who=INSTANCE_ADMIN)
    assert refused["detail"] == "The tenant is not empty: it has datasets, groups."
    assert await changes(gateway) == [
        ("tenant.create", "b"),
        ("tenant.create", "a"),
        ("tenant.create", "c d/e"),
        ("tenant.delete", "a"),
    ]


async def test_whatever_belongs_to_a_tenant_keeps_it_from_being_deleted(gateway: RunningGateway) -> None:
    """Tables that refer to tenants either keep them, or hold what is made from those that do, or lets callers in."""
    rows = await gateway.catalogue.connection.fetch(
        "SELECT conrelid::regclass::text AS name FROM pg_constraint "
        "WHERE confrelid = 'tenants'::regclass AND contype = 'f'"
    )
    derived = {"products", "baskets", "quota_epochs", "quota_usage", "changes", "loads", "restores"}
    credentials = {"api_keys", "link_keys", "revoked_links", "sessions"}
    assert {row["name"] for row in rows} == {*CONTENT, *derived, *credentials}


async def test_groups_are_made_changed_and_deleted(gateway: RunningGateway) -> None:
    assert await expect(gateway, 201, "PUT", "/admin/groups/new", {"isPublic": False}) == {
        "name": "new",
        "isPublic": False,
    }
    await expect(gateway, 200, "PUT", "/admin/groups/new", {"isPublic": False})
    await expect(gateway, 200, "PUT", "/admin/groups/new", {"isPublic": True})
    assert await expect(gateway, 200, "GET", "/admin/groups/new") == {"name": "new", "isPublic": True, "members": 0}
    listed = await expect(gateway, 200, "GET", "/admin/groups")
    assert [(one["name"], one["isPublic"]) for one in listed["groups"]] == [
        ("everyone", True),
        ("new", True),
        ("science", False),
    ]
    await expect(gateway, 204, "DELETE", "/admin/groups/new")
    await expect(gateway, 404, "DELETE", "/admin/groups/new")
    await expect(gateway, 404, "GET", "/admin/groups/new")
    # What changed nothing is no change.
    assert await changes(gateway) == [("group.create", "new"), ("group.change", "new"), ("group.delete", "new")]


async def test_members_come_and_go_and_may_download_at_once(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    path = "/admin/groups/science/members"
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 403
    await expect(gateway, 204, "PUT", f"{path}/{OUTSIDER.email}")
    await expect(gateway, 204, "PUT", f"{path}/{OUTSIDER.email}")
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 200
    await expect(gateway, 204, "DELETE", f"{path}/{OUTSIDER.email}")
    await expect(gateway, 404, "DELETE", f"{path}/{OUTSIDER.email}")
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 403
    told = await expect(gateway, 200, "PUT", path, {"members": ["b@x", "a@x", "b@x", "c@x"]})
    assert (sorted(told["added"]), told["removed"]) == (["a@x", "b@x", "c@x"], [])
    told = await expect(gateway, 200, "PUT", path, {"members": ["d@x", "b@x"]})
    assert (told["added"], sorted(told["removed"])) == (["d@x"], ["a@x", "c@x"])
    assert await expect(gateway, 200, "PUT", path, {"members": ["b@x", "d@x"]}) == {"added": [], "removed": []}
    assert await expect(gateway, 200, "GET", path) == {"members": ["b@x", "d@x"], "next": None}
    assert await changes(gateway) == [
        ("member.add", "science"),
        ("member.remove", "science"),
        ("member.add", "science"),
        ("member.remove", "science"),
        ("member.add", "science"),
    ]


async def test_pages_of_members_are_all_of_them_once(gateway: RunningGateway) -> None:
    emails = sorted(f"{number}@x" for number in range(25))
    await expect(gateway, 200, "PUT", "/admin/groups/science/members", {"members": emails})
    found: list[str] = []
    query = "limit=7"
    while True:
        page = await expect(gateway, 200, "GET", f"/admin/groups/science/members?{query}")
        found += page["members"]
        if page["next"] is None:
            break
        assert len(page["members"]) == 7
        query = f"limit=7&cursor={page['next']}"
    assert found == emails


async def test_rights_are_given_changed_and_taken_away(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content", collection="fresh")
    path = "/admin/collections/fresh/rights"
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 403
    whole = {"qualityFilter": None, "policy": None, "policyOptions": None}
    told = await expect(gateway, 201, "PUT", f"{path}/science", FULL)
    assert told == {"group": "science", **FULL, **whole}
    await expect(gateway, 200, "PUT", f"{path}/science", told)
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    custom = {
        "metadataAccessLevel": "CUSTOM_ACCESS",
        "fileAccessLevel": "CUSTOM_ACCESS",
        "qualityFilter": {"minScore": 1.5, "maxScore": None, "qualityLevels": ["ACCEPTED"]},
        "policy": "properties",
        "policyOptions": {"days": 30, "deep": {"é": [None, True]}, "text": "\\u0000"},
    }
    assert await expect(gateway, 200, "PUT", f"{path}/science", custom) == {"group": "science", **custom}
    assert await expect(gateway, 200, "GET", f"{path}/science") == {"group": "science", **custom}
    assert await expect(gateway, 200, "GET", path) == {"rights": [{"group": "science", **custom}], "next": None}
    await expect(gateway, 200, "PUT", f"{path}/science", custom)
    await expect(gateway, 204, "DELETE", f"{path}/science")
    await expect(gateway, 404, "DELETE", f"{path}/science")
    await expect(gateway, 404, "GET", f"{path}/science")
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 403
    assert await changes(gateway) == [
        ("right.create", "fresh: science"),
        ("right.change", "fresh: science"),
        ("right.delete", "fresh: science"),
    ]


async def test_licences_are_made_assigned_asked_again_and_deleted(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    licence = {"name": "cc", "title": None, "url": TEXT, "isPublic": False, "version": 1, "isDefault": False}
    assert await expect(gateway, 201, "PUT", "/admin/licences/cc", {"url": TEXT}) == licence
    assert await expect(gateway, 200, "PUT", "/admin/licences/cc", {"url": TEXT, "title": None}) == licence
    await expect(gateway, 200, "PUT", "/admin/licences/cc", {"url": TEXT, "title": "Terms", "isPublic": False})
    of_collection = "/admin/collections/restricted/licence"
    assert await expect(gateway, 200, "GET", of_collection) == {"licence": None}
    assert await expect(gateway, 200, "PUT", of_collection, {"licence": "cc"}) == {"licence": "cc"}
    assert await expect(gateway, 200, "GET", of_collection) == {"licence": "cc"}
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 423
    assert (await gateway.get(f"{entry.stac}?acceptLicense=true", SCIENTIST))[0].status == 200
    told = await expect(gateway, 201, "POST", "/admin/licences/cc/versions", {"url": f"{TEXT}/2"})
    assert (told["version"], told["url"], told["title"]) == (2, f"{TEXT}/2", "Terms")
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 423
    assert (await expect(gateway, 201, "POST", "/admin/licences/cc/versions", {}))["version"] == 3
    refused = await expect(gateway, 409, "DELETE", "/admin/licences/cc")
    assert refused["detail"] == "The licence is that of collections: restricted."
    await expect(gateway, 200, "PUT", of_collection, {"licence": None})
    await expect(gateway, 200, "PUT", "/admin/licence", {"licence": "cc"})
    assert await expect(gateway, 200, "GET", "/admin/licence") == {"licence": "cc"}
    assert (await expect(gateway, 200, "GET", "/admin/licences/cc"))["isDefault"] is True
    assert "default" in (await expect(gateway, 409, "DELETE", "/admin/licences/cc"))["detail"]
    await expect(gateway, 200, "PUT", "/admin/licence", {"licence": None})
    assert "proof" in (await expect(gateway, 409, "DELETE", "/admin/licences/cc"))["detail"]
    await expect(gateway, 201, "PUT", "/admin/licences/unused", {"url": TEXT})
    assert [one["name"] for one in (await expect(gateway, 200, "GET", "/admin/licences"))["licences"]] == [
        "cc",
        "unused",
    ]
    await expect(gateway, 204, "DELETE", "/admin/licences/unused")
    await expect(gateway, 404, "DELETE", "/admin/licences/unused")
    assert [action for action, _ in await changes(gateway)] == [
        "licence.create",
        "licence.change",
        "licence.assign",
        "licence.version",
        "licence.version",
        "licence.assign",
        "licence.default",
        "licence.default",
        "licence.create",
        "licence.delete",
    ]


async def test_roles_are_made_changed_and_deleted(gateway: RunningGateway) -> None:
    assert await expect(gateway, 201, "PUT", "/admin/roles/PI", {"parent": "EXPLOIT"}) == {
        "name": "PI",
        "parent": "EXPLOIT",
    }
    await expect(gateway, 200, "PUT", "/admin/roles/PI", {"parent": "ADMIN"})
    assert await expect(gateway, 200, "GET", "/admin/roles/PI") == {"name": "PI", "parent": "ADMIN"}
    assert (await expect(gateway, 200, "GET", "/admin/roles"))["roles"] == [{"name": "PI", "parent": "ADMIN"}]
    await expect(gateway, 204, "DELETE", "/admin/roles/PI")
    await expect(gateway, 404, "GET", "/admin/roles/PI")
    await expect(gateway, 404, "DELETE", "/admin/roles/PI")
    for name, parent in (("ADMIN", "PUBLIC"), ("PI", "PROJECT_ADMIN"), ("PI", "INSTANCE_ADMIN"), ("PI", "PI")):
        await expect(gateway, 400, "PUT", f"/admin/roles/{name}", {"parent": parent})


def bad_bodies() -> Iterable[tuple[str, str, object, str]]:
    right, group, licence = "/admin/collections/restricted/rights/science", "/admin/groups/g", "/admin/licences/l"
    yield "PUT", group, b"{", "no JSON"
    yield "PUT", group, b'{"isPublic": true, "isPublic": true}', "there twice"
    yield "PUT", group, [], "JSON object"
    yield "PUT", group, {}, "lacks 'isPublic'"
    yield "PUT", group, {"isPublic": 1}, "true or false"
    yield "PUT", group, {"isPublic": True, "x": 1}, "'x'"
    yield "PUT", f"{group}%0A", {"isPublic": True}, "control characters"
    yield "PUT", f"{group}%1B%5B2J", {"isPublic": True}, "control characters"
    yield "PUT", f"{group}%00", {"isPublic": True}, "control characters"
    yield "PUT", f"{group}%20", {"isPublic": True}, "blank at its ends"
    yield "PUT", f"{group}{'x' * MOST_NAME}", {"isPublic": True}, f"1 to {MOST_NAME} characters"
    yield "PUT", "/admin/groups/science/members", {"members": "a@x"}, "list"
    yield "PUT", "/admin/groups/science/members", {"members": [1]}, "text"
    yield "PUT", "/admin/groups/science/members", {"members": ["a\nb"]}, "blanks and control"
    yield "PUT", "/admin/groups/science/members", {"members": ["a\ud800"]}, "blanks and control"
    yield "PUT", "/admin/groups/science/members", {"members": [""]}, "1 to 256"
    yield "PUT", right, {"metadataAccessLevel": "FULL_ACCESS"}, "lacks 'fileAccessLevel'"
    yield "PUT", right, FULL | {"fileAccessLevel": "FULL_ACCESS"}, "NO_ACCESS, INHERITED_ACCESS, CUSTOM_ACCESS"
    yield "PUT", right, FULL | {"metadataAccessLevel": 1}, "text"
    yield "PUT", right, FULL | {"fileAccessLevel": "CUSTOM_ACCESS"}, "name of a policy"
    yield "PUT", right, FULL | {"policyOptions": {}}, "name of the policy"
    yield "PUT", right, FULL | {"policy": "properties", "policyOptions": []}, "object"
    yield "PUT", right, FULL | {"policy": "properties", "policyOptions": {"a": "\0"}}, "cannot be stored"
    yield "PUT", right, FULL | {"policy": "properties", "policyOptions": nested(480)}, "too deep"
    yield "PUT", right, FULL | {"group": "another"}, "'group' of the body"
    yield "PUT", right, FULL | {"policy": "properties", "policyOptions": {"\ud800": 1}}, "cannot be stored"
    yield "PUT", right, FULL | {"policy": "p\r\n"}, "control characters"
    yield "PUT", right, FULL | {"policy": "recent"}, "no policy 'recent'; there are: properties"
    yield "PUT", right, FULL | {"qualityFilter": {"minScore": 2, "maxScore": 1}}, "not above"
    yield "PUT", right, FULL | {"qualityFilter": {"minScore": "2"}}, "number"
    yield "PUT", right, FULL | {"qualityFilter": {"minScore": 10**400}}, "number"
    yield "PUT", right, FULL | {"qualityFilter": {"score": 1}}, "'score'"
    yield "PUT", right, FULL | {"qualityFilter": {"qualityLevels": []}}, "quality level"
    yield "PUT", right, FULL | {"qualityFilter": {"qualityLevels": ["GOOD"]}}, "ACCEPTED_WITH_WARNINGS"
    yield "PUT", licence, {}, "lacks 'url'"
    for url in (
        "javascript:alert(1)",
        "ftp://example.org",
        "https://",
        "https://a b",
        "https://x/\r\n",
        "http://[",
        "é",
    ):
        yield "PUT", licence, {"url": url}, "http:// or https://"
    yield "PUT", licence, {"url": TEXT, "title": "a\nb"}, "control characters"
    yield "PUT", "/admin/roles/R", {"parent": "ROOT"}, "one of PUBLIC"
    yield "PUT", "/admin/roles/ADMIN", {"parent": "PUBLIC"}, "REGARDS' own"


async def test_what_makes_no_sense_is_refused_in_plain_words_and_changes_nothing(gateway: RunningGateway) -> None:
    await gateway.catalogue.dataset("restricted")
    for method, path, body, reason in bad_bodies():
        status, told = await call(gateway, method, path, PROJECT_ADMIN, body)
        assert (status, reason in told["detail"]) == (400, True), (path, body, told)
    for query, reason in (
        ("limit=0", "'limit'"),
        ("limit=1001", "'limit'"),
        ("limit=x", "'limit'"),
        ("limit=²", "'limit'"),
        ("cursor=x", "'cursor'"),
        ("cursor=W10", "'cursor'"),
        ("cursor=WzFd", "'cursor'"),
        ("unknown=1", "'unknown'"),
        ("limit=1&limit=2", "twice"),
        ("tenant=%00", "could be stored"),
    ):
        status, told = await call(gateway, "GET", f"/admin/groups?{query}", PROJECT_ADMIN)
        assert (status, reason in told["detail"]) == (400, True), (query, told)
    for coding in ("gzip", "deflate", "br"):
        fields = {**bearer(PROJECT_ADMIN), "Content-Encoding": coding}
        path = f"{gateway.url}/admin/groups/g"
        async with gateway.session.put(path, headers=fields, data=b"not packed") as response:
            assert response.status == 400, coding
    assert await changes(gateway) == []


async def test_what_is_not_there_is_404_whatever_it_is_called(gateway: RunningGateway) -> None:
    await gateway.catalogue.dataset("restricted")
    for name in ("nothing", "%00", "a%2Fb", "'%20OR%201=1--", "%F0%9F%92%A9", "x" * 3000):
        for method, path, body in (
            ("GET", f"/admin/groups/{name}", None),
            ("DELETE", f"/admin/groups/{name}", None),
            ("GET", f"/admin/groups/{name}/members", None),
            ("PUT", f"/admin/groups/{name}/members", {"members": []}),
            ("PUT", f"/admin/groups/{name}/members/a@x", None),
            ("DELETE", f"/admin/groups/science/members/{name}", None),
            ("GET", f"/admin/collections/{name}/rights", None),
            ("GET", f"/admin/collections/{name}/rights/science", None),
            ("PUT", f"/admin/collections/{name}/rights/science", FULL),
            ("PUT", f"/admin/collections/restricted/rights/{name}", FULL),
            ("DELETE", f"/admin/collections/restricted/rights/{name}", None),
            ("GET", f"/admin/collections/{name}/licence", None),
            ("PUT", f"/admin/collections/{name}/licence", {"licence": None}),
            ("GET", f"/admin/licences/{name}", None),
            ("DELETE", f"/admin/licences/{name}", None),
            ("POST", f"/admin/licences/{name}/versions", {}),
            ("GET", f"/admin/roles/{name}", None),
            ("DELETE", f"/admin/roles/{name}", None),
        ):
            status, told = await call(gateway, method, path, PROJECT_ADMIN, body)
            assert status == 404, (method, path, told)
    await expect(gateway, 404, "PUT", "/admin/collections/restricted/licence", {"licence": "nothing"})
    await expect(gateway, 404, "PUT", "/admin/licence", {"licence": "nothing"})
    ghost = principal("ghost", role="PROJECT_ADMIN", tenant="ghost")
    await expect(gateway, 404, "PUT", "/admin/groups/g", {"isPublic": True}, ghost)
    assert await changes(gateway) == []


async def test_administrators_act_in_their_own_tenant_and_those_of_the_instance_in_any(
    gateway: RunningGateway,
) -> None:
    await gateway.catalogue.tenant("other")
    await expect(gateway, 201, "PUT", "/admin/groups/theirs", {"isPublic": False}, OTHER_ADMIN)
    await expect(gateway, 404, "GET", "/admin/groups/theirs")
    for tenant in ("other", "ghost"):
        told = await expect(gateway, 404, "GET", f"/admin/groups?tenant={tenant}")
        assert told["detail"] == f"There is no tenant '{tenant}'."
    await expect(gateway, 200, "GET", "/admin/groups?tenant=esa")
    theirs = await expect(gateway, 200, "GET", "/admin/groups?tenant=other", who=INSTANCE_ADMIN)
    assert [one["name"] for one in theirs["groups"]] == ["theirs"]
    await expect(gateway, 204, "DELETE", "/admin/groups/theirs?tenant=other", who=INSTANCE_ADMIN)
    for who, status in ((None, 401), (USER, 403), (PLAIN_ADMIN, 403), (PROJECT_ADMIN, 403), (INSTANCE_ADMIN, 200)):
        assert (await call(gateway, "GET", "/admin/tenants", who))[0] == status
    for who, status in ((None, 401), (USER, 403), (PLAIN_ADMIN, 403), (PROJECT_ADMIN, 200)):
        assert (await call(gateway, "GET", "/admin/groups", who))[0] == status
    assert (await call(gateway, "GET", f"/admin/groups?{SCOPE}"))[0] == 403


async def test_a_change_made_with_an_api_key_is_recorded_with_which(gateway: RunningGateway) -> None:
    key = await new_key(gateway, PROJECT_ADMIN, scopes=["admin"])
    fields = shown_key(key["key"])
    assert (await send(gateway, "PUT", "/admin/groups/g", fields, {"isPublic": False}))[0] == 201
    status, _, told = await send(gateway, "GET", "/admin/changes", fields)
    assert status == 200
    assert [(one["action"], one["actor"], one["keyId"]) for one in told["changes"]] == [
        ("group.create", PROJECT_ADMIN.email, key["id"]),
        ("key.create", PROJECT_ADMIN.email, None),
    ]


async def test_a_change_is_recorded_with_who_made_it_or_not_made_at_all(gateway: RunningGateway) -> None:
    response, _ = await ask(gateway, "PUT", "/admin/groups/g", PROJECT_ADMIN, {"isPublic": True})
    row = await gateway.catalogue.connection.fetchrow("SELECT * FROM changes")
    assert row is not None
    assert (row["actor"], row["address"], row["request_id"]) == (
        PROJECT_ADMIN.email,
        "127.0.0.1",
        response.headers["X-Request-ID"],
    )
    assert (row["action"], row["object"], row["detail"]) == ("group.create", "g", '{"isPublic": true}')
    await gateway.catalogue.connection.execute(
        "ALTER TABLE changes ADD CONSTRAINT no_more CHECK (change_id < 0) NOT VALID"
    )
    told = await expect(gateway, 400, "PUT", "/admin/groups/h", {"isPublic": True})
    assert told["detail"] == "The database does not take these values (no_more)."
    await expect(gateway, 404, "GET", "/admin/groups/h")


async def test_many_administrators_at_once_meet_no_error(gateway: RunningGateway) -> None:
    async def one(number: int) -> list[int]:
        name = f"g{number % 3}"
        steps: list[tuple[str, str, object]] = [
            ("PUT", f"/admin/groups/{name}", {"isPublic": bool(number % 2)}),
            ("PUT", f"/admin/groups/{name}/members", {"members": [f"{n}@x" for n in range(number, number + 5)]}),
            ("PUT", f"/admin/collections/restricted/rights/{name}", FULL),
            ("PUT", f"/admin/groups/{name}/members/{number}@x", None),
            ("DELETE", f"/admin/groups/{name}", None),
        ]
        return [(await call(gateway, method, path, PROJECT_ADMIN, body))[0] for method, path, body in steps]

    statuses = {status for found in await asyncio.gather(*map(one, range(12))) for status in found}
    assert statuses <= {200, 201, 204, 404}
    left = await expect(gateway, 200, "GET", "/admin/groups")
    assert {one["name"] for one in left["groups"]} <= {"everyone", "science", "g0", "g1", "g2"}


@pytest.mark.parametrize("path", ["/admin/groups/g", "/admin/groups/g/members/a@x"])
async def test_whoever_only_reads_cannot_write(gateway: RunningGateway, path: str) -> None:
    for who in (USER, PLAIN_ADMIN):
        await expect(gateway, 403, "PUT", path, {"isPublic": True}, who)
    assert await changes(gateway) == []
