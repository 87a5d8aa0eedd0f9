"""A gateway in a process of its own: many clients that stop reading, and SIGTERM while it sends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import random
import select
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
from pydantic import SecretStr

from gateway.config import Quotas, Redis
from gateway.identity.principal import Principal
from gateway.quotas.limits import own_account
from tests.faults.hanging import PLUGIN, announce, come_back, hang
from tests.faults.process import ServingProcess, Tables, serving_process
from tests.faults.support import RECEIVE_BUFFER, RawClient, answers, most_in_socket_buffers
from tests.harness import SCIENCE, SCIENTIST, SECRET, TENANT, Catalogue, Entry, bearer, principal, token
from tests.quotas.holders import open_quotas

MEBIBYTE = 1024 * 1024
LARGE = random.Random(9).randbytes(12 * MEBIBYTE)
SEND_TIMEOUT = 2
STALLED, HEALTHY = 200, 20
POOLED = 4
"""Most connections to PostgreSQL and Redis."""
STALLER = principal("staller", SCIENCE)


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a process can serve, and how to start it."""

    catalogue: Catalogue
    tables: Tables
    directory: Path
    redis_url: str

    def serve(self, **sections: dict[str, object]) -> contextlib.AbstractContextManager[ServingProcess]:
        """Start a gateway with these sections on top."""
        return serving_process(self.directory, {**self.tables, **sections}, python_path=self.directory / "plugins")

    async def charged(self, who: Principal = SCIENTIST) -> int:
        """Bytes that Redis has charged."""
        dsn, account = str(self.tables["database"]["dsn"]), own_account(who)  # type: ignore[call-overload]
        async with open_quotas(Redis(url=SecretStr(self.redis_url)), Quotas(), dsn) as quotas:
            return (await quotas.usage(TENANT, [account]))[account].octets


@pytest.fixture
async def archive(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Archive]:
    root, mount = tmp_path / "archive", tmp_path / "mount"
    root.mkdir()
    mount.mkdir()
    announce(tmp_path / "plugins")
    tables: Tables = {
        "server": {"port": 0, "shutdown_timeout": 1.5},
        # Hundreds arrive in the same moment, on a machine that does other things, too.
        "database": {"dsn": database, "timeout": 20, "pool_size": 2},
        "redis": {"url": redis_url, "timeout": 20, "pool_size": 2},
        "delivery": {"send_timeout": SEND_TIMEOUT},
        "identity.jwt": [{"algorithms": ["HS256"], "secret": SECRET}],
        "storage": [
            {"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root)},
            {"name": "mount", "plugin": PLUGIN, "tenants": ["*"], "root": str(mount)},
        ],
    }
    connection = await asyncpg.connect(database)
    try:
        catalogue = Catalogue(connection, root)
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        yield Archive(catalogue, tables, tmp_path, redis_url)
    finally:
        await connection.close()


def stall(url: str, path: str, number: int) -> list[float]:
    """Ask ``number`` times and read nothing; seconds from the first byte of each answer to its connection's end."""
    parts = urlsplit(url)
    request = f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token(STALLER)}\r\n\r\n".encode()
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        for _ in range(number):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            connection.connect((parts.hostname, parts.port))
            connection.sendall(request)
            poll.register(connection, select.POLLIN)
        deadline = time.monotonic() + 30
        while len(ended) < number and time.monotonic() < deadline:
            for descriptor, events in poll.poll(100):
                now = time.monotonic()
                if descriptor not in begun:
                    begun[descriptor] = now
                    poll.modify(descriptor, 0)  # from now on its end alone
                if events & (select.POLLHUP | select.POLLERR):
                    ended[descriptor] = now
                    poll.unregister(descriptor)
    assert len(ended) == number, f"{number - len(ended)} connections were never ended"
    return [ended[descriptor] - begun[descriptor] for descriptor in ended]


async def fetch(url: str, entry: Entry) -> tuple[bool, float]:
    """Whether the file came whole and right, and the seconds that it took."""
    started = time.monotonic()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}{entry.regards}", headers=bearer(SCIENTIST)) as response,
    ):
        digest = hashlib.sha256()
        async for piece in response.content.iter_chunked(256 * 1024):
            digest.update(piece)
    return digest.hexdigest() == entry.checksum, time.monotonic() - started


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return condition()


