"""Restores as their users see them: polled, watched, cancelled, extended; each his own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from gateway.identity.principal import Principal
from tests.credentials import new_key, shown_key
from tests.harness import ADMIN, SCIENCE, SCIENTIST, Entry, RunningGateway, bearer, principal
from tests.staging.tape import restored

OTHER = principal("colleague", SCIENCE)


async def asked(gateway: RunningGateway, entry: Entry, who: Principal | None = SCIENTIST) -> str:
    """The path of the restore that a download began or joined."""
    answer, body = await gateway.get(entry.regards + ("" if who else "?scope=esa"), who)
    assert answer.status == 503, body
    return str(json.loads(body)["restore"]["href"]).removeprefix(gateway.url)


async def nearline(gateway: RunningGateway, item: str = "item", collection: str = "restricted") -> Entry:
    return await gateway.catalogue.file(b"content", item=item, collection=collection, storage="tape", state="NEARLINE")


async def send(
    gateway: RunningGateway, method: str, path: str, who: Principal | None, body: object = None
) -> tuple[int, Any]:
    fields = bearer(who) if who is not None else {}
    async with gateway.session.request(method, gateway.url + path, headers=fields, json=body) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


async def test_polled(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    path = await asked(archive, entry)
    answer, body = await archive.get(path, SCIENTIST)
    told = json.loads(body)
    assert (answer.status, told["status"], told["state"]) == (200, "QUEUED", "restoring")
    assert int(answer.headers["Retry-After"]) >= 3
    assert answer.headers["File-State"].startswith("restoring;since=@")
    assert (told["productId"], told["checksum"], told["filesize"]) == (entry.product, entry.checksum, 7)
    until = await restored(archive.catalogue.connection, entry)
    answer, body = await archive.get(path, SCIENTIST)
    told = json.loads(body)
    assert (told["status"], told["state"]) == ("RESTORED", "restored")
    assert answer.headers["File-State"] == f"restored;until=@{int(until.timestamp())}"
    assert "Retry-After" not in answer.headers
    links = {link["rel"]: link["href"].removeprefix(archive.url) for link in told["links"]}
    answer, body = await archive.get(links["download"], SCIENTIST)
    assert (answer.status, body) == (200, b"content")


async def test_each_sees_his_own(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    path = await asked(archive, entry)
    for who, status in ((SCIENTIST, 200), (OTHER, 404), (ADMIN, 200), (None, 401)):
        answer, _ = await archive.get(path, who)
        assert answer.status == status
    for who in (principal("admin", role="PROJECT_ADMIN", tenant="other"), principal("scientist", tenant="other")):
        answer, _ = await archive.get(path, who)
        assert answer.status == 404
    answer, _ = await archive.get(f"{path}?scope=esa", None)
    assert answer.status == 404
    for method, body in (("DELETE", None), ("PATCH", {"hours": 1})):
        assert (await send(archive, method, path, OTHER, body))[0] == 404
    assert await asked(archive, entry, OTHER) == path
    assert (await archive.get(path, OTHER))[0].status == 200
    for text in ("0", "x", "9" * 30):
        assert (await archive.get(f"/restores/{text}", SCIENTIST))[0].status == 404


async def test_a_key_reaches_those_of_others_only_if_it_is_one_to_administer(archive: RunningGateway) -> None:
    path = await asked(archive, await nearline(archive))
    for scopes, seen in ((["download"], 404), (["download", "admin"], 200)):
        fields = shown_key((await new_key(archive, ADMIN, scopes=scopes))["key"])
        for method, body in (("GET", None), ("PATCH", {"hours": 1}), ("DELETE", None)):
            async with archive.session.request(method, archive.url + path, headers=fields, json=body) as answer:
                assert answer.status == (204 if (method, seen) == ("DELETE", 200) else seen), (method, scopes)


async def test_anonymous_callers_may_look_and_no_more(archive: RunningGateway) -> None:
    await archive.catalogue.limit("anonymous")
    path = await asked(archive, await nearline(archive, collection="open"), None)
    assert path.endswith("?scope=esa")
    assert (await archive.get(path, None))[0].status == 200
    for method, body in (("DELETE", None), ("PATCH", {"hours": 1})):
        assert (await send(archive, method, path, None, body))[0] == 401


async def test_listed(archive: RunningGateway) -> None:
    paths = [await asked(archive, await nearline(archive, f"item-{number}")) for number in range(3)]
    await asked(archive, await nearline(archive, "other"), OTHER)
    _, body = await archive.get("/restores?size=2", SCIENTIST)
    told = json.loads(body)
    assert told["metadata"] == {"size": 2, "totalElements": 3, "totalPages": 2, "number": 0}
    assert [f"/restores/{one['id']}" for one in told["content"]] == paths[:0:-1]
    _, body = await archive.get("/restores?size=2&page=7", SCIENTIST)
    assert (json.loads(body)["metadata"]["totalElements"], json.loads(body)["content"]) == (3, [])


async def test_cancelled_by_the_last_who_wants_it(archive: RunningGateway) -> None:
    connection, entry = archive.catalogue.connection, await nearline(archive)
    path = await asked(archive, entry)
    await asked(archive, entry, OTHER)
    assert await send(archive, "DELETE", path, SCIENTIST) == (204, None)
    assert await connection.fetchval("SELECT state FROM restores") == "QUEUED"
    assert (await archive.get(path, SCIENTIST))[0].status == 404
    for _ in range(2):
        assert await send(archive, "DELETE", path, OTHER) == (204, None)
    assert await connection.fetchval("SELECT state FROM restores WHERE ended_at IS NOT NULL") == "CANCELED"
    assert json.loads((await archive.get(path, OTHER))[1])["status"] == "CANCELED"
    # It can be asked for again.
    assert await asked(archive, entry) != path


async def test_who_joins_has_it_sooner_and_longer(archive: RunningGateway) -> None:
    connection, entry = archive.catalogue.connection, await nearline(archive)
    assert (await archive.get(f"/restore/{entry.product}", OTHER))[0].status == 200
    await connection.execute("UPDATE restores SET hours = 1")
    path = await asked(archive, entry)
    assert tuple(await connection.fetchrow("SELECT priority, hours, state FROM restores")) == (1, 24, "QUEUED")  # type: ignore[arg-type]
    # One who asks again, with less, changes nothing.
    assert (await archive.get(f"/restore/{entry.product}", OTHER))[0].status == 200
    assert tuple(await connection.fetchrow("SELECT priority, hours, state FROM restores")) == (1, 24, "QUEUED")  # type: ignore[arg-type]
    assert await asked(archive, entry, OTHER) == path


async def test_what_is_over_cannot_be_cancelled(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    path = await asked(archive, entry)
    await restored(archive.catalogue.connection, entry)
    assert (await send(archive, "DELETE", path, SCIENTIST))[0] == 409


async def test_an_order_keeps_what_it_wants(archive: RunningGateway) -> None:
    connection, entry = archive.catalogue.connection, await nearline(archive)
    path = await asked(archive, entry)
    await connection.execute(
        "INSERT INTO restore_wishes (restore_id, tenant_id, email, order_file_id) "
        "SELECT restore_id, tenant_id, email, 9 FROM restore_wishes"
    )
    assert await send(archive, "DELETE", path, SCIENTIST) == (204, None)
    assert await connection.fetchval("SELECT state FROM restores") == "QUEUED"
    assert (await send(archive, "DELETE", path, SCIENTIST))[0] == 409
    assert (await send(archive, "DELETE", path, ADMIN))[0] == 204
    assert await connection.fetchval("SELECT state FROM restores") == "QUEUED"


async def test_extended(archive: RunningGateway) -> None:
    connection, entry = archive.catalogue.connection, await nearline(archive)
    path = await asked(archive, entry)
    assert (await send(archive, "PATCH", path, SCIENTIST, {"hours": 48}))[1]["hours"] == 48
    assert (await send(archive, "PATCH", path, SCIENTIST, {"hours": 1.5}))[1]["hours"] == 48
    await restored(connection, entry)
    status, _ = await send(archive, "PATCH", path, SCIENTIST, {"hours": 100})
    assert status == 200
    assert await connection.fetchval(
        "SELECT wanted_until > now() + interval '99 h' AND wanted_until < now() + interval '101 h' "
        "AND due_at <= now() FROM restores"
    )
    for hours in (0, -1, 169, "24", True, None, 1e999):
        status, _ = await send(archive, "PATCH", path, SCIENTIST, {"hours": hours})
        assert status == 400, hours
    await connection.execute("UPDATE restores SET state = 'EXPIRED', ended_at = now()")
    assert (await send(archive, "PATCH", path, SCIENTIST, {"hours": 1}))[0] == 409


async def test_whose_right_was_withdrawn_has_nothing_stay(archive: RunningGateway) -> None:
    connection, entry = archive.catalogue.connection, await nearline(archive)
    path = await asked(archive, entry)
    await restored(connection, entry)
    await connection.execute("DELETE FROM access_rights")
    assert (await send(archive, "PATCH", path, SCIENTIST, {"hours": 100}))[0] == 403
    assert (await send(archive, "PATCH", path, ADMIN, {"hours": 50}))[0] == 200
    await connection.execute("DELETE FROM files")
    assert (await send(archive, "PATCH", path, ADMIN, {"hours": 100}))[0] == 409
    assert await connection.fetchval("SELECT wanted_until < now() + interval '51 h' FROM restores")


async def test_a_quicklook_stays_for_whoever_sees_its_product(archive: RunningGateway) -> None:
    await archive.catalogue.grant("seen", await archive.catalogue.group(SCIENCE), files="NO_ACCESS")
    entry = await archive.catalogue.file(
        b"look", collection="seen", data_type="QUICKLOOK_SD", storage="tape", state="NEARLINE"
    )
    path = await asked(archive, entry)
    assert (await send(archive, "PATCH", path, SCIENTIST, {"hours": 48}))[0] == 200


async def test_the_budget_of_a_user(archive: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    object.__setattr__(archive.config.staging, "user_files", 5)
    entries = [await nearline(archive, f"item-{number}") for number in range(20)]

    async def get(entry: Entry) -> tuple[int, Any]:
        answer, body = await archive.get(entry.stac, SCIENTIST)
        return answer.status, json.loads(body)["code"]

    answers = await asyncio.gather(*map(get, entries))
    assert sorted(answers) == [(429, "StagingBudget")] * 15 + [(503, "Restoring")] * 5
    connection = archive.catalogue.connection
    assert await connection.fetchval("SELECT count(*) FROM restores") == 5
    # Others have their own, what one waits for already is no more, and what is restored makes room.
    waiting = entries[answers.index((503, "Restoring"))]
    refused = [entry for entry, answer in zip(entries, answers, strict=True) if answer[0] == 429]
    assert (await archive.get(refused[0].stac, OTHER))[0].status == 503
    assert (await archive.get(refused[0].stac, SCIENTIST))[0].status == 429
    assert (await archive.get(waiting.stac, SCIENTIST))[0].status == 503
    await restored(connection, waiting)
    assert [(await archive.get(entry.stac, SCIENTIST))[0].status for entry in refused[1:3]] == [503, 429]


async def test_what_no_budget_holds_is_not_waited_for(archive: RunningGateway) -> None:
    entry = await nearline(archive)
    for name, value, status in (("user_size", 6, 403), ("user_size", 7, 503), ("user_files", 0, 503)):
        object.__setattr__(archive.config.staging, name, value)
        answer, body = await archive.get(entry.stac, SCIENTIST)
        assert (answer.status, "Retry-After" in answer.headers) == (status, status == 503), body
    answer, body = await archive.get((await nearline(archive, "other")).stac, SCIENTIST)
    assert (answer.status, json.loads(body)["code"]) == (403, "StagingBudget")
    assert "Retry-After" not in answer.headers


async def test_watched(archive: RunningGateway) -> None:
    connection, entry = archive.catalogue.connection, await nearline(archive)
    path = await asked(archive, entry)
    events: list[tuple[str, Any]] = []
    timeout = aiohttp.ClientTimeout(total=30)
    async with archive.session.get(f"{archive.url}{path}/events", headers=bearer(SCIENTIST), timeout=timeout) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        async for line in answer.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                events.append((value, None))
            elif name == "data":
                events[-1] = events[-1][0], json.loads(value)["status"]
                if len(events) == 1:
                    await connection.execute(
                        "UPDATE restores SET state = 'STAGING', started_at = now(), ready_at = now()"
                    )
                elif len(events) == 2:
                    await restored(connection, entry)
    assert events == [("progress", "QUEUED"), ("progress", "STAGING"), ("end", "RESTORED")]
    assert (await archive.get(f"{path}/events", OTHER))[0].status == 404
