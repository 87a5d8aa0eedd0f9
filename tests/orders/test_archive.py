"""Whole orders as one ZIP: what is in it, that it resumes, and that it is no way around anything."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict

import gateway.db
from gateway.errors import GatewayError
from gateway.orders import archives, kept, members, packing, upkeep
from gateway.orders.kept import Kept, chosen
from gateway.quotas.limits import Rule
from tests.archive.test_tools import HOSTILE
from tests.archive.tools import EXTRACTS, TESTS, run
from tests.conformance.answers import read
from tests.conformance.table import TABLE
from tests.conformance.targets import OverSocket, Served, put
from tests.faults.clients import Job
from tests.faults.proxy import Fault, fault_proxy
from tests.faults.test_resume import finish
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, bearer
from tests.orders.depot import Depot, content_of, running_depot, unpacked
from tests.s3.strict import StrictS3

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
CUTS = 100 if FULL else 4
AT_ONCE = 3
KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
async def depot(database: str, redis_url: str, tmp_path: Path, strict: StrictS3) -> AsyncIterator[Depot]:
    async with running_depot(database, redis_url, tmp_path / "disk", strict) as opened:
        yield opened


async def mixed(depot: Depot, sizes: tuple[int, ...] = (10, 300 * KIB, 0, 70 * KIB, 3)) -> dict[str, bytes]:
    """Files on the disk and in the object store in turn; gives what the archive must hold."""
    holds = {}
    for number, size in enumerate(sizes):
        content = content_of(size, number)
        await depot.put(content, name=f"{number}.bin", in_cloud=bool(number % 2))
        holds[f"{number}.bin"] = content
    return holds


async def test_files_of_disks_and_object_stores_are_one_zip(depot: Depot) -> None:
    holds = await mixed(depot)
    order_id = await depot.order()
    head = await depot.fetch(order_id, method="HEAD")
    found = await depot.fetch(order_id)
    assert (head.status, found.status) == (200, 200)
    assert unpacked(found.body) == holds
    assert found.promised == len(found.body) == int(head.fields["Content-Length"])
    assert found.fields["ETag"] == head.fields["ETag"], "workers have computed every CRC-32"
    assert found.fields["Content-Type"] == "application/octet-stream"
    assert found.fields["Content-Disposition"].startswith('attachment; filename="order_20')
    assert found.fields["Content-Disposition"].endswith('.zip"')
    assert found.fields["Expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert found.fields["Cache-Control"] == "private, no-cache"
    await depot.become(order_id, *["DOWNLOADED"] * 5)
    # The empty one has no byte that could be charged.
    assert await depot.idle() == (4, sum(map(len, holds.values())))
    assert (await depot.fetch(order_id, If_None_Match=found.fields["ETag"])).status == 304
    assert (await depot.fetch(order_id, If_Match='"zip-other"')).status == 412
    crcs = await depot.connection.fetch("SELECT crc32 FROM files WHERE size > 0 ORDER BY file_id")
    assert [row["crc32"] for row in crcs] == [zlib.crc32(content) for content in holds.values() if content]


async def test_programs_extract_hostile_names(depot: Depot, tmp_path: Path) -> None:
    names = [name for name in HOSTILE if "\0" not in name and "\ud800" not in name]
    for number, name in enumerate(names):
        await depot.put(content_of(number * 7, number), name=name or "x", in_cloud=bool(number % 3))
    archive = tmp_path / "order.zip"
    archive.write_bytes((await depot.fetch(await depot.order())).body)
    for tool in TESTS:
        directory = tmp_path / "inside" / tool
        directory.mkdir(parents=True)
        await asyncio.to_thread(run, tool, TESTS[tool], archive)
        await asyncio.to_thread(run, tool, EXTRACTS[tool], archive, directory)
        found = sorted(path.read_bytes() for path in directory.iterdir())
        assert found == sorted(content_of(number * 7, number) for number in range(len(names)))
    assert {path.name for path in tmp_path.iterdir()} == {"order.zip", "inside", "disk"}


async def test_each_product_has_a_folder_where_that_is_wanted(
    database: str, redis_url: str, tmp_path: Path, strict: StrictS3
) -> None:
    async with running_depot(database, redis_url, tmp_path / "disk", strict, product_folders=True) as depot:
        await depot.put(b"one", item="a", name="data.tif")
        await depot.put(b"two", item="b", name="data.tif")
        found = await depot.fetch(await depot.order())
    assert unpacked(found.body) == {"a/data.tif": b"one", "b/data.tif": b"two"}


async def test_what_is_not_in_it_stands_in_its_notice(depot: Depot) -> None:
    catalogue = depot.gateway.catalogue
    holds = await mixed(depot, (10, 20, 30, 40))
    closed = await depot.put(b"licensed", collection="closed", name="closed.bin")
    await catalogue.grant("closed", await catalogue.group("science"))
    order_id = await depot.order()
    first = order_id << 24
    assert len(await depot.states(order_id)) == 5
    for number, state in ((1, "PENDING"), (2, "ERROR")):
        await depot.connection.execute(
            "UPDATE order_files SET state = $2, error = 'No copy of the file can be served.' "
            "WHERE order_file_id = (SELECT order_file_id FROM order_files o JOIN files f USING (file_id) "
            "WHERE f.file_name = $1 AND order_file_id > $3)",
            f"{number}.bin",
            state,
            first,
        )
    await catalogue.licence(closed.collection)
    found = unpacked((await depot.fetch(order_id)).body)
    notice = found.pop("NOTICE.txt").decode()
    assert found == {name: holds[name] for name in ("0.bin", "3.bin")}
    assert sorted(line.partition("): ")[0] for line in notice.splitlines()) == [
        "Failed to download file (1.bin", "Failed to download file (2.bin", "Failed to download file (closed.bin",
    ]  # fmt: skip
    assert "Failed to download file (2.bin): No copy of the file can be served." in notice
    assert "licence" in notice.lower()
    await depot.receive(f"{closed.stac}?acceptLicense=true", ADMIN)
    assert "closed.bin" in unpacked((await depot.fetch(order_id, ADMIN)).body), "the archive is that of the caller"


async def test_an_order_without_what_the_caller_may_have_is_refused(depot: Depot) -> None:
    await mixed(depot, (10, 20))
    order_id = await depot.order()
    assert (await depot.fetch(order_id, OUTSIDER)).status == 404
    assert (await depot.fetch(order_id, ADMIN)).status == 200
    assert (await depot.fetch(999)).told() == {
        "messages": ["Entity fr.cnes.regards.modules.order.domain.Order with id : 999 doesn't exist"]
    }
    await depot.connection.execute("UPDATE access_rights SET metadata_level = 'NO_ACCESS'")
    assert (await depot.fetch(order_id)).status == 403
    await depot.connection.execute("UPDATE access_rights SET metadata_level = 'FULL_ACCESS'")
    await depot.connection.execute("UPDATE order_files SET state = 'ERROR'")
    refused = await depot.fetch(order_id)
    assert (refused.status, refused.told()) == (401, {"messages": ["ORDER_MUST_HAVE_AVAILABLE_FILES"]})
    await depot.connection.execute("UPDATE order_files SET state = 'AVAILABLE'")
    for over in ("PENDING", "EXPIRED"):
        await depot.connection.execute("UPDATE orders SET status = $1", over)
        assert (await depot.fetch(order_id)).told() == {"messages": ["ORDER_MUST_HAVE_AVAILABLE_FILES"]}


async def test_a_file_that_becomes_available_meanwhile_is_not_in_the_rest(depot: Depot) -> None:
    await mixed(depot, (200 * KIB, 200 * KIB, 200 * KIB))
    order_id = await depot.order()
    late = (order_id << 24) + 3
    await depot.connection.execute("UPDATE order_files SET state = 'PENDING' WHERE order_file_id = $1", late)
    before = await depot.fetch(order_id)
    cut = await depot.fetch(order_id, most=100_000)
    have = len(cut.body)
    await depot.idle()
    await depot.connection.execute("UPDATE order_files SET state = 'AVAILABLE' WHERE order_file_id = $1", late)
    tag = before.fields["ETag"]
    for rest in (
        await depot.rest(order_id, have),
        await depot.rest(order_id, have, tag),
        await depot.fetch(order_id, Range=f"bytes={have}-", If_Match=tag),
    ):
        assert (rest.status, rest.body) == (206, before.body[have:])
        assert cut.body + rest.body == before.body
    after = await depot.fetch(order_id)
    assert after.fields["ETag"] != before.fields["ETag"]
    times = await depot.connection.fetch("SELECT DISTINCT date_trunc('second', created_at) FROM order_archives")
    assert len(times) == 2, "a date tells them apart, too"
    assert set(unpacked(after.body)) == {"0.bin", "1.bin", "2.bin"}
    # Both are there now: by its tag each is told from the other.
    for whole in (before, after):
        rest = await depot.fetch(order_id, Range="bytes=1000-", If_Range=whole.fields["ETag"])
        assert (rest.status, rest.body) == (206, whole.body[1000:])
    # Of the first all bytes have left, but nobody knows whether they have come.
    assert (await depot.fetch(order_id, Range="bytes=1000-")).status == 409


async def test_a_rest_of_which_nobody_knows_of_what_is_409(depot: Depot) -> None:
    await mixed(depot, (200 * KIB, 200 * KIB))
    order_id = await depot.order()
    late = (order_id << 24) + 2
    await depot.connection.execute("UPDATE order_files SET state = 'PENDING' WHERE order_file_id = $1", late)
    cut = await depot.fetch(order_id, most=10_000)
    await depot.idle()
    await depot.connection.execute("UPDATE order_files SET state = 'AVAILABLE' WHERE order_file_id = $1", late)
    whole = await depot.fetch(order_id)
    refused = await depot.fetch(order_id, Range="bytes=10000-")
    assert refused.status == 409
    for one in (cut, whole):
        assert f"{one.fields['ETag']} (of {one.promised} bytes)" in refused.told()["messages"][0]
    rest = await depot.fetch(order_id, Range="bytes=10000-", If_Range=cut.fields["ETag"])
    assert rest.status == 206
    # An unknown tag is no reason to refuse (RFC 9110 §13.1.5): the whole of now is sent.
    other = await depot.fetch(order_id, Range="bytes=10000-", If_Range='"zip-' + 40 * "0" + '"')
    assert (other.status, other.body) == (200, whole.body)


async def test_the_rest_is_refused_where_a_right_is_lost_or_a_file_changed(depot: Depot) -> None:
    await mixed(depot, (200 * KIB, 200 * KIB))
    order_id = await depot.order()
    tag = (await depot.fetch(order_id)).fields["ETag"]

    async def rest() -> int:
        return (await depot.fetch(order_id, Range="bytes=1000-", If_Range=tag)).status

    assert await rest() == 206
    await depot.connection.execute("UPDATE access_rights SET metadata_level = 'NO_ACCESS'")
    assert await rest() == 403
    await depot.connection.execute("UPDATE access_rights SET metadata_level = 'FULL_ACCESS'")
    licence = await depot.gateway.catalogue.licence("restricted")
    assert await rest() == 423
    await depot.connection.execute("UPDATE datasets SET licence_id = NULL")
    await depot.connection.execute("DELETE FROM licences WHERE licence_id = $1", licence)
    assert await rest() == 206
    await depot.connection.execute("UPDATE files SET checksum = 'ab' WHERE file_name = '1.bin'")
    assert await rest() == 409
    # What does not touch the changed one is as it was.
    assert (await depot.fetch(order_id, Range="bytes=0-1000", If_Range=tag)).status == 206
    await depot.connection.execute("DELETE FROM files WHERE file_name = '1.bin'")
    assert await rest() == 409


@pytest.mark.timeout(900)
@pytest.mark.parametrize("client", ["curl", "aria2c"])
async def test_cut_anywhere_it_ends_byte_identical(depot: Depot, tmp_path: Path, client: str) -> None:
    await mixed(depot, (0, 10, 900 * KIB, *[3 * KIB] * 30, 1500 * KIB, 64 * KIB, 700 * KIB))
    order_id = await depot.order()
    whole = (await depot.fetch(order_id)).body
    slots = asyncio.Semaphore(AT_ONCE)

    async def download(number: int) -> None:
        chance = random.Random(f"{client} {number}")
        directory = tmp_path / f"download-{number}"
        directory.mkdir()
        plan = [Fault(cut_after=chance.randrange(800, len(whole) // 4), reset=chance.random() < 0.5)]
        plan += [Fault(cut_after=chance.randrange(1, len(whole))) for _ in range(chance.randint(0, 2))]
        async with slots, fault_proxy(depot.gateway.url, plan) as proxy:
            job = Job(f"{proxy.url}/user/orders/{order_id}/download", directory, bearer(SCIENTIST))
            assert await finish(client, job), plan
            assert job.path.read_bytes() == whole, plan
        assert proxy.cuts
        job.path.unlink()

    await asyncio.gather(*(download(number) for number in range(CUTS if FULL or client == "curl" else CUTS // 3)))
    # However often it was taken up again, each file counts once.
    assert (await depot.idle())[0] == 35


async def test_it_answers_the_whole_table_of_ranges_as_a_file_does(depot: Depot) -> None:
    await mixed(depot, (100 * KIB, 300, 100 * KIB))
    order_id = await depot.order()
    whole = (await depot.fetch(order_id)).body
    # A date of this very second would be no validator.
    await depot.connection.execute("UPDATE order_archives SET created_at = created_at - interval '1 hour'")
    host, _, port = depot.gateway.url.removeprefix("http://").partition(":")
    served = Served(
        whole,
        f"/user/orders/{order_id}/download",
        "/user/orders/999/download",
        list(bearer(SCIENTIST).items()),
    )
    run = await asyncio.to_thread(put, TABLE, served, OverSocket((host, int(port))))
    for case in TABLE:
        found = read(case.method, run.answer(case), run.plain)
        assert found == case.expected(run.filling), f"{case.id}: RFC 9110 §{case.section}"


async def test_quota_is_no_less_than_that_of_all_files_one_by_one(depot: Depot) -> None:
    holds = await mixed(depot, (100 * KIB, 200 * KIB, 300 * KIB))
    await depot.put(content_of(50 * KIB, 9), name="free.png", data_type="QUICKLOOK_SD")
    size = sum(map(len, holds.values()))
    order_id = await depot.order()
    limit = depot.gateway.catalogue.limit
    await limit("user", str(SCIENTIST.email), octets=size - 1)
    refused = await depot.fetch(order_id)
    assert refused.status == 429
    assert await depot.idle() == (0, 0)
    await limit("user", str(SCIENTIST.email), downloads=2)
    refused = await depot.fetch(order_id)
    assert refused.status == 429
    assert "The archive has more files than may be downloaded" in refused.told()["messages"][0]
    assert await depot.idle() == (0, 0)
    await limit("user", str(SCIENTIST.email), downloads=3, octets=size)
    whole = await depot.fetch(order_id)
    assert (whole.status, set(unpacked(whole.body))) == (200, {*holds, "free.png"}), "just enough is enough"
    assert await depot.idle() == (3, size)
    await limit("user", str(SCIENTIST.email), downloads=3, octets=2 * size)
    # What was counted is not counted again within the window, though nothing is left.
    assert (await depot.fetch(order_id, Range="bytes=100000-199999")).status == 206
    downloads, octets = await depot.idle()
    assert downloads == 3
    assert size < octets < size + 100_000


async def test_a_resumed_zip_is_charged_once(depot: Depot) -> None:
    await depot.put(content_of(8 * MIB), name="large.bin")
    await depot.put(content_of(1000), name="small.bin")
    order_id = await depot.order()
    have, tag = b"", ""
    while True:
        part = await (
            depot.rest(order_id, len(have), tag, most=3 * MIB) if have else depot.fetch(order_id, most=3 * MIB)
        )
        have, tag = have + part.body, part.fields["ETag"]
        downloads, octets = await depot.idle()
        if part.is_whole:
            break
    assert set(unpacked(have)) == {"large.bin", "small.bin"}
    # Bytes that were on their way when a client went are charged, as of every file: some socket buffers each time.
    assert downloads == 2
    assert 8 * MIB + 1000 <= octets < 2 * (8 * MIB)


async def test_a_zip_holds_one_of_the_connections_that_a_user_may_have(depot: Depot) -> None:
    await depot.put(content_of(40 * MIB), name="large.bin")
    await depot.put(content_of(100), name="small.bin")
    order_id = await depot.order()
    user = str(SCIENTIST.email)
    await depot.gateway.catalogue.rule(Rule("user", user, False, "concurrent", "now", 1))
    async with depot.gateway.session.get(
        f"{depot.gateway.url}/user/orders/{order_id}/download", headers=bearer(SCIENTIST)
    ) as running:
        assert running.status == 200
        await running.content.readany()
        assert (await depot.fetch(order_id)).status == 429
        running.close()
    await depot.idle()
    # How many downloads may start in a second is a matter of the archive, not of each of its files.
    await depot.gateway.catalogue.rule(Rule("user", user, False, "rate", "60s", 1, burst=1))
    assert (await depot.fetch(order_id)).is_whole
    assert (await depot.fetch(order_id)).status == 429


async def test_where_a_quota_ends_midway_the_archive_is_broken_off(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another download had taken what was left when this one began."""

    async def as_seen_before(*_: object) -> None:
        pass

    await mixed(depot, tuple([100 * KIB] * 6))
    order_id = await depot.order()
    await depot.gateway.catalogue.limit("user", str(SCIENTIST.email), downloads=3)
    monkeypatch.setattr(archives, "_see_counts", as_seen_before)
    found = await depot.fetch(order_id)
    assert found.status == 200
    assert not found.is_whole
    downloads, octets = await depot.idle()
    assert downloads == 3
    assert octets == 300 * KIB
    await depot.become(order_id, *["DOWNLOADED"] * 3, *["AVAILABLE"] * 3)


