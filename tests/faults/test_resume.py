"""Broken downloads are taken up again by real clients, and end as the file: never a part of it, never a mix."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.faults.clients import CLIENTS, Job
from tests.faults.proxy import Fault, fault_proxy
from tests.faults.support import ingest_again, replace_on_disk
from tests.harness import SCIENTIST, Entry, RunningGateway, bearer

MEBIBYTE = 1024 * 1024
FULL = "GATEWAY_TEST_FULL"
"""Set for the full number of cut downloads."""
DOWNLOADS_EACH = 50 if os.environ.get(FULL) else 6
AT_ONCE = 4
MOST_RUNS = 12
"""Runs of a client within which a download must be whole."""


async def finish(client: str, job: Job) -> bool:
    """Run the client until it says that the file is whole."""
    for _ in range(MOST_RUNS):
        if await CLIENTS[client](job):
            return True
    return False


def cuts(chance: random.Random, size: int) -> list[Fault]:
    """One to three cuts. The first lies within what any client's first connection asks for."""
    number = chance.randint(1, 3)
    return [
        Fault(
            cut_after=chance.randrange(1, size // 4 if first else size),
            reset=chance.random() < 0.5,
            slice_bytes=chance.choice((1000, 16 * 1024, 64 * 1024)),
        )
        for first in (True, *[False] * (number - 1))
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", CLIENTS)
async def test_every_cut_download_ends_byte_identical(gateway: RunningGateway, tmp_path: Path, client: str) -> None:
    """Each download is cut one to three times at random places, by FIN or RST, and taken up again until it is whole."""
    chance = random.Random(f"cuts of {client}")
    entries = [
        await gateway.catalogue.file(
            chance.randbytes(chance.randint(3 * MEBIBYTE, 8 * MEBIBYTE)), item=f"item-{number}"
        )
        for number in range(AT_ONCE)
    ]
    slots = asyncio.Semaphore(AT_ONCE)
    plans = [(number, entries[number % AT_ONCE]) for number in range(DOWNLOADS_EACH)]

    async def download(number: int, entry: Entry) -> int:
        plan = cuts(random.Random(f"{client} {number}"), len(entry.content))
        path = entry.regards if number % 2 else entry.stac
        directory = tmp_path / f"download-{number}"
        directory.mkdir()
        async with slots, fault_proxy(gateway.url, plan) as proxy:
            job = Job(f"{proxy.url}{path}", directory, bearer(SCIENTIST))
            assert await finish(client, job), f"{client} gave up: {plan}"
            assert job.path.read_bytes() == entry.content, f"{client} took other bytes for the file: {plan}"
            job.path.unlink()
        return proxy.cuts

    made = await asyncio.gather(*(download(*plan) for plan in plans))
    assert len(made) == DOWNLOADS_EACH
    assert min(made) >= 1


async def begun(gateway: RunningGateway, client: str, url: str, directory: Path, size: int) -> Job:
    """A download, cut on each of its connections; whoever runs the client again speaks to the gateway itself."""
    async with fault_proxy(gateway.url, [Fault(cut_after=size // 5)] * 4) as proxy:
        assert not await CLIENTS[client](Job(f"{proxy.url}{url}", directory, bearer(SCIENTIST)))
    job = Job(f"{gateway.url}{url}", directory, bearer(SCIENTIST))
    assert job.path.stat().st_size > 0
    return job


def contents() -> tuple[bytes, bytes]:
    """What a file holds at first, and a longer one that takes its place."""
    chance = random.Random(11)
    return chance.randbytes(4 * MEBIBYTE), chance.randbytes(4 * MEBIBYTE + 1000)


def holds_nothing_else_than(job: Job, content: bytes) -> bool:
    """Whether every stretch of what was received is that of ``content``; what aria2 left out is full of zeros."""
    received = job.path.read_bytes()
    step = 4096
    return all(
        content[at : at + step].startswith(received[at : at + step].rstrip(b"\0"))
        for at in range(0, len(received), step)
    )


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_checksum_url_never_gives_other_bytes(gateway: RunningGateway, tmp_path: Path, client: str) -> None:
    """Its content was replaced and ingested anew: the URL answers 404, so that even curl and wget cannot mix."""
    old, new = contents()
    entry = await gateway.catalogue.file(old)
    directory = tmp_path / "download"
    directory.mkdir()
    job = await begun(gateway, client, entry.regards, directory, len(old))
    fresh = await ingest_again(gateway.catalogue, entry, new)
    for _ in range(2):
        assert not await CLIENTS[client](job)
    assert holds_nothing_else_than(job, old)
    assert (await gateway.get(entry.regards, SCIENTIST, Range="bytes=100-"))[0].status == 404
    assert (await gateway.get(fresh.regards, SCIENTIST))[1] == new


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_file_changed_on_disk_without_ingest_is_refused(
    gateway: RunningGateway, tmp_path: Path, client: str
) -> None:
    old, new = contents()
    entry = await gateway.catalogue.file(old)
    for number, url in enumerate((entry.regards, entry.stac)):
        directory = tmp_path / f"download-{number}"
        directory.mkdir()
        job = await begun(gateway, client, url, directory, len(old))
        replace_on_disk(entry.path, new)
        assert not await CLIENTS[client](job)
        assert holds_nothing_else_than(job, old)
        assert (await gateway.get(url, SCIENTIST, Range="bytes=100-"))[0].status == 502
        replace_on_disk(entry.path, old)
        entry = await ingest_again(gateway.catalogue, entry, old)


async def test_an_asset_url_with_if_range_gives_the_new_file_whole(gateway: RunningGateway, tmp_path: Path) -> None:
    old, new = contents()
    entry = await gateway.catalogue.file(old)
    job = await begun(gateway, "requests", entry.stac, tmp_path, len(old))
    await ingest_again(gateway.catalogue, entry, new)
    assert await finish("requests", job)
    assert job.path.read_bytes() == new


@pytest.mark.parametrize("client", ["curl", "wget"])
async def test_curl_and_wget_mix_an_asset_that_changed(gateway: RunningGateway, tmp_path: Path, client: str) -> None:
    """What no server can help: an asset's URL names no bytes, and these clients never send If-Range.

    They end with the old file's beginning and the new one's rest, and say that all is well. They are safe on checksum
    URLs, which is why links should be these; the test is here so that it is noticed when the clients get better.
    """
    old, new = contents()
    entry = await gateway.catalogue.file(old)
    job = await begun(gateway, client, entry.stac, tmp_path, len(old))
    have = job.path.stat().st_size
    await ingest_again(gateway.catalogue, entry, new)
    assert await CLIENTS[client](job)
    assert job.path.read_bytes() == old[:have] + new[have:]


@pytest.mark.parametrize("longer_by", [0, 1000])
async def test_aria2_refuses_to_mix_an_asset_that_changed(
    gateway: RunningGateway, tmp_path: Path, longer_by: int
) -> None:
    """It never sends If-Range either, but sees another length, and verifies the Digest that the gateway sends."""
    old, new = contents()
    new = new[: len(old) + longer_by]
    entry = await gateway.catalogue.file(old)
    job = await begun(gateway, "aria2c", entry.stac, tmp_path, len(old))
    await ingest_again(gateway.catalogue, entry, new)
    assert not await CLIENTS["aria2c"](job)
