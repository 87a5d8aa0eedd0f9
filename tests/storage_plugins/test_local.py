"""Files below a root and nothing else, whatever lies there and whoever moves it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import storage_plugins.local
from gateway.errors import ConfigurationError
from gateway.locations import load_plugin
from gateway.storage import (
    CanStat,
    CopyNotFoundError,
    CopyUnavailableError,
    OnDisk,
    StorageError,
)
from storage_plugins.local import LocalStorage
from tests.storage_plugins.support import CONTENT, descriptors

SWAPS = 2000 if os.environ.get("GATEWAY_TEST_FULL") else 500


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
            (
                {"root": "/", "rot": "/", "Root": "/"},
                "Root, rot: no such option of plug-in 'local' (root, threads, scratch)",
            ),
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
        monkeypatch.setattr(storage, "_cached_open", None)
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
        directory, aside, swaps = root / "a", root / "aside", SWAPS
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