async def test_two_hundred_clients_that_stop_reading_harm_nobody(archive: Archive) -> None:
    entry = await archive.catalogue.file(LARGE)
    with archive.serve() as gateway:
        await asyncio.gather(*(fetch(gateway.url, entry) for _ in range(HEALTHY)))  # its pools fill up
        descriptors, memory = gateway.descriptors, gateway.resident_bytes
        stalling = asyncio.create_task(asyncio.to_thread(stall, gateway.url, entry.stac, STALLED))
        assert await until(lambda: gateway.descriptors >= descriptors + 2 * STALLED, 10)
        grown = gateway.resident_bytes - memory
        fetched = await asyncio.gather(*(fetch(gateway.url, entry) for _ in range(HEALTHY)))
        grown = max(grown, gateway.resident_bytes - memory)
        lasted = await stalling
        # The pools of both neighbours may have opened more connections meanwhile.
        assert await until(lambda: gateway.descriptors <= descriptors + POOLED, 3)
        for _ in range(50):  # the last of them are being settled
            charged = await archive.charged(STALLER)
            if charged <= STALLED * most_in_socket_buffers():
                break
            await asyncio.sleep(0.1)
        assert (await fetch(gateway.url, entry))[0]
    assert all(right for right, _ in fetched)
    assert max(lasted) <= SEND_TIMEOUT + 2
    assert min(lasted) >= SEND_TIMEOUT / 2  # a busy machine sees the first byte late
    assert grown <= STALLED * 64 * 1024 + 16 * MEBIBYTE
    assert 0 < charged <= STALLED * most_in_socket_buffers()


async def test_sigterm_lets_end_what_ends_in_time_and_cuts_the_rest_visibly(archive: Archive) -> None:
    entry = await archive.catalogue.file(LARGE)
    with archive.serve() as gateway, contextlib.ExitStack() as sockets:
        in_time = [await RawClient.connect(gateway.url, sockets) for _ in range(2)]
        too_slow = [await RawClient.connect(gateway.url, sockets) for _ in range(2)]
        for client in (*in_time, *too_slow):
            await client.ask(entry.stac)
        begun = [await client.read(50_000) for client in (*in_time, *too_slow)]
        gateway.terminate()
        started = time.monotonic()
        await asyncio.sleep(0.2)
        with pytest.raises(aiohttp.ClientConnectorError):
            await fetch(gateway.url, entry)
        rest = await asyncio.gather(*(client.read_to_the_end() for client in in_time))
        assert await asyncio.to_thread(gateway.process.wait, 10) == 0
        assert time.monotonic() - started < 2 * 1.5 + 2
        rest += [await client.read_to_the_end() for client in too_slow]
    received = [answers(start + end) for start, end in zip(begun, rest, strict=True)]
    assert [len(found) for found in received] == [1] * 4
    bodies = [found[0].body for found in received]
    assert bodies[:2] == [LARGE, LARGE]
    assert all(LARGE.startswith(body) and len(body) < len(LARGE) for body in bodies[2:])
    total = sum(map(len, bodies))
    assert total <= await archive.charged() <= total + 2 * most_in_socket_buffers()


async def test_a_dead_mount_does_not_keep_the_process_from_ending(archive: Archive) -> None:
    """Python waits at its end for the threads of its pools, and these hang for as long as the mount does."""
    mount = archive.directory / "mount"
    mounted = Catalogue(archive.catalogue.connection, mount)
    entry = await mounted.file(LARGE, storage="mount")
    with archive.serve(server={"port": 0, "shutdown_timeout": 0.3}) as gateway:
        assert (await fetch(gateway.url, entry))[0]
        hang(mount)
        try:
            waiting = asyncio.create_task(fetch(gateway.url, entry))
            await asyncio.sleep(0.3)
            gateway.terminate()
            code = await asyncio.to_thread(gateway.process.wait, 8)
            assert code == 0
            with pytest.raises(aiohttp.ClientError):
                await waiting
        finally:
            come_back(mount)
