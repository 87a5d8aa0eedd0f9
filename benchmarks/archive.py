"""Archives made while they are sent, beside nginx's sendfile of the same bytes and beside zipstream-ng.

``python -m benchmarks.archive``: a ZIP of 100 stored files of 16 MiB whose CRC-32 are known beside nginx that sends the
very same bytes from one file; one whose CRC-32 are not known beside zipstream-ng, which computes them, too; and one of
many small files beside zipstream-ng. No side checks anything. Needs nginx and the package zipstream-ng; best run as
root, which gives it a network namespace of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks import options
from benchmarks.archive_app import lay_out, listed, write_archive, zipstream_of
from benchmarks.harness import (
    GIB,
    MIB,
    Figure,
    Sample,
    Side,
    alternate,
    circumstances,
    ending_in_order,
    own_network,
    table,
)
from benchmarks.load import Job, Load, LoadError, load_process
from benchmarks.processes import Cores, choose_cores
from benchmarks.setting_up import (
    BenchmarkFile,
    RunningServer,
    find_nginx,
    make_file,
    request_head,
    running_app,
    running_nginx,
)
from gateway.crc32 import crc32


def figures(goal: str) -> tuple[Figure[Sample], ...]:
    """What is shown; ``goal`` is that of the throughput."""
    return (
        Figure("MiB/s", lambda sample: sample.octets / MIB / sample.seconds, 0, goal),
        Figure("CPU s per GiB", lambda sample: sample.server_cpu * GIB / sample.octets, 3, " "),
        Figure("server's core busy, %", lambda sample: 100 * sample.server_cpu / sample.seconds, 0),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """An archive at a server."""

    name: str
    server: RunningServer
    path: str
    length: int
    """Bytes."""
    bearer: str | None = None
    """Token that it takes."""

    def side(self, clients: int, *, hashed: bool = False) -> Side:
        """Its download to each of ``clients``."""
        job = Job(self.server.port, request_head(self.path, self.bearer), self.length, clients, clients, hashed=hashed)
        return Side(self.name, [self.server.pid], job)


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Two archives of the same files."""

    title: str
    ours: Served
    theirs: Served
    goal: str
    same: bool = False
    """Whether they have the very same bytes."""

    def sides(self, clients: int) -> tuple[Side, Side]:
        """Both downloads, to each of ``clients``."""
        return self.ours.side(clients), self.theirs.side(clients)

    def check(self, load: Load) -> None:
        """See that both are served, and the same where they must be.

        Raises:
            LoadError: they are not.
        """
        found = {load.run(served.side(1, hashed=True).job).sha256 for served in (self.ours, self.theirs)}
        if self.same and len(found) > 1:
            raise LoadError(f"{self.title}: not the same bytes")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--files", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Large members.")
@click.option("--size", default="16MiB", show_default=True, callback=options.size, help="Bytes of each.")
@click.option("--small-files", default=5000, show_default=True, type=click.IntRange(1, 100_000), help="Small members.")
@click.option("--small-size", default="16KiB", show_default=True, callback=options.size, help="Bytes of each.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000))
@click.option("--clients", default="1,16", show_default=True, callback=options.numbers(1, 256), help="In turn.")
def main(*, files: int, size: int, small_files: int, small_size: int, rounds: int, clients: list[int]) -> None:
    """Compare archives, and print medians, spreads and ratios."""
    nginx = find_nginx()
    with ending_in_order(), tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        network, cores = own_network(), choose_cores()
        computed = f"CRC-32 by {crc32.__module__}"
        click.echo(circumstances(network, cores, nginx.version, f"zipstream-ng {version('zipstream-ng')}", computed))
        whole, large, small = (Path(name) / part for part in ("files", "large", "small"))
        make_files(large, files, size)
        make_files(small, small_files, small_size)
        whole.mkdir()
        write_archive(lay_out(listed(large), known=True), listed(large), whole / "known.zip")
        with (
            running_nginx(nginx, Path(name), cores.server) as peer,
            load_process(cores) as load,
            _apps(Path(name), large, cores) as (ours, zipstream),
            _apps(Path(name), small, cores) as (ours_small, zipstream_small),
        ):
            length = (whole / "known.zip").stat().st_size
            known = Served("this project", ours, "/known.zip", length)
            sendfile = Served("nginx", peer, "/known.zip", length)
            for count in clients:
                compare(Comparison("CRC-32 known", known, sendfile, ">= 0.85", same=True), load, rounds, count)
            unknown = Served("this project", ours, "/unknown.zip", lay_out(listed(large), known=False).length)
            others = Served("zipstream-ng", zipstream, "/", len(zipstream_of(large)))
            compare(Comparison("CRC-32 not known", unknown, others, ">= 2"), load, rounds)
            known = Served("this project", ours_small, "/known.zip", lay_out(listed(small), known=True).length)
            others = Served("zipstream-ng", zipstream_small, "/", len(zipstream_of(small)))
            compare(Comparison("small members, CRC-32 known", known, others, " "), load, rounds)


def make_files(directory: Path, count: int, size: int) -> list[BenchmarkFile]:
    """Files of random bytes in a directory of their own."""
    directory.mkdir()
    return [make_file(directory, f"{number:05}.bin", size) for number in range(count)]


@contextlib.contextmanager
def _apps(directory: Path, files: Path, cores: Cores) -> Iterator[tuple[RunningServer, RunningServer]]:
    option = f"--directory={files}"
    with (
        running_app(directory, cores.server, "archive_app", option) as ours,
        running_app(directory, cores.server, "archive_app", option, "--zipstream") as zipstream,
    ):
        yield ours, zipstream


def compare(comparison: Comparison, load: Load, rounds: int, clients: int = 1) -> None:
    """See that both are served, run them in turn, and print the figures."""
    sides = comparison.sides(clients)
    comparison.check(load)
    samples = alternate(sides, load, rounds)
    title = f"{comparison.title}, {clients} client{'s' * (clients > 1)}"
    click.echo(f"\n{title}; median (least-most) of {rounds} rounds in turn")
    click.echo(table([side.name for side in sides], samples, figures(comparison.goal)))


if __name__ == "__main__":
    main()
