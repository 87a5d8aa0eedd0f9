"""Bytes that are passed on from a storage's socket are the right ones, all of them, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.delivery import splice as splice_module
from gateway.delivery.client import Client
from gateway.delivery.pace import Pace
from gateway.delivery.relay import relay
from gateway.delivery.splice import splice
from gateway.delivery.transfer import Transfer
from gateway.delivery.watch import ClientStalledError
from gateway.storage import CopyUnavailableError, Descriptor, Stat

MEBIBYTE = 1024 * 1024
BYTES = random.Random(5).randbytes(8 * MEBIBYTE)
PATIENT = Pace(send_timeout=5, min_rate=0, grace=0, storage_timeout=5)
HASTY = Pace(send_timeout=0.3, min_rate=0, grace=0, storage_timeout=5)

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="this system has no splice")


class Stream:
    """A stream whose socket is one end of a connection; a test holds the other one."""

    stat = Stat(len(BYTES), None, "1")

    def __init__(self, near: socket.socket) -> None:
        self._descriptor = Descriptor(os.dup(near.fileno()))
        self.taken = 0

    async def read(self) -> bytes:
        raise AssertionError("what has a socket is spliced, never read")

    def socket(self) -> Descriptor:
        return self._descriptor

    def took(self, count: int) -> None:
        self.taken += count

    def close(self) -> None:
        self._descriptor.close()


class Transport:
    """What `Watch` asks of a transport."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self._near if name == "socket" else None


