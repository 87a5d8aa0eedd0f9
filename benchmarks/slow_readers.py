"""What a slow download costs: memory, threads and descriptors of a server that many clients take a file from.

``python -m benchmarks.slow_readers``: 256 clients each take 16 KiB of a 64 MiB file every 100 ms. What the server takes
then, less what it took idle, is divided by their number. The peer is the plain application with FileResponse. Every
round starts each server anew, since memory that was freed is used again, and would hide what the next round takes.
Needs the ``demo`` extra and ss; best run as root, as `benchmarks.large_file`. Figures to reach are shown beside what
was measured, and are not judged here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import options
from benchmarks.harness import MIB, Figure, check_served, circumstances, ending_in_order, in_turn, own_network, table
from benchmarks.load import Connection, Job, Load, LoadError, load_process
from benchmarks.memory import Taken, find_ss, socket_memory, taken_by
from benchmarks.processes import Cores, choose_cores, cpu_seconds, on_core, process_tree
from benchmarks.setting_up import (
    BenchmarkFile,
    RunningServer,
    catalogue,
    make_file,
    request_head,
    running_gateway,
    running_plain_app,
    token,
)

SIP_BYTES, INTERVAL = 16 * 1024, 0.1
"""What a slow client takes, and every how many seconds."""
WARM_UP = 20
"""Downloads before a server counts as idle: what it makes once, it has made then."""
AT_ONCE = 16
"""Clients that ask at the same time: what is measured is what they take, not how many can come at once."""
START_SECONDS = 60.0
"""In which every client must have its first bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one round of a side gave."""

    clients: int
    idle: Taken
    """After a few downloads, one at a time."""
    most: Taken
    """The most of each while all slow downloads run."""
    sockets: int
    """Most bytes of kernel memory of its connections then."""
    seconds: float
    server_cpu: float
    """Seconds of its whole process tree while they ran."""


def _each(name: str, of: Callable[[Taken], int], goal: str = "") -> Figure[Sample]:
    return Figure(name, lambda sample: (of(sample.most) - of(sample.idle)) / sample.clients / 1024, 1, goal)


FIGURES: tuple[Figure[Sample], ...] = (
    _each("RSS per download, KiB", lambda taken: taken.rss, "gateway <= 64 KiB"),
    _each("PSS per download, KiB", lambda taken: taken.pss, "gateway <= 64 KiB"),
    Figure("RSS idle, MiB", lambda sample: sample.idle.rss / MIB, 1),
    Figure("RSS with all of them, MiB", lambda sample: sample.most.rss / MIB, 1),
    Figure("kernel's sockets, KiB per download", lambda sample: sample.sockets / sample.clients / 1024, 0),
    Figure("threads idle", lambda sample: sample.idle.threads, 0),
    Figure("threads with all of them", lambda sample: sample.most.threads, 0),
    Figure(
        "descriptors per download",
        lambda sample: (sample.most.descriptors - sample.idle.descriptors) / sample.clients,
        2,
    ),
    Figure("server's core busy, %", lambda sample: 100 * sample.server_cpu / sample.seconds, 1),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", default="64MiB", show_default=True, callback=options.size, help="Of the file.")
@click.option("--clients", default="256", show_default=True, callback=options.numbers(1, 5000), help="Slow ones.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(1, 600), help="Of each round.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000))
def main(*, size: int, clients: list[int], seconds: float, rounds: int) -> None:
    """Measure what slow downloads cost, and print medians and spreads."""
    ss = find_ss()
    with ending_in_order():
        network, cores = own_network(), choose_cores()
        click.echo(circumstances(network, cores))
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            directory = Path(name)
            (directory / "files").mkdir()
            file = make_file(directory / "files", "slow.bin", size)
            with catalogue(directory, [file], cores) as configuration, load_process(cores) as load:
                run = _Run(directory, configuration, file, ss, cores, load)
                for count in clients:
                    run.compare(count, seconds, rounds)


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """One run of the benchmark."""

    directory: Path
    configuration: Path
    file: BenchmarkFile
    ss: Path
    cores: Cores
    load: Load
    bearer: str = dataclasses.field(default_factory=token)

    def compare(self, clients: int, seconds: float, rounds: int) -> None:
        """Measure both sides in turn with so many clients, and print what came."""
        names = "gateway", "FileResponse"
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for _, order in in_turn(rounds):
            for index in order:
                with self._running(names[index]) as server:
                    samples[index].append(self._measure(server, clients, seconds))
        rate = SIP_BYTES / INTERVAL / 1024
        click.echo(f"\n{clients} clients taking {rate:g} KiB/s each; median (least-most) of {rounds} rounds in turn")
        click.echo(table(names, samples, FIGURES))

    def _running(self, name: str) -> contextlib.AbstractContextManager[RunningServer]:
        if name == "gateway":
            return running_gateway(self.directory, self.configuration, self.cores.server)
        return running_plain_app(self.directory, self.configuration, self.cores.server, "stream")

    def _measure(self, server: RunningServer, clients: int, seconds: float) -> Sample:
        path, head = self.file.gateway_path, request_head(self.file.gateway_path, self.bearer)
        check_served(self.load, server.port, path, self.bearer, self.file)
        self.load.run(Job(server.port, head, self.file.size, requests=WARM_UP))
        tree = process_tree(server.pid)
        idle = taken_by(tree)
        found, sockets = [idle], 0
        slow = Crowd(Job(server.port, head, self.file.size), clients)
        with on_core(self.cores.load), contextlib.closing(slow) as crowd:
            crowd.begin()
            cpu, start = cpu_seconds(tree), time.perf_counter()
            while time.perf_counter() < start + seconds:
                crowd.sip(1.0)
                found.append(taken_by(tree))
                sockets = max(sockets, socket_memory(self.ss, server.port))
            cpu, lasted = cpu_seconds(tree) - cpu, time.perf_counter() - start
        most = Taken(*(max(column) for column in zip(*map(dataclasses.astuple, found), strict=True)))
        return Sample(clients, idle, most, sockets, lasted, cpu)


class Crowd:
    """Many clients that take little at a time."""

    def __init__(self, job: Job, clients: int) -> None:
        self._job, self._clients = job, clients
        self._stack = contextlib.ExitStack()
        self._connections: list[Connection] = []
        self._buffer = memoryview(bytearray(SIP_BYTES))
        self._turn = 0

    def close(self) -> None:
        """Have all of them go."""
        self._stack.close()

    def begin(self) -> None:
        """Have all of them ask, a few at a time, and wait until each has some bytes.

        Raises:
            LoadError: one has none in time, or gets something else.
        """
        deadline = time.perf_counter() + START_SECONDS
        while len(self._connections) < self._clients:
            for _ in range(min(AT_ONCE, self._clients - len(self._connections))):
                connection = Connection(self._job)
                self._stack.enter_context(contextlib.closing(connection.socket))
                connection.ask()
                self._connections.append(connection)
            while any(not 0 <= left < self._job.length for left in self.left()):
                if time.perf_counter() > deadline:
                    raise LoadError(f"not all {self._clients} clients have bytes after {START_SECONDS:g} s")
                self.sip(INTERVAL)

    def left(self) -> list[int]:
        """Bytes that each has still to take."""
        return [connection.left for connection in self._connections]

    def sip(self, seconds: float) -> None:
        """Have them take what they take in so much time, one after the other, evenly spread.

        Raises:
            LoadError: a download has ended, whole or not: it is no slow one any more.
        """
        start, interval = time.perf_counter(), INTERVAL / len(self._connections)
        for number in range(max(round(seconds / interval), 1)):
            time.sleep(max(start + number * interval - time.perf_counter(), 0))
            self._turn = (self._turn + 1) % len(self._connections)
            with contextlib.suppress(BlockingIOError):
                if self._connections[self._turn].take(self._buffer):
                    raise LoadError("a slow download is over before it was measured: take a larger file")


if __name__ == "__main__":
    main()
