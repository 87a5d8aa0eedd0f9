"""Downloads of nearline files over real sockets: who has them restored, what he is told, and when they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from gateway.storage import Stat
from tests.harness import OUTSIDER, SCIENCE, SCIENTIST, Entry, RunningGateway, bearer, principal, running_gateway
from tests.staging.tape import expired, load_tape, restored, tape_config

CONTENT = b"0123456789" * 1000


async def nearline(gateway: RunningGateway, item: str = "item", **options: object) -> Entry:
    return await gateway.catalogue.file(CONTENT, item=item, storage="tape", state="NEARLINE", **options)  # type: ignore[arg-type]


async def rows(gateway: RunningGateway, table: str = "restores") -> list[Mapping[str, object]]:
    return [dict(row) for row in await gateway.catalogue.connection.fetch(f"SELECT * FROM {table} ORDER BY 1")]


@pytest.mark.parametrize("door", ["regards", "stac"])
async def test_a_get_has_it_restored_and_one_later_gives_it(archive: RunningGateway, door: str) -> None:
    entry = await nearline(archive)
    path = getattr(entry, door)
    first, body = await archive.get(path, SCIENTIST)
    assert first.status == 503
    assert int(first.headers["Retry-After"]) >= 3
    told = json.loads(body)
    assert told["restore"]["state"] == "restoring"
    if door == "regards":
        assert "being restored" in told["messages"][0]
    else:
        assert told["code"] == "Restoring"
        assert told["links"] == [{"rel": "status", "href": told["restore"]["href"]}]
    assert first.headers["Link"] == f'<{told["restore"]["href"]}>; rel="status"'
    assert re.fullmatch(r"restoring;since=@\d+;ready=@\d+", first.headers["File-State"])
    assert first.headers["Cache-Control"] == "no-store"
    again, _ = await archive.get(path, SCIENTIST)
    assert again.status == 503
    (restore,) = await rows(archive)
    assert (restore["state"], restore["priority"], restore["storage"]) == ("QUEUED", 1, "tape")
    (wish,) = await rows(archive, "restore_wishes")
    assert wish["email"] == SCIENTIST.email
    assert await archive.usage(SCIENTIST) == (0, 0)

    until = await restored(archive.catalogue.connection, entry)
    answer, body = await archive.get(path, SCIENTIST)
    assert (answer.status, body) == (200, CONTENT)
    assert answer.headers["File-State"] == f"restored;until=@{int(until.timestamp())}"
    assert await archive.usage(SCIENTIST) == (1, len(CONTENT))
    await expired(archive.catalogue.connection, entry)
    answer, _ = await archive.get(path, SCIENTIST)
    assert answer.status == 503
    assert [row["state"] for row in await rows(archive)] == ["EXPIRED", "QUEUED"]


async def test_who_waits_fills_no_log(archive: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
    answer, _ = await archive.get((await nearline(archive)).stac, SCIENTIST)
    assert answer.status == 503
    assert "Restoring" not in caplog.text


async def test_what_is_past_its_time_is_not_given(archive: RunningGateway) -> None:
    """PostgreSQL's clock decides, whether or not a worker is there to put it in order."""
    entry = await nearline(archive)
    await archive.get(entry.stac, SCIENTIST)
    await restored(archive.catalogue.connection, entry, seconds=-1)
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert (answer.status, json.loads(body)["restore"]["state"]) == (503, "expired")
    assert len(await rows(archive)) == 1


