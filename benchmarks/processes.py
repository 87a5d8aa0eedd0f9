"""Processes of a benchmark: where they run, what CPU time they take, and that they end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
"""Top of the checkout: what is measured is the code beside the benchmarks."""
START_SECONDS = 30.0
"""Until a server has to answer."""
_STOP_SECONDS = 10.0
_SCHEDULED_TIME = 2  # CPUCLOCK_SCHED of <linux/posix-timers.h>


class StartError(Exception):
    """A server did not start; the message holds the end of its log."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cores:
    """Where the processes run."""

    server: int
    load: int
    """The load, PostgreSQL and Valkey, too."""

    @property
    def differ(self) -> bool:
        """Whether the server has a core to itself; if not, figures mean little."""
        return self.server != self.load


def choose_cores() -> Cores:
    """The last core that we may use for the server, the one before it for the rest."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[-1], usable[-2] if len(usable) > 1 else usable[-1])


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Have processes that are started in the block run on ``core``."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], *, stdin: int = subprocess.DEVNULL, stdout: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` at the top of the checkout while the block runs; it and its children end with the block.

    Standard error goes where standard output goes, unless that is a pipe.
    """
    # Settings in the environment would change what is measured.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    stderr = None if stdout == subprocess.PIPE else subprocess.STDOUT
    # A session of its own: the terminal's Ctrl-C reaches us alone, and we end the rest in order.
    with subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        bufsize=0,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server that was just started answers.

    Raises:
        StartError: it has ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StartError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)


def process_tree(pid: int) -> set[int]:
    """``pid`` and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything, spaces included (proc_pid_stat(5)).
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    tree = {pid}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def named(pids: Iterable[int], name: str) -> set[int]:
    """Those of ``pids`` whose program is called ``name``."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.add(pid)
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that the processes have taken, user and system, all threads, those that have ended included.

    It is utime + stime of /proc/PID/stat, but in nanoseconds instead of hundredths of a second: the clock that
    clock_getcpuclockid(3) gives for a process.
    """
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~pid << 3) | _SCHEDULED_TIME)
    return total
