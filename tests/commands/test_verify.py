"""``gateway verify``: what it reads, what it finds, and what it writes down."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import asyncpg
import pytest

from gateway.commands.verify_report import PROGRESS_SECONDS, Report
from gateway.fixity import Seen
from gateway.storage import Stat
from tests.commands.support import BUCKET, Stand, ended, run, s3_storage, start
from tests.harness import Entry
from tests.proxy import counting_proxy
from tests.s3.strict import StrictS3

CONTENT = b"exactly this\n" * 30_000


async def rows(stand: Stand) -> dict[str, asyncpg.Record]:
    """Rows of copies by location."""
    return {row["location"]: row for row in await stand.catalogue.connection.fetch("SELECT * FROM copies")}


async def verified(stand: Stand) -> int:
    value: int = await stand.catalogue.connection.fetchval(
        "SELECT count(*) FROM copies WHERE verified_version = version AND broken_version IS NULL"
    )
    return value


def count(output: str, outcome: str) -> int:
    """What the summary says of an outcome."""
    found = re.search(rf"^{outcome}: ([0-9]+)", output, re.MULTILINE)
    assert found, output
    return int(found[1])


def change_a_byte(entry: Entry, byte: bytes) -> None:
    """Of the file, and nothing that the file system tells of it."""
    found = entry.path.stat()
    with entry.path.open("r+b") as file:
        file.seek(1000)
        file.write(byte)
    os.utime(entry.path, ns=(found.st_atime_ns, found.st_mtime_ns))


async def put(stand: Stand, strict: StrictS3, number: int, content: bytes = CONTENT) -> str:
    """Put an object that nobody has read, with its rows in the catalogue; gives its key."""
    stored = strict.store.put(BUCKET, f"key-{number}", content)
    entry = await stand.catalogue.described(content, item=f"item-{number}")
    stat = Stat(len(content), stored.modified, stored.etag.strip('"'))
    await stand.catalogue.copy(entry, "store", f"{BUCKET}/key-{number}", stat, verified=False)
    return f"key-{number}"


async def test_each_version_is_read_once_unless_all_are_asked_for(stand: Stand) -> None:
    config = stand.configure()
    for number in range(7):
        await stand.catalogue.file(CONTENT, item=f"item-{number}", verified=number < 2)
    for options, expected in [((), 5), ((), 0), (("--all",), 7), (("--all", "--jobs", "1", "--limit", "3"), 3)]:
        done = await run("verify", "--config", config, "--storage", "disk", *options)
        assert (done.exit_code, count(done.output, "verified")) == (0, expected), done.output
        assert count(done.output, "bytes") == expected * len(CONTENT)
        assert await verified(stand) == 7


async def test_what_is_never_verified_on_delivery_is_when_asked_for(stand: Stand) -> None:
    await stand.catalogue.file(CONTENT, verified=False)
    await run("verify", "--config", stand.configure(stand.disk(verify="never")), "--storage", "disk")
    assert await verified(stand) == 1


async def test_many_copies_are_looked_up_page_by_page(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fixity._PAGE_ROWS", 2)
    for number in range(7):
        await stand.catalogue.file(b"content", item=f"item-{number}", verified=False)
    done = await run("verify", "--config", stand.configure(), "--storage", "disk")
    assert count(done.output, "verified") == 7
    assert await verified(stand) == 7


async def test_a_broken_copy_is_told_and_remembered_until_it_holds_again(stand: Stand) -> None:
    config = stand.configure()
    entry = await stand.catalogue.file(CONTENT)
    location = "esa/restricted/item/data"
    change_a_byte(entry, b"?")
    done = await run("verify", "--config", config, "--storage", "disk", "--all")
    assert done.exit_code == 1
    assert f"broken: '{location}': has not the SHA-256 {entry.checksum} of the catalogue" in done.output
    row = (await rows(stand))[location]
    assert (row["broken_version"], row["verified_version"]) == (row["version"], None)

    change_a_byte(entry, CONTENT[1000:1001])
    done = await run("verify", "--config", config, "--storage", "disk")
    assert (done.exit_code, count(done.output, "verified")) == (0, 1)
    assert f"holds again: '{location}'" in done.output
    row = (await rows(stand))[location]
    assert (row["broken_version"], row["verified_version"]) == (None, row["version"])


async def test_what_is_missing_changed_or_unreadable_is_told_and_fails(stand: Stand, strict: StrictS3) -> None:
    for number in range(4):
        await put(stand, strict, number)
    strict.store.delete(BUCKET, "key-0")
    strict.store.put(BUCKET, "key-1", CONTENT[1:] + b"?")
    strict.faults.internal_error(key="key-2", times=99)
    config = stand.configure(s3_storage(strict))
    done = await run("verify", "--config", config, "--storage", "store")
    assert done.exit_code == 1
    for outcome, key in (("missing", "key-0"), ("changed", "key-1"), ("unreadable", "key-2")):
        assert f"{outcome}: '{BUCKET}/{key}': " in done.output
        assert count(done.output, outcome) == 1
    assert count(done.output, "verified") == 1
    assert await verified(stand) == 1
    assert (await rows(stand))[f"{BUCKET}/key-1"]["broken_version"] is None


async def test_what_cannot_be_held_against_anything_is_counted_and_named(stand: Stand) -> None:
    catalogue = stand.catalogue
    await catalogue.file(CONTENT, item="plain", checksum=False, verified=False)
    await catalogue.file(CONTENT, item="sizeless", recorded=False)
    await catalogue.connection.execute("UPDATE files SET size = NULL WHERE file_name = 'sizeless.tif'")
    for number in range(5):
        await catalogue.file(CONTENT, item=f"tape-{number}", state="NEARLINE", verified=False)
    await catalogue.file(CONTENT, tenant="cnes", verified=False)
    await catalogue.file(CONTENT, verified=False)
    done = await run(
        "verify", "--config", stand.configure(stand.disk(tenants=["esa"])), "--storage", "disk", "--limit", "1"
    )
    assert (done.exit_code, count(done.output, "verified")) == (0, 1), done.output
    tapes = ", ".join(f"'esa/restricted/tape-{number}/data'" for number in range(3))
    for line in (
        "without checksum, so not read: 1 ('esa/restricted/plain/data')",
        "without size, so not read: 1 ('esa/restricted/sizeless/data')",
        f"not online, so not read: 5 ({tapes}, …)",
        "not served, so not read: 1 ('cnes/restricted/item/data')",
    ):
        assert line in done.output


async def test_one_tenant_at_a_time(stand: Stand) -> None:
    config = stand.configure()
    for tenant in ("esa", "cnes"):
        await stand.catalogue.file(CONTENT, tenant=tenant, verified=False)
    done = await run("verify", "--config", config, "--storage", "disk", "--tenant", "cnes")
    assert count(done.output, "verified") == 1
    assert (await rows(stand))["esa/restricted/item/data"]["verified_version"] is None
    unknown = await run("verify", "--config", config, "--storage", "disk", "--tenant", "nobody")
    assert (unknown.exit_code, "no tenant 'nobody'" in unknown.output) == (2, True)
    unknown = await run("verify", "--config", config, "--storage", "absent")
    assert (unknown.exit_code, "'absent' is none of disk" in unknown.output) == (2, True)


async def test_empty_files_can_be_verified_in_every_storage(stand: Stand, strict: StrictS3) -> None:
    await put(stand, strict, 0, b"")
    await stand.catalogue.file(b"", item="local", verified=False)
    config = stand.configure(s3_storage(strict), stand.disk())
    for name in ("store", "disk"):
        done = await run("verify", "--config", config, "--storage", name)
        assert (done.exit_code, count(done.output, "verified")) == (0, 1), done.output
    assert await verified(stand) == 2


async def test_what_was_never_recorded_is_verified_as_it_is_now(stand: Stand) -> None:
    await stand.catalogue.file(CONTENT, recorded=False)
    for expected in (1, 0):
        done = await run("verify", "--config", stand.configure(), "--storage", "disk")
        assert (done.exit_code, count(done.output, "verified")) == (0, expected)
    (row,) = (await rows(stand)).values()
    assert row["version"] is None
    assert row["verified_version"] is not None


async def test_so_many_at_once_and_no_connection_held_meanwhile(stand: Stand, strict: StrictS3) -> None:
    for number in range(6):
        await put(stand, strict, number)
    stalled = [strict.faults.stall_after(1000) for _ in range(3)]
    config = stand.configure(s3_storage(strict))
    running = asyncio.create_task(run("verify", "--config", config, "--storage", "store", "--jobs", "3"))
    for fault in stalled:
        await fault.reached()
    assert len(strict.requests) == 3
    busy = await stand.catalogue.connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'download-gateway' AND state <> 'idle' "
        "AND datname = current_database()"
    )
    assert busy == 0
    for fault in stalled:
        fault.release()
    done = await running
    assert count(done.output, "verified") == 6


async def test_ctrl_c_leaves_what_was_done(stand: Stand, strict: StrictS3) -> None:
    for number in range(3):
        await put(stand, strict, number)
    stalled = strict.faults.stall_after(1000, key="key-1")
    config = stand.configure(s3_storage(strict))
    process = start("verify", "--config", config, "--storage", "store", "--jobs", "2")
    try:
        await asyncio.wait_for(stalled.reached(), 30)
        async with asyncio.timeout(30):
            while await verified(stand) < 2:  # Nobody tells when a row is written.
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
    finally:
        status, output, errors = await ended(process)
    assert (status, count(output, "verified")) == (130, 2), errors
    assert errors == "interrupted: the rest was not read\n"
    assert await verified(stand) == 2
    strict.faults.clear()
    done = await run("verify", "--config", config, "--storage", "store")
    assert count(done.output, "verified") == 1


async def test_without_the_catalogue_it_is_given_up(stand: Stand, strict: StrictS3) -> None:
    for number in range(3):
        await put(stand, strict, number)
    stalled = strict.faults.stall_after(1000, key="key-1")
    async with counting_proxy(stand.database) as (proxy, dsn):
        config = stand.configure(s3_storage(strict), database={"dsn": dsn})
        running = asyncio.create_task(run("verify", "--config", config, "--storage", "store", "--jobs", "1"))
        await stalled.reached()
        proxy.shut = True
        proxy.cut()
        stalled.release()
        done = await running
    assert done.exit_code == 1
    assert "given up: The catalogue does not answer" in done.output
    assert count(done.output, "verified") == await verified(stand) == 1


def test_progress_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    report = Report(lambda: now)
    for step in (0.5, 0.5, PROGRESS_SECONDS, 0.1):
        now += step
        report.hear(Seen("a", "verified", 3 * 2**20))
    report.hear(Seen("line\nbreak", "missing", reason="not\nthere"))
    captured = capsys.readouterr()
    assert captured.err == "3 copies, 0 failed, 3 MiB a second\n"
    assert captured.out == "missing: 'line\\nbreak': not there\n"
