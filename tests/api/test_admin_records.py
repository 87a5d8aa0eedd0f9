"""``/admin/downloads`` and ``/admin/changes``: filters, pages, CSV and NDJSON, and what must never be in them."""

from __future__ import annotations

import asyncio
import csv
import datetime
import io
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.administration import records as pages
from gateway.api.admin_records import cell
from gateway.config import Audit, Database
from gateway.db import no_answer
from gateway.ops import audit
from gateway.ops.audit_table import AuditTable
from gateway.storage import Stat
from tests.api.support import INSTANCE_ADMIN, PROJECT_ADMIN, USER, call
from tests.harness import OUTSIDER, SECRET, RunningGateway, bearer, principal, token
from tests.ops.test_audit import noted, records

OTHER_ADMIN = principal("project", role="PROJECT_ADMIN", tenant="other")
START = datetime.datetime(2027, 3, 1, tzinfo=datetime.UTC)
"""After the tenants of the tests are made."""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "GATHER_SECONDS", 0.02)


async def write(gateway: RunningGateway, number: int, **other: Any) -> None:
    """Records, a minute apart from `START` on."""
    table = AuditTable(Database.model_validate({"dsn": gateway.config.database.dsn}), Audit())
    await table.write([noted(n, START.timestamp() + 60 * n, **other) for n in range(number)], again=False)
    await table.close()


async def listed(gateway: RunningGateway, query: str, who: Any = PROJECT_ADMIN, kind: str = "downloads") -> Any:
    status, told = await call(gateway, "GET", f"/admin/{kind}?{query}", who)
    assert status == 200, told
    return told


async def streamed(gateway: RunningGateway, query: str, accept: str, kind: str = "downloads") -> tuple[Any, bytes]:
    fields = {**bearer(PROJECT_ADMIN), "Accept": accept}
    async with gateway.session.get(f"{gateway.url}/admin/{kind}?{query}", headers=fields) as response:
        return response, await response.read()


def numbers(told: Any) -> list[int]:
    return [int(one["requestId"].removeprefix("request-")) for one in told["downloads"]]


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


