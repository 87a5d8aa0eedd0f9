"""Defects that were found in REGARDS, by reading its code, around rights and licences: none of them is here.

B1 to B8 are of its catalogue's download; the others are named by what they are.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import os

import pytest

from gateway.identity.principal import Principal, anonymous
from gateway.storage import Stat
from storage_plugins.local import LocalStorage
from tests.api.support import call
from tests.harness import OUTSIDER, SCIENTIST, RunningGateway, principal


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The locations that a storage is asked to open or to describe."""
    locations: list[str] = []
    for name in ("open", "stat"):
        watch(monkeypatch, name, locations)
    return locations


def watch(monkeypatch: pytest.MonkeyPatch, name: str, locations: list[str]) -> None:
    method = getattr(LocalStorage, name)

    def watched(storage: LocalStorage, location: str, *rest: object, **options: object) -> object:
        locations.append(location)
        return method(storage, location, *rest, **options)

    monkeypatch.setattr(LocalStorage, name, watched)


async def test_b1_a_get_without_the_file_right_is_refused_and_moves_no_byte(
    gateway: RunningGateway, opened: list[str]
) -> None:
    made = gateway.catalogue
    entry = await made.file(b"not for everyone" * 1000, recorded=False)
    await made.grant("restricted", await made.group("science"), "FULL_ACCESS", "NO_ACCESS")
    look = await made.file(b"look", asset="look", data_type="QUICKLOOK_SD")
    for path in (entry.regards, entry.stac):
        for fields in ({}, {"Range": "bytes=0-3"}, {"If_None_Match": f'"{entry.checksum}"'}):
            response, body = await gateway.get(path, SCIENTIST, **fields)
            assert response.status == 403
            assert b"not for" not in body
            assert "ETag" not in response.headers
        assert (await gateway.request("HEAD", path, SCIENTIST))[0].status == 403
    assert opened == []
    assert await gateway.usage(SCIENTIST) == (0, 0)
    assert (await gateway.get(look.stac, SCIENTIST))[0].status == 200
    assert opened


async def test_b2_a_checksum_is_asked_for_under_its_own_product_only(
    gateway: RunningGateway, opened: list[str]
) -> None:
    made = gateway.catalogue
    mine = await made.file(b"mine")
    theirs = await made.file(b"theirs", collection="nobody")
    others = await made.file(b"others", collection="foreign", tenant="cnes")
    for checksum in (theirs.checksum, others.checksum, hashlib.sha256(b"nothing").hexdigest()):
        response, body = await gateway.get(mine.regards.replace(mine.checksum, checksum), SCIENTIST)
        assert response.status == 404
        assert b"theirs" not in body
        assert b"others" not in body
    assert opened == []
    assert (await gateway.get(mine.regards, SCIENTIST))[1] == b"mine"


