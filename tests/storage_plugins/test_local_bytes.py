"""Bytes from files to memory and sockets, and descriptors that end neither too early nor never."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.storage import (
    CopyChangedError,
    CopyUnavailableError,
    Descriptor,
    OpenFile,
)
from storage_plugins.local import LocalStorage
from tests.storage_plugins.support import CONTENT, descriptors, until


class TestRead:
    @pytest.mark.parametrize(
        ("offset", "count"),
        [(0, 0), (0, 1), (0, len(CONTENT)), (0, len(CONTENT) + 1), (1, 1000), (len(CONTENT) - 1, 5), (len(CONTENT), 5)],
    )
    async def test_up_to_so_many_bytes(self, storage: LocalStorage, offset: int, count: int) -> None:
        with contextlib.closing(await storage.open("a/b/file")) as opened:
            assert await storage.read(opened, offset, count) == CONTENT[offset : offset + count]
            assert await storage.read(opened, 10**12, 5) == b""

    async def test_short_reads_of_the_kernel_are_joined(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        really = os.pread
        monkeypatch.setattr(os, "pread", lambda number, count, offset: really(number, min(count, 1000), offset))
        with contextlib.closing(await storage.open("a/b/file")) as opened:
            assert await storage.read(opened, 7, 10_500) == CONTENT[7:10_507]

    async def test_many_at_once_do_not_disturb_each_other(self, storage: LocalStorage) -> None:
        chance = random.Random(7)
        spans = [(chance.randrange(len(CONTENT)), chance.randrange(50_000)) for _ in range(200)]
        with contextlib.closing(await storage.open("a/b/file")) as opened:
            pieces = await asyncio.gather(*(storage.read(opened, *span) for span in spans))
        assert all(
            piece == CONTENT[offset : offset + count] for piece, (offset, count) in zip(pieces, spans, strict=True)
        )

    async def test_a_disk_that_fails_says_so(self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        with contextlib.closing(await storage.open("top")) as opened:
            monkeypatch.setattr(os, "pread", fail)
            with pytest.raises(CopyUnavailableError, match="Input/output error"):
                await storage.read(opened, 0, 3)


def no_sendfile(number: int) -> Callable[..., int]:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture(params=["sendfile", "EINVAL", "ENOSYS", "EOPNOTSUPP"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By sendfile, and as on a file system that has none."""
    if request.param != "sendfile":
        monkeypatch.setattr(os, "sendfile", no_sendfile(getattr(errno, request.param)))
    return str(request.param)