class Wires:
    """A storage's end, a client's end, and what lies between."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.storage, upstream = self._pair(stack)
        downstream, self.client = self._pair(stack)
        self.stream = Stream(upstream)
        stack.callback(self.stream.close)
        self.peer = Descriptor(os.dup(downstream.fileno()))
        stack.callback(self.peer.close)
        self.transfer = Transfer(len(BYTES))
        self._transport = cast("Any", Transport(downstream))
        self.answering = self._client(PATIENT)

    def hurry(self) -> None:
        """From now on the client is soon given up on if it takes nothing."""
        self.answering = self._client(HASTY)

    def _client(self, pace: Pace) -> Client:
        return Client(self._transport, cast("Any", None), self.transfer, pace, allowance=None)

    async def splice(self, count: int = len(BYTES), *, storage_timeout: float = 5) -> int:
        return await splice(self.stream, count, self.peer, self.answering, storage_timeout=storage_timeout)

    async def give(self, content: bytes, *, end: bool = False) -> None:
        """Give ``content`` in pieces of every size."""
        loop, dice, offset = asyncio.get_running_loop(), random.Random(len(content)), 0
        while offset < len(content):
            piece = content[offset : offset + dice.choice([1, 100, 1448, 65536, 10 * MEBIBYTE])]
            await loop.sock_sendall(self.storage, piece)
            offset += len(piece)
            if dice.random() < 0.2:
                await asyncio.sleep(0.001)
        if end:
            self.storage.shutdown(socket.SHUT_WR)

    async def take(self, count: int = len(BYTES)) -> bytes:
        received = bytearray()
        while len(received) < count:
            received += await asyncio.get_running_loop().sock_recv(self.client, 300_000)
        return bytes(received)

    @staticmethod
    def _pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            one = stack.enter_context(socket.create_connection(server.getsockname()))
            other = stack.enter_context(server.accept()[0])
        one.setblocking(False)
        other.setblocking(False)
        return one, other


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=[4096, splice_module.PIPE_BYTES])
def pipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice_module, "PIPE_BYTES", request.param)


@pytest.fixture
async def wires(pipe: None, stack: contextlib.ExitStack) -> AsyncIterator[Wires]:
    before = set(Path("/proc/self/fd").iterdir())
    wires = Wires(stack)
    yield wires
    stack.close()
    assert set(Path("/proc/self/fd").iterdir()) <= before


async def test_all_bytes_arrive_and_no_more_are_taken(wires: Wires) -> None:
    given = asyncio.ensure_future(wires.give(BYTES + b"of the next answer"))
    received = asyncio.ensure_future(wires.take(len(BYTES)))
    assert await wires.splice() == len(BYTES)
    assert await received == BYTES
    await given
    assert (wires.transfer.sent, wires.stream.taken) == (len(BYTES), len(BYTES))
    assert os.read(wires.stream.socket().number, 100) == b"of the next answer"


async def test_a_storage_that_ends_early_is_an_error_after_what_came(wires: Wires) -> None:
    given = asyncio.ensure_future(wires.give(BYTES[: 3 * MEBIBYTE + 7], end=True))
    received = asyncio.ensure_future(wires.take(3 * MEBIBYTE + 7))
    with pytest.raises(CopyUnavailableError, match="bytes early"):
        await wires.splice()
    await given
    assert await received == BYTES[: 3 * MEBIBYTE + 7]
    assert wires.transfer.sent == 3 * MEBIBYTE + 7


async def test_a_storage_that_stalls_is_an_error_after_what_came(wires: Wires) -> None:
    await wires.give(BYTES[:1000])
    with pytest.raises(CopyUnavailableError, match="nothing for"):
        await wires.splice(storage_timeout=0.2)
    assert await wires.take(1000) == BYTES[:1000]
    assert wires.transfer.sent == 1000


async def test_a_storage_that_is_slow_but_goes_on_is_none(wires: Wires) -> None:
    async def give() -> None:
        for number in range(10):
            await asyncio.sleep(0.1)
            await asyncio.get_running_loop().sock_sendall(wires.storage, BYTES[number * 10 : number * 10 + 10])

    given = asyncio.ensure_future(give())
    assert await wires.splice(100, storage_timeout=0.6) == 100
    await given
    assert await wires.take(100) == BYTES[:100]


async def test_a_client_that_takes_nothing_is_an_error(wires: Wires) -> None:
    wires.hurry()
    given = asyncio.ensure_future(wires.give(BYTES * 3))
    with pytest.raises(ClientStalledError):
        await wires.splice(3 * len(BYTES))
    given.cancel()
    assert 0 < wires.transfer.sent < 3 * len(BYTES)


async def test_a_client_that_is_gone_is_an_error(wires: Wires) -> None:
    given = asyncio.ensure_future(wires.give(BYTES * 3))
    running = asyncio.ensure_future(wires.splice(3 * len(BYTES)))
    await wires.take(1000)
    wires.client.close()
    with pytest.raises(ConnectionError):
        await running
    given.cancel()


async def test_cancelled_it_leaves_nothing_behind(wires: Wires) -> None:
    await wires.give(BYTES[:1000])
    running = asyncio.ensure_future(wires.splice())
    await wires.take(1000)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    loop = asyncio.get_running_loop()
    assert not loop.remove_reader(wires.stream.socket().number)
    assert not loop.remove_writer(wires.peer.number)


async def test_where_a_socket_has_no_splice_nothing_is_moved(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(22, "Invalid argument")

    await wires.give(BYTES[:1000])
    monkeypatch.setattr(os, "splice", refuse)
    assert await wires.splice() == 0
    monkeypatch.delattr(os, "splice")
    assert await wires.splice() == 0
    assert (wires.transfer.sent, wires.stream.taken) == (0, 0)


class Decrypting:
    """A stream that has more at hand than its socket shows, as one that decrypts has."""

    stat = Stat(len(BYTES), None, "1")

    def __init__(self, stream: Stream, at_hand: bytes) -> None:
        self._stream = stream
        self._at_hand = at_hand

    def waits_on(self) -> Descriptor:
        return self._stream.socket()

    async def read(self) -> bytes:
        raise AssertionError("a relay takes what is at hand and waits on the socket, never in a read")

    def read_at_once(self) -> bytes:
        if self._at_hand:
            piece, self._at_hand = self._at_hand[:300_000], self._at_hand[300_000:]
            return piece
        try:
            piece = os.read(self._stream.socket().number, 300_000)
        except BlockingIOError:
            return b""
        if not piece:
            raise CopyUnavailableError("the connection ended bytes early")
        return piece

    def close(self) -> None:
        self._stream.close()


async def relayed(wires: Wires, at_hand: bytes, count: int, *, storage_timeout: float = 5) -> None:
    stream = Decrypting(wires.stream, at_hand)
    await relay(stream, count, wires.peer, wires.answering, storage_timeout=storage_timeout)


async def test_what_is_at_hand_is_relayed_though_the_socket_is_silent(wires: Wires) -> None:
    """Be it more than others have to wait for, or little."""
    await relayed(wires, BYTES[:1000], 1000, storage_timeout=2)
    assert await wires.take(1000) == BYTES[:1000]
    wires.transfer.sent = 0
    received = asyncio.ensure_future(wires.take(len(BYTES)))
    await relayed(wires, BYTES, len(BYTES), storage_timeout=2)
    assert await received == BYTES
    assert wires.transfer.sent == len(BYTES)


async def test_a_relay_tells_of_an_early_end_after_what_came(wires: Wires) -> None:
    given = asyncio.ensure_future(wires.give(BYTES[:3_000_007], end=True))
    received = asyncio.ensure_future(wires.take(3_000_007))
    with pytest.raises(CopyUnavailableError, match="bytes early"):
        await relayed(wires, b"", len(BYTES))
    await given
    assert await received == BYTES[:3_000_007]
    assert wires.transfer.sent == 3_000_007


async def test_a_relay_gives_up_on_a_stalled_storage_and_on_a_stalled_client(wires: Wires) -> None:
    await wires.give(BYTES[:1000])
    with pytest.raises(CopyUnavailableError, match="nothing for"):
        await relayed(wires, b"", len(BYTES), storage_timeout=0.2)
    assert await wires.take(1000) == BYTES[:1000]
    wires.hurry()
    with pytest.raises(ClientStalledError):
        await relayed(wires, BYTES * 3, 3 * len(BYTES))


async def test_a_relay_takes_no_more_than_it_asked_for(wires: Wires) -> None:
    with pytest.raises(CopyUnavailableError, match="more than"):
        await relayed(wires, BYTES[:1000], 999)
    assert wires.transfer.sent == 0
