"""REGARDS' questions for availability, and its restores of products: bodies, limits and statuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.identity.principal import Principal
from gateway.rights.policies import Policies, Verdict
from tests.harness import OUTSIDER, SCIENCE, SCIENTIST, Entry, RunningGateway, bearer, principal
from tests.staging.tape import restored

CONTENT = b"content"
SERVICE = principal("service", role="EXPLOIT")


async def send(gateway: RunningGateway, path: str, body: object, who: Principal | None = SCIENTIST) -> tuple[int, Any]:
    fields = bearer(who) if who is not None else {}
    async with gateway.session.post(gateway.url + path, json=body, headers=fields) as answer:
        return answer.status, await answer.json()


async def ask(gateway: RunningGateway, path: str, who: Principal | None = SCIENTIST) -> tuple[int, Any]:
    answer, body = await gateway.get(path, who)
    return answer.status, json.loads(body)


async def products(gateway: RunningGateway) -> Sequence[Entry]:
    """One with a file online and one nearline, one with a file that is restored, one for nobody."""
    catalogue = gateway.catalogue
    return (
        await catalogue.file(b"online", asset="online"),
        await catalogue.file(b"nearline", asset="nearline", storage="tape", state="NEARLINE"),
        await catalogue.file(b"restored", item="restored", storage="tape", state="NEARLINE"),
        await catalogue.file(b"secret", item="secret", collection="secret", storage="tape", state="NEARLINE"),
    )


async def test_availability(archive: RunningGateway) -> None:
    online, nearline, other, secret = await products(archive)
    until = await restored(archive.catalogue.connection, other)
    status, told = await ask(archive, f"/availability/files/{online.product}")
    assert (status, told) == (
        200,
        {
            "id": online.product,
            "files": [
                {"checksum": online.checksum, "available": True, "state": "online"},
                {"checksum": nearline.checksum, "available": False, "state": "nearline"},
            ],
        },
    )
    urns = [other.product, secret.product, "URN:AIP:DATA:nowhere", online.product]
    status, told = await send(archive, "/availability/files", {"product_ids": urns})
    assert (status, [product["id"] for product in told["products"]]) == (200, [other.product, online.product])
    (file,) = told["products"][0]["files"]
    text = until.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert file == {"checksum": other.checksum, "available": True, "expiration_date": text, "state": "restored"}
    assert await archive.catalogue.connection.fetchval("SELECT count(*) FROM restores") == 0


async def test_restore(archive: RunningGateway) -> None:
    online, nearline, other, _ = await products(archive)
    status, told = await ask(archive, f"/restore/{online.product}")
    assert status == 200
    file = told["files"][1]
    assert (file["checksum"], file["state"], file["available"]) == (nearline.checksum, "restoring", False)
    answer, _ = await archive.get(file["restore"]["href"].removeprefix(archive.url), SCIENTIST)
    assert answer.status == 200
    status, told = await send(archive, "/restore", {"product_ids": [other.product, online.product]})
    assert status == 200
    rows = await archive.catalogue.connection.fetch("SELECT file_id, priority, hours FROM restores ORDER BY file_id")
    assert [tuple(row) for row in rows] == [(nearline.file_id, 3, 24), (other.file_id, 3, 24)]


async def test_a_restore_of_what_is_restored_has_it_stay(archive: RunningGateway) -> None:
    connection, (*_, other, _) = archive.catalogue.connection, await products(archive)
    await ask(archive, f"/restore/{other.product}")
    await restored(connection, other, seconds=600)
    status, told = await ask(archive, f"/restore/{other.product}")
    assert (status, told["files"][0]["state"]) == (200, "restored")
    assert await connection.fetchval("SELECT wanted_until > now() + interval '23 h' AND due_at <= now() FROM restores")


@pytest.mark.parametrize("path", ["/availability/files/{}", "/restore/{}"])
async def test_refusals_of_one(archive: RunningGateway, path: str) -> None:
    online, *_, secret = await products(archive)
    for urn, who, status in (
        (online.product, OUTSIDER, 403),
        (secret.product, SCIENTIST, 403),
        ("URN:AIP:DATA:nowhere", SCIENTIST, 404),
        ("nonsense", SCIENTIST, 400),
        (online.product, None, 401),
        (online.product, principal("stranger", SCIENCE, tenant="other"), 404),
    ):
        found, told = await ask(archive, path.format(urn), who)
        assert (found, list(told)) == (status, ["messages"])
    assert await archive.catalogue.connection.fetchval("SELECT count(*) FROM restores") == 0


@pytest.mark.parametrize("downloadable", [False, None])
async def test_a_policy_that_does_not_answer(
    archive: RunningGateway, monkeypatch: pytest.MonkeyPatch, downloadable: bool | None
) -> None:
    async def judge(_self: object, _who: Principal, rows: Sequence[object]) -> list[Verdict]:
        return [Verdict(None, downloadable)] * len(rows)

    online, *_ = await products(archive)
    monkeypatch.setattr(Policies, "judge", judge)
    for path in ("/availability/files/", "/restore/"):
        assert (await ask(archive, path + online.product))[0] == 503


@pytest.mark.parametrize("path", ["/availability/files", "/restore"])
async def test_limits(archive: RunningGateway, path: str) -> None:
    status, told = await send(archive, path, {"product_ids": [f"URN:{number}" for number in range(101)]})
    assert (status, told["messages"]) == (
        400,
        ["A maximum of 100 productIds per call is allowed, there are 101."],
    )
    for number in range(101):
        await archive.catalogue.described(b"%d" % number, asset=f"a{number}")
    urn = "URN:FEATURE:DATA:esa:restricted-item:V1"
    status, told = await send(archive, path, {"product_ids": [urn]})
    assert (status, told["messages"]) == (
        400,
        ["Too many files : Cannot compute more than 100 files in once : found 101 files"],
    )
    bodies: Sequence[object] = ([], {}, {"product_ids": "URN:1"}, {"product_ids": [1]}, {"product_ids": ["x"]})
    for body in bodies:
        status, _ = await send(archive, path, body)
        assert status == 400


async def test_the_question_of_services(archive: RunningGateway) -> None:
    online, nearline, other, _ = await products(archive)
    await restored(archive.catalogue.connection, other)
    asked = [other.checksum.upper(), nearline.checksum, "nowhere", online.checksum]
    status, told = await send(archive, "/files/availability/status", {"checksums": asked}, SERVICE)
    assert status == 200
    assert [(one["checksum"], one["available"]) for one in told] == [
        (other.checksum.upper(), True),
        (nearline.checksum, False),
        (online.checksum, True),
    ]
    assert "expiration_date" in told[0]
    stranger = principal("service", role="EXPLOIT", tenant="other")
    assert await send(archive, "/files/availability/status", {"checksums": asked}, stranger) == (200, [])
    status, _ = await send(archive, "/files/availability/status", {"checksums": asked}, SCIENTIST)
    assert status == 403
    many = [str(number) for number in range(101)]
    status, _ = await send(archive, "/files/availability/status", {"checksums": many}, SERVICE)
    assert status == 422


async def test_who_has_no_quota_left_has_nothing_restored(archive: RunningGateway) -> None:
    online, *_ = await products(archive)
    await archive.catalogue.limit("user", SCIENTIST.email or "", downloads=0)
    status, _ = await ask(archive, f"/restore/{online.product}")
    assert status == 429
    status, _ = await ask(archive, f"/availability/files/{online.product}")
    assert status == 200


async def test_anonymous_callers_are_led_to_their_restores(archive: RunningGateway) -> None:
    await archive.catalogue.limit("anonymous")
    entry = await archive.catalogue.file(CONTENT, collection="open", storage="tape", state="NEARLINE")
    status, told = await ask(archive, f"/restore/{entry.product}?scope=esa", None)
    assert status == 200
    answer, _ = await archive.get(told["files"][0]["restore"]["href"].removeprefix(archive.url), None)
    assert answer.status == 200
