"""The table of requests that every file is put to, put to an archive."""

from __future__ import annotations

import asyncio

from tests.archive.conftest import Cloud, Disk, Place
from tests.archive.serving import ArchiveServer, content_of, received
from tests.conformance.answers import read
from tests.conformance.table import TABLE
from tests.conformance.targets import OverSocket, Served, put


async def test_an_archive_answers_all_of_the_table_as_a_file_does(
    server: ArchiveServer, disk: Disk, cloud: Cloud
) -> None:
    """One that leaves with its header in one write, and one whose members leave by sendfile and from a store."""
    for size in (300, 100_000):
        places: tuple[Place, ...] = (disk, cloud, disk)
        server.serve([await place.put(f"{number}", content_of(size, number)) for number, place in enumerate(places)])
        _, _, whole, _ = await received(server)
        for depth in (1, 16) if size == 300 else (1,):
            run = await asyncio.to_thread(
                put, TABLE, Served(whole, "/order.zip", "/absent.zip"), OverSocket(server.address, depth)
            )
            for case in TABLE:
                found = read(case.method, run.answer(case), run.plain)
                assert found == case.expected(run.filling), f"{case.id}: RFC 9110 §{case.section}"
            assert run.connections == 1
