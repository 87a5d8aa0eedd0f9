"""Keys of one's own and of a tenant: who may make, see and revoke which, and what is written down of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from gateway.administration import keys
from gateway.api.admin import cursor_text
from gateway.quotas.limits import Rule, Subject
from tests.api.support import EXPLOIT, INSTANCE_ADMIN, PLAIN_ADMIN, PROJECT_ADMIN, USER, call
from tests.credentials import new_key, seconds_until, send, shown_key
from tests.harness import OUTSIDER, RunningGateway, bearer, principal

FOREIGN_ADMIN = principal("foreign", role="PROJECT_ADMIN", tenant="nasa")
FOREIGN_USER = principal("scientist", tenant="nasa")
"""Of another tenant, with the e-mail address of `USER`."""


async def test_users_see_and_revoke_their_own_keys(gateway: RunningGateway) -> None:
    first = await new_key(gateway, USER, label="laptop", scopes=["download", "quota"], networks=["192.0.2.0/24"])
    second = await new_key(gateway, USER, label="cluster ☃", expires="2050-01-01T00:00:00+01:00")
    key = first.pop("key")
    second.pop("key")
    assert first == {
        "id": key.split("_")[1],
        "label": "laptop",
        "subject": "scientist",
        "email": "scientist@example.org",
        "role": "REGISTERED_USER",
        "groups": ["science"],
        "scopes": ["download", "quota"],
        "networks": ["192.0.2.0/24"],
        "created": first["created"],
        "createdBy": "scientist@example.org",
        "expires": None,
        "lastUsed": None,
        "revoked": None,
    }
    assert (second["expires"], second["scopes"]) == ("2049-12-31T23:00:00Z", ["download"])
    assert await call(gateway, "GET", "/me/keys", USER) == (200, [second, first])
    assert await call(gateway, "GET", "/me/keys", OUTSIDER) == (200, [])

    assert await call(gateway, "DELETE", f"/me/keys/{first['id']}", USER) == (204, None)
    assert await call(gateway, "DELETE", f"/me/keys/{first['id']}", USER) == (204, None)
    _, (still, gone) = await call(gateway, "GET", "/me/keys", USER)
    assert still == second
    assert gone == {**first, "revoked": gone["revoked"]}
    assert gone["revoked"] is not None


async def test_a_key_of_another_is_as_good_as_missing(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant("nasa")
    key_id = (await new_key(gateway, USER))["id"]
    missing = await send(gateway, "DELETE", f"/me/keys/{'0' * 12}", bearer(OUTSIDER))
    assert (missing[0], missing[2]["detail"]) == (404, "There is no such key.")
    for path, who in (
        (f"/me/keys/{key_id}", OUTSIDER),
        (f"/me/keys/{key_id}", FOREIGN_USER),
        (f"/me/keys/{key_id}", PROJECT_ADMIN),
        (f"/admin/keys/{key_id}", FOREIGN_ADMIN),
        ("/me/keys/x%00y", USER),
        ("/me/keys/%F0%9F%98%80", USER),
        ("/admin/keys/x%00y", PROJECT_ADMIN),
    ):
        assert await send(gateway, "DELETE", path, bearer(who)) == missing, (path, who)
    assert await call(gateway, "GET", "/admin/keys", FOREIGN_ADMIN) == (200, {"keys": [], "next": None})
    assert await call(gateway, "GET", "/me/keys", FOREIGN_USER) == (200, [])
    assert (await call(gateway, "GET", "/me/keys", USER))[1][0]["revoked"] is None


async def test_administrators_make_see_and_revoke_the_keys_of_their_tenant(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    status, made = await call(
        gateway,
        "POST",
        "/admin/keys",
        PROJECT_ADMIN,
        {"label": "robot", "email": "robot@example.org", "subject": "robot", "groups": ["science"], "role": "EXPLOIT"},
    )
    assert status == 201
    assert (made["email"], made["subject"], made["role"], made["groups"], made["createdBy"]) == (
        "robot@example.org",
        "robot",
        "EXPLOIT",
        ["science"],
        PROJECT_ADMIN.email,
    )
    assert (await send(gateway, "GET", entry.stac, shown_key(made["key"])))[0] == 200
    own = await new_key(gateway, USER)
    for admin in (PROJECT_ADMIN, INSTANCE_ADMIN):
        _, found = await call(gateway, "GET", "/admin/keys", admin)
        assert [key["id"] for key in found["keys"]] == [own["id"], made["id"]]
        _, found = await call(gateway, "GET", f"/admin/keys?email={USER.email}", admin)
        assert [key["id"] for key in found["keys"]] == [own["id"]]
    _, found = await call(gateway, "GET", "/admin/keys?email=nobody@example.org", PROJECT_ADMIN)
    assert found == {"keys": [], "next": None}
    assert await call(gateway, "DELETE", f"/admin/keys/{own['id']}", PROJECT_ADMIN) == (204, None)
    assert (await call(gateway, "GET", "/me/keys", USER))[1][0]["revoked"] is not None


async def test_nobody_else_administers_keys(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    key_id = (await new_key(gateway, USER))["id"]
    for who in (USER, EXPLOIT, PLAIN_ADMIN, principal("public", role="PUBLIC")):
        assert (await call(gateway, "GET", "/admin/keys", who))[0] == 403
        assert (await call(gateway, "POST", "/admin/keys", who, {"label": "x", "email": "x@example.org"}))[0] == 403
        assert (await call(gateway, "DELETE", f"/admin/keys/{key_id}", who))[0] == 403
        assert (await call(gateway, "DELETE", "/admin/keys/missing", who))[0] == 403


async def test_anonymous_callers_have_no_keys(gateway: RunningGateway) -> None:
    for query in ("", "?scope=esa"):
        for method, path in (
            ("GET", "/me/keys"),
            ("POST", "/me/keys"),
            ("DELETE", "/me/keys/x"),
        ):
            assert (await call(gateway, method, path + query, None, {"label": "x"}))[0] == 401
        assert (await call(gateway, "GET", f"/admin/keys{query}"))[0] in (401, 403)


async def test_no_key_has_a_role_above_its_maker(gateway: RunningGateway) -> None:
    tenant = await gateway.catalogue.tenant()
    for name, parent in (("EXPERT", "EXPLOIT"), ("GUEST", "PUBLIC"), ("KEEPER", "ADMIN")):
        await gateway.catalogue.connection.execute(
            "INSERT INTO roles (tenant_id, name, parent) VALUES ($1, $2, $3)", tenant, name, parent
        )
    ladder = ["PUBLIC", "GUEST", "REGISTERED_USER", "EXPLOIT", "EXPERT", "ADMIN", "KEEPER", "PROJECT_ADMIN"]
    ladder.append("INSTANCE_ADMIN")
    for role in (*ladder, "STRANGER"):
        assert (await new_key(gateway, principal(f"maker-{role}", role=role)))["role"] == role
        for maker in (PROJECT_ADMIN, INSTANCE_ADMIN):
            status, _ = await call(
                gateway, "POST", "/admin/keys", maker, {"label": "x", "email": "x@example.org", "role": role}
            )
            above = role == "INSTANCE_ADMIN" and maker is PROJECT_ADMIN
            assert status == (403 if above else 400 if role == "STRANGER" else 201), (maker.role, role)


NO_KEYS: list[tuple[object, str]] = [
    ({}, "lacks 'label'"),
    ([], "JSON object"),
    ({"label": ""}, "1 to 200"),
    ({"label": "x" * 201}, "1 to 200"),
    ({"label": "x\0"}, "1 to 200"),
    ({"label": 1}, "'label' must be text"),
    ({"label": "x", "secret": "mine"}, "'secret', which nobody knows"),
    ({"label": "x", "email": "other@example.org"}, "'email', which nobody knows"),
    ({"label": "x", "role": "PUBLIC"}, "'role', which nobody knows"),
    ({"label": "x", "groups": []}, "'groups', which nobody knows"),
    ({"label": "x", "scopes": []}, "'scopes' must be some of admin, download, order, quota"),
    ({"label": "x", "scopes": ["all"]}, "'scopes' must be some of"),
    ({"label": "x", "scopes": "download"}, "'scopes' must be a list"),
    ({"label": "x", "networks": ["192.0.2.1/24"]}, "'networks' must be an IP address"),
    ({"label": "x", "networks": ["localhost"]}, "'networks' must be an IP address"),
    ({"label": "x", "networks": [1]}, "'networks' must be text"),
    ({"label": "x", "networks": ["::1"] * 101}, "at most 100"),
    ({"label": "x", "expires": "2001-01-01T00:00:00Z"}, "is over"),
    ({"label": "x", "expires": "2050-01-01T00:00:00"}, "must be a time like"),
    ({"label": "x", "expires": "tomorrow"}, "must be a time like"),
    ({"label": "x", "expires": 3600}, "'expires' must be text"),
    ({"label": "x", "expires": "9999-12-31T23:59:59-01:00"}, "must be a time like"),
]


async def test_a_body_that_makes_no_sense_is_told_what_is_wrong(gateway: RunningGateway) -> None:
    for body, words in NO_KEYS:
        status, told = await call(gateway, "POST", "/me/keys", USER, body)
        assert (status, words in told["detail"]) == (400, True), (body, told)
        if isinstance(body, dict):
            for_another = {"email": "x@example.org", **body}
            status, told = await call(gateway, "POST", "/admin/keys", PROJECT_ADMIN, for_another)
            for_all = words.startswith(("'email'", "'role'", "'groups'"))
            assert status == (201 if for_all else 400), (body, told)
    for body, words in (
        ({"role": ""}, "'role'"),
        ({"role": "NOBODY"}, "There is no role 'NOBODY'."),
        ({"groups": ["\0"]}, "'groups'"),
        ({"groups": [""]}, "'groups'"),
        ({"subject": "\ud800"}, "'subject'"),
        ({"email": ""}, "e-mail address"),
    ):
        of_robot = {"label": "x", "email": "x@example.org", **body}
        status, told = await call(gateway, "POST", "/admin/keys", PROJECT_ADMIN, of_robot)
        assert (status, words in told["detail"]) == (400, True), (body, told)


async def test_of_a_tenant_that_does_not_exist_there_are_no_keys(gateway: RunningGateway) -> None:
    status, told = await call(gateway, "POST", "/me/keys", FOREIGN_USER, {"label": "x"})
    assert (status, told["detail"]) == (404, "There is no tenant 'nasa'.")


async def test_a_user_has_so_many_keys_and_no_more(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST_KEYS", 3)
    await gateway.catalogue.tenant()
    made = [await new_key(gateway, USER) for _ in range(3)]
    assert (await call(gateway, "POST", "/me/keys", USER, {"label": "x"}))[0] == 409
    assert (await call(gateway, "POST", "/me/keys", OUTSIDER, {"label": "x"}))[0] == 201
    await call(gateway, "DELETE", f"/me/keys/{made[0]['id']}", USER)
    await gateway.catalogue.connection.execute(
        "UPDATE api_keys SET expires_at = now() WHERE key_id = $1", made[1]["id"]
    )
    for status in (201, 201, 409):
        assert (await call(gateway, "POST", "/me/keys", USER, {"label": "x"}))[0] == status


async def test_keys_go_with_their_tenant_and_do_not_come_back_with_another_of_its_name(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant("nasa")
    shown = shown_key((await new_key(gateway, FOREIGN_USER, scopes=["quota"]))["key"])
    assert (await send(gateway, "GET", "/me/usage", shown))[0] == 200
    assert (await call(gateway, "DELETE", "/admin/tenants/nasa", INSTANCE_ADMIN))[0] == 204
    await seconds_until(401, lambda: send(gateway, "GET", "/me/usage", shown))
    assert (await call(gateway, "PUT", "/admin/tenants/nasa", INSTANCE_ADMIN, {}))[0] == 201
    assert await call(gateway, "GET", "/me/keys", FOREIGN_USER) == (200, [])
    assert (await send(gateway, "GET", "/me/usage", shown))[0] == 401


async def test_every_change_is_written_down_once_without_the_secret(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    made = await new_key(gateway, USER)
    for _ in range(2):
        await call(gateway, "DELETE", f"/admin/keys/{made['id']}", PROJECT_ADMIN)
    refused = {"label": "x", "email": "x@example.org", "role": "INSTANCE_ADMIN"}
    assert (await call(gateway, "POST", "/admin/keys", PROJECT_ADMIN, refused))[0] == 403
    rows = await gateway.catalogue.connection.fetch(
        "SELECT * FROM changes JOIN tenants USING (tenant_id) ORDER BY change_id"
    )
    found: list[Any] = [(row["actor"], row["action"], row["object"], row["name"], row["address"]) for row in rows]
    assert found == [
        (USER.email, "key.create", made["id"], "esa", "127.0.0.1"),
        (PROJECT_ADMIN.email, "key.revoke", made["id"], "esa", "127.0.0.1"),
    ]
    assert json.loads(rows[0]["detail"])["scopes"] == ["download"]
    assert all(row["request_id"] for row in rows)
    assert made["key"].split("_", 2)[2] not in repr(rows)


async def test_keys_are_told_to_no_cache(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    _, fields, _ = await send(gateway, "POST", "/me/keys", bearer(USER), {"label": "x"})
    assert fields["Cache-Control"] == "no-store"
    answers = await asyncio.gather(*(send(gateway, "GET", path, bearer(PROJECT_ADMIN)) for path in _LISTS))
    assert {fields["Cache-Control"] for _, fields, _ in answers} == {"no-store"}


_LISTS = ("/me/keys", "/admin/keys")


async def test_a_key_does_not_lift_limits_that_go_by_role_or_group(gateway: RunningGateway) -> None:
    """Without a role or group of its maker a key would lack what limits him there."""
    entry = await gateway.catalogue.file(b"content", collection="open")
    for subject, name in (("role", "REGISTERED_USER"), ("group", "slow")):
        await gateway.catalogue.rule(Rule(cast("Subject", subject), name, False, "downloads", "total", 0))
    who = principal("limited", "science", "slow")
    assert (await gateway.get(entry.stac, who))[0].status == 429
    for less in ({}, {"role": "PUBLIC"}, {"groups": ["science"]}, {"role": "PUBLIC", "groups": ["science"]}):
        status, told = await call(gateway, "POST", "/me/keys", who, {"label": "x", **less})
        if status != 400:
            assert (await send(gateway, "GET", entry.stac, shown_key(told["key"])))[0] == 429, less


async def test_many_at_once_make_no_more_keys_than_a_user_may_have(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST_KEYS", 3)
    await gateway.catalogue.tenant()
    # So that there are connections for all of them.
    await asyncio.gather(*(call(gateway, "GET", "/me/keys", USER) for _ in range(12)))
    answers = await asyncio.gather(*(call(gateway, "POST", "/me/keys", USER, {"label": "x"}) for _ in range(12)))
    assert sorted(status for status, _ in answers) == [201] * 3 + [409] * 9


async def test_keys_that_were_revoked_hide_none_that_are_good(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    good = await new_key(gateway, USER)
    gone = [await new_key(gateway, USER) for _ in range(3)]
    for key in gone:
        await call(gateway, "DELETE", f"/me/keys/{key['id']}", USER)
    expected = [good["id"], *(key["id"] for key in gone[::-1])]
    assert [key["id"] for key in (await call(gateway, "GET", "/me/keys", USER))[1]] == expected
    found: list[str] = []
    query = ""
    for _ in range(2):
        _, page = await call(gateway, "GET", f"/admin/keys?limit=2{query}", PROJECT_ADMIN)
        found += [key["id"] for key in page["keys"]]
        query = f"&cursor={page['next']}"
    assert (found, page["next"]) == (expected, None)
    for cursor in ("x", cursor_text([True, "yesterday", "x"]), cursor_text([1, "2026-11-21T00:00:00Z", "x"])):
        assert (await call(gateway, "GET", f"/admin/keys?cursor={cursor}", PROJECT_ADMIN))[0] == 400
