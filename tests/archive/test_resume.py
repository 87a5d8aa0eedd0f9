"""Archives that break off are taken up again by real clients, and end byte for byte as they were laid out."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from gateway.archive.frozen import freeze, thaw
from tests.archive.conftest import Cloud, Disk
from tests.archive.serving import ArchiveServer, Served, content_of, received
from tests.archive.tools import TESTS, run
from tests.faults.clients import CLIENTS, Job
from tests.faults.proxy import Fault, fault_proxy
from tests.faults.test_resume import finish

CUTS = 100 if os.environ.get("GATEWAY_TEST_FULL") else 12
AT_ONCE = 3
KIB = 1024


async def archive(server: ArchiveServer, disk: Disk, cloud: Cloud) -> tuple[Served, bytes]:
    """One of many small members and some large ones, and its bytes."""
    sizes = [0, 10, 900 * KIB, *[3 * KIB] * 40, 1500 * KIB, 64 * KIB, 0, 700 * KIB]
    files = [
        await (cloud if number % 2 else disk).put(f"{number}.bin", content_of(size, number), folder=f"p{number // 7}")
        for number, size in enumerate(sizes)
    ]
    served = server.serve(files, notice=b"two are missing\n")
    return served, (await received(server))[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", ["curl", "aria2c"])
async def test_an_archive_cut_anywhere_ends_byte_identical(
    server: ArchiveServer, disk: Disk, cloud: Cloud, tmp_path: Path, client: str
) -> None:
    """Each time from a layout that was written down and read back, as another process would."""
    served, whole = await archive(server, disk, cloud)
    slots = asyncio.Semaphore(AT_ONCE)

    async def download(number: int) -> None:
        chance = random.Random(f"{client} {number}")
        directory = tmp_path / f"download-{number}"
        directory.mkdir()
        plan = [Fault(cut_after=chance.randrange(400, len(whole) // 4), reset=chance.random() < 0.5)]
        plan += [Fault(cut_after=chance.randrange(1, len(whole))) for _ in range(chance.randint(0, 2))]
        async with slots, fault_proxy(server.url, plan) as proxy:
            job = Job(f"{proxy.url}/order.zip", directory, {})
            await CLIENTS[client](job)
            served.layout = thaw(freeze(served.layout))
            assert await finish(client, job), plan
            assert job.path.read_bytes() == whole, plan
        assert proxy.cuts
        if number:
            job.path.unlink()

    await asyncio.gather(*(download(number) for number in range(CUTS if client == "curl" else CUTS // 4)))
    for tool in TESTS:
        await asyncio.to_thread(run, tool, TESTS[tool], tmp_path / "download-0" / "order.zip")
    assert served.shelf.open == 0


async def test_another_archive_is_not_the_rest_of_one_that_broke_off(
    server: ArchiveServer, disk: Disk, cloud: Cloud
) -> None:
    served, whole = await archive(server, disk, cloud)
    tag = served.layout.etag
    status, _, rest, _ = await received(server, fields={"Range": "bytes=1000-", "If-Range": tag})
    assert (status, rest) == (206, whole[1000:])
    server.serve(served.shelf.files[:-1])
    status, fields, other, _ = await received(server, fields={"Range": "bytes=1000-", "If-Range": tag})
    assert status == 200
    assert fields["ETag"] != tag
    assert other != whole
    assert (await received(server, fields={"If-Match": tag}))[0] == 412
