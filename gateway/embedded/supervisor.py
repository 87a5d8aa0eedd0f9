"""The process between the gateway and its throw-away servers: starts them, waits, and leaves nothing behind.

``python -m gateway.embedded.supervisor PARENT DIRECTORY POSTGRES_BIN VALKEY_SERVER [AND_REMOVE]`` writes one line of
JSON when both servers answer (``{"postgres_dsn", "redis_url"}``) or cannot (``{"error"}``), and stops them at the
first byte or the end of its standard input, at SIGINT, SIGTERM or SIGHUP, or when its parent is no longer PARENT. Then
it removes DIRECTORY and AND_REMOVE. Imports little: its start is part of every test run.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.embedded.directory import remove
from gateway.embedded.processes import LaunchError, copy_postgres, make_host, runnable
from gateway.embedded.servers import Postgres, Server, Valkey, tail

START_TIMEOUT = 30.0
"""Seconds until both servers have to answer."""
STOP_TIMEOUT = 10.0
"""Seconds for both servers to end by themselves, before they are killed."""
PARENT_CHECK = 0.5
"""Seconds between looks at the parent: a process that it forked may hold our pipe open after its death."""


class DismissedError(Exception):
    """There is nobody left to work for."""


class Watch:
    """Waits for things to happen, but never longer than somebody wants the servers."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._signalled = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self._signalled = True

    def pause(self, seconds: float) -> None:
        """Sleep, or raise :class:`DismissedError`."""
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
        if readable or self._signalled or os.getppid() != self._parent:
            raise DismissedError

    def until(self, condition: Callable[[], bool], what: Path, deadline: float) -> None:
        """Wait for ``condition``; ``what`` is the log to quote where it does not come true in time."""
        while not condition():
            if time.monotonic() > deadline:
                raise LaunchError(f"{what.stem} does not answer within {START_TIMEOUT:.0f} s:\n{tail(what)}")
            self.pause(0.005)


def serve(watch: Watch, directory: Path, postgres_bin: Path, valkey_server: Path) -> None:
    """Run both servers until the watch ends it."""
    started: list[Server] = []
    initdb: subprocess.Popen[bytes] | None = None
    try:
        deadline = time.monotonic() + START_TIMEOUT
        host = make_host(directory)
        valkey_server = runnable(host, valkey_server, lambda: Path(shutil.copy(valkey_server, directory)))
        postgres_bin = runnable(
            host, postgres_bin / "initdb", lambda: copy_postgres(postgres_bin, directory) / "initdb"
        ).parent
        valkey, postgres = Valkey(host, valkey_server), Postgres(host, postgres_bin)
        postgres.initialise()
        initdb = postgres.initdb
        started.append(valkey)
        valkey.launch()
        watch.until(postgres.is_initialised, postgres.log, deadline)
        started.append(postgres)
        postgres.launch()
        watch.until(valkey.is_ready, valkey.log, deadline)
        watch.until(postgres.is_ready, postgres.log, deadline)
        report({"postgres_dsn": postgres.dsn, "redis_url": valkey.url})
        while True:
            watch.pause(PARENT_CHECK)
    finally:
        if initdb:
            initdb.kill()
            initdb.wait()
        stop(started)
        remove(directory)


def report(message: dict[str, str]) -> None:
    """Tell the parent, once."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def stop(servers: list[Server]) -> None:
    """End all of them at once, by force after a while."""
    processes = [(server.process, server.stop_signal) for server in servers if server.process]
    for process, stop_signal in processes:
        process.send_signal(stop_signal)
    deadline = time.monotonic() + STOP_TIMEOUT
    for process, _ in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Run until nobody wants the servers any more."""
    parent, directory, postgres_bin, valkey_server, *and_remove = sys.argv[1:]
    try:
        serve(Watch(int(parent)), Path(directory), Path(postgres_bin), Path(valkey_server))
    except DismissedError:
        pass
    except (LaunchError, OSError) as error:
        report({"error": str(error)})
    finally:
        for other in and_remove:
            remove(Path(other))


if __name__ == "__main__":
    main()
