"""This process' side of a supervisor: started, asked for its one line of report, ended; and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from gateway.embedded.directory import remove

START_TIMEOUT = 35.0
"""Seconds until a start is given up here; a supervisor's own bound (30 s) comes first and knows the reason."""
STOP_TIMEOUT = 20.0
"""Seconds a supervisor has to stop its servers before it is killed, and they with it."""


class StartError(RuntimeError):
    """A server did not start; the message holds the end of its log."""


@contextlib.contextmanager
def supervised(
    module: str, arguments: Sequence[str], directories: Sequence[Path], *, options: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """Run ``python -P OPTIONS -m module PARENT ARGUMENTS`` while the block runs; gives the report of it.

    The module ends at the first byte or the end of its standard input, and leaves nothing of ``directories``.

    Raises:
        StartError: it reports an ``error``, or nothing.
    """
    root = Path(__file__).resolve().parents[2]
    with (
        tempfile.TemporaryFile() as stderr,
        # Its own session keeps a terminal's Ctrl-C from it.
        subprocess.Popen(  # noqa: S603 - our own module, our own arguments
            [sys.executable, "-P", *options, "-m", module, str(os.getpid()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(root)},
            start_new_session=True,
        ) as supervisor,
    ):
        try:
            yield _read_report(supervisor, stderr)
        finally:
            _stop(supervisor, directories)


def _read_report(supervisor: subprocess.Popen[bytes], stderr: IO[bytes]) -> dict[str, str]:
    """The one line the supervisor writes when its servers answer, or when it gave up."""
    assert supervisor.stdout is not None  # noqa: S101 - a pipe was asked for
    line = _read_line(supervisor.stdout, START_TIMEOUT)
    if not line.endswith(b"\n"):
        stderr.seek(0)
        reason = stderr.read().decode(errors="replace").strip() or "it ended, or did not answer, without a word"
        raise StartError(f"The supervisor of the embedded servers failed: {reason[-4000:]}")
    report: dict[str, str] = json.loads(line)
    if "error" in report:
        raise StartError(report["error"])
    return report


def _read_line(pipe: IO[bytes], timeout: float) -> bytes:
    """What comes until a line's end, the end of the stream or the timeout, whichever is first."""
    deadline = time.monotonic() + timeout
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
            chunk = pipe.read(65536)
            if not chunk:
                break
            line += chunk
    return line


def _stop(supervisor: subprocess.Popen[bytes], directories: Sequence[Path]) -> None:
    assert supervisor.stdin is not None  # noqa: S101 - a pipe was asked for
    with contextlib.suppress(OSError):
        # A word, as closing alone is not seen while a forked process holds the same pipe.
        supervisor.stdin.write(b"stop\n")
        supervisor.stdin.close()
    try:
        supervisor.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    for directory in directories:
        remove(directory)  # The supervisor has done so, unless it was killed.
