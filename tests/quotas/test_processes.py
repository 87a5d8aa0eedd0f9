"""A gateway process is killed, or stopped for a while, in the middle of downloads."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway.quotas.leases import SLICE
from gateway.quotas.limits import Limit, Rule, own_account
from tests.faults.process import ServingProcess, serving_process
from tests.faults.support import RawClient, most_in_socket_buffers
from tests.harness import SCIENCE, SECRET, Catalogue, Entry, principal
from tests.quotas.holders import Holder, ask_as, assert_books_agree, open_holder, until

MEBIBYTE = 1024 * 1024
SIZE = 320 * MEBIBYTE
"""Some slices."""
TTL = 3
SWEEP = 0.2
HEADER_BYTES = 2000
"""More than any header of an answer has."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A gateway process, and the quota part of another one."""

    gateway: ServingProcess
    holder: Holder
    entry: Entry
    dsn: str


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    """Closes what the test opened."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
async def pair(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Pair]:
    root = tmp_path / "archive"
    root.mkdir()
    tables = {
        "server": {"port": 0, "shutdown_timeout": 1},
        "database": {"dsn": database, "timeout": 20},
        "redis": {"url": redis_url, "timeout": 20},
        "quotas": {"lease_ttl": TTL},
        "identity.jwt": [{"algorithms": ["HS256"], "secret": SECRET}],
        "storage": [{"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root)}],
    }
    connection = await asyncpg.connect(database)
    try:
        catalogue = Catalogue(connection, root)
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        await catalogue.rule(Rule("tenant", "", False, "concurrent", "now", 1))
        entry = await catalogue.file(b"", checksum=False, recorded=False)
        os.truncate(entry.path, SIZE)  # sparse: takes no room on the disk
        await connection.execute("UPDATE files SET size = $1", SIZE)
    finally:
        await connection.close()
    seconds = (0.1, 0.1, SWEEP)
    async with open_holder(redis_url, database, lease_ttl=TTL, seconds=seconds) as holder:
        with serving_process(tmp_path, tables) as gateway:  # type: ignore[arg-type]
            yield Pair(gateway, holder, entry, database)


async def begin(pair: Pair, sockets: contextlib.ExitStack, name: str, octets: int) -> tuple[RawClient, int]:
    """A client that has that many bytes of the file and reads no more, and how many came."""
    client = await RawClient.connect(pair.gateway.url, sockets, receive_buffer=256 * 1024)
    await ask_as(client, pair.entry.stac, principal(name, SCIENCE))
    return client, len(await client.read(octets))


async def all_are_swept(pair: Pair) -> bool:
    return await pair.holder.leases() == 0


async def test_a_killed_process_leaves_its_slots_in_time_and_its_downloads_charged(
    pair: Pair, sockets: contextlib.ExitStack
) -> None:
    wanted = {"small": 1000, "large": 100 * MEBIBYTE}
    received = {name: (await begin(pair, sockets, name, octets))[1] for name, octets in wanted.items()}
    callers = {name: principal(name, SCIENCE) for name in wanted}
    assert [await pair.holder.running(who) for who in callers.values()] == [1, 1]
    os.kill(pair.gateway.process.pid, signal.SIGKILL)
    killed = time.monotonic()
    await asyncio.to_thread(pair.gateway.process.wait)

    await until(lambda: all_are_swept(pair), "the leases are swept")
    assert time.monotonic() - killed < TTL + 1.2 * SWEEP + 2
    await assert_books_agree(pair.holder, pair.dsn)
    for name, who in callers.items():
        downloads, octets = await pair.holder.used(who)
        most_sent = received[name] + most_in_socket_buffers() + 512 * 1024
        assert downloads == 1
        assert received[name] - HEADER_BYTES <= octets <= most_sent + SLICE // 2 + max(most_sent, SLICE)
        assert octets < SIZE


async def test_a_process_that_was_stopped_cannot_use_a_slot_that_another_has(
    pair: Pair, sockets: contextlib.ExitStack
) -> None:
    displaced, alone = principal("displaced", SCIENCE), principal("alone", SCIENCE)
    clients = [(await begin(pair, sockets, who.subject, 1000)) for who in (displaced, alone)]
    limit = Limit(own_account(displaced), "concurrent", "now", 1)
    assert [await pair.holder.running(who) for who in (displaced, alone)] == [1, 1]
    os.kill(pair.gateway.process.pid, signal.SIGSTOP)
    try:
        stopped = time.monotonic()

        await until(lambda: all_are_swept(pair), "the leases are swept")
        mark = (await pair.holder.used(displaced))[1]
        assert mark == SLICE
        taker = await pair.holder.reserve("another file", 1000, displaced, limit)
        await asyncio.sleep(max(stopped + 2 * TTL - time.monotonic(), 0) if os.environ.get("GATEWAY_TEST_FULL") else 0)
    finally:
        os.kill(pair.gateway.process.pid, signal.SIGCONT)
    (one, had), (other, had_other) = clients
    cut, whole = await asyncio.gather(count_to_the_end(one), count_to_the_end(other, SIZE - had_other))
    # It may send what is charged already, then it asks for more, is refused, and cuts the connection.
    assert mark - HEADER_BYTES <= had + cut <= mark + HEADER_BYTES
    assert SIZE <= had_other + whole <= SIZE + HEADER_BYTES
    assert await pair.holder.running(displaced) == 1
    await pair.holder.settle(taker, 400)
    assert await pair.holder.used(displaced) == (2, mark + 400)

    async def is_settled() -> bool:
        return await pair.holder.running(alone) == 0

    await until(is_settled, "the other one is settled")
    assert await pair.holder.used(alone) == (1, SIZE)
    await until(lambda: _drained(pair), "the process has drained")
    await assert_books_agree(pair.holder, pair.dsn)


async def _drained(pair: Pair) -> bool:
    await pair.holder.upkeep.sweep()
    return True


async def count_to_the_end(client: RawClient, most: int | None = None) -> int:
    """Bytes until the connection ends, or ``most`` and a little."""
    received, buffer, loop = 0, bytearray(MEBIBYTE), asyncio.get_running_loop()
    with contextlib.suppress(ConnectionResetError):
        while (most is None or received < most) and (count := await loop.sock_recv_into(client.connection, buffer)):
            received += count
    return received
