"""Files below a root and nothing else, whatever lies there and whoever moves it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import fcntl
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import storage_plugins.local
from gateway.errors import ConfigurationError
from gateway.storage import (
    CanStat,
    CopyChangedError,
    CopyNotFoundError,
    CopyUnavailableError,
    Descriptor,
    OnDisk,
    OpenFile,
    StorageError,
    load_plugin,
)
from storage_plugins.local import LocalStorage

CONTENT = random.Random(5).randbytes(3 * 1024 * 1024 + 11)
OUTSIDE = b"not for you"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``root`` with ``a/b/file`` and ``top``; ``outside`` beside it."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(CONTENT)
    (root / "top").write_bytes(b"top")
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "file").write_bytes(OUTSIDE)
    return root


@pytest.fixture
async def storage(root: Path) -> AsyncIterator[LocalStorage]:
    storage = LocalStorage("disk", root)
    yield storage
    await storage.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A non-blocking sending end and a receiving end."""
    sending, receiving = socket.socketpair()
    sending.setblocking(False)
    with sending, receiving:
        yield sending, receiving


def descriptors() -> set[int]:
    """The numbers that are open, without that of the listing itself."""
    return {number for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()] if is_open(number)}


def is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


class TestOptions:
    def test_the_plugin_is_announced_and_has_both_capabilities(self, root: Path) -> None:
        storage = load_plugin("local").from_options("disk", {"root": str(root)})
        assert isinstance(storage, LocalStorage)
        assert isinstance(storage, CanStat)
        assert isinstance(storage, OnDisk)
        assert (storage.name, storage.root) == ("disk", root)

    @pytest.mark.parametrize("threads", [1, 16, 1024])
    def test_threads(self, root: Path, threads: int) -> None:
        LocalStorage.from_options("disk", {"root": str(root), "threads": threads})

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({}, "root: must be the absolute path"),
            ({"root": 5}, "root: must be the absolute path"),
            ({"root": ""}, "root: must be the absolute path"),
            ({"root": "data"}, "root: must be the absolute path"),
            ({"root": "~/data"}, "root: must be the absolute path"),
            ({"root": "/absent/directory"}, "root: /absent/directory is not a directory"),
            ({"root": "/dev/null"}, "root: /dev/null is not a directory"),
            ({"root": "/a\0b"}, "root: "),
            ({"root": "/", "threads": 0}, "threads: must be a number from 1 to 1024"),
            ({"root": "/", "threads": 1025}, "threads: must be a number from 1 to 1024"),
            ({"root": "/", "threads": "4"}, "threads: must be a number from 1 to 1024"),
            ({"root": "/", "threads": True}, "threads: must be a number from 1 to 1024"),
            ({"root": "/", "threads": 1.5}, "threads: must be a number from 1 to 1024"),
            ({"root": "/", "rot": "/", "Root": "/"}, "Root, rot: no such option of plug-in 'local' (root, threads)"),
        ],
    )
    def test_what_is_wrong_is_named(self, options: dict[str, object], complaint: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            LocalStorage.from_options("disk", options)
        assert str(caught.value).startswith(complaint)


class TestLocate:
    @pytest.mark.parametrize(
        ("href", "location"),
        [
            ("{root}/a/b/file", "a/b/file"),
            ("{root}/not/there", "not/there"),
            ("{root}//a///b/", "a/b"),
            ("{root}/a/./b/../c", "a/c"),
            ("{root}/a%20b", "a%20b"),
            ("{root}/a b?c#d", "a b?c#d"),
            ("{root}/Île 北京", "Île 北京"),
            ("file://{root}/a/b/file", "a/b/file"),
            ("file://localhost{root}/a", "a"),
            ("file://LOCALHOST{root}/a", "a"),
            ("FILE://{root}/a", "a"),
            ("file:{root}/a", "a"),
            ("file://{root}/a%20b%3Fc%23d", "a b?c#d"),
            ("file://{root}/%C3%8Ele%20%E5%8C%97", "Île 北"),
            ("file://{root}/%25", "%"),
            ("file://{root}/a/%2E%2E/c", "c"),
            ("{root}", None),
            ("{root}/", None),
            ("{root}/a/..", None),
            ("file://{root}", None),
            ("{root}/..", None),
            ("{root}/../outside/b/file", None),
            ("{root}/a/../../outside/b/file", None),
            ("file://{root}/..%2Foutside/b/file", None),
            ("file://{root}/%2e%2e/outside/b/file", None),
            ("{root}2/file", None),
            ("{root}.file", None),
            ("/", None),
            ("/etc/passwd", None),
            ("file:///etc/passwd", None),
            ("file://elsewhere{root}/a", None),
            ("file://localhost:80{root}/a", None),
            ("file://[{root}/a", None),
            ("file://a\u2100b{root}/a", None),
            ("file:a/b/file", None),
            ("file:", None),
            ("a/b/file", None),
            ("./a", None),
            ("", None),
            ("s3://bucket{root}/a", None),
            ("https://host{root}/a", None),
            (" {root}/a", None),
        ],
    )
    def test_only_what_lies_below_the_root(self, storage: LocalStorage, href: str, location: str | None) -> None:
        assert storage.locate(href.format(root=storage.root)) == location

    async def test_a_root_that_is_a_link_goes_by_both_names(self, root: Path) -> None:
        link = root.parent / "link"
        link.symlink_to(root)
        storage = LocalStorage("disk", link)
        assert storage.locate(f"{link}/a/b/file") == storage.locate(f"{root}/a/b/file") == "a/b/file"
        assert storage.locate(f"{root}/../outside") is None
        opened = await storage.open("top")
        opened.close()
        await storage.close()

    def test_of_two_names_the_configured_one_goes_first(self, root: Path) -> None:
        """The link lies below what it leads to; by its other name the file would lie behind a link, out of reach."""
        (root / "here").symlink_to(root)
        assert LocalStorage("disk", root / "here").locate(f"{root}/here/top") == "top"

    @given(st.text(st.characters(codec="utf-8")), st.booleans(), st.booleans())
    def test_any_href_gives_a_path_below_or_nothing(self, tail: str, below: bool, as_url: bool) -> None:
        storage = LocalStorage("disk", Path("/data/archive"))
        href = ("file://" if as_url else "") + ("/data/archive/" if below else "") + tail
        location = storage.locate(href)
        if location is not None:
            assert location
            assert not location.startswith("/")
            assert not set(location.split("/")) & {"", ".", ".."}


def make_link(root: Path) -> str:
    (root / "link").symlink_to("top")
    return "link"


def make_link_outside(root: Path) -> str:
    (root / "link").symlink_to(root.parent / "outside" / "b" / "file")
    return "link"


def make_linked_directory(root: Path) -> str:
    (root / "a" / "link").symlink_to("b")
    return "a/link/file"


def make_linked_directory_outside(root: Path) -> str:
    (root / "link").symlink_to(root.parent / "outside")
    return "link/b/file"


def make_link_to_itself(root: Path) -> str:
    (root / "link").symlink_to("link")
    return "link"


def make_dangling_link(root: Path) -> str:
    (root / "link").symlink_to("absent")
    return "link"


def make_pipe(root: Path) -> str:
    os.mkfifo(root / "pipe")
    return "pipe"


def make_socket(root: Path) -> str:
    here = Path.cwd()
    os.chdir(root)  # the path of a socket is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket")
    finally:
        os.chdir(here)
    return "socket"


NEVER_SERVED: dict[str, Callable[[Path], str]] = {
    "linked file": make_link,
    "file linked from outside": make_link_outside,
    "linked directory within": make_linked_directory,
    "directory linked from outside": make_linked_directory_outside,
    "link to itself": make_link_to_itself,
    "dangling link": make_dangling_link,
    "pipe": make_pipe,
    "unix socket": make_socket,
    "directory": lambda root: "a",
    "directory with a slash": lambda root: "a/",
    "absent": lambda root: "absent",
    "absent directory": lambda root: "absent/file",
    "below a file": lambda root: "top/file",
    "dot dot": lambda root: "../outside/b/file",
    "dot dot within": lambda root: "a/../top",
    "dot dot alone": lambda root: "..",
    "dot": lambda root: ".",
    "dot within": lambda root: "a/./b/file",
    "absolute": lambda root: f"{root}/top",
    "absolute and outside": lambda root: f"{root.parent}/outside/b/file",
    "empty": lambda root: "",
    "empty part": lambda root: "a//b/file",
    "slash": lambda root: "/",
    "slash at the end": lambda root: "top/",
    "NUL": lambda root: "top\0",
    "NUL within": lambda root: "a\0/b/file",
    "lone surrogate": lambda root: "top\ud800",
    "surrogate of a byte": lambda root: "top\udcff",
    "a name of 300 bytes": lambda root: "n" * 300,
    "a directory of 300 bytes": lambda root: f"{'n' * 300}/file",
    "a path of 5000 bytes": lambda root: "n/" * 2500 + "file",
    "back slashes": lambda root: "a\\b\\file",
}


class TestOpen:
    @pytest.mark.parametrize("name", NEVER_SERVED)
    async def test_what_is_no_regular_file_below_is_never_served(
        self, storage: LocalStorage, root: Path, name: str
    ) -> None:
        location = NEVER_SERVED[name](root)
        before = descriptors()
        async with asyncio.timeout(5):
            for call in (storage.open, storage.stat):
                with pytest.raises(CopyNotFoundError):
                    await call(location)
        assert descriptors() == before

    @pytest.mark.parametrize("location", ["null", "zero", "tty", "fd/0", "shm"])
    async def test_a_device_is_never_served(self, location: str) -> None:
        storage = LocalStorage("devices", Path("/dev"))
        with pytest.raises(CopyNotFoundError):
            await storage.open(location)
        await storage.close()

    async def test_a_file_is_opened_and_described(self, storage: LocalStorage, root: Path) -> None:
        before = descriptors()
        with contextlib.closing(await storage.open("a/b/file")) as opened:
            found = os.fstat(opened.descriptor.number)
            assert (found.st_ino, found.st_size) == ((root / "a/b/file").stat().st_ino, len(CONTENT))
            assert not os.get_inheritable(opened.descriptor.number)
            assert opened.stat == await storage.stat("a/b/file")
            assert opened.stat.size == len(CONTENT)
            assert opened.stat.modified is not None
            assert opened.stat.modified.tzinfo is datetime.UTC
            assert abs(opened.stat.modified.timestamp() - found.st_mtime) < 1e-5
            assert len(descriptors() - before) == 1
        assert descriptors() == before

    async def test_an_empty_file_and_odd_names_are_served(self, storage: LocalStorage, root: Path) -> None:
        for name in ("empty", "...", "..a", "-", " ", "a b?c#d%20", "Île 北京", "new\nline", "n" * 255):
            (root / name).write_bytes(b"")
            with contextlib.closing(await storage.open(name)) as opened:
                assert opened.stat.size == 0
                assert await storage.read(opened, 0, 10) == b""

    async def test_a_disk_that_fails_is_not_a_file_that_is_missing(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ETIMEDOUT):

            def fail(*_: object, number: int = number, **__: object) -> int:
                raise OSError(number, os.strerror(number))

            with monkeypatch.context() as patch:
                patch.setattr(os, "open", fail)
                with pytest.raises(CopyUnavailableError, match=os.strerror(number)):
                    await storage.open("top")
        with contextlib.closing(await storage.open("top")):
            pass

    async def test_a_root_that_went_away_is_missing(self, root: Path, tmp_path: Path) -> None:
        storage = LocalStorage("disk", tmp_path / "absent")
        with pytest.raises(StorageError):
            await storage.open("top")
        await storage.close()

    async def test_nothing_outside_is_read_while_a_directory_is_swapped_for_a_link(self, root: Path) -> None:
        directory, aside, swaps = root / "a", root / "aside", 2000
        (root / "a" / "b" / "file").write_bytes(b"inside")
        done = threading.Event()

        def swap() -> None:
            for _ in range(swaps):
                directory.rename(aside)
                directory.symlink_to(root.parent / "outside")
                directory.unlink()
                aside.rename(directory)
            done.set()

        storage = LocalStorage("disk", root, threads=2)
        seen: dict[bytes, int] = {}
        thread = threading.Thread(target=swap)
        thread.start()
        try:
            while not done.is_set():
                try:
                    opened = await storage.open("a/b/file")
                except CopyNotFoundError:
                    seen[b""] = seen.get(b"", 0) + 1
                    continue
                with contextlib.closing(opened):
                    content = await storage.read(opened, 0, 100)
                seen[content] = seen.get(content, 0) + 1
        finally:
            thread.join()
            await storage.close()
        assert set(seen) <= {b"", b"inside"}
        assert min(seen.get(b"", 0), seen.get(b"inside", 0)) > 0, seen


class TestCancellation:
    async def test_an_open_that_is_cancelled_leaks_no_descriptor(
        self, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = descriptors()
        started, proceed, ended = threading.Event(), threading.Event(), threading.Event()
        really = storage._open

        def slowly(location: str) -> object:
            started.set()
            proceed.wait(5)
            try:
                return really(location)
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
            await _until(lambda: descriptors() == before)

    async def test_opens_that_are_cancelled_at_any_moment_leak_no_descriptor(self, storage: LocalStorage) -> None:
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
        await _until(lambda: descriptors() == before)

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
        await _until(lambda: number not in descriptors())


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


class TestVersion:
    async def test_it_stays_while_nothing_changes(self, storage: LocalStorage, root: Path) -> None:
        first = await storage.stat("top")
        (root / "top").read_bytes()
        (root / "top").rename(root / "moved")
        assert await storage.stat("moved") == first

    async def test_it_changes_with_time_size_and_inode(self, storage: LocalStorage, root: Path) -> None:
        file = root / "top"
        os.utime(file, ns=(0, 1_000_000_000_000_000_000))
        versions = [await storage.stat("top")]
        os.utime(file, ns=(0, 1_000_000_000_000_000_001))
        versions.append(await storage.stat("top"))
        file.write_bytes(b"top2")
        os.utime(file, ns=(0, 1_000_000_000_000_000_001))
        versions.append(await storage.stat("top"))
        (root / "new").write_bytes(b"pot2")
        os.utime(root / "new", ns=(0, 1_000_000_000_000_000_001))
        (root / "new").rename(file)
        versions.append(await storage.stat("top"))
        assert len({stat.version for stat in versions}) == len(versions)
        assert all(stat.version for stat in versions)

    async def test_what_was_opened_is_described_not_what_came_after(self, storage: LocalStorage, root: Path) -> None:
        opened = await storage.open("top")
        (root / "new").write_bytes(b"other and longer")
        (root / "new").rename(root / "top")
        assert opened.stat.size == 3
        assert await storage.read(opened, 0, 100) == b"top"
        assert opened.stat.version != (await storage.stat("top")).version
        opened.close()

    @pytest.mark.parametrize(
        "seconds", [-1, -(2**31), -(2**33), 2**32, 2**34, 253402300799, 253402300800, 2**33 * 1000]
    )
    async def test_absurd_times_break_nothing(self, storage: LocalStorage, root: Path, seconds: int) -> None:
        # A file system may keep another time than it was given: what it says then must be told.
        with contextlib.suppress(OverflowError):
            os.utime(root / "top", ns=(0, seconds * 10**9 + 123))
        found = await storage.stat("top")
        kept = (root / "top").stat().st_mtime_ns // 10**9
        if found.modified is None:
            assert kept > 253402300799 or kept < -62135596800
        else:
            assert found.modified == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
                seconds=kept
            )

    @pytest.mark.parametrize(
        ("nanoseconds", "modified"),
        [
            (-1, datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, datetime.UTC)),
            (253402300799_999999999, datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, datetime.UTC)),
            (253402300800_000000000, None),
            (2**63 - 1, datetime.datetime(2262, 4, 11, 23, 47, 16, 854775, datetime.UTC)),
            (10**30, None),
            (-(10**30), None),
        ],
    )
    def test_a_time_that_no_calendar_has_is_none(
        self, root: Path, nanoseconds: int, modified: datetime.datetime | None
    ) -> None:
        real = (root / "top").stat()
        found = os.stat_result((*real[:8], 0, 0), {"st_mtime_ns": nanoseconds})
        described = storage_plugins.local._describe(found)
        assert described.modified == modified
        assert described.version


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
        await _until(lambda: not {opened.descriptor.number, target.number} & descriptors())
        assert receiving.recv(100) == b"top"
        for other in others:
            other.close()


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
