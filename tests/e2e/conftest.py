"""The demo as a user starts it, and real clients."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REQUIRE_CLIENTS = "GATEWAY_TEST_REQUIRE_CLIENTS"
"""Set where a missing client is a failure: in continuous integration."""

START_SECONDS = 45


@dataclasses.dataclass(frozen=True)
class Demo:
    """A running ``gateway demo``."""

    process: subprocess.Popen[bytes]
    listing: dict[str, Any]

    @property
    def files(self) -> list[dict[str, Any]]:
        """Those that are online."""
        return [file for file in self.listing["files"] if not file["nearline"]]

    @property
    def nearline(self) -> list[dict[str, Any]]:
        return [file for file in self.listing["files"] if file["nearline"]]

    def token(self, account: str) -> str:
        token: str = self.listing["tokens"][account]
        return token

    def bearer(self, account: str) -> str:
        return f"Authorization: Bearer {self.token(account)}"

    def data(self, *collections: str) -> list[dict[str, Any]]:
        return [file for file in self.files if file["data_type"] == "RAWDATA" and file["collection"] in collections]


@contextlib.contextmanager
def start_demo(directory: Path, *options: str) -> Iterator[Demo]:
    """Start ``gateway demo`` on a free port; it is told to stop at the end."""
    ready = directory / "ready.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", "--port", "0", "--ready-file", str(ready), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.fail(f"the demo ended: {process.stderr.read().decode()}")
            if time.monotonic() > deadline:
                pytest.fail("the demo did not start")
            time.sleep(0.05)
        yield Demo(process, json.loads(ready.read_text(encoding="utf-8")))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo shared by the tests of a module."""
    with start_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
def client(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs a real client in an empty directory, with nothing of the user's configuration."""

    def run(program: str, *arguments: str, seconds: float = 30) -> subprocess.CompletedProcess[bytes]:
        found = shutil.which(program)
        if found is None:
            if os.environ.get(REQUIRE_CLIENTS):
                pytest.fail(f"{program} is missing, and this run must have it")
            pytest.skip(f"{program} is not installed")
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [found, *arguments], cwd=tmp_path, env=environment, capture_output=True, timeout=seconds, check=False
        )

    return run
