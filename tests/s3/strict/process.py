"""Starts the server as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.s3.account import Account

ROOT = Path(__file__).parents[3]
STOP_SECONDS = 10.0


@contextlib.contextmanager
def strict_process(sizes: Mapping[str, int]) -> Iterator[Account]:
    """Run a server with an object for each ``BUCKET/KEY``; it ends with the block, and with this process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.s3.strict", *(f"{place}={size}" for place, size in sizes.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Account(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
