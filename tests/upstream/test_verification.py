"""Stored bytes are held against the catalogue's checksum once; what is wrong is not served as if it were right."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from pathlib import Path

import aiohttp
import pytest

from tests.harness import SCIENTIST, Entry
from tests.upstream.conftest import BUCKET, MEBIBYTE, Stand, StandFactory

BYTES = random.Random(29).randbytes(2 * MEBIBYTE)
WRONG = BYTES[:-10] + bytes([BYTES[-10] ^ 1]) + BYTES[-9:]
"""With the right size. Its last piece is wrong, so that all the others may have been sent."""
CURL = "curl/8.5.0"


async def fetch(stand: Stand, entry: Entry, **fields: str) -> tuple[int, bytes | None]:
    try:
        response, body = await stand.gateway.get(entry.stac, SCIENTIST, **fields)
    except aiohttp.ClientPayloadError:
        return 200, None
    return response.status, body


async def seen(stand: Stand, entry: Entry) -> tuple[bool, bool]:
    """Whether the copy is written down as verified, or as broken, for the version that was ingested."""
    row = await stand.gateway.catalogue.connection.fetchrow(
        "SELECT verified_version = version AS verified, broken_version = version AS broken FROM copies "
        "WHERE file_id = $1 ORDER BY copy_id LIMIT 1",
        entry.file_id,
    )
    assert row is not None
    return bool(row["verified"]), bool(row["broken"])


async def until_seen(stand: Stand, entry: Entry, *, before: tuple[bool, bool] = (False, False)) -> tuple[bool, bool]:
    for _ in range(500):
        if (found := await seen(stand, entry)) != before:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("nobody has looked")


async def alarms(stand: Stand) -> int:
    async with stand.gateway.session.get(f"{stand.gateway.url}/health") as response:
        count: int = (await response.json())["alarms"]["broken_copies"]
        return count


async def test_the_first_whole_delivery_proves_a_copy_for_good(stand: Stand) -> None:
    entry = await stand.object(BYTES, verified=False)
    assert await seen(stand, entry) == (False, False)
    assert await fetch(stand, entry) == (200, BYTES)
    assert await until_seen(stand, entry) == (True, False)
    assert len(stand.strict.requests) == 1
    assert await fetch(stand, entry) == (200, BYTES)
    assert await alarms(stand) == 0


async def test_wrong_bytes_are_cut_marked_and_counted(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    entry = await stand.object(
        WRONG, digest=(right := await stand.object(BYTES)).checksum, item="wrong", verified=False
    )
    assert await fetch(stand, entry) == (200, None)
    assert await until_seen(stand, entry) == (False, True)
    assert await alarms(stand) == 1
    assert "alarm: a copy is broken" in caplog.text
    before = len(stand.strict.requests)
    response, body = await stand.gateway.get(entry.stac, SCIENTIST)
    assert (response.status, b"FileBroken" in body) == (502, True)
    assert len(stand.strict.requests) == before
    assert await fetch(stand, right) == (200, BYTES)


async def test_another_copy_serves_from_then_on(stand_for: StandFactory) -> None:
    async with stand_for(storages=lambda strict: []) as stand:
        entry = await stand.gateway.catalogue.described(BYTES)
        await stand.copy(entry, WRONG, verified=False)
        await stand.copy(entry, BYTES, verified=False)
        assert await fetch(stand, entry) == (200, None)
        assert await until_seen(stand, entry) == (False, True)
        assert await fetch(stand, entry) == (200, BYTES)


async def test_a_small_file_with_wrong_bytes_is_never_begun(stand: Stand) -> None:
    """Its other copy answers the very request."""
    small, wrong = BYTES[:5000], WRONG[-5000:]
    entry = await stand.gateway.catalogue.described(small)
    await stand.copy(entry, wrong, verified=False)
    await stand.copy(entry, small, verified=False)
    assert await fetch(stand, entry) == (200, small)
    assert await until_seen(stand, entry) == (False, True)
    alone = await stand.gateway.catalogue.described(small, item="alone")
    await stand.copy(alone, wrong, verified=False)
    assert (await fetch(stand, alone))[0] == 502


async def test_a_replaced_object_is_not_what_was_proved(stand: Stand) -> None:
    entry = await stand.object(BYTES, key="key")
    stand.strict.store.put(BUCKET, "key", WRONG)
    assert (await fetch(stand, entry))[0] == 502


@pytest.mark.parametrize("content", [BYTES, WRONG], ids=["right", "wrong"])
async def test_what_is_handed_over_is_read_once_in_the_background(stand_for: StandFactory, content: bytes) -> None:
    async with stand_for(delivery="redirect") as stand:
        digest = (await stand.gateway.catalogue.described(BYTES, item="other")).checksum
        entry = await stand.object(content, digest=digest, verified=False)
        assert (await fetch(stand, entry, User_Agent=CURL))[0] == 307
        assert await until_seen(stand, entry) == (content == BYTES, content == WRONG)
        assert [request.status for request in stand.strict.requests] == [206]
        status = (await fetch(stand, entry, User_Agent=CURL))[0]
        assert status == (307 if content == BYTES else 502)
        assert len(stand.strict.requests) == 1


@pytest.mark.parametrize("content", [BYTES, WRONG], ids=["right", "wrong"])
async def test_so_is_what_leaves_by_sendfile(stand: Stand, content: bytes) -> None:
    digest = (await stand.gateway.catalogue.described(BYTES, item="other")).checksum
    entry = await stand.gateway.catalogue.file(content, verified=False)
    await stand.gateway.catalogue.connection.execute("UPDATE files SET checksum = $1", digest)
    assert await fetch(stand, entry) == (200, content)
    assert await until_seen(stand, entry) == (content == BYTES, content == WRONG)


async def test_ranges_of_a_new_copy_have_it_read_once(stand: Stand) -> None:
    entry = await stand.object(BYTES, verified=False)
    for start in (0, 100_000, 200_000):
        assert await fetch(stand, entry, Range=f"bytes={start}-{start + 99_999}") == (206, BYTES[start:][:100_000])
    assert await until_seen(stand, entry) == (True, False)
    whole = [request for request in stand.strict.requests if request.field("Range") == f"bytes=0-{len(BYTES) - 1}"]
    assert len(whole) == 1


async def test_always_looks_at_every_whole_delivery(stand_for: StandFactory) -> None:
    """Even where the copy was right before, and even of a file that could leave by sendfile."""
    async with stand_for(verify="always") as stand:
        entry = await stand.object(BYTES)
        assert await fetch(stand, entry) == (200, BYTES)
        stand.strict.faults.corrupt(len(BYTES) - 5)
        assert await fetch(stand, entry) == (200, None)
        assert await until_seen(stand, entry, before=(True, False)) == (False, True)


async def test_always_looks_at_local_files_too(stand_for: StandFactory, tmp_path: Path) -> None:
    def disk(_: object) -> list[dict[str, object]]:
        root = str(tmp_path / "disk")
        return [{"name": "sure", "plugin": "local", "tenants": ["*"], "root": root, "verify": "always"}]

    async with stand_for(storages=disk) as stand:
        entry = await stand.gateway.catalogue.file(BYTES, storage="sure")
        assert await fetch(stand, entry) == (200, BYTES)
        times = entry.path.stat()
        entry.path.write_bytes(WRONG)
        # As a disk would that lost a bit: nothing else has changed.
        os.utime(entry.path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert await fetch(stand, entry) == (200, None)
        assert await until_seen(stand, entry, before=(True, False)) == (False, True)


async def test_never_looks_at_nothing(stand_for: StandFactory) -> None:
    async with stand_for(verify="never") as stand:
        digest = (await stand.gateway.catalogue.described(BYTES, item="other")).checksum
        entry = await stand.object(WRONG, digest=digest, verified=False)
        assert await fetch(stand, entry) == (200, WRONG)
        await asyncio.sleep(0.1)
        assert await seen(stand, entry) == (False, False)


async def test_a_copy_that_cannot_be_read_is_tried_again_when_touched_again(
    stand_for: StandFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES, verified=False)
        stand.strict.faults.internal_error(times=5)
        assert (await fetch(stand, entry, User_Agent=CURL))[0] == 307
        for _ in range(300):
            if "cannot be verified" in caplog.text:
                break
            await asyncio.sleep(0.01)
        assert await seen(stand, entry) == (False, False)
        stand.strict.faults.clear()
        assert (await fetch(stand, entry, User_Agent=CURL))[0] == 307
        assert await until_seen(stand, entry) == (True, False)
