"""Files, disks and clients that fail in the middle: what is broken looks broken, and what comes next is right."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.delivery.sender import SMALL_BYTES
from gateway.storage import CopyUnavailableError
from tests.faults.conftest import SEND_TIMEOUT
from tests.faults.hanging import PLUGIN, announce, come_back, hang
from tests.faults.proxy import Fault, fault_proxy
from tests.faults.support import RawClient, answers, most_in_socket_buffers, replace_on_disk, settled_usage
from tests.harness import SCIENCE, SCIENTIST, Catalogue, Entry, RunningGateway, bearer, config_for, running_gateway

MEBIBYTE = 1024 * 1024
LARGE = random.Random(5).randbytes(16 * MEBIBYTE)
"""More than what all socket buffers hold."""
OTHER = random.Random(6).randbytes(300_000)

NO_SUCH_ASSET = f"/collections/restricted/items/item/download/{'a' * 6000}"
"""Refused with an answer that is long, since it names the asset."""

Break = Callable[[Entry, RawClient, pytest.MonkeyPatch], Awaitable[bytes]]
"""Breaks a running download; gives what the client received after that."""


async def truncated(entry: Entry, client: RawClient, _: pytest.MonkeyPatch) -> bytes:
    os.truncate(entry.path, len(entry.content) - MEBIBYTE)
    return await client.read_to_the_end()


async def overwritten(entry: Entry, client: RawClient, _: pytest.MonkeyPatch) -> bytes:
    """As ``cp`` does: the same file, the same length, other bytes."""
    with entry.path.open("r+b") as file:
        file.write(bytes(len(entry.content)))
    return await client.read_to_the_end()


async def unreadable(entry: Entry, client: RawClient, monkeypatch: pytest.MonkeyPatch) -> bytes:
    def broken(*_: object) -> int:
        raise CopyUnavailableError("Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("storage_plugins.local._move", broken)
        return await client.read_to_the_end()


async def stalled(entry: Entry, client: RawClient, _: pytest.MonkeyPatch) -> bytes:
    await client.ended()
    return await client.read_to_the_end()


async def reset(entry: Entry, client: RawClient, _: pytest.MonkeyPatch) -> bytes:
    client.reset()
    return b""


@pytest.mark.parametrize("fault", [truncated, overwritten, unreadable, stalled, reset])
async def test_after_a_fault_nothing_follows_on_its_connection_and_the_next_is_right(
    impatient: RunningGateway, sockets: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, fault: Break
) -> None:
    entry = await impatient.catalogue.file(LARGE)
    other = await impatient.catalogue.file(OTHER, item="other")
    for number in range(3):
        before = (await impatient.usage(SCIENTIST))[1]
        client = await RawClient.connect(impatient.url, sockets)
        await client.ask(entry.stac)
        await client.ask(other.stac)  # pipelined: waits for its turn
        received = await client.read(100_000 * (number + 1))
        received += await fault(entry, client, monkeypatch)
        [answer] = answers(received)
        assert answer.status == 200
        assert not answer.is_whole
        assert fault is overwritten or entry.content.startswith(answer.body)
        assert OTHER[:1000] not in answer.body
        charged = await settled_usage(impatient, before, len(LARGE))
        assert len(answer.body) <= charged <= len(answer.body) + most_in_socket_buffers()

        response, body = await impatient.get(other.stac, SCIENTIST)
        assert (response.status, body) == (200, OTHER)
        if fault in (truncated, overwritten):
            assert (await impatient.get(entry.stac, SCIENTIST))[0].status == 502
            break
        response, body = await impatient.get(entry.regards, SCIENTIST)
        assert (response.status, body) == (200, entry.content)


async def test_a_file_replaced_while_it_is_sent_is_sent_as_it_was(
    gateway: RunningGateway, sockets: contextlib.ExitStack
) -> None:
    """The descriptor is opened once: what was begun goes on with the old bytes; who comes later is refused."""
    entry = await gateway.catalogue.file(LARGE)
    other = await gateway.catalogue.file(OTHER, item="other")
    client = await RawClient.connect(gateway.url, sockets)
    await client.ask(entry.stac)
    await client.ask(other.stac)
    await client.ask(entry.stac, "Connection: close")
    received = await client.read(100_000)
    replace_on_disk(entry.path, bytes(len(LARGE)))
    first, second, third = answers(received + await client.read_to_the_end())
    assert (first.status, first.body) == (200, LARGE)
    assert (second.status, second.body) == (200, OTHER)
    assert third.status == 502


@pytest.mark.parametrize("reset", [False, True])
async def test_what_a_broken_client_is_charged_lies_between_what_it_got_and_what_left(
    gateway: RunningGateway, sockets: contextlib.ExitStack, reset: bool
) -> None:
    """Bytes charged: at least those received, at most those and what the kernel held for the client."""
    entry = await gateway.catalogue.file(LARGE)
    chance = random.Random(8)
    for _ in range(10):
        before = (await gateway.usage(SCIENTIST))[1]
        client = await RawClient.connect(gateway.url, sockets)
        await client.ask(entry.stac)
        [answer] = answers(await client.read(chance.randrange(1000, 8 * MEBIBYTE)))
        if reset:
            client.reset()
        else:
            client.connection.close()
        charged = await settled_usage(gateway, before, len(LARGE))
        assert len(answer.body) <= charged <= len(answer.body) + most_in_socket_buffers()


async def test_a_slow_client_that_takes_bytes_is_not_cut(
    impatient: RunningGateway, sockets: contextlib.ExitStack
) -> None:
    """The kernel says that a socket is writable only once a third of its buffer is free, megabytes of it."""
    entry = await impatient.catalogue.file(LARGE)
    client = await RawClient.connect(impatient.url, sockets)
    await client.ask(entry.stac, "Connection: close")
    received = await client.read(1000)
    until = asyncio.get_running_loop().time() + 4 * SEND_TIMEOUT
    while asyncio.get_running_loop().time() < until:
        received += await client.read(30_000)
        await asyncio.sleep(SEND_TIMEOUT / 5)
    received += await client.read_to_the_end()
    [answer] = answers(received)
    assert answer.body == LARGE


async def test_a_client_behind_a_stalled_network_is_cut_and_can_resume(impatient: RunningGateway) -> None:
    entry = await impatient.catalogue.file(LARGE)
    url, who = entry.regards, bearer(SCIENTIST)
    async with fault_proxy(impatient.url, [Fault(stall_after=1_000_000)]) as proxy:
        async with impatient.session.get(f"{proxy.url}{url}", headers=who) as response:
            start = await response.content.readexactly(900_000)
            started = asyncio.get_running_loop().time()
            assert await settled_usage(impatient, 0, len(LARGE)) >= len(start)
            assert asyncio.get_running_loop().time() - started < SEND_TIMEOUT + 2
        rest = {"Range": f"bytes={len(start)}-", "If-Range": response.headers["ETag"]}
        async with impatient.session.get(f"{proxy.url}{url}", headers=who | rest) as response:
            assert response.status == 206
            assert start + await response.read() == LARGE


@pytest.mark.parametrize("path", [None, NO_SUCH_ASSET])
async def test_a_client_that_never_reads_its_many_answers_is_cut(
    impatient: RunningGateway, sockets: contextlib.ExitStack, path: str | None
) -> None:
    """Nobody else ends what is not the sender's, too: such a pipeline held its connection for ever."""
    entry = await impatient.catalogue.file(LARGE[:SMALL_BYTES])
    client = await RawClient.connect(impatient.url, sockets)

    async def ask_until_cut() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await client.ask(path or entry.stac)

    await asyncio.wait_for(ask_until_cut(), SEND_TIMEOUT + 15)


