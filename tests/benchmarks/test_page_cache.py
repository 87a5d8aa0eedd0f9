"""The page cache: what it holds of a file, and that it forgets."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.page_cache import NotColdError, make_cold, resident_bytes

PAGES = 300


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(PAGES * mmap.PAGESIZE - 5))
    return path


def on_tmpfs(path: Path) -> bool:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    above = [(target, kind) for _, target, kind, *_ in mounts if path.is_relative_to(target)]
    return max(above, key=lambda mount: len(mount[0]))[1] == "tmpfs"


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    path = Path(f"/dev/shm/benchmarks-test-{os.getpid()}")
    if not path.parent.is_dir():
        pytest.skip("there is no /dev/shm here")
    path.write_bytes(bytes(mmap.PAGESIZE))
    yield path
    path.unlink()


def test_a_file_just_written_is_in_memory(file: Path) -> None:
    assert resident_bytes(file) == PAGES * mmap.PAGESIZE


def test_a_cold_file_is_on_the_disk_alone_until_it_is_read(file: Path) -> None:
    if on_tmpfs(file):
        pytest.skip("temporary files lie in memory here")
    make_cold(file)
    assert resident_bytes(file) == 0
    assert len(file.read_bytes()) == PAGES * mmap.PAGESIZE - 5
    assert resident_bytes(file) == PAGES * mmap.PAGESIZE


def test_an_empty_file_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert resident_bytes(tmp_path / "empty") == 0
    make_cold(tmp_path / "empty")


def test_a_file_that_lies_in_memory_cannot_be_cold(shared_memory: Path) -> None:
    with pytest.raises(NotColdError, match=f"{mmap.PAGESIZE} bytes"):
        make_cold(shared_memory)
