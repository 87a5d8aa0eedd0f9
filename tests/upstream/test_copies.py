"""Of several copies the best one serves, and another one where it cannot; none that the storage may not serve."""

from __future__ import annotations

import random

import aiohttp
import pytest

from gateway.storage import Stat
from tests.harness import SCIENTIST, Entry, principal
from tests.s3.strict import StrictS3
from tests.upstream.conftest import BUCKET, MEBIBYTE, Stand, StandFactory, storage

BYTES = random.Random(31).randbytes(2 * MEBIBYTE)


def more(strict: StrictS3) -> list[dict[str, object]]:
    """Further storages on the same server; the gateway knows nothing of that."""
    return [
        storage(strict, "first", {"priority": -1, "delivery": "stream"}),
        storage(strict, "tape", {"priority": -9, "type": "NEARLINE"}),
        storage(strict, "of-others", {"priority": -8, "tenants": ["others"], "delivery": "stream"}),
        storage(strict, "apart", {"priority": -7, "prefixes": [f"{BUCKET}/{{tenant}}/"], "delivery": "stream"}),
    ]


async def fetch(stand: Stand, entry: Entry, **fields: str) -> tuple[int, bytes]:
    response, body = await stand.gateway.get(entry.stac, SCIENTIST, **fields)
    return response.status, body


async def test_the_lowest_number_serves_and_online_goes_before_nearline(stand_for: StandFactory) -> None:
    async with stand_for(storages=more) as stand:
        entry = await stand.gateway.catalogue.described(BYTES)
        for name in ("store", "tape", "first"):
            await stand.copy(entry, BYTES, key=name, storage=name)
        assert await fetch(stand, entry) == (200, BYTES)
        assert {request.key for request in stand.strict.requests} == {"first"}
        tape = await stand.gateway.catalogue.described(BYTES, item="tape")
        await stand.copy(tape, BYTES, key="cold", storage="tape")
        assert (await fetch(stand, tape))[0] == 503  # it is restored first


async def test_the_next_copy_serves_where_the_first_cannot_be_opened(stand_for: StandFactory) -> None:
    async with stand_for(storages=more) as stand:
        entry = await stand.gateway.catalogue.file(BYTES)
        await stand.copy(entry, BYTES, key="a", storage="first")
        await stand.copy(entry, BYTES, key="b", storage="store")
        faults = stand.strict.faults
        for fault in (faults.internal_error, faults.reset_before_head, faults.stall_before_head):
            fault(times=2, key="a")
            assert await fetch(stand, entry) == (200, BYTES)
        stand.strict.store.delete(BUCKET, "a")
        assert await fetch(stand, entry) == (200, BYTES)
        async with stand.strict.refusing():
            assert await fetch(stand, entry) == (200, BYTES)


async def test_a_storage_that_failed_a_moment_ago_is_asked_last(stand_for: StandFactory) -> None:
    async with stand_for(storages=more) as stand:
        entry = await stand.gateway.catalogue.described(BYTES)
        await stand.copy(entry, BYTES, key="a", storage="first")
        await stand.copy(entry, BYTES, key="b", storage="store")
        stand.strict.faults.slow_down(times=9, key="a")
        for _ in range(3):
            assert await fetch(stand, entry) == (200, BYTES)
        assert [request.key for request in stand.strict.requests].count("a") == 1


async def test_a_copy_that_breaks_in_the_middle_is_continued_from_another(stand_for: StandFactory) -> None:
    """Of the store, of a disk, and as a range; nothing is sent twice and nothing left out."""
    async with stand_for(storages=more) as stand:
        entry = await stand.gateway.catalogue.file(BYTES)
        await stand.copy(entry, BYTES, key="a", storage="first")
        for start in (0, 12345):
            stand.strict.faults.reset_after(700_000, key="a")
            stand.strict.faults.internal_error(times=99, key="a")
            status, body = await fetch(stand, entry, Range=f"bytes={start}-")
            assert (status, body) == (206, BYTES[start:])
            stand.strict.faults.clear()


async def test_copies_without_a_checksum_are_never_mixed(stand_for: StandFactory) -> None:
    """Nobody knows whether they are the same; but one that is not there does not keep the other from serving."""
    async with stand_for(storages=more) as stand:
        other = bytes(byte ^ 1 for byte in BYTES)
        entry = await stand.gateway.catalogue.described(BYTES, checksum=False)
        await stand.copy(entry, BYTES, key="a", storage="first")
        await stand.copy(entry, other, key="b", storage="store")
        stand.strict.faults.reset_after(700_000, key="a")
        stand.strict.faults.internal_error(times=99, method="GET", key="a")
        with pytest.raises(aiohttp.ClientPayloadError):
            await fetch(stand, entry)
        stand.strict.faults.clear()
        stand.strict.store.delete(BUCKET, "a")
        assert await fetch(stand, entry) == (200, other)


@pytest.mark.parametrize(
    ("name", "location", "status"),
    [
        ("of-others", "key", 503),
        ("apart", "key", 503),
        ("apart", "others/key", 503),
        ("apart", "esa/../others/key", 503),
        ("apart", "esa", 503),
        ("apart", "esa/key", 200),
        ("apart", "esa//key", 200),
    ],
)
async def test_a_copy_outside_tenants_and_prefixes_is_not_opened(
    stand_for: StandFactory, name: str, location: str, status: int
) -> None:
    """Whoever writes the catalogue must not read with the archive's credentials what belongs to others."""
    async with stand_for(storages=more) as stand:
        entry = await stand.gateway.catalogue.described(BYTES)
        stored = stand.strict.store.put(BUCKET, location, BYTES)
        stat = Stat(len(BYTES), stored.modified, stored.etag.strip('"'))
        await stand.gateway.catalogue.copy(entry, name, f"{BUCKET}/{location}", stat)
        assert (await fetch(stand, entry))[0] == status
        assert bool(stand.strict.requests) == (status == 200)


async def test_the_prefix_of_one_tenant_is_closed_to_another(stand_for: StandFactory) -> None:
    async with stand_for(storages=more) as stand:
        who = principal("stranger", "science", tenant="others")
        catalogue = stand.gateway.catalogue
        await catalogue.connection.execute(
            "INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level) "
            "VALUES ($1, $2, 'FULL_ACCESS', 'INHERITED_ACCESS')",
            await catalogue.dataset("restricted", tenant="others"),
            await catalogue.group("science", tenant="others"),
        )
        entry = await catalogue.described(BYTES, tenant="others", item="foreign")
        await stand.copy(entry, BYTES, key="esa/key", storage="apart")
        response, _ = await stand.gateway.get(entry.stac, who)
        assert response.status == 503
        assert not stand.strict.requests