class TestSendfile:
    async def test_all_bytes_arrive_in_as_many_calls_as_the_socket_needs(
        self, storage: LocalStorage, pair: tuple[socket.socket, socket.socket], way: str
    ) -> None:
        sending, receiving = pair
        received = bytearray()
        target = Descriptor(os.dup(sending.fileno()))
        partial = 0
        start, count = 5, len(CONTENT) - 10
        with contextlib.closing(await storage.open("a/b/file")) as opened:
            sent = 0
            while sent < count:
                moved = await storage.sendfile(opened, start + sent, count - sent, target)
                partial += moved < count - sent
                sent += moved
                if moved == 0:
                    received += receiving.recv(1 << 20)
        target.close()
        sending.close()
        while piece := receiving.recv(1 << 20):
            received += piece
        assert partial > 1
        assert bytes(received) == CONTENT[start : start + count]

    async def test_a_full_socket_takes_nothing(
        self, storage: LocalStorage, pair: tuple[socket.socket, socket.socket], way: str
    ) -> None:
        sending = pair[0]
        with contextlib.suppress(BlockingIOError):
            while True:
                sending.send(b"x" * 65536)
        target = Descriptor(os.dup(sending.fileno()))
        with contextlib.closing(await storage.open("a/b/file")) as opened:
            assert await storage.sendfile(opened, 0, 1000, target) == 0
        target.close()

    async def test_nothing_asked_is_nothing_sent(
        self, storage: LocalStorage, pair: tuple[socket.socket, socket.socket], way: str
    ) -> None:
        target = Descriptor(os.dup(pair[0].fileno()))
        with contextlib.closing(await storage.open("top")) as opened:
            assert await storage.sendfile(opened, 0, 0, target) == 0
            assert await storage.sendfile(opened, 100, 0, target) == 0
        target.close()

    async def test_a_file_that_ends_early_was_changed(
        self, storage: LocalStorage, root: Path, pair: tuple[socket.socket, socket.socket], way: str
    ) -> None:
        sending, receiving = pair
        target = Descriptor(os.dup(sending.fileno()))
        with contextlib.closing(await storage.open("top")) as opened:
            assert await storage.sendfile(opened, 1, 100, target) == 2
            assert receiving.recv(100) == b"op"
            for offset in (3, 4, 10**9):
                with pytest.raises(CopyChangedError, match=f"byte {offset}"):
                    await storage.sendfile(opened, offset, 1, target)
            os.truncate(root / "top", 1)
            with pytest.raises(CopyChangedError):
                await storage.sendfile(opened, 1, 2, target)
        target.close()

    async def test_a_peer_that_is_gone(
        self, storage: LocalStorage, pair: tuple[socket.socket, socket.socket], way: str
    ) -> None:
        sending, receiving = pair
        receiving.close()
        target = Descriptor(os.dup(sending.fileno()))
        with contextlib.closing(await storage.open("a/b/file")) as opened, pytest.raises(ConnectionError):
            await storage.sendfile(opened, 0, 1000, target)
        target.close()

    @pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOTCONN])
    async def test_a_network_that_is_gone_is_a_peer_that_is_gone(
        self,
        storage: LocalStorage,
        pair: tuple[socket.socket, socket.socket],
        monkeypatch: pytest.MonkeyPatch,
        number: int,
    ) -> None:
        monkeypatch.setattr(os, "sendfile", no_sendfile(number))
        target = Descriptor(os.dup(pair[0].fileno()))
        with contextlib.closing(await storage.open("top")) as opened, pytest.raises(ConnectionError):
            await storage.sendfile(opened, 0, 3, target)
        target.close()

    async def test_a_disk_that_fails_says_so_after_what_was_sent(
        self, storage: LocalStorage, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        really = os.sendfile

        def fail_later(target: int, number: int, offset: int, count: int) -> int:
            if offset >= 1000:
                raise OSError(errno.EIO, "Input/output error")
            return really(target, number, offset, min(count, 500))

        monkeypatch.setattr(os, "sendfile", fail_later)
        target = Descriptor(os.dup(pair[0].fileno()))
        with contextlib.closing(await storage.open("a/b/file")) as opened:
            assert await storage.sendfile(opened, 0, 5000, target) == 1000
            with pytest.raises(CopyUnavailableError, match="Input/output error"):
                await storage.sendfile(opened, 1000, 4000, target)
        target.close()


class TestDescriptor:
    async def test_it_closes_once(self) -> None:
        number = os.dup(0)
        descriptor = Descriptor(number)
        descriptor.close()
        assert number not in descriptors()
        again = os.dup(0)
        assert again == number
        descriptor.close()
        assert again in descriptors()
        os.close(again)

    async def test_it_closes_after_its_last_use(self) -> None:
        loop = asyncio.get_running_loop()
        descriptor = Descriptor(os.dup(0))
        uses = [loop.create_future() for _ in range(4)]
        for use in uses:
            descriptor.held_by(use)
        uses[0].set_result(None)
        await asyncio.sleep(0)
        descriptor.close()
        descriptor.close()
        uses[1].cancel()
        uses[2].set_exception(OSError("read failed"))
        await asyncio.sleep(0)
        assert descriptor.number in descriptors()
        uses[3].set_result(None)
        await asyncio.sleep(0)
        assert descriptor.number not in descriptors()
        assert isinstance(uses[2].exception(), OSError)

    async def test_its_number_is_not_given_away_while_a_thread_sends(
        self, storage: LocalStorage, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Were file or socket closed under the thread, the bytes of another file would go to another client."""
        started, proceed = threading.Event(), threading.Event()
        really = os.sendfile

        def slowly(target: int, number: int, offset: int, count: int) -> int:
            started.set()
            proceed.wait(5)
            return really(target, number, offset, count)

        monkeypatch.setattr(os, "sendfile", slowly)
        sending, receiving = pair
        opened, target = await storage.open("top"), Descriptor(os.dup(sending.fileno()))
        task = asyncio.create_task(storage.sendfile(opened, 0, 3, target))
        await asyncio.to_thread(started.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        opened.close()
        target.close()
        others: list[OpenFile] = [await storage.open("a/b/file") for _ in range(5)]
        taken = {other.descriptor.number for other in others}
        assert not taken & {opened.descriptor.number, target.number}
        proceed.set()
        await until(lambda: not {opened.descriptor.number, target.number} & descriptors())
        assert receiving.recv(100) == b"top"
        for other in others:
            other.close()


class TestCancellation:
    async def test_an_open_that_is_cancelled_leaks_no_descriptor(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "_cached_open", None)
        before = descriptors()
        started, proceed, ended = threading.Event(), threading.Event(), threading.Event()
        really = storage._open

        def slowly(location: str, offset: int, count: int) -> object:
            started.set()
            proceed.wait(5)
            try:
                return really(location, offset, count)
            finally:
                ended.set()

        monkeypatch.setattr(storage, "_open", slowly)
        for location in ("top", "absent"):
            for event in (started, proceed, ended):
                event.clear()
            task = asyncio.create_task(storage.open(location))
            await asyncio.to_thread(started.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proceed.set()
            await asyncio.to_thread(ended.wait, 5)
            await until(lambda: descriptors() == before)

    async def test_opens_that_are_cancelled_at_any_moment_leak_no_descriptor(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "_cached_open", None)
        opened = await storage.open("top")
        opened.close()
        before = descriptors()
        chance = random.Random(6)
        outcomes = set()
        for _ in range(300):
            task = asyncio.create_task(storage.open("a/b/file"))
            await asyncio.sleep(chance.choice([0, 0, 0.00005, 0.0002, 0.001]))
            task.cancel()
            try:
                (await task).close()
                outcomes.add("opened")
            except asyncio.CancelledError:
                outcomes.add("cancelled")
        assert outcomes == {"opened", "cancelled"}
        await until(lambda: descriptors() == before)

    async def test_a_read_that_is_cancelled_keeps_the_descriptor_until_its_thread_is_done(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = await storage.open("top")
        number = opened.descriptor.number
        started, proceed = threading.Event(), threading.Event()
        really = os.pread

        def slowly(number: int, count: int, offset: int) -> bytes:
            started.set()
            proceed.wait(5)
            return really(number, count, offset)

        monkeypatch.setattr(os, "pread", slowly)
        task = asyncio.create_task(storage.read(opened, 0, 3))
        await asyncio.to_thread(started.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        opened.close()
        assert number in descriptors()
        proceed.set()
        await until(lambda: number not in descriptors())


async def test_a_disk_that_hangs_stalls_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, other = LocalStorage("hanging", root, threads=2), LocalStorage("other", root, threads=2)
    release = threading.Event()
    monkeypatch.setattr(hanging, "_open", lambda location: release.wait(10) and None)
    stuck = [asyncio.ensure_future(hanging.stat("top")) for _ in range(5)]
    async with asyncio.timeout(2):
        assert (await other.stat("top")).size == 3
        for task in stuck:
            task.cancel()
        await hanging.close()
        await other.close()
    release.set()
    await asyncio.gather(*stuck, return_exceptions=True)
