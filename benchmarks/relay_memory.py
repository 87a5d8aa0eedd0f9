"""How much memory the gateway takes more while it streams files of an object store that no memory would hold.

``python -m benchmarks.relay_memory``: a file of 5 GiB to one client that takes it as fast as it can, and to 50 clients
at once that each take 16 KiB every 100 ms, over plain HTTP and over TLS from the store, in whose place is nginx
(`benchmarks.relay`). What is shown is the highest that the kernel saw the process have, less what it had after some
small downloads; the gateway is started anew for each round of each, since memory that was freed is used again. Needs
nginx, the ``demo`` extra and ss; best run as root, as `benchmarks.large_file`. Nothing is judged.
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
from benchmarks.load import Job, Load, load_process
from benchmarks.memory import find_ss, forget_peaks, peak_rss, socket_memory, taken_by
from benchmarks.processes import Cores, choose_cores, on_core, process_tree
from benchmarks.setting_up import (
    BenchmarkFile,
    RunningServer,
    catalogue_of,
    find_nginx,
    make_file,
    make_sparse_file,
    request_head,
    running_gateway,
    token,
)
from benchmarks.slow_readers import WARM_UP, Crowd
from benchmarks.upstream import BUCKET, SCHEMES, copies_over_each, over, running_upstream

SMALL_BYTES = MIB
"""Of the file with which the server is warmed up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one way of taking the file took; all but the last in bytes."""

    idle: int
    """In memory after some small downloads."""
    peak: int
    """Most in memory from then on."""
    sockets: int
    """Most in the kernel for connections with clients, where that was looked at."""
    descriptors: int
    """Likewise the most descriptors, beyond those of the idle process."""


def figures(clients: int) -> tuple[Figure[Sample], ...]:
    """The rows for so many clients."""

    def row(name: str, of: Callable[[Sample], float], digits: int = 1) -> Figure[Sample]:
        return Figure(name, of, digits)

    rows = [
        row("peak growth of RSS, MiB", lambda sample: (sample.peak - sample.idle) / MIB),
        row("RSS idle, MiB", lambda sample: sample.idle / MIB),
    ]
    if clients > 1:
        rows += [
            row("growth per download, KiB", lambda sample: (sample.peak - sample.idle) / clients / 1024),
            row("kernel's sockets, KiB per download", lambda sample: sample.sockets / clients / 1024, 0),
            row("descriptors per download", lambda sample: sample.descriptors / clients, 2),
        ]
    return tuple(rows)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", default="5GiB", show_default=True, callback=options.size, help="Of the file, which is sparse.")
@click.option("--clients", default=50, show_default=True, type=click.IntRange(2, 1000), help="Slow ones.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(1, 600), help="They take it for.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 1000))
def main(*, size: int, clients: int, seconds: float, rounds: int) -> None:
    """Measure the memory of relays, and print medians and spreads."""
    ss, nginx = find_ss(), find_nginx()
    with ending_in_order(), contextlib.ExitStack() as stack:
        network, cores = own_network(), choose_cores()
        click.echo(circumstances(network, cores, nginx.version))
        click.echo(f"store     {nginx.version} in its place, on core {cores.load}")
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        root = directory / "store" / "files"
        (root / BUCKET).mkdir(parents=True)
        small = make_file(root / BUCKET, "small.bin", SMALL_BYTES)
        large = make_sparse_file(root / BUCKET, "large.bin", size)
        upstream = stack.enter_context(running_upstream(nginx, directory / "store", cores.load))
        copies = copies_over_each(root, [small, large])
        configuration = stack.enter_context(catalogue_of(directory, upstream.storages(), copies, cores))
        load = stack.enter_context(load_process(cores, polls=False))
        run = _Run(directory, configuration, small, large, ss, cores, load)
        run.show("1 client that is fast", 1, rounds, run.fast)
        rate = f"{clients} clients that are slow, for {seconds:g} s"
        run.show(rate, clients, rounds, lambda server, job: run.slow(server, job, clients, seconds))


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """One run of the benchmark."""

    directory: Path
    configuration: Path
    small: BenchmarkFile
    large: BenchmarkFile
    ss: Path
    cores: Cores
    load: Load
    bearer: str = dataclasses.field(default_factory=token)

    def show(
        self, title: str, clients: int, rounds: int, take: Callable[[RunningServer, Job], tuple[int, int]]
    ) -> None:
        """Have the file taken over each scheme in turn, and print what came."""
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for _, order in in_turn(rounds):
            for index in order:
                samples[index].append(self._measure(SCHEMES[index], take))
        size = f"{self.large.size / MIB:g} MiB"
        click.echo(f"\n{size} to {title}; median (least-most) of {rounds} rounds in turn")
        click.echo(table([f"from {scheme}" for scheme in SCHEMES], samples, figures(clients)))

    def fast(self, _: RunningServer, job: Job) -> tuple[int, int]:
        """Take the file as fast as can be."""
        self.load.run(job)
        return 0, 0

    def slow(self, server: RunningServer, job: Job, clients: int, seconds: float) -> tuple[int, int]:
        """Take a little of the file again and again; gives the most memory of sockets, and the most descriptors."""
        tree, sockets, descriptors = process_tree(server.pid), 0, 0
        with on_core(self.cores.load), contextlib.closing(Crowd(job, clients)) as crowd:
            crowd.begin()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                crowd.sip(1.0)
                sockets = max(sockets, socket_memory(self.ss, server.port))
                descriptors = max(descriptors, taken_by(tree).descriptors)
        return sockets, descriptors

    def _measure(self, scheme: str, take: Callable[[RunningServer, Job], tuple[int, int]]) -> Sample:
        small, large = over(scheme, self.small), over(scheme, self.large)
        with running_gateway(self.directory, self.configuration, self.cores.server) as server:
            check_served(self.load, server.port, small.gateway_path, self.bearer, small)
            head = request_head(small.gateway_path, self.bearer)
            self.load.run(Job(server.port, head, small.size, requests=WARM_UP))
            tree = process_tree(server.pid)
            idle = taken_by(tree)
            forget_peaks(tree)
            sockets, most = take(server, Job(server.port, request_head(large.gateway_path, self.bearer), large.size))
            return Sample(idle.rss, peak_rss(tree), sockets, max(most - idle.descriptors, 0))


if __name__ == "__main__":
    main()
