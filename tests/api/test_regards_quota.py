"""REGARDS' endpoints of quota: who may ask what, and the JSON that it gets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.api import bodies
from gateway.identity.principal import Principal
from gateway.quotas.limits import Rule, Subject
from tests.api.support import EXPLOIT, INSTANCE_ADMIN, PLAIN_ADMIN, PROJECT_ADMIN, SCOPE, USER, ask, call
from tests.credentials import new_key, send, shown_key
from tests.harness import RunningGateway, bearer, config_for, principal, running_gateway

LIMITS = {"email": "a@example.org", "maxQuota": 5, "rateLimit": 2}
DEFAULTS = {"maxQuota": 10, "rateLimit": 3}
RULE = {"subject": "tenant", "metric": "bytes", "period": "day", "value": 10**12}
RULE_QUERY = "subject=tenant&metric=bytes&period=day"

ANONYMOUS, ANY_USER, ADMIN, PROJECT = "anonymous", "user", "ADMIN", "PROJECT_ADMIN"
CALLERS: dict[str, tuple[Principal | None, ...]] = {
    ANONYMOUS: (None,),
    ANY_USER: (USER, EXPLOIT),
    ADMIN: (PLAIN_ADMIN,),
    PROJECT: (PROJECT_ADMIN, INSTANCE_ADMIN),
}
EVERYONE = set(CALLERS)
TABLE: list[tuple[str, str, object, set[str], int]] = [
    ("GET", "/quota", None, EVERYONE, 200),
    ("GET", "/quota/current", None, EVERYONE, 200),
    ("GET", "/me/usage", None, EVERYONE, 200),
    ("GET", "/quota/a@example.org", None, {PROJECT}, 200),
    ("PUT", "/quota/a@example.org", LIMITS, {PROJECT}, 200),
    ("GET", "/quota/current/a@example.org", None, {PROJECT}, 200),
    ("POST", "/quota/currents", ["a@example.org"], {PROJECT, ADMIN}, 200),
    ("GET", "/quotas?user_email=a@example.org", None, {PROJECT, ADMIN}, 200),
    ("GET", "/quota/max", None, {PROJECT, ADMIN}, 200),
    ("GET", "/quota/defaults", None, {PROJECT}, 200),
    ("PUT", "/quota/defaults", DEFAULTS, {PROJECT}, 200),
    ("GET", "/settings", None, {PROJECT, ADMIN}, 200),
    ("GET", "/settings/maxQuota", None, {PROJECT, ADMIN}, 200),
    ("PUT", "/settings/rateLimit", {"value": 1}, {PROJECT, ADMIN}, 200),
    ("DELETE", "/settings/maxQuota", None, {PROJECT, ADMIN}, 200),
    ("GET", "/quota/rules", None, {PROJECT}, 200),
    ("PUT", "/quota/rules", RULE, {PROJECT}, 200),
    ("DELETE", f"/quota/rules?{RULE_QUERY}", None, {PROJECT}, 204),
]


async def test_who_may_do_what(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    for method, path, body, admitted, good in TABLE:
        status, told = await call(gateway, method, path, None, body)
        assert status == 401, (method, path)
        for kind, callers in CALLERS.items():
            for who in callers:
                if method == "DELETE":
                    await gateway.catalogue.rule(Rule("tenant", "", False, "bytes", "day", 1))
                separator = "&" if "?" in path else "?"
                target = path if who else f"{path}{separator}{SCOPE}"
                status, told = await call(gateway, method, target, who, body)
                assert status == (good if kind in admitted else 403), (method, path, who, told)


async def test_a_refused_change_changes_nothing(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    for method, path, body, admitted, _ in TABLE:
        if method in ("PUT", "DELETE") and ADMIN not in admitted:
            assert (await call(gateway, method, path, PLAIN_ADMIN, body))[0] == 403
            assert (await call(gateway, method, path, USER, body))[0] == 403
    assert await call(gateway, "GET", "/quota/rules", PROJECT_ADMIN) == (200, {"rules": [], "next": None})


async def test_the_bytes_are_those_of_regards(gateway: RunningGateway) -> None:
    await gateway.catalogue.group("everyone", public=True)
    await gateway.catalogue.rule(Rule("user", USER.email or "", False, "downloads", "total", 7))
    entry = await gateway.catalogue.file(b"x" * 100)
    assert (await gateway.get(entry.stac, USER))[0].status == 200
    mine = b'{"email":"scientist@example.org","maxQuota":7,"rateLimit":-1'
    expected: list[tuple[str, str, object, bytes]] = [
        ("GET", "/quota", None, mine + b"}"),
        ("GET", "/quota/current", None, mine + b',"currentQuota":1,"currentRate":0}'),
        ("GET", "/quotas?user_email=scientist@example.org", None, b"[" + mine + b"}]"),
    ]
    for method, path, body, told in expected:
        response, received = await ask(gateway, method, path, USER, body)
        assert received == told
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Content-Length"] == str(len(told))
    administered: list[tuple[str, str, object, bytes]] = [
        ("GET", "/quota/scientist%40example.org", None, mine + b"}"),
        ("GET", "/quota/current/scientist@example.org", None, mine + b',"currentQuota":1,"currentRate":0}'),
        ("POST", "/quota/currents", [USER.email], b"[" + mine + b',"currentQuota":1,"currentRate":0}]'),
        ("POST", "/quota/currents", [], b"[]"),
        ("GET", "/quota/max", None, b"-1"),
        ("GET", "/quota/defaults", None, b'{"maxQuota":-1,"rateLimit":-1}'),
        ("PUT", "/quota/defaults", DEFAULTS, b'{"maxQuota":10,"rateLimit":3}'),
        ("GET", "/quota/max", None, b"10"),
        ("PUT", "/quota/a@example.org", LIMITS, b'{"email":"a@example.org","maxQuota":5,"rateLimit":2}'),
        ("GET", "/quota/a@example.org", None, b'{"email":"a@example.org","maxQuota":5,"rateLimit":2}'),
        ("GET", "/quota/b@example.org", None, b'{"email":"b@example.org","maxQuota":10,"rateLimit":3}'),
    ]
    for method, path, body, told in administered:
        assert (await ask(gateway, method, path, PROJECT_ADMIN, body))[1] == told, path
    # Administrators see what is theirs by the very same path as everybody.
    _, received = await ask(gateway, "GET", "/quota", PROJECT_ADMIN)
    assert received == b'{"email":"project@example.org","maxQuota":10,"rateLimit":3}'


async def test_settings_are_those_of_regards(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    status, settings = await call(gateway, "GET", "/settings", PLAIN_ADMIN)
    assert [(setting["content"]["name"], setting["content"]["value"]) for setting in settings] == [
        ("maxQuota", -1),
        ("rateLimit", -1),
    ]
    # What a client got it can send back, changed.
    changed = settings[1]["content"] | {"value": 4}
    status, setting = await call(gateway, "PUT", "/settings/rateLimit", PLAIN_ADMIN, changed)
    assert (status, setting["content"]) == (200, changed)
    assert set(setting) == {"content", "links"}
    assert set(setting["content"]) == {"name", "description", "value", "defaultValue"}
    assert (await call(gateway, "GET", "/quota/defaults", PROJECT_ADMIN))[1] == {"maxQuota": -1, "rateLimit": 4}
    assert (await call(gateway, "PUT", "/settings/maxQuota", PLAIN_ADMIN, {"value": 6}))[0] == 200
    assert (await call(gateway, "GET", "/settings?names=maxQuota", PLAIN_ADMIN))[1][0]["content"]["value"] == 6
    assert len((await call(gateway, "GET", "/settings?names=maxQuota", PLAIN_ADMIN))[1]) == 1
    assert (await call(gateway, "DELETE", "/settings/rateLimit", PLAIN_ADMIN))[1]["content"]["value"] == -1
    assert (await call(gateway, "DELETE", "/settings/rateLimit", PLAIN_ADMIN))[0] == 200
    assert (await call(gateway, "GET", "/settings/rateLimit", PLAIN_ADMIN))[1]["content"]["value"] == -1
    assert (await call(gateway, "GET", "/settings/maxQuota", PLAIN_ADMIN))[1]["content"]["value"] == 6
    for method in ("GET", "PUT", "DELETE"):
        assert (await call(gateway, method, "/settings/other", PLAIN_ADMIN, {"value": 1}))[0] == 404
    for body in ({"value": -2}, {"value": "1"}, {"value": None}, {}, {"value": 1, "name": "maxQuota"}):
        assert (await call(gateway, "PUT", "/settings/rateLimit", PLAIN_ADMIN, body))[0] == 400


async def test_a_default_that_regards_changes_keeps_what_it_does_not_know(gateway: RunningGateway) -> None:
    soft = Rule("tenant", "", False, "downloads", "total", 5, slow_rate=1000)
    await gateway.catalogue.rule(soft)
    assert (await call(gateway, "PUT", "/settings/maxQuota", PLAIN_ADMIN, {"value": 6}))[0] == 200
    (rule,) = (await call(gateway, "GET", "/quota/rules", PROJECT_ADMIN))[1]["rules"]
    assert (rule["value"], rule["slowRate"]) == (6, 1000)


async def test_ones_own_limits_are_those_that_bind_him(gateway: RunningGateway) -> None:
    rules: list[tuple[Subject, str, int]] = [
        ("tenant", "", 10), ("role", "REGISTERED_USER", 8), ("group", "science", 6), ("user", "other@example.org", 1)
    ]  # fmt: skip
    for subject, name, value in rules:
        await gateway.catalogue.rule(Rule(subject, name, False, "downloads", "total", value))
    assert (await call(gateway, "GET", "/quota", USER))[1]["maxQuota"] == 6
    assert (await call(gateway, "GET", "/quota", principal("outsider")))[1]["maxQuota"] == 8
    assert (await call(gateway, "GET", "/quota", EXPLOIT))[1]["maxQuota"] == 10


async def test_anonymous_callers_are_the_public_user_of_regards(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"x", collection="open")
    assert (await call(gateway, "GET", f"/quota?{SCOPE}"))[1] == {
        "email": "public@regards.com",
        "maxQuota": 0,
        "rateLimit": -1,
    }
    assert (await gateway.get(f"{entry.stac}?{SCOPE}"))[0].status == 429
    public = {"email": "public@regards.com", "maxQuota": 2, "rateLimit": 5}
    assert (await call(gateway, "GET", "/quota/public@regards.com", PROJECT_ADMIN))[1]["maxQuota"] == 0
    assert await call(gateway, "PUT", "/quota/public@regards.com", PROJECT_ADMIN, public) == (200, public)
    assert await call(gateway, "GET", f"/quota?{SCOPE}") == (200, public)
    assert (await gateway.get(f"{entry.stac}?{SCOPE}"))[0].status == 200
    used = public | {"currentQuota": 1, "currentRate": 0}
    assert await call(gateway, "GET", f"/quota/current?{SCOPE}") == (200, used)
    assert await call(gateway, "GET", "/quota/current/public@regards.com", PROJECT_ADMIN) == (200, used)
    assert await call(gateway, "GET", f"/quotas?{SCOPE}&user_email=public@regards.com") == (200, [public])
    asked = ["a@example.org", "public@regards.com", "a@example.org"]
    _, told = await call(gateway, "POST", "/quota/currents", PLAIN_ADMIN, asked)
    assert [one["email"] for one in told] == asked[:2]
    assert (told[0]["currentQuota"], told[1]) == (0, used)


async def test_limits_of_others_are_told_to_nobody_else(gateway: RunningGateway) -> None:
    await gateway.catalogue.rule(Rule("user", "a@example.org", False, "downloads", "total", 7))
    for query in ("user_email=a@example.org", "user_email=scientist@example.org&user_email=a@example.org"):
        status, told = await call(gateway, "GET", f"/quotas?{query}", USER)
        assert (status, list(told)) == (403, ["messages"])
        assert "7" not in json.dumps(told)
    status, told = await call(
        gateway, "GET", "/quotas?user_email=scientist@example.org&user_email=scientist@example.org", USER
    )
    assert (status, [one["email"] for one in told]) == (200, [USER.email])
    assert (await call(gateway, "GET", "/quotas", USER))[0] == 400


async def test_another_tenant_is_invisible_even_to_an_instance_administrator(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant("nasa")
    there = principal("scientist", "science", tenant="nasa")
    entry = await gateway.catalogue.file(b"x")
    for tenant, value in (("esa", 7), ("nasa", 3)):
        await gateway.catalogue.rule(Rule("user", USER.email or "", False, "downloads", "total", value), tenant=tenant)
    assert (await gateway.get(entry.stac, USER))[0].status == 200
    instance = principal("instance", role="INSTANCE_ADMIN", tenant="nasa")
    seen = {"email": USER.email, "maxQuota": 3, "rateLimit": -1, "currentQuota": 0, "currentRate": 0}
    assert (await call(gateway, "GET", "/quota/current", there))[1] == seen
    assert (await call(gateway, "GET", f"/quota/current/{USER.email}", instance))[1] == seen
    assert (await call(gateway, "POST", "/quota/currents", instance, [USER.email]))[1] == [seen]
    assert len((await call(gateway, "GET", "/quota/rules", instance))[1]["rules"]) == 1
    none = {"email": USER.email, "maxQuota": 0, "rateLimit": 0}
    assert (await call(gateway, "PUT", f"/quota/{USER.email}", instance, none))[0] == 200
    assert (await call(gateway, "GET", "/quota", USER))[1]["maxQuota"] == 7
    nowhere = principal("x", role="PROJECT_ADMIN", tenant="nowhere")
    for method, path, body, _, _ in TABLE:
        assert (await call(gateway, method, path, nowhere, body))[0] == 404, path


PUT_USER, PUT_DEFAULTS, PUT_RULE = "/quota/a@example.org", "/quota/defaults", "/quota/rules"
BAD_BODIES: list[tuple[str, str, object, str]] = [
    ("PUT", PUT_USER, LIMITS | {"email": "b@example.org"}, "'email' of the body"),
    ("PUT", PUT_USER, LIMITS | {"maxQuota": -2}, "'maxQuota' is -2"),
    ("PUT", PUT_USER, LIMITS | {"rateLimit": 2**53 + 1}, "'rateLimit' is 9007199254740993"),
    ("PUT", PUT_USER, LIMITS | {"rateLimit": 1.0}, "'rateLimit' must be a whole number"),
    ("PUT", PUT_USER, LIMITS | {"maxQuota": True}, "'maxQuota' must be a whole number"),
    ("PUT", PUT_USER, LIMITS | {"maxQuota": "5"}, "'maxQuota' must be a whole number"),
    ("PUT", PUT_USER, LIMITS | {"maxQuota": None}, "'maxQuota' must be a whole number"),
    ("PUT", PUT_USER, LIMITS | {"extra": 1}, "'extra'"),
    ("PUT", PUT_USER, {"email": "a@example.org", "maxQuota": 5}, "lacks 'rateLimit'"),
    ("PUT", PUT_USER, [LIMITS], "must be a JSON object"),
    ("PUT", PUT_USER, b"", "no JSON"),
    ("PUT", PUT_USER, b"{", "no JSON"),
    ("PUT", PUT_USER, b'{"email":"\xff"}', "not UTF-8"),
    ("PUT", PUT_USER, b'{"maxQuota":1,"maxQuota":2}', "'maxQuota' is there twice"),
    ("PUT", PUT_USER, b'{"maxQuota":NaN}', "NaN is no number"),
    ("PUT", PUT_USER, b"[" * 60_000, "too deep"),
    ("PUT", PUT_USER, b"1" * 60_000, "no JSON"),
    ("PUT", PUT_DEFAULTS, DEFAULTS | {"email": "a@example.org"}, "'email'"),
    ("PUT", PUT_DEFAULTS, {"maxQuota": -5, "rateLimit": 1}, "'maxQuota' is -5"),
    ("PUT", "/quota/%00", LIMITS | {"email": "\0"}, "An e-mail address"),
    ("PUT", f"/quota/{'e' * 1025}", LIMITS | {"email": "e" * 1025}, "An e-mail address"),
    ("GET", "/quota/current/%00", None, "An e-mail address"),
    ("POST", "/quota/currents", {"email": "a@example.org"}, "array of e-mail"),
    ("POST", "/quota/currents", [1], "An e-mail address"),
    ("POST", "/quota/currents", [""], "An e-mail address"),
    ("POST", "/quota/currents", ["\ud800"], "An e-mail address"),
    ("POST", "/quota/currents", [f"{n}" for n in range(1001)], "1001 e-mail addresses are too many"),
    ("GET", "/quotas", None, "Name users"),
    ("PUT", PUT_RULE, RULE | {"shared": 1}, "'shared' must be true or false"),
    ("PUT", PUT_RULE, RULE | {"value": -2}, "value is -2"),
    ("PUT", PUT_RULE, RULE | {"value": 0.5}, "'value' must be a whole number"),
    ("PUT", PUT_RULE, RULE | {"subject": "everyone"}, "subject is 'everyone'"),
    ("PUT", PUT_RULE, RULE | {"subject": ["tenant"]}, "'subject' must be text"),
    ("PUT", PUT_RULE, RULE | {"metric": "files"}, "metric is 'files'"),
    ("PUT", PUT_RULE, RULE | {"period": "week"}, "period is 'week'"),
    ("PUT", PUT_RULE, RULE | {"name": "a"}, "has no name"),
    ("PUT", PUT_RULE, RULE | {"subject": "user", "name": "x\0"}, "name has characters"),
    ("PUT", PUT_RULE, RULE | {"subject": "user", "name": "x" * 1025}, "name is longer"),
    ("PUT", PUT_RULE, RULE | {"slowRate": 0}, "slow_rate is 0"),
    ("PUT", PUT_RULE, RULE | {"burst": 2}, "burst is of the metric rate"),
    ("PUT", PUT_RULE, RULE | {"fail": "open"}, "fail is 'open'"),
    ("PUT", PUT_RULE, RULE | {"slow_rate": 1}, "'slow_rate', which nobody knows"),
    ("DELETE", f"{PUT_RULE}?subject=tenant&metric=bytes", None, "lacks 'period'"),
    ("DELETE", f"{PUT_RULE}?{RULE_QUERY}&shared=maybe", None, "'shared' must be true or false"),
    ("DELETE", f"{PUT_RULE}?{RULE_QUERY}&subject=user", None, "'subject' twice"),
    ("DELETE", f"{PUT_RULE}?subject=x&metric=bytes&period=day", None, "subject is 'x'"),
]


async def test_what_makes_no_sense_is_400_and_named(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    for method, path, body, complaint in BAD_BODIES:
        status, told = await call(gateway, method, path, PROJECT_ADMIN, body)
        assert status == 400, (method, path, body, told)
        assert complaint in told["messages"][0], told
    assert await call(gateway, "GET", "/quota/rules", PROJECT_ADMIN) == (200, {"rules": [], "next": None})
    assert (await call(gateway, "DELETE", f"{PUT_RULE}?{RULE_QUERY}", PROJECT_ADMIN))[0] == 404


async def test_bodies_are_bounded(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    longest = [f"{number:05}@example.org" + "x" * 40 for number in range(1000)]
    assert len(json.dumps(longest)) < 64 * 1024
    status, told = await call(gateway, "POST", "/quota/currents", PROJECT_ADMIN, longest)
    assert (status, len(told)) == (200, 1000)
    status, told = await call(gateway, "PUT", PUT_USER, PROJECT_ADMIN, b" " * (64 * 1024 + 1))
    assert (status, told) == (413, {"messages": ["The body of the request is too large."]})


async def test_a_body_that_does_not_come_is_not_waited_for(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_SECONDS", 0.05)
    url = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"PUT {PUT_USER} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 100\r\n"
    authorization = bearer(PROJECT_ADMIN)["Authorization"]
    writer.write(f'{head}Authorization: {authorization}\r\n\r\n{{"email"'.encode())
    try:
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
        assert answer.startswith(b"HTTP/1.1 408 ")
    finally:
        writer.close()


@pytest.mark.parametrize(("method", "path"), [("PUT", "/quota/max"), ("PUT", "/quota/current"), ("POST", "/quota")])
async def test_names_of_resources_are_no_users(gateway: RunningGateway, method: str, path: str) -> None:
    status, told = await call(gateway, method, path, PROJECT_ADMIN, LIMITS)
    assert (status, list(told)) == (405, ["messages"])


async def test_it_lies_below_the_prefix_of_regards(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path, api={"regards_prefix": "/api/v1/rs-catalog"})
    async with running_gateway(config, tmp_path) as gateway:
        await gateway.catalogue.tenant()
        for path in ("/quota", "/quotas?user_email=scientist@example.org", "/quota/current"):
            assert (await call(gateway, "GET", f"/api/v1/rs-catalog{path}", USER))[0] == 200
            assert (await call(gateway, "GET", path, USER))[0] == 404
        status, told = await call(gateway, "GET", "/api/v1/rs-catalog/settings", USER)
        assert (status, list(told)) == (403, ["messages"])


async def test_a_key_tells_limits_of_others_only_if_it_may_administer(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    for scopes, status in ((["quota"], 403), (["quota", "admin"], 200)):
        shown = shown_key((await new_key(gateway, PLAIN_ADMIN, scopes=scopes))["key"])
        assert (await send(gateway, "GET", f"/quotas?user_email={USER.email}", shown))[0] == status
        assert (await send(gateway, "GET", f"/quotas?user_email={PLAIN_ADMIN.email}", shown))[0] == 200
