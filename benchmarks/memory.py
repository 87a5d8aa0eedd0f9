"""What processes and their connections take: memory, threads, descriptors (Linux)."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import click

_SBIN = "/usr/sbin:/sbin"
_BUFFERS = re.compile(r"skmem:\(([^)]*)\)")
_KERNEL_MEMORY = ("r", "w", "f", "o", "bl")
"""Of ss(8): received, to be sent, kept for the next, options, backlog. What was sent is in "to be sent", too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """What some processes take."""

    rss: int
    """Bytes in memory, shared ones in full."""
    pss: int
    """Bytes in memory, shared ones divided among those who share them."""
    threads: int
    descriptors: int


def taken_by(pids: Iterable[int]) -> Taken:
    """What the processes take together (proc_pid_smaps(5))."""
    rss = pss = threads = descriptors = 0
    for pid in pids:
        process = Path(f"/proc/{pid}")
        memory = dict(line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
        rss += 1024 * int(memory["Rss"].split()[0])
        pss += 1024 * int(memory["Pss"].split()[0])
        threads += sum(1 for _ in (process / "task").iterdir())
        descriptors += sum(1 for _ in (process / "fd").iterdir())
    return Taken(rss, pss, threads, descriptors)


def forget_peaks(pids: Iterable[int]) -> None:
    """Have `peak_rss` tell of what comes from now on (proc_pid_clear_refs(5))."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss(pids: Iterable[int]) -> int:
    """Most bytes that each process ever had in memory, in sum (VmHWM of proc_pid_status(5)).

    The kernel keeps it, so that none is missed; it may be some hundred KiB off, as all that it counts on each core.
    """
    total = 0
    for pid in pids:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        total += 1024 * int(fields["VmHWM"].split()[0])
    return total


def find_ss() -> Path:
    """Find ss, or end the program with status 2 and say so."""
    program = shutil.which("ss", path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if program is None:
        click.echo("This benchmark asks ss, which is not installed here: install the package iproute2.", err=True)
        raise SystemExit(2)
    return Path(program)


def socket_memory(ss: Path, port: int) -> int:
    """Bytes of kernel memory that the server's connections on ``port`` take.

    Pages that sendfile put there are counted, though they are the page cache's.
    """
    command: list[str | Path] = [ss, "-tmnHO", "state", "connected", "sport", "=", f":{port}"]
    return sum_of_buffers(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def sum_of_buffers(shown: str) -> int:
    """Kernel memory of all sockets in the output of ``ss -m``, in bytes.

    Raises:
        ValueError: it does not tell.
    """
    total = 0
    for line in shown.splitlines():
        found = _BUFFERS.search(line)
        if found is None:
            raise ValueError(f"ss tells no memory: {line!r}")
        for field in found[1].split(","):
            name = field.rstrip("0123456789")
            if name in _KERNEL_MEMORY:
                total += int(field[len(name) :])
    return total
