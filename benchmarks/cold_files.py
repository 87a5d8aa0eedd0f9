"""How long small requests wait while files that no memory holds are read from the disk.

``python -m benchmarks.cold_files``: a 4 KiB file with all checks, and ``/health/live``, each on one connection that is
kept, on an idle server and while 1, 4 and 20 clients download files of 1 GiB that the page cache was made to forget.
20 are more than the storage has threads. The peer is the plain application with FileResponse, in turn on the same core.
Needs the ``demo`` extra and, with the defaults, 20 GiB on a disk that is not memory; best run as root, as
`benchmarks.large_file`. Figures to reach are shown beside what was measured, and are not judged here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import click

from benchmarks import options
from benchmarks.harness import (
    MIB,
    Figure,
    Spread,
    check_served,
    circumstances,
    ending_in_order,
    in_turn,
    own_network,
    table,
)
from benchmarks.latency import INTERVAL, Latencies, watch
from benchmarks.load import SILENCE, Job, Load, LoadError, load_process
from benchmarks.page_cache import NotColdError, make_cold
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
from storage_plugins.local import DEFAULT_THREADS

SMALL_BYTES = 4096
LIVE_PATH, LIVE_BODY = "/health/live", b'{"status": "live"}'
QUIET_CPU, QUIET_SECONDS = 0.05, 0.2
"""A server that takes less of its core than this share for so long has nothing left to do."""
READ_SHARE = 0.9
"""Of the bytes that were sent, the least share that must have come from the disk, or the files were not cold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one round of a side gave."""

    small: Latencies
    """Of the 4 KiB file."""
    live: Latencies
    """Of ``/health/live``."""
    seconds: float
    read: int
    """Bytes that the server had read from the disk."""
    server_cpu: float
    """Seconds of its whole process tree."""


def _milliseconds(name: str, latencies: Callable[[Sample], Latencies]) -> list[Figure[Sample]]:
    """The rows for one kind of small request."""
    rows = (("p50", 50.0, ""), ("p99", 99.0, "gateway <= 10 ms"), ("max", 100.0, ""))

    def row(label: str, percent: float, goal: str) -> Figure[Sample]:
        return Figure(f"{name}, {label} ms", lambda sample: 1000 * latencies(sample).percentile(percent), 2, goal)

    return [row(*parameters) for parameters in rows]


FIGURES: tuple[Figure[Sample], ...] = (
    *_milliseconds("4 KiB file", lambda sample: sample.small),
    *_milliseconds(LIVE_PATH, lambda sample: sample.live),
    Figure("read from the disk, MiB/s", lambda sample: sample.read / MIB / sample.seconds, 0),
    Figure("server's core busy, %", lambda sample: 100 * sample.server_cpu / sample.seconds, 0),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", default="1GiB", show_default=True, callback=options.size, help="Of each cold file.")
@click.option("--files", default=20, show_default=True, type=click.IntRange(1, 1000), help="Cold files.")
@click.option(
    "--clients", default="0,1,4,20", show_default=True, callback=options.numbers(0, 256), help="Numbers of downloads."
)
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(0.1, 600), help="Longest round.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000))
@click.option("--threads", default=DEFAULT_THREADS, show_default=True, type=click.IntRange(1, 1024), help="Of storage.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Where files go.")
def main(
    *, size: int, files: int, clients: list[int], seconds: float, rounds: int, threads: int, directory: Path | None
) -> None:
    """Measure the latencies of small requests beside cold downloads, and print medians and spreads."""
    if files < max(clients):
        raise click.UsageError(f"{max(clients)} clients need as many files: each is cold for the first alone")
    with ending_in_order():
        network, cores = own_network(), choose_cores()
        with tempfile.TemporaryDirectory(prefix="benchmark-", dir=directory) as name:
            if shutil.disk_usage(name).free < files * size * 1.1:
                raise click.UsageError(f"{files} files of {size} bytes do not fit on the disk of {name}")
            click.echo(circumstances(network, cores))
            click.echo(f"disk      {_disk(Path(name))}")
            run = _Run(Path(name), cores, seconds, rounds, threads)
            run.make_files(files, size)
            with run.servers(), load_process(cores) as load:
                run.check(load)
                for count in clients:
                    run.compare(count)


class _Run:
    """One run of the benchmark: its files, its servers, its rounds."""

    def __init__(self, directory: Path, cores: Cores, seconds: float, rounds: int, threads: int) -> None:
        self._directory, self._root = directory, directory / "files"
        self._cores, self._seconds, self._rounds, self._threads = cores, seconds, rounds, threads
        self._bearer = token()
        self._large: list[BenchmarkFile] = []
        self._servers: list[tuple[str, RunningServer]] = []

    def make_files(self, number: int, size: int) -> None:
        """Write the small file, and the large ones: the same random bytes in each."""
        self._root.mkdir()
        self._small = make_file(self._root, "small.bin", SMALL_BYTES)
        first = make_file(self._root, "cold-0.bin", size)
        self._large = [dataclasses.replace(first, name=f"cold-{index}.bin") for index in range(number)]
        for file in self._large[1:]:
            shutil.copyfile(self._root / first.name, self._root / file.name)
            make_cold(self._root / file.name)

    @contextlib.contextmanager
    def servers(self) -> Iterator[None]:
        """Run PostgreSQL, Valkey, the gateway and the plain application."""
        files = [self._small, *self._large]
        with (
            catalogue(self._directory, files, self._cores, threads=self._threads) as configuration,
            running_gateway(self._directory, configuration, self._cores.server) as gateway,
            running_plain_app(self._directory, configuration, self._cores.server, "stream") as plain,
        ):
            self._servers = [("gateway", gateway), ("FileResponse", plain)]
            yield

    def check(self, load: Load) -> None:
        """See that both serve a file byte for byte, and to nobody without a token."""
        for _, server in self._servers:
            for file in (self._small, self._large[0]):
                check_served(load, server.port, file.gateway_path, self._bearer, file)

    def compare(self, clients: int) -> None:
        """Measure both sides in turn with so many downloads, and print what came."""
        samples: tuple[list[Sample], list[Sample]] = ([], [])
        for _, order in in_turn(self._rounds):
            for index in order:
                samples[index].append(self._measure(self._servers[index][1], clients))
        click.echo(f"\n{self._title(clients)}; median (least-most) of {self._rounds} rounds in turn")
        click.echo(table([name for name, _ in self._servers], samples, FIGURES))
        if clients > self._threads:
            click.echo(_about_threads(samples[0]))

    def _title(self, clients: int) -> str:
        if clients == 0:
            return "idle"
        more = f", more than the storage's {self._threads} threads" if clients > self._threads else ""
        size = self._large[0].size / MIB
        return f"{clients} client{'s' * (clients > 1)} taking cold files of {size:g} MiB each{more}"

    def _measure(self, server: RunningServer, clients: int) -> Sample:
        large = self._large if clients else []
        for file in large:
            make_cold(self._root / file.name)
        small = self._job(server, self._small)
        live = Job(server.port, request_head(LIVE_PATH), len(LIVE_BODY))
        tree = process_tree(server.pid)
        read, cpu, start = _read_bytes(tree), cpu_seconds(tree), time.perf_counter()
        with on_core(self._cores.load):
            watched = watch([small, live], (self._job(server, file) for file in large), clients, self._seconds)
        seconds = time.perf_counter() - start
        read, cpu = _read_bytes(tree) - read, cpu_seconds(tree) - cpu
        if read < READ_SHARE * watched.octets:
            raise NotColdError(f"only {read} of {watched.octets} bytes came from the disk")
        _wait_until_quiet(tree)
        of_small, of_live = (Latencies.of(measured, INTERVAL) for measured in watched.measured)
        return Sample(of_small, of_live, seconds, read, cpu)

    def _job(self, server: RunningServer, file: BenchmarkFile) -> Job:
        return Job(server.port, request_head(file.gateway_path, self._bearer), file.size)


def _wait_until_quiet(pids: Iterable[int]) -> None:
    """Wait until the server has done with the downloads that were cut.

    Raises:
        LoadError: it does not end.
    """
    pids, deadline = set(pids), time.monotonic() + SILENCE
    while time.monotonic() < deadline:
        before = cpu_seconds(pids)
        time.sleep(QUIET_SECONDS)
        if cpu_seconds(pids) - before < QUIET_CPU * QUIET_SECONDS:
            return
    raise LoadError(f"the server is still busy after {SILENCE:g} s")


def _read_bytes(pids: Iterable[int]) -> int:
    """Bytes that the processes have had read from disks (proc_pid_io(5))."""
    total = 0
    for pid in pids:
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        total += int(fields["read_bytes"])
    return total


def _disk(path: Path) -> str:
    """What is known of the disk below ``path``: how far it reads ahead decides how long a cold read takes."""
    device = path.stat().st_dev
    ahead = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    known = f"{int(ahead.read_text()) / 1024:g} MiB" if ahead.exists() else "an unknown number of bytes"
    return f"device {os.major(device)}:{os.minor(device)}, which the kernel reads {known} ahead on"


def _about_threads(samples: Sequence[Sample]) -> str:
    """How much longer than ``/health/live`` the file takes that waits for a thread of the storage twice."""
    parts = []
    for percent in (50.0, 99.0):
        longer = (1000 * (one.small.percentile(percent) - one.live.percentile(percent)) for one in samples)
        parts.append(f"p{percent:g} {Spread.of(longer).show(2)} ms")
    return (
        "The file waits for a thread of the storage, to be opened and to be read; /health/live does not.\n"
        f"Gateway, the file's latency less that of /health/live: {', '.join(parts)}"
    )


if __name__ == "__main__":
    main()