async def test_a_right_that_is_lost_midway_ends_the_transfer_at_the_next_member(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "FRESH_SECONDS", 0.2)
    for number in range(4):
        await depot.put(content_of(20 * MIB, number), name=f"{number}.bin")
    order_id = await depot.order()
    async with depot.gateway.session.get(
        f"{depot.gateway.url}/user/orders/{order_id}/download", headers=bearer(SCIENTIST)
    ) as response:
        await response.content.readexactly(MIB)
        await asyncio.sleep(0.5)
        await depot.connection.execute("UPDATE access_rights SET metadata_level = 'NO_ACCESS'")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readexactly(60 * MIB)
    # One that has begun is sent to its end, as of every download; the socket holds less than one member.
    assert set(await depot.states(order_id)) <= {"DOWNLOADED", "AVAILABLE"}, "no file is to blame"


async def test_a_client_that_goes_away_spoils_nothing(depot: Depot) -> None:
    await depot.put(content_of(1000), name="a.bin")
    await depot.put(content_of(40 * MIB), name="b.bin")
    await depot.put(content_of(1000), name="c.bin")
    order_id = await depot.order()
    await depot.fetch(order_id, most=100_000)
    _, octets = await depot.idle()
    assert octets < 40 * MIB
    await depot.become(order_id, "DOWNLOADED", "AVAILABLE", "AVAILABLE")
    _, order = await depot.ask("GET", f"/user/orders/{order_id}")
    assert order["content"]["status"] == "DONE"
    assert (await depot.fetch(order_id)).is_whole