@pytest.mark.parametrize("accept", ["text/csv", "text/html, text/csv;q=0.9", "TEXT/CSV; header=present"])
async def test_csv_is_all_of_it_and_can_be_read_back(
    gateway: RunningGateway, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST", 7)
    await gateway.catalogue.tenant()
    await write(gateway, 30, user_agent='a "quoted"; one')
    response, body = await streamed(gateway, "", accept)
    assert (response.status, response.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert response.headers["Content-Disposition"] == 'attachment; filename="downloads.csv"'
    assert response.headers["Cache-Control"] == "no-store"
    assert body.endswith(b"\r\n")
    rows = list(csv.DictReader(io.StringIO(body.decode(), newline=""), delimiter=";"))
    told = (await listed(gateway, "limit=1000"))["downloads"]
    assert [{name: cell_of(value) for name, value in one.items()} for one in told] == rows
    assert len((await streamed(gateway, "limit=11", accept))[1].splitlines()) == 12


def cell_of(value: object) -> str:
    return "" if value is None else str(value)


async def test_ndjson_is_a_record_a_line(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST", 7)
    await gateway.catalogue.tenant()
    await write(gateway, 30)
    response, body = await streamed(gateway, "", "application/x-ndjson")
    assert response.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
    assert [json.loads(line) for line in body.splitlines()] == (await listed(gateway, "limit=1000"))["downloads"]
    response, body = await streamed(gateway, "email=nobody", "application/x-ndjson")
    assert (response.status, body) == (200, b"")


async def test_a_stream_that_breaks_looks_broken(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST", 7)
    await gateway.catalogue.tenant()
    await write(gateway, 30)
    page = pages.page

    async def failing(database: Any, wanted: Any, *, before: Any, limit: int) -> Any:
        if before is not None:
            raise no_answer()
        return await page(database, wanted, before=before, limit=limit)

    monkeypatch.setattr(pages, "page", failing)
    with pytest.raises(aiohttp.ClientError):
        await streamed(gateway, "", "text/csv")


async def test_a_stream_holds_no_connection_while_its_client_is_slow(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.catalogue.tenant()
    await write(gateway, 6000, user_agent="x" * 1000, path="x" * 1000)
    fields = {**bearer(PROJECT_ADMIN), "Accept": "text/csv"}
    async with gateway.session.get(f"{gateway.url}/admin/downloads", headers=fields) as response:
        assert response.status == 200
        async with asyncio.timeout(20):
            while await gateway.catalogue.connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'download-gateway' AND (state <> 'idle' OR backend_xmin IS NOT NULL)"
            ):
                await asyncio.sleep(0.01)
        assert not any("/admin/downloads" in line for line in gateway.access_log), "it is still being sent"
        assert len((await response.read()).splitlines()) == 6001


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


FORMULAS = ("=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(1)", "\t=1", "\r=1", "\n=1")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    (row,) = csv.reader(io.StringIO(cell(text), newline=""), delimiter=";")
    assert row == [f"'{text}"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=5))
def test_cells_are_read_back_as_they_were(texts: Sequence[str]) -> None:
    line = ";".join(map(cell, texts))
    (row,) = csv.reader(io.StringIO(line, newline=""), delimiter=";", strict=True)
    assert [one[1:] if one[:1] == "'" != text[:1] else one for one, text in zip(row, texts, strict=True)] == list(texts)
    assert not any(one.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for one in row)


NASTY = (
    "'; DROP TABLE download_log; --",
    '" OR ""="',
    "\\",
    "$1",
    "%s%n{0}",
    "\x1b[2J\x1b]0;evil\x07",
    "line\r\nX-Injected: 1",
    "\u202egnp.exe",
    "=1+1;\"'",
    "\u0085\u2028",
)


@pytest.mark.usefixtures("soon")
async def test_what_callers_write_is_obeyed_by_nothing(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    entry = await gateway.catalogue.file(b"content")
    expected = 0
    for nasty in NASTY:
        part = quote(nasty, safe="")
        for path in (
            f"/downloads/{part}/files/{part}",
            f"/collections/{part}/items/{part}/download/{part}",
            f"{entry.stac}?scope={part}",
        ):
            response, body = await gateway.get(path, None if "scope" in path else USER)
            assert response.status in (401, 403, 404), body
            assert "X-Injected" not in response.headers
            # Braces are in no path that is routed.
            expected += b"nothing at this path" not in body
        who = principal(nasty, nasty, email=nasty, role=nasty)
        response, _ = await gateway.get(entry.stac, who)
        assert response.status in (200, 401, 403)
        expected += 1
        for method, path in (("GET", f"/admin/groups/{part}"), ("PUT", f"/admin/groups/{part}")):
            response, _ = await gateway.request(method, path, PROJECT_ADMIN)
            assert response.status in (400, 404)
    raw = await shout(
        gateway, f"GET {entry.stac} HTTP/1.1\r\nHost: x\r\nUser-Agent: ü\xff=1+1\r\n\r\n".encode("latin-1")
    )
    assert b" 401 " in raw
    rows = await records(gateway.catalogue.connection, expected + 1)
    texts = [value for row in rows for value in row.values() if isinstance(value, str)]
    assert all(text.isprintable() for text in texts)
    for line in gateway.access_log:
        assert json.loads(line)
        assert line.isascii()
        assert line.isprintable()
    assert not any("\x1b" in record.getMessage() or "\r" in record.getMessage() for record in caplog.records)
    _, body = await streamed(gateway, "", "text/csv")
    for row in csv.reader(io.StringIO(body.decode(), newline=""), delimiter=";", strict=True):
        assert len(row) == 24
        assert not any(one.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for one in row)


async def shout(gateway: RunningGateway, request: bytes) -> bytes:
    """What comes back for bytes that no well-behaved client would send."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n")
    finally:
        writer.close()


@pytest.mark.usefixtures("soon")
async def test_secrets_are_in_no_log_and_no_record(gateway: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
    entry = await gateway.catalogue.file(b"content")
    canary = "canary-5e1f0c"
    shown = token(USER)
    bodies = []
    for path in (
        f"{entry.stac}?token={canary}",
        f"{entry.stac}?access_token={shown}",
        f"/admin/groups?tenant={canary}",
    ):
        bodies.append((await gateway.get(path, USER))[1])
        bodies.append((await gateway.get(path, None, Authorization=f"Bearer {canary}"))[1])
        bodies.append((await gateway.get(path, None, Authorization=f"Basic {canary}", Cookie=f"session={canary}"))[1])
    bodies.append((await gateway.get("/admin/downloads", PROJECT_ADMIN))[1])
    rows = await records(gateway.catalogue.connection, 6)
    seen = "\n".join(
        [*gateway.access_log, *map(str, rows), *(record.getMessage() for record in caplog.records)]
        + [body.decode("latin-1") for body in bodies]
    )
    password = gateway.config.database.dsn.get_secret_value()
    for secret in (
        canary,
        shown,
        shown.rpartition(".")[2],
        SECRET,
        password,
        gateway.config.redis.url.get_secret_value(),
    ):
        assert secret not in seen


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
