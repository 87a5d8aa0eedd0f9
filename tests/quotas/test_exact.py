"""What is charged is what was sent, to the byte: aborted, segmented and resumed downloads through a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.identity.principal import Principal
from gateway.quotas.limits import own_account
from tests.faults.clients import CLIENTS, RUN_SECONDS, Job
from tests.faults.proxy import Fault, fault_proxy
from tests.faults.support import RawClient, most_in_socket_buffers
from tests.harness import SCIENCE, Entry, RunningGateway, bearer, config_for, principal, running_gateway
from tests.quotas.holders import Row, ask_as, rows_of, until

MEBIBYTE = 1024 * 1024
ABORTED = 500 if os.environ.get("GATEWAY_TEST_FULL") else 150
AT_ONCE = 16
SIZES = [1, 900, 40_000, 300_000, 2 * MEBIBYTE, 2 * MEBIBYTE + 1, 24 * MEBIBYTE]
CONTENT = random.Random(20).randbytes(max(SIZES))


@pytest.fixture
async def gateway(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway that never answers 503 for want of time."""
    root = tmp_path / "archive"
    root.mkdir()
    config = config_for(database, redis_url, root, redis={"url": redis_url, "timeout": 20})
    config = config.model_copy(update={"database": config.database.model_copy(update={"timeout": 20.0})})
    async with running_gateway(config, root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        await running.catalogue.grant("open", await running.catalogue.group("everyone", public=True))
        yield running


async def abort(gateway: RunningGateway, entry: Entry, who: Principal, chance: random.Random) -> int:
    """Leave after a random part of the body: the bytes of it that came."""
    size = len(entry.content)
    wanted = chance.choice([0, 1, size // 2, chance.randrange(size + 1), min(size, chance.randrange(1, 100_000))])
    with contextlib.ExitStack() as stack:
        client = await RawClient.connect(gateway.url, stack, receive_buffer=chance.choice([4096, 16 * 1024]))
        await ask_as(client, entry.stac, who)
        if chance.random() < 0.05:
            client.reset()
            return 0
        received = await client.read(1)
        while b"\r\n\r\n" not in received:
            received += await client.read(1)
        header, _, body = received.partition(b"\r\n\r\n")
        assert header.startswith(b"HTTP/1.1 200 ")
        if wanted > len(body):
            body += await client.read(wanted - len(body))
        assert entry.content.startswith(body)
        if chance.random() < 0.5:
            client.reset()
        return len(body)


def charged(rows: list[Row], who: Principal) -> tuple[int, int]:
    """Downloads and bytes that the ledger has."""
    own = [row for row in rows if row.account == own_account(who)]
    return sum(row.downloads for row in own), sum(row.octets for row in own)


@pytest.mark.timeout(300)
async def test_aborted_downloads_are_charged_exactly_the_bytes_that_were_sent(gateway: RunningGateway) -> None:
    entries = [await gateway.catalogue.file(CONTENT[:size], item=f"item-{size}") for size in SIZES]
    slots = asyncio.Semaphore(AT_ONCE)

    async def download(number: int) -> tuple[Principal, int]:
        who = principal(f"user-{number}", SCIENCE)
        async with slots:
            return who, await abort(gateway, entries[number % len(SIZES)], who, random.Random(number))

    received = dict(await asyncio.gather(*(download(number) for number in range(ABORTED))))
    # Who leaves before the request was read was never there.
    seen = sum(1 for octets in received.values() if octets)
    await until(lambda: _all_ended(gateway, seen), "all have ended")
    dsn = gateway.config.database.dsn.get_secret_value()

    async def all_are_settled() -> bool:
        rows = await rows_of(dsn)
        logged = sum('"sent"' in line for line in gateway.access_log)
        grants, ends = (sum(row.kind == kind for row in rows) for kind in ("grant", "end"))
        return logged == grants == ends

    await until(all_are_settled, "all is in the ledger")
    rows = await rows_of(dsn)
    sent = {line["user"]: line["sent"] for line in map(json.loads, gateway.access_log) if "sent" in line}
    assert len(sent) >= seen
    for who, octets in received.items():
        if who.subject not in sent:
            assert (octets, charged(rows, who)) == (0, (0, 0))
            continue
        downloads, bytes_charged = charged(rows, who)
        assert bytes_charged == sent[who.subject], who
        assert octets <= bytes_charged <= octets + most_in_socket_buffers(), who
        assert downloads == (bytes_charged > 0), who
        assert await gateway.usage(who) == (downloads, bytes_charged)


async def _all_ended(gateway: RunningGateway, number: int) -> bool:
    return sum('"sent"' in line for line in gateway.access_log) >= number


async def aria2c(directory: Path, url: str, *headers: str) -> None:
    """Fetch four segments at a time."""
    directory.mkdir()
    process = await asyncio.create_subprocess_exec(
        "aria2c", "--no-conf", "--quiet", "-x4", "-s4", "-k1M", "--file-allocation=none", "--out=got",
        *(f"--header={header}" for header in headers), url,
        cwd=directory, env={"PATH": os.environ["PATH"], "HOME": str(directory)},
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), RUN_SECONDS) == 0


async def usage_as_logged(gateway: RunningGateway, who: Principal | None) -> tuple[int, int]:
    """Downloads charged, and bytes: those that the access log has as sent."""

    async def is_so() -> bool:
        logged = sum(int(json.loads(line).get("sent", 0)) for line in gateway.access_log)
        return (await gateway.usage(who))[1] == logged

    await until(is_so, "what is charged is what was sent")
    return await gateway.usage(who)


async def test_segments_of_one_file_are_one_download_until_twice_its_bytes_were_sent(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    content = CONTENT[: 12 * MEBIBYTE]
    entry = await gateway.catalogue.file(content)
    who = principal("segmenter", SCIENCE)
    authorization = f"Authorization: {bearer(who)['Authorization']}"
    await aria2c(tmp_path / "first", gateway.url + entry.regards, authorization)
    assert (tmp_path / "first" / "got").read_bytes() == content
    downloads, octets = await usage_as_logged(gateway, who)
    requests = [json.loads(line) for line in gateway.access_log]
    assert len(requests) >= 4
    assert downloads == 1
    assert len(content) <= octets <= 2 * len(content)
    # Whatever it asks for of its own, these three pass twice the bytes of the file.
    for number in range(2):
        await aria2c(tmp_path / f"again-{number}", gateway.url + entry.regards, authorization)
    downloads, octets = await usage_as_logged(gateway, who)
    assert octets >= 3 * len(content)
    assert 2 <= downloads <= 3


async def test_segments_of_anonymous_callers_are_never_merged(gateway: RunningGateway, tmp_path: Path) -> None:
    entry = await gateway.catalogue.file(CONTENT[: 8 * MEBIBYTE], collection="open")
    await gateway.catalogue.limit("anonymous", downloads=1000)
    await aria2c(tmp_path / "got", f"{gateway.url}{entry.regards}?scope=esa")
    # On a fast machine one connection may have fetched all segments.
    for start in (0, MEBIBYTE):
        await gateway.get(f"{entry.regards}?scope=esa", Range=f"bytes={start}-{start + MEBIBYTE - 1}")
    downloads, _ = await usage_as_logged(gateway, None)
    served = [json.loads(line) for line in gateway.access_log]
    assert downloads == sum(line.get("sent", 0) > 0 for line in served) >= 3


@pytest.mark.parametrize("client", ["curl", "wget", "aria2c"])
async def test_a_download_that_is_taken_up_again_is_one_and_costs_what_was_sent(
    gateway: RunningGateway, tmp_path: Path, client: str
) -> None:
    content = CONTENT[: 8 * MEBIBYTE]
    entry = await gateway.catalogue.file(content)
    who = principal("resumer", SCIENCE)
    plan = [Fault(cut_after=cut, reset=cut % 2 == 1) for cut in (1_000_000, 1_500_001, 700_000)]
    async with fault_proxy(gateway.url, plan) as proxy:
        job = Job(f"{proxy.url}{entry.regards}", tmp_path, bearer(who))
        for _ in range(6):
            if await CLIENTS[client](job):
                break
        assert job.path.read_bytes() == content
        assert proxy.cuts >= 2
    downloads, octets = await usage_as_logged(gateway, who)
    assert len(content) <= octets
    if octets <= 2 * len(content):
        assert downloads == 1
    else:
        assert downloads == 2


async def test_past_twice_the_bytes_of_the_file_it_is_another_download(gateway: RunningGateway, tmp_path: Path) -> None:
    content = CONTENT[: 2 * MEBIBYTE]
    entry = await gateway.catalogue.file(content)
    who = principal("repeater", SCIENCE)
    half = len(content) // 2
    counted = []
    for held in (0, half, half, half, 0, half):
        job = Job(f"{gateway.url}{entry.regards}", tmp_path, bearer(who))
        job.path.write_bytes(content[:held])
        assert await CLIENTS["curl"](job)
        assert job.path.read_bytes() == content
        counted.append(await usage_as_logged(gateway, who))
    octets = [len(content), 3 * half, 4 * half, 5 * half, 7 * half, 8 * half]
    assert counted == list(zip([1, 1, 1, 2, 2, 2], octets, strict=True))