@pytest.mark.parametrize("asked", [None, "bytes=1000-2999999", "bytes=-1", "bytes=0-99999,2000000-2000099"])
async def test_http_1_0_gets_a_length_and_no_chunks(
    gateway: RunningGateway, sockets: contextlib.ExitStack, asked: str | None
) -> None:
    """Without a length its end could not be told from a broken connection."""
    large = await gateway.catalogue.file(LARGE[: 3 * MEBIBYTE])
    small = await gateway.catalogue.file(OTHER[:100], item="small")
    for entry in (large, small):
        fields = [f"Range: {asked}"] if asked else []
        client = await RawClient.connect(gateway.url, sockets)
        await client.ask(entry.stac, *fields, version="HTTP/1.0")
        [old] = answers(await client.read_to_the_end())
        client = await RawClient.connect(gateway.url, sockets)
        await client.ask(entry.stac, *fields, "Connection: close")
        [new] = answers(await client.read_to_the_end())
        assert old.is_whole
        assert "transfer-encoding" not in old.fields
        assert (old.status, old.body) == (new.status, new.body)
        if asked is None:
            assert (old.status, old.body) == (200, entry.content)
        if entry is large and asked is not None:
            assert old.status == 206
            assert old.fields["content-type"].startswith("multipart/byteranges") == ("," in asked)


