"""``/admin/downloads`` and ``/admin/changes``: what is in them, filters and pages."""

from __future__ import annotations

import csv
import datetime
import io
from urllib.parse import quote

import pytest

from gateway.administration import records as pages
from gateway.config import Audit, Database
from gateway.ops.audit_table import AuditTable
from gateway.storage import Stat
from tests.api.recording import START, listed, numbers, streamed, write
from tests.api.support import INSTANCE_ADMIN, PROJECT_ADMIN, USER, call
from tests.harness import OUTSIDER, RunningGateway, principal
from tests.ops.test_audit import noted, records

OTHER_ADMIN = principal("project", role="PROJECT_ADMIN", tenant="other")


@pytest.mark.usefixtures("soon")
async def test_what_was_downloaded_and_refused_is_told_to_administrators(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    await gateway.get(entry.stac, USER, X_Request_ID="mine", User_Agent="curl/8")
    await gateway.get(entry.stac, OUTSIDER, X_Request_ID="refused")
    await gateway.get(entry.stac, X_Request_ID="nobody")
    await records(gateway.catalogue.connection, 3)
    told = (await listed(gateway, ""))["downloads"]
    assert [one["requestId"] for one in told] == ["refused", "mine"], "the newest first, and none of no tenant"
    mine = told[1]
    assert datetime.datetime.fromisoformat(mine.pop("at")).tzinfo is not None
    assert mine.pop("durationMs") > 0
    assert mine == {
        "tenant": "esa",
        "subject": "scientist",
        "email": "scientist@example.org",
        "role": "REGISTERED_USER",
        "credential": "token",
        "credentialId": None,
        "address": "127.0.0.1",
        "method": "GET",
        "route": "/collections/{collectionId}/items/{itemId}/download/{assetId}",
        "path": entry.stac,
        "product": entry.product,
        "file": "data",
        "fileId": entry.file_id,
        "verdict": "whole",
        "reason": None,
        "status": 200,
        "promised": 7,
        "sent": 7,
        "storage": "disk",
        "delivery": "stream",
        "requestId": "mine",
        "userAgent": "curl/8",
    }
    unknown = (await listed(gateway, "tenant=", INSTANCE_ADMIN))["downloads"]
    assert [(one["requestId"], one["tenant"], one["reason"]) for one in unknown] == [("nobody", "", "Unauthorized")]


async def test_filters_pick_and_pages_are_all_of_it_once(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    await write(gateway, 60)
    await write(gateway, 1, principal=OUTSIDER, verdict="refused", status=403, reason="Forbidden", product="P")
    assert numbers(await listed(gateway, "limit=3")) == [59, 58, 57]
    outsider = await listed(gateway, f"email={quote(OUTSIDER.email or '')}")
    assert [one["status"] for one in outsider["downloads"]] == [403]
    for query in ("status=403", "verdict=refused", "product=P", "verdict=refused&status=403&product=P"):
        assert [one["email"] for one in (await listed(gateway, query))["downloads"]] == [OUTSIDER.email]
    for query in ("status=403&verdict=whole", "email=nobody", "product='%20OR%20''='", "verdict=%F0%9F%92%A9"):
        assert await listed(gateway, query) == {"downloads": [], "next": None}
    told = await listed(gateway, "from=2027-03-01T00:10:00Z&to=2027-03-01T01:12:00%2B01:00")
    assert numbers(told) == [11, 10], "the end is not part of it; offsets count"
    found: list[int] = []
    query = "limit=7&verdict=whole"
    while True:
        told = await listed(gateway, query)
        found += numbers(told)
        if told["next"] is None:
            break
        query = f"limit=7&verdict=whole&cursor={told['next']}"
    assert found == list(range(59, -1, -1))


async def test_records_of_the_same_moment_are_each_there_once(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    table = AuditTable(Database.model_validate({"dsn": gateway.config.database.dsn}), Audit())
    await table.write([noted(n, START.timestamp()) for n in range(10)], again=False)
    await table.close()
    found: list[int] = []
    query = "limit=3"
    for _ in range(4):
        told = await listed(gateway, query)
        found += numbers(told)
        query = f"limit=3&cursor={told['next']}"
    assert (found, told["next"]) == (list(range(9, -1, -1)), None)


async def test_pages_use_the_index_of_the_tenant(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    await write(gateway, 5000)
    await gateway.catalogue.connection.execute("ANALYZE download_log")
    wanted = pages.Wanted(pages.DOWNLOADS, "esa", equal={"email": "nobody"})
    before = pages.Place(START + datetime.timedelta(minutes=2500), 1)
    statement, parameters = pages._statement(wanted, START, before, 10)
    rows = await gateway.catalogue.connection.fetch(f"EXPLAIN {statement}", *parameters)
    plan = "\n".join(row[0] for row in rows)
    assert "Index" in plan
    assert "Seq Scan" not in plan


async def test_nobody_sees_the_records_of_others(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    await gateway.catalogue.tenant("other")
    await write(gateway, 3)
    assert await listed(gateway, "", OTHER_ADMIN) == {"downloads": [], "next": None}
    assert len((await listed(gateway, "tenant=esa", INSTANCE_ADMIN))["downloads"]) == 3
    for tenant in ("esa", "ghost", ""):
        assert (await call(gateway, "GET", f"/admin/downloads?tenant={tenant}", OTHER_ADMIN))[0] == 404
    for who, status in ((None, 401), (USER, 403)):
        assert (await call(gateway, "GET", "/admin/downloads", who))[0] == status
        assert (await call(gateway, "GET", "/admin/changes", who))[0] == status


async def test_a_tenant_that_is_made_anew_does_not_see_what_was_before(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    await write(gateway, 10)
    made = START + datetime.timedelta(minutes=8)
    await gateway.catalogue.connection.execute("UPDATE tenants SET created_at = $1 WHERE name = 'esa'", made)
    assert numbers(await listed(gateway, "")) == [9, 8]


async def test_bad_questions_are_refused_in_plain_words(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    for query, reason in (
        ("from=yesterday", "'from'"),
        ("to=2027-01-01", "'to'"),
        ("from=2027-01-01T00:00:00", "offset"),
        ("from=0001-01-01T00:00:00Z", "'from'"),
        ("to=9999-12-31T23:59:59-14:00", "'to'"),
        ("status=abc", "'status'"),
        ("status=99999999999999999999", "'status'"),
        ("status=²00", "'status'"),
        ("limit=0", "'limit'"),
        ("limit=1001", "'limit'"),
        ("cursor=%27", "'cursor'"),
        ("cursor=WyJ4IiwgMV0", "'cursor'"),
        ("mail=a", "'mail'"),
        ("email=a&email=b", "twice"),
        ("email=%00", "stored"),
        (f"cursor={'x' * 2000}", "'cursor'"),
    ):
        status, told = await call(gateway, "GET", f"/admin/downloads?{query}", PROJECT_ADMIN)
        assert (status, reason in told["detail"]) == (400, True), (query, told)
    response, _ = await streamed(gateway, "cursor=WyJ4IiwgMV0", "text/csv")
    assert response.status == 400


@pytest.mark.usefixtures("soon")
async def test_changes_are_told_with_the_same_filters(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    for name in ("a", "b", "=c"):
        assert (await call(gateway, "PUT", f"/admin/groups/{name}", PROJECT_ADMIN, {"isPublic": True}))[0] == 201
    assert (await call(gateway, "DELETE", "/admin/groups/a", INSTANCE_ADMIN))[0] == 204
    told = await listed(gateway, "limit=2", kind="changes")
    assert [(one["action"], one["object"], one["actor"]) for one in told["changes"]] == [
        ("group.delete", "a", INSTANCE_ADMIN.email),
        ("group.create", "=c", PROJECT_ADMIN.email),
    ]
    rest = await listed(gateway, f"limit=2&cursor={told['next']}", kind="changes")
    assert ([one["object"] for one in rest["changes"]], rest["next"]) == (["b", "a"], None)
    assert rest["changes"][0]["detail"] == {"isPublic": True}
    for query, objects in (
        ("action=group.delete", ["a"]),
        ("object=a", ["a", "a"]),
        (f"email={INSTANCE_ADMIN.email}", ["a"]),
        ("to=2000-01-01T00:00:00Z", []),
    ):
        assert [one["object"] for one in (await listed(gateway, query, kind="changes"))["changes"]] == objects
    _, body = await streamed(gateway, "object=%3Dc", "text/csv", kind="changes")
    (row,) = csv.DictReader(io.StringIO(body.decode(), newline=""), delimiter=";")
    assert (row["object"], row["detail"]) == ("'=c", '{"isPublic": true}')


async def test_changes_of_tenants_that_are_gone_are_told_to_administrators_of_the_instance(
    gateway: RunningGateway,
) -> None:
    assert (await call(gateway, "PUT", "/admin/tenants/short", INSTANCE_ADMIN, {}))[0] == 201
    assert (await call(gateway, "DELETE", "/admin/tenants/short", INSTANCE_ADMIN))[0] == 204
    told = await listed(gateway, "tenant=", INSTANCE_ADMIN, kind="changes")
    assert [one["action"] for one in told["changes"]] == ["tenant.delete", "tenant.create"]


@pytest.mark.usefixtures("soon")
async def test_what_others_send_is_recorded_as_handed_over(every_way: RunningGateway) -> None:
    catalogue = every_way.catalogue
    content = bytes(100_000)
    redirected = await catalogue.described(content, item="far")
    await catalogue.copy(redirected, "far", "esa/far", Stat(len(content), None, "tag"))
    offloaded = await catalogue.file(content, item="near", storage="proxied")
    broken = await catalogue.file(b"content", item="broken")
    broken.path.unlink()
    for entry, status, fields in (
        (redirected, 307, {}),
        (offloaded, 200, {"X_Sendfile_Type": "X-Accel-Redirect"}),
        (broken, 404, {}),
    ):
        response, _ = await every_way.get(entry.stac, USER, **fields)
        assert response.status == status
    await records(catalogue.connection, 3)
    told = (await listed(every_way, ""))["downloads"][::-1]
    names = ("verdict", "status", "promised", "sent", "storage", "delivery")
    assert [tuple(one[name] for name in names) for one in told] == [
        ("redirected", 307, 100_000, 100_000, "far", "redirect"),
        ("offloaded", 200, 100_000, 100_000, "proxied", "accel"),
        ("refused", 404, 7, 0, "disk", "stream"),
    ]
