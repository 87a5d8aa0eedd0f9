"""The programs that people take archives apart with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.clients import REQUIRE_CLIENTS

SECONDS = 300

TESTS = {
    "unzip": ("-tqq", "{archive}"),
    "7z": ("t", "-bd", "{archive}"),
    "bsdtar": ("-xOf", "{archive}"),
    "python": ("-c", "import sys, zipfile; sys.exit(zipfile.ZipFile(sys.argv[1]).testzip() is not None)", "{archive}"),
}
"""Read every byte of every member, and hold it against its CRC-32."""

EXTRACTS = {
    "unzip": ("-qq", "{archive}", "-d", "{directory}"),
    "7z": ("x", "-bd", "-o{directory}", "{archive}"),
    "bsdtar": ("-xf", "{archive}", "-C", "{directory}"),
    "python": ("-m", "zipfile", "-e", "{archive}", "{directory}"),
}


def program(name: str) -> str:
    """The path of a program; the test is skipped by its name, or fails, without it."""
    found = sys.executable if name == "python" else shutil.which(name)
    if found is None:
        if os.environ.get(REQUIRE_CLIENTS):
            pytest.fail(f"{name} is missing, and this run must have it")
        pytest.skip(f"{name} is not installed")
    return found


def run(name: str, options: tuple[str, ...], archive: Path, directory: Path = Path("/")) -> None:
    """Run a program, which must find nothing to say."""
    filled = [option.format(archive=archive, directory=directory) for option in options]
    done = subprocess.run(
        [program(name), *filled],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if name != "7z" else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        timeout=SECONDS,
        check=False,
    )
    said = done.stderr + (done.stdout or b"")
    assert done.returncode == 0, said[-2000:]
    assert b"arning" not in said, said[-2000:]
    if name != "7z":
        assert not done.stderr, done.stderr[-2000:]