async def test_http_1_0_sees_a_broken_transfer(gateway: RunningGateway, sockets: contextlib.ExitStack) -> None:
    entry = await gateway.catalogue.file(LARGE)
    client = await RawClient.connect(gateway.url, sockets)
    await client.ask(entry.stac, version="HTTP/1.0")
    received = await client.read(100_000)
    [answer] = answers(received + await truncated(entry, client, pytest.MonkeyPatch()))
    assert not answer.is_whole
    assert LARGE.startswith(answer.body)


@pytest.fixture
async def beside_a_dead_mount(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RunningGateway, Catalogue, Path]]:
    """A gateway with a healthy storage and one that can hang; the catalogue and the root of the latter."""
    healthy, mount = tmp_path / "healthy", tmp_path / "mount"
    healthy.mkdir()
    mount.mkdir()
    monkeypatch.syspath_prepend(announce(tmp_path / "plugins"))
    storages = [
        {"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(healthy)},
        {"name": "mount", "plugin": PLUGIN, "tenants": ["*"], "root": str(mount), "threads": 4},
    ]
    config = config_for(database, redis_url, healthy, storage=storages, delivery={"storage_timeout": 2})
    async with running_gateway(config, healthy) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        try:
            yield running, Catalogue(running.catalogue.connection, mount), mount
        finally:
            come_back(mount)


async def test_a_dead_mount_stalls_only_itself(
    beside_a_dead_mount: tuple[RunningGateway, Catalogue, Path],
    sockets: contextlib.ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked of it ends by the deadline: a download that runs is cut, a new one gets 503 and costs nothing."""
    hop = 4 * 1024 * 1024
    monkeypatch.setattr("gateway.delivery.pump.HOP_BYTES", hop)
    gateway, mounted, mount = beside_a_dead_mount
    loop = asyncio.get_running_loop()
    entry = await gateway.catalogue.file(LARGE)
    running = await mounted.file(LARGE[::-1], item="running", storage="mount")
    others = [await mounted.file(bytes(100_000 + n), item=f"item-{n}", storage="mount") for n in range(12)]
    client = await RawClient.connect(gateway.url, sockets)
    await client.ask(running.stac)
    received = await client.read(100_000)
    hang(mount)
    rest = asyncio.create_task(client.read_to_the_end())
    refused = [asyncio.create_task(gateway.get(other.stac, SCIENTIST)) for other in others]
    started = loop.time()
    await asyncio.sleep(0.3)
    for _ in range(5):
        before = loop.time()
        assert (await gateway.get(entry.stac, SCIENTIST))[1] == LARGE
        assert (await gateway.get("/health"))[0].status == 200
        assert loop.time() - before < 1
    assert not any(task.done() for task in refused)
    assert {(await task)[0].status for task in refused} == {503}
    [cut] = answers(received + await rest)
    assert loop.time() - started < 2 + 2
    assert not cut.is_whole
    assert running.content.startswith(cut.body)
    charged = await settled_usage(gateway, 5 * len(LARGE), len(LARGE))
    # Of the healthy one five times its bytes, so three times; and the running one.
    assert (await gateway.usage(SCIENTIST))[0] == 3 + 1
    most = len(cut.body) + most_in_socket_buffers() + hop  # nobody knows what the thread that hangs has sent
    assert len(cut.body) <= charged <= most

    come_back(mount)
    for other in (*others, running):
        assert (await gateway.get(other.stac, SCIENTIST))[1] == other.content