async def test_head_never_stages(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    head, _ = await archive.request("HEAD", entry.stac, SCIENTIST)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert (head.headers["ETag"], head.headers["File-State"]) == (f'"{entry.checksum}"', "nearline")
    assert await rows(archive) == []
    # Nor does anything else that needs no bytes.
    answer, _ = await archive.get(entry.stac, SCIENTIST, If_None_Match=head.headers["ETag"])
    assert answer.status == 304
    answer, body = await archive.get(f"{entry.stac}?dryRun=true", SCIENTIST)
    assert (answer.status, json.loads(body)["bytes"]) == (200, len(CONTENT))
    answer, _ = await archive.get(entry.stac, SCIENTIST, If_Match='"other"')
    assert answer.status == 412
    assert await rows(archive) == []
    head, _ = await archive.request("HEAD", entry.stac, SCIENTIST, Prefer="quota")
    assert head.headers["Quota-Cost"] == f"downloads=1, bytes={len(CONTENT)}"
    assert head.headers["File-State"] == "nearline"
    unknown = await nearline(archive, "unknown", checksum=False, recorded=False)
    answer, _ = await archive.get(f"{unknown.stac}?dryRun=true", SCIENTIST)
    assert answer.status == 503
    by_version = await nearline(archive, "by-version", checksum=False)
    head, _ = await archive.request("HEAD", by_version.stac, SCIENTIST)
    assert head.headers["Content-Length"] == str(len(CONTENT))
    head, _ = await archive.request("HEAD", unknown.stac, SCIENTIST)
    assert (head.status, head.headers["File-State"]) == (200, "nearline")
    assert "Content-Length" not in head.headers
    assert "ETag" not in head.headers
    await archive.get(entry.stac, SCIENTIST)
    head, _ = await archive.request("HEAD", entry.stac, SCIENTIST)
    assert head.headers["File-State"].startswith("restoring;since=@")


async def test_202_for_whoever_prefers_it(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    answer, body = await archive.get(entry.regards, SCIENTIST, Prefer="respond-async")
    assert (answer.status, answer.headers["Preference-Applied"]) == (202, "respond-async")
    assert answer.headers["Content-Type"] == "application/json"
    assert int(answer.headers["Retry-After"]) >= 3
    assert json.loads(body)["restore"]["href"] in answer.headers["Link"]


async def test_only_who_may_download_it_has_it_restored(archive: RunningGateway) -> None:
    entry, open_one = await nearline(archive), await nearline(archive, "other", collection="open")
    for who, status in ((OUTSIDER, 403), (None, 401)):
        answer, _ = await archive.get(entry.regards, who)
        assert answer.status == status
    assert await rows(archive) == []
    answer, body = await archive.get(f"{open_one.regards}?scope=esa", None)
    assert answer.status == 429  # anonymous callers have no quota unless a rule says so
    await archive.catalogue.limit("anonymous")
    answer, body = await archive.get(f"{open_one.regards}?scope=esa", None)
    assert answer.status == 503
    assert json.loads(body)["restore"]["href"].endswith("?scope=esa")
    assert [wish["email"] for wish in await rows(archive, "restore_wishes")] == [""]


async def test_a_licence_comes_first(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    await archive.catalogue.licence("restricted")
    answer, _ = await archive.get(entry.regards, SCIENTIST)
    assert answer.status == 423
    assert await rows(archive) == []


async def test_what_quota_would_refuse_is_not_restored(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    await archive.catalogue.limit("user", SCIENTIST.email or "", octets=len(CONTENT) - 1)
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert answer.status == 429
    online = await archive.catalogue.file(CONTENT, item="online")
    same, other = await archive.get(online.stac, SCIENTIST)
    assert (same.status, json.loads(other)) == (429, json.loads(body))
    # Nor a part of it: all of it would be fetched from tape.
    answer, _ = await archive.get(entry.stac, SCIENTIST, Range="bytes=0-9")
    assert answer.status == 429
    assert await rows(archive) == []


async def test_an_online_copy_is_enough(archive: RunningGateway) -> None:
    entry = await archive.catalogue.file(CONTENT)
    await archive.catalogue.copy(entry, "tape", "esa/restricted/item/data", None, state="NEARLINE")
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert (answer.status, body) == (200, CONTENT)
    assert "File-State" not in answer.headers


@pytest.mark.parametrize("staging", [{"on_demand": False}, {"open_to_users": False}])
async def test_nobody_to_restore_it(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staging: Mapping[str, object]
) -> None:
    load_tape(monkeypatch)
    async with running_gateway(tape_config(database, redis_url, tmp_path, **staging), tmp_path) as gateway:
        catalogue = gateway.catalogue
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        entry = await nearline(gateway)
        for method in ("GET", "HEAD"):
            answer, body = await gateway.request(method, entry.regards, SCIENTIST)
            assert answer.status == 410
            answer, body = await gateway.request(method, entry.stac, SCIENTIST)
            assert answer.status == 409
        answer, body = await gateway.get(entry.stac, SCIENTIST)
        assert json.loads(body)["code"] == "NotOnline"
        assert await rows(gateway) == []
        answer, _ = await gateway.get(entry.regards, principal("exploiter", SCIENCE, role="EXPLOIT"))
        assert answer.status == (410 if "on_demand" in staging else 503)


async def test_202_by_setting(database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_tape(monkeypatch)
    async with running_gateway(tape_config(database, redis_url, tmp_path, answer=202), tmp_path) as gateway:
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group(SCIENCE))
        entry = await nearline(gateway)
        answer, body = await gateway.get(entry.stac, SCIENTIST)
        assert (answer.status, json.loads(body)["code"]) == (202, "Restoring")
        assert "Preference-Applied" not in answer.headers


async def test_a_restored_copy_that_is_gone_is_restored_anew(archive: RunningGateway) -> None:
    connection = archive.catalogue.connection
    entry = await nearline(archive)
    await archive.get(entry.stac, SCIENTIST)
    await restored(connection, entry)
    entry.path.rename(entry.path.with_suffix(".away"))
    for _ in range(2):
        answer, body = await archive.get(entry.stac, SCIENTIST)
        assert (answer.status, json.loads(body)["code"]) == (503, "Restoring")
    assert await connection.fetchval("SELECT restored_until FROM copies") is None
    assert await connection.fetchval("SELECT expires_at <= now() AND due_at <= now() FROM restores")
    await expired(connection, entry)
    await archive.get(entry.stac, SCIENTIST)
    assert [row["state"] for row in await rows(archive)] == ["EXPIRED", "QUEUED"]


async def test_a_cached_copy_that_is_gone_is_forgotten(archive: RunningGateway) -> None:
    connection = archive.catalogue.connection
    entry = await nearline(archive)
    await archive.get(entry.stac, SCIENTIST)
    await archive.catalogue.copy(entry, "disk", "esa/cache/1", None, state="NEARLINE")
    await connection.execute(
        "UPDATE copies SET entry_id = 7, restored_until = now() + interval '1 hour' WHERE storage = 'disk'"
    )
    path = archive.catalogue.root / "esa/cache/1"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert (answer.status, body) == (200, CONTENT)
    path.unlink()
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert (answer.status, json.loads(body)["code"]) == (503, "Restoring")
    assert [row["storage"] for row in await rows(archive, "copies")] == ["tape"]


@pytest.mark.parametrize("door", ["download", "restore"])
async def test_what_is_called_restored_and_has_no_copy_to_read_ends(archive: RunningGateway, door: str) -> None:
    """Who ingests the file anew takes away what was restored."""
    connection = archive.catalogue.connection
    entry = await nearline(archive)
    path = entry.stac if door == "download" else f"/restore/{entry.product}"
    await archive.get(path, SCIENTIST)
    await restored(connection, entry)
    await connection.execute("UPDATE copies SET restored_until = NULL")
    answer, body = await archive.get(path, SCIENTIST)
    if door == "download":
        assert (answer.status, json.loads(body)["restore"]["state"]) == (503, "expired")
    else:
        assert json.loads(body)["files"][0]["state"] == "expired"
    assert await connection.fetchval("SELECT expires_at <= now() AND due_at <= now() FROM restores")
    await expired(connection, entry)
    await archive.get(path, SCIENTIST)
    assert [row["state"] for row in await rows(archive)] == ["EXPIRED", "QUEUED"]


async def test_a_copy_restored_where_this_gateway_cannot_read_it(archive: RunningGateway) -> None:
    connection = archive.catalogue.connection
    entry = await nearline(archive)
    await archive.get(entry.stac, SCIENTIST)
    await archive.catalogue.copy(entry, "elsewhere", "esa/cache/1", None, state="NEARLINE")
    await restored(connection, entry)
    await connection.execute("UPDATE copies SET restored_until = NULL WHERE storage = 'tape'")
    for method in ("GET", "HEAD"):
        answer, body = await archive.request(method, entry.stac, SCIENTIST)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "300")
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert json.loads(body)["code"] == "NoStorage"
    assert [row["state"] for row in await rows(archive)] == ["RESTORED"]


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_cached_copy_with_wrong_bytes_is_restored_anew(archive: RunningGateway, recorded: bool) -> None:
    connection = archive.catalogue.connection
    entry = await nearline(archive)
    await archive.get(entry.stac, SCIENTIST)
    path = archive.catalogue.root / "esa/cache/1"
    path.parent.mkdir()
    path.write_bytes(CONTENT[::-1])
    found = path.stat()
    version = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}" if recorded else None
    stat = Stat(found.st_size, None, version) if version is not None else None
    await archive.catalogue.copy(entry, "disk", "esa/cache/1", stat, state="NEARLINE", verified=False)
    await connection.execute(
        "UPDATE copies SET entry_id = 7, restored_until = now() + interval '1 hour' WHERE storage = 'disk'"
    )
    statuses = set[int]()
    async with asyncio.timeout(20):
        while 503 not in statuses:
            answer, body = await archive.get(entry.stac, SCIENTIST)
            assert answer.status != 200 or body != CONTENT
            statuses.add(answer.status)
    assert statuses <= {502, 503}
    assert json.loads(body)["code"] == "Restoring"
    assert [row["storage"] for row in await rows(archive, "copies")] == ["tape"]


async def test_a_file_that_is_online_and_gone_is_missing_as_ever(archive: RunningGateway) -> None:
    entry = await archive.catalogue.file(CONTENT)
    entry.path.unlink()
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert (answer.status, json.loads(body)["code"]) == (404, "FileMissing")


async def test_one_that_failed_is_left_alone_for_a_while(archive: RunningGateway) -> None:
    connection = archive.catalogue.connection
    entry = await nearline(archive)
    await archive.get(entry.stac, SCIENTIST)
    await connection.execute("UPDATE restores SET state = 'FAILED', ended_at = now(), error = 'secret of the robot'")
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert (answer.status, json.loads(body)["code"]) == (503, "RestoreFailed")
    assert 0 < int(answer.headers["Retry-After"]) <= 300
    assert b"robot" not in body
    await connection.execute("UPDATE restores SET ended_at = now() - interval '301 s'")
    answer, body = await archive.get(entry.stac, SCIENTIST)
    assert (answer.status, json.loads(body)["code"]) == (503, "Restoring")
    assert [row["state"] for row in await rows(archive)] == ["FAILED", "QUEUED"]


async def test_a_thousand_at_once_cause_one_restore(archive: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gateways, each with connections of its own, and 1,000 requests of 50 users."""
    entry = await nearline(archive)
    users = [principal(f"user-{number}", SCIENCE) for number in range(50)]
    fields = [bearer(one) for one in users]
    async with (
        running_gateway(archive.config, archive.catalogue.root) as other,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session,
    ):

        async def get(number: int) -> tuple[int, int]:
            url = (archive, other)[number % 2].url + entry.stac
            async with session.get(url, headers=fields[number // 2 % 50]) as answer:
                return answer.status, int(answer.headers.get("Retry-After", 0))

        answers = await asyncio.gather(*map(get, range(1000)))
    assert {status for status, _ in answers} == {503}
    assert all(seconds >= 3 for _, seconds in answers)
    assert len(await rows(archive)) == 1
    assert len(await rows(archive, "restore_wishes")) == 50


ORDER = """
WITH made AS (
    INSERT INTO orders (tenant_id, owner, owner_subject, owner_role, owner_groups, label, status, expires_at,
                        files_count, files_available, suborders_waiting)
    SELECT tenant_id, $1, 'scientist', 'REGISTERED_USER', '{science}', 'label', 'RUNNING', now() + interval '1 day',
           1, 1, 1
    FROM tenants WHERE name = 'esa' RETURNING order_id, tenant_id
), task AS (
    INSERT INTO order_tasks (order_id, dataset, label, query, data_types, files_count, first_file)
    SELECT order_id, 'URN', 'label', '', '{}', 1, (order_id << 24) + 1 FROM made RETURNING task_id, order_id
), part AS (
    INSERT INTO suborders (order_id, number, task_id, tenant_id, owner, state, first_file, files_count, files_size,
                           files_pending, files_available)
    SELECT made.order_id, 1, task_id, tenant_id, $1, 'ENDED', (made.order_id << 24) + 1, 1, 7, 0, 1
    FROM made JOIN task USING (order_id)
)
INSERT INTO order_files (order_file_id, suborder, file_id, state, size)
SELECT (order_id << 24) + 1, 1, $2, 'AVAILABLE', 7 FROM made RETURNING order_file_id
"""


async def test_a_file_of_an_order_that_must_be_restored_again_is_202_and_no_error(archive: RunningGateway) -> None:
    connection, entry = archive.catalogue.connection, await nearline(archive)
    file_id = await connection.fetchval(ORDER, SCIENTIST.email, entry.file_id)
    answer, body = await archive.get(f"/orders/files/{file_id}", SCIENTIST)
    assert (answer.status, json.loads(body)["restore"]["state"]) == (202, "restoring")
    assert await connection.fetchval("SELECT state FROM order_files") == "AVAILABLE"
    await restored(connection, entry)
    answer, body = await archive.get(f"/orders/files/{file_id}", SCIENTIST)
    assert (answer.status, body) == (200, CONTENT)


async def test_the_record_of_downloads_calls_it_refused(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    await archive.get(entry.stac, SCIENTIST)
    await archive.get(entry.stac, SCIENTIST, Prefer="respond-async")
    async with asyncio.timeout(20):
        while len(found := await rows(archive, "download_log")) < 2:
            await asyncio.sleep(0.05)
    assert [(one["verdict"], one["reason"], one["status"]) for one in found] == [
        ("refused", "Restoring", 503),
        ("refused", "Restoring", 202),
    ]


async def test_links_to_many_lead_to_nearline_files_too(archive: RunningGateway) -> None:
    entry, lost = await nearline(archive), await archive.catalogue.file(b"1", item="lost", state="LOST")
    files = [{"product": one.product, "checksum": one.checksum} for one in (entry, lost)]
    async with archive.session.post(f"{archive.url}/download", json=files, headers=bearer(SCIENTIST)) as answer:
        told = (await answer.json())["files"]
    assert told[0]["href"].endswith(entry.regards)
    assert told[1]["error"]["code"] == "NotOnline"


async def test_searches_say_whether_it_can_be_had_at_once(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    for online in (False, True):
        _, body = await archive.get(f"/engines/legacy/dataobjects/{entry.product}", SCIENTIST)
        assert json.loads(body)["content"]["files"]["RAWDATA"][0]["online"] is online
        await restored(archive.catalogue.connection, entry)


async def test_whoever_asks_and_leaves_takes_nobody_along(archive: RunningGateway) -> None:
    """The restore is shared with others: a client that hangs up at once does not cancel it for them."""
    entry, fields = await nearline(archive), bearer(SCIENTIST)

    async def leave() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.002), archive.session.get(archive.url + entry.stac, headers=fields):
                pass

    async def stay() -> int:
        async with archive.session.get(archive.url + entry.stac, headers=fields) as answer:
            return answer.status

    results = await asyncio.gather(*(one() for _ in range(30) for one in (leave, stay)))
    assert [status for status in results if status is not None] == [503] * 30
    assert len(await rows(archive)) == 1
