"""Licences: which one applies, who sees it, and when it is asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.api.licensing import LICENCE, OF_TENANT, acceptances, send, tenant_licence
from tests.api.support import INSTANCE_ADMIN, PLAIN_ADMIN, PROJECT_ADMIN, call
from tests.harness import OUTSIDER, SCIENTIST, RunningGateway, config_for, principal, running_gateway


def told(*, accepted: bool, link: str | None) -> dict[str, Any]:
    return {"content": {"accepted": accepted, "licenseLink": link}, "links": []}


async def test_the_licence_of_the_tenant_as_in_regards(gateway: RunningGateway) -> None:
    assert await call(gateway, "GET", "/license", SCIENTIST) == (200, told(accepted=True, link=None))
    assert await call(gateway, "PUT", "/license", SCIENTIST) == (200, told(accepted=True, link=None))
    licence = await tenant_licence(gateway)
    for who in (SCIENTIST, OUTSIDER, PLAIN_ADMIN, PROJECT_ADMIN):
        assert await call(gateway, "GET", "/license", who) == (200, told(accepted=False, link=OF_TENANT))
    assert await call(gateway, "GET", "/license", INSTANCE_ADMIN) == (200, told(accepted=True, link=OF_TENANT))
    assert await call(gateway, "GET", "/license?scope=esa") == (200, told(accepted=False, link=OF_TENANT))
    assert await call(gateway, "PUT", "/license", SCIENTIST) == (200, told(accepted=True, link=OF_TENANT))
    assert await call(gateway, "PUT", "/license", SCIENTIST) == (200, told(accepted=True, link=OF_TENANT))
    assert await call(gateway, "GET", "/license", SCIENTIST) == (200, told(accepted=True, link=OF_TENANT))
    assert await call(gateway, "GET", "/license", OUTSIDER) == (200, told(accepted=False, link=OF_TENANT))
    (row,) = await acceptances(gateway)
    assert tuple(row[name] for name in ("licence_id", "version", "email", "address", "credential")) == (
        licence,
        1,
        SCIENTIST.email,
        "127.0.0.1",
        "token",
    )
    assert row["accepted_at"].tzinfo is not None


async def test_the_licence_of_another_tenant_is_not_mine(gateway: RunningGateway) -> None:
    await tenant_licence(gateway, tenant="cnes")
    await gateway.catalogue.tenant()
    assert await call(gateway, "GET", "/license", SCIENTIST) == (200, told(accepted=True, link=None))
    for method, who in (("GET", principal("x", tenant="nowhere")), ("PUT", principal("x", tenant="nowhere"))):
        assert (await call(gateway, method, "/license", who))[0] == 404
    assert (await call(gateway, "GET", "/license"))[0] == 401
    assert await call(gateway, "PUT", "/license", principal("scientist", tenant="cnes")) == (
        200,
        told(accepted=True, link=OF_TENANT),
    )


async def test_a_reset_asks_everyone_again_and_is_recorded(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"data")
    assert await call(gateway, "PUT", "/license/reset", PLAIN_ADMIN) == (204, None)
    licence = await tenant_licence(gateway)
    for who in (SCIENTIST, PROJECT_ADMIN):
        await call(gateway, "PUT", "/license", who)
        assert (await gateway.get(entry.stac, who))[0].status == 200
    for who in (SCIENTIST, principal("x", role="EXPLOIT"), principal("x", role="curator")):
        assert (await call(gateway, "PUT", "/license/reset", who))[0] == 403
    assert (await call(gateway, "PUT", "/license/reset?scope=esa"))[0] == 403
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200

    assert await call(gateway, "PUT", "/license/reset", PLAIN_ADMIN) == (204, None)
    for who in (SCIENTIST, PROJECT_ADMIN):
        assert (await gateway.get(entry.stac, who))[0].status == 423
        assert await call(gateway, "GET", "/license", who) == (200, told(accepted=False, link=OF_TENANT))
    assert (await gateway.get(entry.stac, INSTANCE_ADMIN))[0].status == 200
    await call(gateway, "PUT", "/license", SCIENTIST)
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    assert [(row["licence_id"], row["version"]) for row in await acceptances(gateway)] == [
        (licence, 1),
        (licence, 1),
        (licence, 2),
    ]
    changes = await gateway.catalogue.connection.fetch("SELECT actor, action, object, detail, address FROM changes")
    assert [tuple(row) for row in changes] == [
        (PLAIN_ADMIN.email, "licence.reset", "terms", '{"version": 2}', "127.0.0.1")
    ]


async def test_a_role_of_the_tenant_with_parent_admin_may_reset(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    await tenant_licence(gateway)
    await made.connection.execute("INSERT INTO roles VALUES ($1, 'curator', 'ADMIN')", await made.tenant())
    assert (await call(gateway, "PUT", "/license/reset", principal("x", role="curator")))[0] == 204
    assert (await call(gateway, "PUT", "/license/reset", principal("x", role="curator", tenant="cnes")))[0] == 403


async def test_a_dataset_has_its_own_licence_else_its_tenants_and_a_public_one_is_never_in_the_way(
    gateway: RunningGateway,
) -> None:
    made = gateway.catalogue
    entries = {name: await made.file(b"data", collection=name) for name in ("own", "plain")}
    for name in entries:
        await made.grant(name, await made.group("everyone", public=True))
    assert [(await gateway.get(entry.stac, OUTSIDER))[0].status for entry in entries.values()] == [200, 200]
    own = await made.licence("own", LICENCE)
    default = await tenant_licence(gateway)
    for name, url in (("own", LICENCE), ("plain", OF_TENANT)):
        response, body = await send(gateway, "GET", entries[name].regards, OUTSIDER)
        assert (response.status, body["license"]) == (423, url)
        assert response.headers["Link"] == f'<{url}>; rel="license"'
    await call(gateway, "PUT", "/license", OUTSIDER)
    assert [(await gateway.get(entry.stac, OUTSIDER))[0].status for entry in entries.values()] == [423, 200]
    await made.connection.execute("UPDATE licences SET is_public = true WHERE licence_id = $1", own)
    for name, url in (("own", LICENCE), ("plain", OF_TENANT)):
        response, _ = await gateway.get(entries[name].stac, OUTSIDER)
        assert (response.status, response.headers["Link"]) == (200, f'<{url}>; rel="license"')
    response, _ = await gateway.request("HEAD", f"{entries['own'].stac}?scope=esa")
    assert (response.status, response.headers["Link"]) == (200, f'<{LICENCE}>; rel="license"')
    await made.connection.execute("UPDATE licences SET is_public = true WHERE licence_id = $1", default)
    assert await call(gateway, "GET", "/license", SCIENTIST) == (200, told(accepted=True, link=OF_TENANT))


async def test_the_licence_of_a_collection(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="open")
    path = "/collections/open/license"
    nothing: dict[str, Any] = {"acceptedAt": None, "title": None, "version": None, "links": []}
    status, body = await call(gateway, "GET", path, OUTSIDER)
    assert (status, body) == (200, {"accepted": True, "licenseLink": None, "public": True, **nothing})
    licence = await made.licence("open", LICENCE)
    await made.connection.execute("UPDATE licences SET title = 'Îles', version = 7 WHERE licence_id = $1", licence)
    expected = {
        "accepted": False,
        "acceptedAt": None,
        "licenseLink": LICENCE,
        "title": "Îles",
        "version": 7,
        "public": False,
        "links": [{"rel": "license", "href": LICENCE}],
    }
    assert await call(gateway, "GET", path, OUTSIDER) == (200, expected)
    assert await call(gateway, "GET", f"{path}?scope=esa") == (200, expected)
    status, body = await call(gateway, "PUT", path, OUTSIDER)
    (row,) = await acceptances(gateway)
    accepted_at = row["accepted_at"].isoformat().replace("+00:00", "Z")
    assert (status, body) == (200, {**expected, "accepted": True, "acceptedAt": accepted_at})
    assert (row["email"], row["version"]) == (OUTSIDER.email, 7)
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 200
    assert (await call(gateway, "GET", path, INSTANCE_ADMIN))[1]["accepted"] is True


async def test_the_licence_of_a_collection_is_for_those_who_may_see_it(
    gateway: RunningGateway, database: str, redis_url: str, tmp_path: Path
) -> None:
    made = gateway.catalogue
    await made.file(b"data")
    await made.licence("restricted")
    await made.dataset("of cnes", tenant="cnes")
    path = "/collections/restricted/license"
    for method in ("GET", "PUT"):
        assert (await call(gateway, method, path, OUTSIDER))[0] == 403
        for name in ("none", "of%20cnes", "%00", quote("\udc80", errors="surrogatepass")):
            status, body = await call(gateway, method, f"/collections/{name}/license", SCIENTIST)
            assert status == 404
            assert set(body) == {"code", "description"}
    assert not await acceptances(gateway)
    # The dataset alone is seen: so is its licence, which is accepted for the day when more is seen.
    await made.grant("restricted", await made.group("guests"), "RESTRICTED_ACCESS", "NO_ACCESS")
    assert (await call(gateway, "PUT", path, principal("guest", "guests")))[0] == 200
    assert len(await acceptances(gateway)) == 1
    hiding = config_for(database, redis_url, tmp_path, rights={"hide_forbidden": True})
    async with running_gateway(hiding, tmp_path) as hidden:
        bodies = [(await call(hidden, "GET", f"/collections/{name}/license", OUTSIDER)) for name in ("restricted", "x")]
        assert [status for status, _ in bodies] == [404, 404]
        assert [body["description"] for _, body in bodies] == [
            "There is no collection 'restricted'.",
            "There is no collection 'x'.",
        ]
