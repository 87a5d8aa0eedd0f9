"""Copies behind a network: described many at a time, read where asked, and taken as they are where a site is down."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.catalog.ingest import IngestError, asking, inspection
from gateway.storage import CopyBrokenError, CopyOfflineError, CopyUnavailableError, Stat
from tests.catalog.ingest.conftest import Ingesting, everyones
from tests.catalog.ingest.memory import MemoryStorage

Item = dict[str, Any]

CONTENT = b"the quick brown fox" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
VERSION = f"v{zlib.crc32(CONTENT):x}"
OTHER = "0" * 64
HREF = "https://host/a.tif"

ROWS = """SELECT files.size, checksum, crc32, reference,
                 copies.size AS copied, version, verified_version, broken_version
          FROM files JOIN copies USING (file_id) ORDER BY copy_id"""
UNDESCRIBED = {"copied": None, "version": None, "verified_version": None, "broken_version": None}


@pytest.fixture
async def site(ingesting: Ingesting) -> AsyncIterator[MemoryStorage]:
    """A storage of our own behind HTTP."""
    storage = MemoryStorage("site")
    storage.files[HREF] = CONTENT
    ingesting.locations = [everyones(storage)]
    yield storage
    await storage.close()


@pytest.fixture
async def web(ingesting: Ingesting) -> AsyncIterator[MemoryStorage]:
    """The storage of what others hold."""
    storage = MemoryStorage("web")
    storage.files[HREF] = CONTENT
    ingesting.locations = [everyones(storage)]
    yield storage
    await storage.close()


def one(item: Item, href: str = HREF, **members: object) -> Item:
    members = {name.replace("_", ":"): value for name, value in members.items()}
    return {**item, "assets": {"a": {"href": href, **members}}}


async def row(ingesting: Ingesting) -> dict[str, object]:
    [found] = await ingesting.rows(ROWS)
    return found


async def test_copies_are_described_many_at_a_time_within_one_item_and_across_items(
    ingesting: Ingesting, item: Item
) -> None:
    """The storage answers nobody before as many as may be have asked."""
    most, waiting, highest = inspection.OVER_NETWORK, 0, 0
    everyone_asked = asyncio.Event()

    class Slow(MemoryStorage):
        async def stat(self, location: str) -> Stat:
            nonlocal waiting, highest
            waiting += 1
            highest = max(highest, waiting)
            if waiting == most:
                everyone_asked.set()
            await asyncio.wait_for(everyone_asked.wait(), 10)
            await asyncio.sleep(0)
            waiting -= 1
            return await super().stat(location)

    storage = Slow("site")
    ingesting.locations = [everyones(storage)]
    hrefs = [f"https://host/{number}" for number in range(most + 10)]
    storage.files = dict.fromkeys(hrefs, CONTENT)
    result = await ingesting.of({**item, "assets": {href: {"href": href} for href in hrefs}})
    assert result.told == []
    everyone_asked.clear()
    result = await ingesting.of(*({**one(item, href), "id": href} for href in hrefs))
    assert result.told == []
    assert highest == most
    assert await ingesting.rows("SELECT DISTINCT version FROM copies") == [{"version": VERSION}]


async def test_no_remark_tells_by_what_a_url_lets_in(ingesting: Ingesting, site: MemoryStorage, item: Item) -> None:
    result = await ingesting.of({**item, "assets": {"a": {"href": "https://host/a?sig=secret"}}})
    assert result.remarks == ["asset 'a': 'https://host/a?…' in storage 'site' does not exist"]


async def test_the_first_bad_asset_is_the_reason_and_remarks_stand_in_order(
    ingesting: Ingesting, site: MemoryStorage, item: Item
) -> None:
    bad = {name: {"href": HREF, "file:size": size} for name, size in (("a", None), ("b", 1), ("c", 2))}
    absent = {name: {"href": f"https://host/{name}"} for name in "xyz"}
    result = await ingesting.of({**item, "assets": bad}, {**item, "id": "other", "assets": absent})
    assert result.reasons == [f"asset 'b': the catalogue says 1 bytes, but {HREF!r} in storage 'site' has 19000"]
    assert result.remarks == [
        f"asset {name!r}: 'https://host/{name}' in storage 'site' does not exist" for name in "xyz"
    ]


async def test_a_stream_is_read_and_its_checksum_made(ingesting: Ingesting, site: MemoryStorage, item: Item) -> None:
    await ingesting.of(one(item))
    assert site.streams == []
    assert (await row(ingesting))["verified_version"] is None
    result = await ingesting.of(one(item), compute_checksums=True)
    assert result.told == []
    found = await row(ingesting)
    assert (found["size"], found["checksum"], found["crc32"]) == (len(CONTENT), SHA256, zlib.crc32(CONTENT))
    assert found["version"] == found["verified_version"] == VERSION


async def test_an_empty_copy_is_verified_without_a_stream(
    ingesting: Ingesting, site: MemoryStorage, item: Item
) -> None:
    site.files[HREF] = b""
    await ingesting.of(one(item), compute_checksums=True)
    found = await row(ingesting)
    assert (found["checksum"], found["verified_version"]) == (hashlib.sha256().hexdigest(), "v0")
    assert site.streams == []


async def test_a_stream_with_another_checksum_is_refused(ingesting: Ingesting, site: MemoryStorage, item: Item) -> None:
    result = await ingesting.of(one(item, file_checksum="1220" + OTHER), compute_checksums=True)
    [reason] = result.reasons
    assert OTHER in reason
    assert SHA256 in reason


async def test_a_stream_that_ends_early_is_refused(ingesting: Ingesting, site: MemoryStorage, item: Item) -> None:
    site.read_failure = CopyUnavailableError("the connection broke")
    result = await ingesting.of(one(item), compute_checksums=True)
    assert result.reasons == [f"asset 'a': {HREF!r} in storage 'site' cannot be read: the connection broke"]
    site.read_failure = CopyBrokenError("its own checksum does not hold")
    result = await ingesting.of(one(item), compute_checksums=True)
    assert result.reasons == [f"asset 'a': {HREF!r} in storage 'site' cannot be read: its own checksum does not hold"]


@pytest.mark.parametrize("change", [b"", b"short", CONTENT[::-1], CONTENT + b"more"])
async def test_a_stream_of_other_bytes_than_were_described_is_refused(
    ingesting: Ingesting, item: Item, change: bytes
) -> None:
    class Changing(MemoryStorage):
        async def stat(self, location: str) -> Stat:
            stat = await super().stat(location)
            self.files[HREF] = change
            return stat

    class Careless(MemoryStorage):
        """Says nothing of the change, and gives what is there."""

        async def stream(self, location: str, start: int, stop: int, version: str | None) -> Any:
            described = await super().stat(location)
            self.files[HREF] = change or b"x"
            stream: Any = await super().stream(location, 0, stop + 10, None)
            stream.stat = described
            return stream

    for storage, checksum in ((Changing("site"), None), (Careless("site"), "1220" + SHA256)):
        storage.files[HREF] = CONTENT
        ingesting.locations = [everyones(storage)]
        entry = one(item, file_checksum=checksum) if checksum else one(item)
        result = await ingesting.of(entry, compute_checksums=True)
        [reason] = result.reasons
        if change == CONTENT[::-1] and checksum:
            assert "the catalogue says SHA-256" in reason
        else:
            assert reason == f"asset 'a': {HREF!r} in storage 'site' changed while it was read"
        await storage.close()


async def test_a_copy_that_must_be_restored_first_is_described_and_not_read(
    ingesting: Ingesting, site: MemoryStorage, item: Item
) -> None:
    site.stream_failure = CopyOfflineError("in a cold storage class")
    result = await ingesting.of(one(item), compute_checksums=True)
    assert result.remarks == [f"asset 'a': {HREF!r} in storage 'site' is not read: it must be restored first"]
    found = await row(ingesting)
    assert (found["version"], found["verified_version"], found["checksum"]) == (VERSION, None, None)


async def test_a_storage_of_our_own_that_is_down_rejects_what_lies_there(
    ingesting: Ingesting, site: MemoryStorage, item: Item
) -> None:
    site.failures[HREF] = CopyUnavailableError("refused to connect")
    result = await ingesting.of(one(item))
    assert result.reasons == [f"asset 'a': {HREF!r} in storage 'site' cannot be read: refused to connect"]


async def test_a_site_of_others_that_is_down_leaves_its_copies_undescribed(
    ingesting: Ingesting, web: MemoryStorage, item: Item
) -> None:
    web.failures[HREF] = CopyUnavailableError("refused to connect")
    result = await ingesting.of(one(item, file_size=7))
    assert result.reasons == []
    assert result.remarks == [f"asset 'a': {HREF!r} in storage 'web' cannot be looked at: refused to connect"]
    found = await row(ingesting)
    assert found == {"size": 7, "checksum": None, "crc32": None, "reference": True, **UNDESCRIBED}


async def test_a_site_of_others_is_held_against_the_catalogue_all_the_same(
    ingesting: Ingesting, web: MemoryStorage, item: Item
) -> None:
    result = await ingesting.of(one(item, file_size=7))
    assert result.reasons == [f"asset 'a': the catalogue says 7 bytes, but {HREF!r} in storage 'web' has 19000"]
    result = await ingesting.of(one(item), compute_checksums=True)
    assert (await row(ingesting))["verified_version"] == VERSION


async def test_what_was_known_of_a_copy_outlasts_an_ingest_while_its_site_is_down(
    ingesting: Ingesting, web: MemoryStorage, item: Item
) -> None:
    await ingesting.of(one(item), compute_checksums=True)
    before = await row(ingesting)
    assert before["checksum"] == SHA256
    for failing in (True, False):
        web.failures = {HREF: CopyUnavailableError("down")} if failing else {}
        for compute in (True, False):
            await ingesting.of(one(item), compute_checksums=compute)
            assert await row(ingesting) == before
    web.failures = {HREF: CopyUnavailableError("down")}
    await ingesting.of(one(item, file_size=7))  # another entry: what was said of the former holds no more
    assert await row(ingesting) == {"size": 7, "checksum": None, "crc32": None, "reference": True, **UNDESCRIBED}


async def test_a_copy_that_is_gone_is_no_longer_described(ingesting: Ingesting, web: MemoryStorage, item: Item) -> None:
    await ingesting.of(one(item), compute_checksums=True)
    web.files.clear()
    await ingesting.of(one(item))
    assert (await row(ingesting)).items() >= UNDESCRIBED.items()


async def test_a_host_that_is_down_is_not_asked_for_ever(
    ingesting: Ingesting, web: MemoryStorage, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "OVER_NETWORK", 1)
    dead = [f"https://dead/{number}" for number in range(10)]
    web.failures = dict.fromkeys(dead, CopyUnavailableError("down"))
    web.files["https://dead/alive"] = CONTENT
    hrefs = [*dead[:2], "https://dead/alive", *dead[2:], HREF]
    result = await ingesting.of(*({**one(item, href), "id": href} for href in hrefs))
    assert result.reasons == []
    assert web.asked == [*dead[:2], "https://dead/alive", *dead[2:5], HREF]
    assert [remark for remark in result.remarks if "not looked at" in remark] == [
        f"asset 'a': {href!r} in storage 'web' is not looked at: its host was asked in vain 3 times in a row"
        for href in dead[5:]
    ]


async def test_a_site_of_others_that_hangs_does_not_end_the_ingest(
    ingesting: Ingesting, web: MemoryStorage, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "TIMEOUT", 0.1)
    web.hangs = True
    result = await ingesting.of(one(item))
    [remark] = result.remarks
    assert remark.endswith(f"cannot be looked at: storage 'web' did not answer for {HREF!r} in 0.1 s")
    assert result.reasons == []
    ours = MemoryStorage("ours")
    ours.hangs = True
    ingesting.locations = [everyones(ours)]
    with pytest.raises(IngestError, match="storage 'ours' did not answer"):
        await ingesting.of(one(item))
