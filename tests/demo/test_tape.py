"""The demo's tape robot."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.demo.tape import answer

DELAY = datetime.timedelta(seconds=5)
NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def ask(folder: Path, action: str, location: str = "a/b.tif", seconds: float = 0) -> Any:
    request = {"version": 1, "action": action, "copies": [{"key": "7", "location": location}]}
    found: Any = answer(folder, DELAY, request, NOW + datetime.timedelta(seconds=seconds))
    return found["copies"][0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tape/a").mkdir(parents=True)
    (tmp_path / "tape/a/b.tif").write_bytes(b"scene")
    return tmp_path / "tape"


def test_a_file_comes_after_a_moment_and_goes_when_it_is_released(folder: Path) -> None:
    assert ask(folder, "query") == {"key": "7", "state": "NEARLINE"}
    ready = (NOW + DELAY).isoformat()
    assert ask(folder, "stage") == {"key": "7", "state": "STAGING", "ready": ready}
    assert ask(folder, "stage", seconds=3) == {"key": "7", "state": "STAGING", "ready": ready}
    assert ask(folder, "query", seconds=4.9)["state"] == "STAGING"
    assert ask(folder, "query", seconds=5) == {"key": "7", "state": "ONLINE"}
    assert ask(folder, "release", seconds=6)["state"] == "NEARLINE"
    assert ask(folder, "query", seconds=7)["state"] == "NEARLINE"


def test_what_is_not_there_is_lost(folder: Path) -> None:
    assert ask(folder, "stage", "a/c.tif")["state"] == "LOST"


def test_nothing_outside_the_tape_is_looked_at(folder: Path) -> None:
    with pytest.raises(ValueError, match="not on this tape"):
        ask(folder, "query", "../../etc/passwd")


def test_it_is_a_program_that_writes_the_bytes(folder: Path) -> None:
    target = folder.parent / "target"
    copy = {"key": "7", "location": "a/b.tif"}
    request = {"version": 1, "action": "fetch", "copies": [copy], "target": str(target)}
    done = subprocess.run(
        [sys.executable, "-m", "gateway.demo.tape", str(folder), "5"],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stdout) == {"copies": []}
    assert target.read_bytes() == b"scene"
