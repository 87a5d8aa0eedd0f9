"""Files that are in memory are opened without a thread; whatever else there is to say is said as ever."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.storage import CopyNotFoundError, StorageError
from storage_plugins import cached_open
from storage_plugins.cached_open import LOCAL_TYPES, type_of_mount
from storage_plugins.local import LocalStorage
from tests.storage_plugins.support import CONTENT, descriptors

FLAGS = os.O_RDONLY | os.O_CLOEXEC


@pytest.fixture
def opening(root: Path) -> cached_open.Open:
    found = cached_open.cached_open(root)
    if found is None:
        pytest.skip("needs Linux 5.12, and a temporary directory on a file system of this machine alone")
    return found


@pytest.fixture
def threads(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The locations that were opened in a thread."""
    asked: list[str] = []
    really = storage._open

    def noted(location: str, offset: int, count: int) -> object:
        asked.append(location)
        return really(location, offset, count)

    monkeypatch.setattr(storage, "_open", noted)
    return asked


@pytest.mark.usefixtures("opening")
async def test_what_is_in_memory_is_opened_and_read_without_a_thread(storage: LocalStorage, threads: list[str]) -> None:
    expected = await storage.stat("a/b/file")
    threads.clear()
    for offset, count in ((0, 0), (0, len(CONTENT)), (3, 5)):
        with contextlib.closing(await storage.open("a/b/file", offset, count)) as opened:
            assert (opened.stat, opened.head) == (expected, CONTENT[offset : offset + count])
            assert await storage.read(opened, 0, 10) == CONTENT[:10]
    assert threads == []


@pytest.mark.usefixtures("opening")
async def test_what_is_not_in_memory_is_read_in_a_thread(root: Path, storage: LocalStorage, threads: list[str]) -> None:
    with (root / "top").open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with contextlib.closing(await storage.open("top", 0, 3)) as opened:
        assert opened.head == b"top"
    # Some file systems keep what they hold in memory, whatever they are told.
    assert threads in (["top"], [])


def test_neither_links_nor_what_is_outside_nor_what_is_not_there_is_opened(
    root: Path, opening: cached_open.Open
) -> None:
    (root / "to-outside").symlink_to(root.parent / "outside")
    (root / "to-inside").symlink_to(root / "a")
    (root / "file-link").symlink_to("top")
    before = descriptors()
    for path in (
        "to-outside/b/file",
        "to-inside/b/file",
        "file-link",
        "../outside/b/file",
        "a/../../outside/b/file",
        str(root.parent / "outside" / "b" / "file"),
        "absent",
        "top/below",
        "",
        "x" * 300,
    ):
        assert opening(path, FLAGS) is None, path
    assert descriptors() == before


def test_no_mount_is_entered(root: Path, opening: cached_open.Open) -> None:
    """It may be a network's."""
    with _mounted(root / "a"):
        assert (root / "a" / "inside").exists()
        assert opening("a/inside", FLAGS) is None


@pytest.mark.usefixtures("opening")
@pytest.mark.parametrize("location", ["top\0", "a\0/b/file", "", ".", "a//b/file", "a/./b/file", "../root/top", "/top"])
async def test_a_location_that_is_no_path_below_the_root_is_missing(storage: LocalStorage, location: str) -> None:
    with pytest.raises(CopyNotFoundError):
        await storage.open(location)


@pytest.mark.usefixtures("opening")
async def test_what_is_no_regular_file_is_missing_and_leaks_nothing(root: Path, storage: LocalStorage) -> None:
    os.mkfifo(root / "pipe")
    before = descriptors()
    for location in ("a", "pipe", "a/b"):
        with pytest.raises(StorageError):
            await storage.open(location, 0, 10)
    assert descriptors() == before


@pytest.mark.usefixtures("opening")
async def test_less_than_was_asked_for_is_a_matter_for_a_thread(storage: LocalStorage, threads: list[str]) -> None:
    with contextlib.closing(await storage.open("top", 0, 10)) as opened:
        assert opened.head == b"top"
    assert threads == ["top"]


async def test_a_root_on_another_kind_of_file_system_has_threads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_open, "LOCAL_TYPES", frozenset({"other"}))
    assert cached_open.cached_open(root) is None
    assert cached_open.cached_open(root / "absent") is None


MOUNTS = """\
22 1 0:21 / /proc rw,relatime shared:5 - proc proc rw
27 1 {device} / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw
36 27 0:99 / /srv/nfs\\040share rw - nfs4 server:/export rw
"""


def test_the_type_of_a_file_system_is_that_of_its_device(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    lines = MOUNTS.format(device=f"{os.major(device)}:{os.minor(device)}").splitlines()
    assert type_of_mount(tmp_path, lines) == "ext4"
    assert type_of_mount(tmp_path, lines[:1]) is None
    assert {"nfs4", "fuse.sshfs", "overlay", "cifs"}.isdisjoint(LOCAL_TYPES)


@contextlib.contextmanager
def _mounted(place: Path) -> Iterator[None]:
    """A file system of its own at ``place``, with a file ``inside``."""
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", place], check=False).returncode:
        pytest.skip("needs to mount")
    try:
        (place / "inside").write_bytes(b"inside")
        yield
    finally:
        subprocess.run(["umount", place], check=True)
