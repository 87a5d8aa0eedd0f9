"""What the benchmarks share: a network of their own, pairs in turn, medians, and what it all ran under."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import os
import platform
import signal
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import click

from benchmarks.load import Job, Load, LoadError
from benchmarks.processes import Cores, cpu_seconds, named, process_tree
from benchmarks.setting_up import BenchmarkFile, request_head

S = TypeVar("S")

GIB = 2**30
MIB = 2**20
SETTLE_SECONDS = 0.05
"""After the last byte, for what a server still does then: the settlement, the line in the access log."""
NEIGHBOURS = {"PostgreSQL": "postgres", "Valkey": "valkey-server"}
"""Names of the neighbours' programs by their own names."""

_IPV4 = Path("/proc/sys/net/ipv4")
_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # netdevice(7)
_IFF_UP = 0x1


def own_network() -> str:
    """Move this process, and all that it starts from now on, into a network namespace of its own; says what it did.

    There loopback's congestion control is ours to choose. Many machines use BBR by default, whose pacing makes
    figures on loopback worthless. The namespace has no name and needs no removal: it ends with its last process.
    """
    if os.geteuid() != 0:
        return f"this machine's own (not root: no namespace of our own), {congestion_control()}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        return f"this machine's own (no namespace of our own: {reason}), {congestion_control()}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name, flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", name, flags | _IFF_UP))
    available = (_IPV4 / "tcp_available_congestion_control").read_text().split()
    (_IPV4 / "tcp_congestion_control").write_text("reno" if "reno" in available else "cubic")
    (_IPV4 / "tcp_no_metrics_save").write_text("1")
    return f"a namespace of our own, {congestion_control()}, tcp_no_metrics_save=1"


def congestion_control() -> str:
    """The algorithm that new connections get."""
    return "congestion control " + (_IPV4 / "tcp_congestion_control").read_text().strip()


def circumstances(network: str, cores: Cores, *programs: str) -> str:
    """What a run is run under: figures without it say nothing. ``programs`` are names with versions."""
    pinned = f"server on core {cores.server}, load, PostgreSQL and Valkey on core {cores.load}"
    if not cores.differ:
        pinned += ": there is ONE core only, which they share; these figures mean little"
    return conditions(pinned, network, *programs)


def conditions(pinned: str, network: str, *programs: str) -> str:
    """As `circumstances`, for a run of which ``pinned`` says what runs where."""
    cpu = next((line.split(":", 1)[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    packages = [f"{name} {version(name)}" for name in ("aiohttp", "asyncpg", "redis", "download-gateway")]
    versions = ", ".join((*programs, f"Python {platform.python_version()}", *packages))
    return "\n".join(
        (
            f"kernel    {platform.release()} {platform.machine()}",
            f"CPU       {cpu.strip()}, {os.cpu_count()} cores; {pinned}",
            f"network   {network}",
            f"versions  {versions}",
            f"load      {os.getloadavg()[0]:.2f} (mean of the last minute, before the run)",
        )
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def in_turn(rounds: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """The numbers of ``rounds`` and which side is first and second in each; it changes from round to round.

    Shows how far it is.
    """
    for number in range(rounds):
        yield number, (0, 1) if number % 2 == 0 else (1, 0)
        if sys.stderr.isatty():
            click.echo(f"\r{number + 1}/{rounds} ", err=True, nl=number + 1 == rounds)


def check_served(load: Load, port: int, path: str, bearer: str, file: BenchmarkFile) -> None:
    """See that the file is served byte for byte, and to nobody without a token.

    Raises:
        LoadError: it is not.
    """
    if load.run(Job(port, request_head(path, bearer), file.size, hashed=True)).sha256 != file.sha256:
        raise LoadError(f"{path} is not served as it is")
    try:
        load.run(Job(port, request_head(path), file.size))
    except LoadError as error:
        if "status 40" not in str(error):
            raise
    else:
        raise LoadError(f"{path} is served to anybody: its checks are not what is measured")


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Have SIGTERM and SIGHUP unwind the block as Ctrl-C does, so that all that was started ends."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared."""

    name: str
    pids: Sequence[int]
    """Of its servers; their children are counted with them."""
    job: Job
    helpers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Process ids, by name, of servers that it asks and that are not what is measured; each with its children."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a side took."""

    octets: int
    requests: int
    seconds: float
    server_cpu: float
    """Seconds, of its servers' whole process trees."""
    neighbours_cpu: Mapping[str, float]
    """Of PostgreSQL, Valkey, and the side's helpers."""
    median: float
    """Seconds that an answer took."""
    p99: float
    """Likewise of 99 out of 100."""


def measure(side: Side, load: Load) -> Sample:
    """Run the side's job once."""
    server = {pid for parent in side.pids for pid in process_tree(parent)}
    ours = process_tree(os.getpid())
    neighbours = {name: named(ours, program) for name, program in NEIGHBOURS.items()}
    neighbours |= {name: process_tree(pid) for name, pid in side.helpers.items()}
    time.sleep(SETTLE_SECONDS)
    before = cpu_seconds(server)
    neighbours_before = {name: cpu_seconds(pids) for name, pids in neighbours.items()}
    result = load.run(side.job)
    time.sleep(SETTLE_SECONDS)
    return Sample(
        octets=result.octets,
        requests=side.job.requests,
        seconds=result.seconds,
        server_cpu=cpu_seconds(server) - before,
        neighbours_cpu={name: cpu_seconds(pids) - neighbours_before[name] for name, pids in neighbours.items()},
        median=result.median,
        p99=result.p99,
    )


def alternate(sides: tuple[Side, Side], load: Load, rounds: int) -> tuple[list[Sample], list[Sample]]:
    """Run both sides ``rounds`` times in turn, who is first changing from round to round; one round more warms up."""
    samples: tuple[list[Sample], list[Sample]] = ([], [])
    for number, order in in_turn(rounds + 1):
        for index in order:
            sample = measure(sides[index], load)
            if number > 0:
                samples[index].append(sample)
    return samples


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of some figures."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """The spread of ``figures``, of which there is at least one."""
        known = list(figures)
        return cls(statistics.median(known), min(known), max(known))

    def show(self, digits: int) -> str:
        """As a cell of a table."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}-{self.most:,.{digits}f})"


@dataclasses.dataclass(frozen=True, slots=True)
class Figure(Generic[S]):
    """One row of a comparison of samples of some kind."""

    name: str
    of: Callable[[S], float]
    digits: int
    goal: str = ""
    """What the ratio of the first side to the second is to reach, or the first side itself where the goal names it;
    shown, never judged: times depend on the machine.

    Without a goal no ratio is shown: it would say nothing.
    """


def table(names: Sequence[str], samples: tuple[list[S], list[S]], figures: Iterable[Figure[S]]) -> str:
    """Medians (least-most) of both sides, and the median of the ratios of the rounds, which noise touches least."""
    rows = [("", *names, "ratio", "to reach")]
    for figure in figures:
        ours, peers = ([figure.of(sample) for sample in side] for side in samples)
        ratio = ""
        if figure.goal:
            ratio = Spread.of(our / peer for our, peer in zip(ours, peers, strict=True)).show(3)
        spreads = (Spread.of(side).show(figure.digits) for side in (ours, peers))
        rows.append((figure.name, *spreads, ratio, figure.goal))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