async def test_b3_what_took_a_right_is_for_no_shared_cache(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entries = [
        await made.file(b"data"),
        await made.file(b"look", asset="look", data_type="QUICKLOOK_SD"),
        await made.file(b"data", collection="open"),
    ]
    for entry in entries:
        for path in (entry.regards, entry.stac):
            response, _ = await gateway.get(path, SCIENTIST)
            assert response.status == 200
            assert response.headers["Cache-Control"] == "private, no-cache"
            assert "Authorization" in response.headers["Vary"]
    await made.licence("open")
    for path, status in ((entries[2].stac, 423), (f"{entries[0].stac}?scope=esa", 403), (entries[0].regards, 401)):
        response, _ = await gateway.get(path, SCIENTIST if status == 423 else None)
        assert (response.status, response.headers["Cache-Control"]) == (status, "no-store")


async def test_b4_and_b5_bytes_move_in_large_pieces(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a byte at a time, through a buffer of 1 KiB."""
    pieces: list[int] = []
    sendfile = os.sendfile

    def counted(out: int, file: int, offset: int, count: int) -> int:
        sent = sendfile(out, file, offset, count)
        pieces.append(sent)
        return sent

    monkeypatch.setattr(os, "sendfile", counted)
    entry = await gateway.catalogue.file(bytes(16 * 1024 * 1024))
    response, body = await gateway.get(entry.stac, SCIENTIST)
    assert (response.status, len(body)) == (200, len(entry.content))
    assert sum(pieces) > 0.9 * len(body)
    assert sum(pieces) / len(pieces) > 16 * 1024


async def test_b6_lengths_beyond_2_gib_are_whole(gateway: RunningGateway) -> None:
    """There they were held in 32 bits. The file is sparse: nobody has to fetch all of it."""
    size, made = 5 * 2**30 + 7, gateway.catalogue
    entry = await made.described(b"", size=size, checksum=False)
    path = made.root / "sparse"
    with path.open("wb") as file:
        file.seek(size - 4)
        file.write(b"tail")
    found = path.stat()
    version = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    modified = datetime.datetime.fromtimestamp(int(found.st_mtime), datetime.UTC)
    await made.copy(entry, "disk", "sparse", Stat(size, modified, version))
    response, _ = await gateway.request("HEAD", entry.stac, SCIENTIST)
    assert response.headers["Content-Length"] == str(size)
    response, body = await gateway.get(entry.stac, SCIENTIST, Range="bytes=-4")
    assert (response.status, body) == (206, b"tail")
    assert response.headers["Content-Range"] == f"bytes {size - 4}-{size - 1}/{size}"
    response, body = await gateway.get(f"{entry.stac}?dryRun=true", SCIENTIST)
    assert json.loads(body)["bytes"] == size


async def test_b7_a_refused_download_opens_no_storage(gateway: RunningGateway, opened: list[str]) -> None:
    entry = await gateway.catalogue.file(b"content")
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=0)
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 429
    assert opened == []


async def test_the_quotas_of_others_are_no_public_list(gateway: RunningGateway) -> None:
    """REGARDS tells them to everyone at ``/quotas``."""
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=5)
    path = f"/quotas?user_email={SCIENTIST.email}"
    assert (await gateway.get(path))[0].status == 401
    for who in (OUTSIDER, None):
        response, body = await gateway.get(f"{path}&scope=esa", who)
        assert response.status == 403
        assert b"5" not in body


async def test_b8_a_file_without_checksum_keeps_nobody_from_the_others(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    without = await made.file(b"without", asset="without", checksum=False)
    await made.described(b"", asset="reference", checksum=False, reference=True)
    assert (await gateway.get(entry.regards, SCIENTIST))[1] == b"data"
    assert (await gateway.get(without.stac, SCIENTIST))[1] == b"without"
    for nothing in ("None", "null", "NULL", without.checksum):
        assert (await gateway.get(entry.regards.replace(entry.checksum, nothing), SCIENTIST))[0].status == 404
    assert (await call(gateway, "GET", f"/entities/{entry.product}/access", SCIENTIST)) == (200, True)


async def test_a_product_that_is_no_urn_is_missing_and_no_failure(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"data")
    for product in ("x", "URN:", "URN:FEATURE:DATA:esa:x:V", "%00", "%ED%A0%80"):
        response, _ = await gateway.get(f"/downloads/{product}/files/{entry.checksum}", SCIENTIST)
        assert response.status == 404, product


async def test_the_right_of_another_dataset_with_the_same_file_is_no_right(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    mine, theirs = await made.file(b"the same"), await made.file(b"the same", collection="nobody")
    assert mine.checksum == theirs.checksum
    assert (await gateway.get(mine.regards, SCIENTIST))[0].status == 200
    assert (await gateway.get(theirs.regards, SCIENTIST))[0].status == 403


async def test_a_right_and_a_membership_count_at_once_and_not_when_something_is_crawled_again(
    gateway: RunningGateway,
) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    group = await made.group("science")
    for statement, status in (
        ("INSERT INTO group_members VALUES ($1, $2)", 200),
        ("DELETE FROM group_members WHERE group_id = $1 AND email = $2", 403),
    ):
        await made.connection.execute(statement, group, OUTSIDER.email)
        assert (await gateway.get(entry.stac, OUTSIDER))[0].status == status


async def test_a_licence_is_accepted_for_one_user_of_one_tenant(gateway: RunningGateway) -> None:
    """REGARDS keeps the acceptance under user and tenant written one after the other."""
    made = gateway.catalogue
    for tenant in ("sa", "esa"):
        await made.connection.execute(
            "WITH made AS (INSERT INTO licences (tenant_id, name, url) VALUES ($1, 'terms', 'https://example.org/') "
            "RETURNING licence_id) UPDATE tenants SET licence_id = made.licence_id FROM made WHERE tenant_id = $1",
            await made.tenant(tenant),
        )
    accepting = principal("x", tenant="sa", email="x@example.orge")
    assert (await call(gateway, "PUT", "/license", accepting))[1]["content"]["accepted"] is True
    for who in (
        principal("x", tenant="esa", email="x@example.org"),
        principal("x", tenant="esa", email="x@example.orge"),
        principal("x", tenant="sa", email="x@example.org"),
        principal("x", tenant="sa", email="X@EXAMPLE.ORGE"),
    ):
        assert (await call(gateway, "GET", "/license", who))[1]["content"]["accepted"] is False
    # Nor does a reset in one tenant concern others whose names end alike.
    other = principal("x", tenant="esa", email="y@example.org")
    assert (await call(gateway, "PUT", "/license", other))[0] == 200
    assert (await call(gateway, "PUT", "/license/reset", principal("a", tenant="sa", role="ADMIN")))[0] == 204
    assert (await call(gateway, "GET", "/license", other))[1]["content"]["accepted"] is True
    assert (await call(gateway, "GET", "/license", accepting))[1]["content"]["accepted"] is False


async def test_the_public_user_never_accepts_for_everyone(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="open", data_type="DOCUMENT")
    await made.licence("open")
    public = principal("public", role="PUBLIC", email="public@regards.com")
    # REGARDS' token of the public user is as good as none.
    assert (await gateway.get(f"{entry.stac}?acceptLicense=true", public))[0].status == 423
    assert (await gateway.get(f"{entry.stac}?acceptLicense=true&scope=esa"))[0].status == 423
    assert (await call(gateway, "PUT", "/collections/open/license", public))[0] == 401
    assert await made.connection.fetchval("SELECT count(*) FROM licence_acceptances") == 0
    assert anonymous("esa").email is None


async def test_whoever_shares_an_address_or_a_checksum_shares_no_answer(gateway: RunningGateway) -> None:
    """Requests that arrive together share a statement, and nothing else."""
    entry = await gateway.catalogue.file(b"data")
    callers: list[Principal | None] = [SCIENTIST, OUTSIDER, None] * 10
    answers = await asyncio.gather(
        *(gateway.get(entry.regards if who else f"{entry.regards}?scope=esa", who) for who in callers)
    )
    assert [response.status for response, _ in answers] == [200, 403, 403] * 10