async def test_a_member_that_changes_on_its_disk_breaks_the_transfer(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MOST_ASKED", 0)
    holds = await mixed(depot, (100 * KIB, 100 * KIB, 300 * KIB))
    order_id = await depot.order()
    whole = await depot.fetch(order_id)
    (depot.gateway.catalogue.root / "esa/restricted/item-003/data").write_bytes(content_of(300 * KIB, 77))
    found = await depot.fetch(order_id)
    assert found.status == 200
    assert not found.is_whole
    assert whole.body.startswith(found.body)
    assert holds["1.bin"] in found.body
    await depot.become(order_id, "DOWNLOADED", "DOWNLOADED", "DOWNLOAD_ERROR")
    later = unpacked((await depot.fetch(order_id)).body)
    assert b"(2.bin): What is stored is no longer the file that the catalogue describes" in later["NOTICE.txt"]


async def test_a_lost_file_is_in_the_notice_unless_another_copy_stands_in(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    await depot.put(content_of(1000), name="a.bin")
    content = content_of(300 * KIB, 5)
    entry = await depot.put(content, name="b.bin")
    order_id = await depot.order()
    entry.path.rename(entry.path.with_name("away"))
    with monkeypatch.context() as of_large_orders:
        of_large_orders.setattr(packing, "MOST_ASKED", 0)
        found = await depot.fetch(order_id)
        assert (found.status, found.told()) == (404, {"messages": ["The file is missing from its storage location."]})
        await depot.become(order_id, "AVAILABLE", "DOWNLOAD_ERROR")
        assert set(unpacked((await depot.fetch(order_id)).body)) == {"a.bin", "NOTICE.txt"}, "that one failed before"
    holds = unpacked((await depot.fetch(order_id)).body)
    line = b"Failed to download file (b.bin): The file is missing from its storage location.\n"
    assert holds == {"a.bin": content_of(1000), "NOTICE.txt": line}
    depot.cloud.store.put("bucket", "second", content)
    await depot.copy_in_cloud(entry, "second")
    found = await depot.fetch(order_id)
    assert unpacked(found.body)["b.bin"] == content
    await depot.become(order_id, "DOWNLOADED", "DOWNLOADED")


async def test_a_storage_that_does_not_answer_now_is_no_reason_to_leave_its_files_out(depot: Depot) -> None:
    holds = await mixed(depot, (100 * KIB, 100 * KIB, 100 * KIB, 300 * KIB))
    order_id = await depot.order()
    depot.cloud.faults.internal_error(times=99)
    found = await depot.fetch(order_id)
    assert found.status == 503 or not found.is_whole
    depot.cloud.faults.clear()
    await depot.idle()
    await depot.connection.execute("UPDATE order_files SET state = 'AVAILABLE'")
    assert unpacked((await depot.fetch(order_id)).body) == holds


async def test_without_crcs_the_length_is_exact_and_the_next_one_can_be_resumed(
    database: str, redis_url: str, tmp_path: Path, strict: StrictS3
) -> None:
    async with running_depot(database, redis_url, tmp_path / "disk", strict, sum_seconds=0) as depot:
        holds = await mixed(depot)
        order_id = await depot.order()
        found = await depot.fetch(order_id, Range="bytes=5-")
        assert (found.status, found.fields["Accept-Ranges"]) == (200, "none")
        assert "ETag" not in found.fields
        assert found.is_whole
        assert unpacked(found.body) == holds
        await depot.become(order_id, *["DOWNLOADED"] * 5)
        async with asyncio.timeout(10):
            while "ETag" not in (found := await depot.fetch(order_id)).fields:
                await asyncio.sleep(0.05)
        assert unpacked(found.body) == holds
        # Whoever got some of the first one and resumes without a tag must not get what is of this one.
        refused = await depot.rest(order_id, 1000)
        assert (refused.status, found.fields["ETag"] in refused.told()["messages"][0]) == (409, True)
        assert (await depot.rest(order_id, 1000, found.fields["ETag"])).body == found.body[1000:]


async def test_the_crc_of_bytes_that_nobody_held_against_the_checksum_is_not_remembered(
    database: str, redis_url: str, tmp_path: Path, strict: StrictS3
) -> None:
    async with running_depot(database, redis_url, tmp_path / "disk", strict, sum_seconds=0) as depot:
        await depot.put(content_of(3 * MIB), name="doubtful.bin", verified=False)
        await depot.put(content_of(3 * MIB, 1), name="verified.bin")
        order_id = await depot.order()
        assert (await depot.fetch(order_id)).is_whole
        async with asyncio.timeout(10):
            while await depot.connection.fetchval("SELECT crc32 FROM files WHERE file_name = 'verified.bin'") is None:
                await asyncio.sleep(0.05)
        assert await depot.connection.fetchval("SELECT crc32 FROM files WHERE file_name = 'doubtful.bin'") is None


async def test_what_takes_too_long_to_sum_is_available_without(
    database: str, redis_url: str, tmp_path: Path, strict: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("gateway.crc32_of_files.read_through", slow)
    async with running_depot(database, redis_url, tmp_path / "disk", strict, sum_seconds=0.2) as depot:
        holds = await mixed(depot, (10, 20))
        assert unpacked((await depot.fetch(await depot.order())).body) == holds


async def test_layouts_go_with_their_order(depot: Depot) -> None:
    await mixed(depot, (10, 20))

    async def kept_ones() -> list[int]:
        rows = await depot.connection.fetch("SELECT DISTINCT order_id FROM order_archive_pieces ORDER BY 1")
        return [row["order_id"] for row in rows]

    orders = [await depot.order() for _ in range(4)]
    for order_id in orders:
        await depot.fetch(order_id)
    assert await kept_ones() == orders
    assert (await depot.ask("DELETE", f"/user/orders/{orders[0]}"))[0] == 200
    assert (await depot.ask("DELETE", f"/user/orders/remove/{orders[1]}"))[0] == 200
    assert await kept_ones() == orders[2:]
    await depot.connection.execute(
        "UPDATE order_files SET state = 'AVAILABLE' WHERE order_file_id >> 24 = $1", orders[2]
    )
    await depot.connection.execute("UPDATE orders SET expires_at = now() WHERE order_id = $1", orders[2])
    async with gateway.db.connect(depot.gateway.config.database, ()) as database:
        await upkeep.run(database, depot.gateway.config.orders)
    assert await kept_ones() == orders[3:]


async def test_a_large_layout_is_kept_in_pieces_and_read_back(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by another process, that has not seen it."""
    monkeypatch.setattr(kept, "PIECE_BYTES", 50)
    monkeypatch.setattr(kept.KeptArchives, "_remember", lambda *_: None)
    holds = await mixed(depot)
    order_id = await depot.order()
    whole = await depot.fetch(order_id)
    assert await depot.connection.fetchval("SELECT count(*) FROM order_archive_pieces") > 2
    rest = await depot.rest(order_id, 7)
    assert (rest.status, unpacked(whole.body[:7] + rest.body)) == (206, holds)
    await depot.connection.execute("UPDATE order_archive_pieces SET piece = 'damaged'")
    assert (await depot.rest(order_id, 7)).status == 409, "what cannot be read is no reason for a part of another one"
    again = await depot.rest(order_id, 7, '"zip-of another"')
    assert (again.status, again.body) == (200, whole.body)


async def test_the_download_of_an_order_is_in_the_record(depot: Depot) -> None:
    await mixed(depot, (10, 20))
    order_id = await depot.order()
    await depot.fetch(order_id)
    async with asyncio.timeout(10):
        while not (
            rows := await depot.connection.fetch("SELECT * FROM download_log WHERE product = $1", f"orders/{order_id}")
        ):
            await asyncio.sleep(0.05)
    assert (rows[0]["verdict"], rows[0]["delivery"], rows[0]["email"]) == ("whole", "stream", SCIENTIST.email)


A, B = (Kept(40 * letter, 1000, begun=False, is_whole=True) for letter in "ab")


def test_of_which_archive_a_part_is_asked() -> None:
    def asked(*kept_ones: Kept, method: str = "GET", **fields: str) -> Kept | None:
        return chosen(method, CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()}), kept_ones)

    tag = f'"zip-{A.tag}"'
    assert asked(B, A) is None
    assert asked(B, A, Range="bytes=1-") is B
    assert asked(B, A, Range="bytes=1-", If_Range=tag) is A
    assert asked(B, A, If_Match=f'"x", {tag}') is A
    assert asked(B, A, Range="bytes=1-", If_Range='"x"') is None
    assert asked(B, A, Range="bytes=1-", If_Range="Thu, 01 Jan 1970 00:00:00 GMT") is None
    assert asked(B, A, method="HEAD", Range="bytes=1-") is None
    assert asked(Range="bytes=1-") is None
    begun = dataclasses.replace(A, begun=True)
    assert asked(begun, B, Range="bytes=1-") is begun
    thinned = dataclasses.replace(A, is_whole=False)
    assert asked(B, thinned, Range="bytes=1-", If_Range=tag) is None
    for of in ((B, begun), (thinned, B)):
        with pytest.raises(GatewayError, match="If-Range"):
            asked(*of, Range="bytes=1-")


@pytest.mark.skipif(not FULL, reason="GATEWAY_TEST_FULL is not set")
@pytest.mark.timeout(900)
async def test_a_member_of_5_gib_is_sent_and_accepted(depot: Depot, tmp_path: Path) -> None:
    entry = await depot.put(b"", name="large.bin", checksum=False)
    size = 5 * 2**30 + 7
    os.truncate(entry.path, size)
    found = entry.path.stat()
    version = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    await depot.connection.execute("UPDATE files SET size = $1", size)
    await depot.connection.execute("UPDATE copies SET size = $1, version = $2", size, version)
    await depot.put(b"behind", name="small.bin")
    order_id = await depot.order()
    job = Job(f"{depot.gateway.url}/user/orders/{order_id}/download", tmp_path, bearer(SCIENTIST))
    process = await asyncio.create_subprocess_exec(
        "curl", "-sSf", "-H", f"Authorization: {job.headers['Authorization']}", "-o", job.path, job.url
    )  # fmt: skip
    assert await process.wait() == 0
    for tool in TESTS:
        await asyncio.to_thread(run, tool, TESTS[tool], job.path)
    job.path.unlink()


@pytest.mark.skipif(not FULL, reason="GATEWAY_TEST_FULL is not set")
@pytest.mark.timeout(900)
async def test_70_000_members_are_sent_and_accepted(depot: Depot, tmp_path: Path) -> None:
    await crowd(depot, 70_000)
    order_id = await depot.order()
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with depot.gateway.session.get(
        f"{depot.gateway.url}/user/orders/{order_id}/download", headers=bearer(SCIENTIST)
    ) as response:
        assert response.status == 200, await response.read()
        first = loop.time() - began
        body = await response.read()
    print(f"first byte after {first:.1f} s, all of {len(body)} after {loop.time() - began:.1f} s")
    assert len(body) == int(response.headers["Content-Length"])
    archive = tmp_path / "order.zip"
    archive.write_bytes(body)
    for tool in TESTS:
        await asyncio.to_thread(run, tool, TESTS[tool], archive)
    rest = await depot.fetch(order_id, Range=f"bytes={len(body) - 5_000_000}-")
    assert rest.body == body[-5_000_000:]


async def crowd(depot: Depot, count: int) -> None:
    """So many files of a few bytes, in one dataset, each with a checksum and a CRC-32."""
    content = b"seven b"
    first = await depot.put(content, name="seed.txt")
    (directory := first.path.parent.parent / "crowd").mkdir()
    shared = directory / "file"
    shared.write_bytes(content)
    found = shared.stat()
    version = f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"
    await depot.connection.execute(
        "INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body) "
        "SELECT tenant_id, dataset_id, 'URN:FEATURE:DATA:esa:crowd-' || n || ':V1', 'crowd-' || n, '{}', '{}' "
        "FROM datasets, generate_series(1, $1) n WHERE collection_id = 'restricted'",
        -(-count // 1000),
    )
    await depot.connection.execute(
        "INSERT INTO files "
        "(product_id, asset_key, data_type, checksum, checksum_algorithm, size, crc32, file_name, body) "
        "SELECT product_id, 'a' || n, 'RAWDATA', (SELECT checksum FROM files LIMIT 1), 'SHA-256', 7, $1, "
        "'file-' || n || '.txt', '{}' "
        "FROM products, generate_series(1, 1000) n WHERE provider_id LIKE 'crowd-%'",
        zlib.crc32(content),
    )
    await depot.connection.execute(
        "INSERT INTO copies (file_id, storage, location, state, size, version, verified_version) "
        "SELECT file_id, 'disk', 'esa/restricted/crowd/file', 'ONLINE', 7, $1, $1 FROM files WHERE asset_key LIKE 'a%'",
        version,
    )
    await depot.connection.execute("ANALYZE products, files, copies")
