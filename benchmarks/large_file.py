"""Large files through the gateway, with all its checks, beside nginx's sendfile of the same files without any.

``python -m benchmarks.large_file``: 1 GiB to one client, then 64 MiB to each of 32, both servers in turn on one core.
Needs nginx and the ``demo`` extra; best run as root, which gives it a network namespace of its own. It starts all that
it needs, and leaves nothing behind. Figures to reach are shown beside what was measured, and are not judged here.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks import options
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
    Nginx,
    RunningServer,
    catalogue,
    charged_bytes,
    find_nginx,
    make_file,
    request_head,
    running_gateway,
    running_nginx,
    token,
)

FIGURES: tuple[Figure[Sample], ...] = (
    Figure("MiB/s", lambda sample: sample.octets / MIB / sample.seconds, 0, ">= 0.90"),
    Figure("CPU s per GiB", lambda sample: _per_gib(sample, sample.server_cpu), 3, "<= 1.2"),
    Figure("  PostgreSQL", lambda sample: _per_gib(sample, sample.neighbours_cpu["PostgreSQL"]), 4),
    Figure("  Valkey", lambda sample: _per_gib(sample, sample.neighbours_cpu["Valkey"]), 4),
    Figure("server's core busy, %", lambda sample: 100 * sample.server_cpu / sample.seconds, 0),
)


def _per_gib(sample: Sample, seconds: float) -> float:
    return seconds * GIB / sample.octets


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", default="1GiB", show_default=True, callback=options.size, help="File for a single client.")
@click.option(
    "--each", default="64MiB", show_default=True, callback=options.size, help="File that each of many clients gets."
)
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(1, 1000))
@click.option(
    "--clients",
    default="1,32",
    show_default=True,
    callback=options.numbers(1, 256),
    help="Numbers of clients, in turn.",
)
def main(size: int, each: int, rounds: int, clients: list[int]) -> None:
    """Compare the gateway with nginx's sendfile, and print medians, spreads and ratios."""
    nginx = find_nginx()
    with ending_in_order():
        network, cores = own_network(), choose_cores()
        click.echo(circumstances(network, cores, nginx.version))
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            large, small = _files(Path(name), size, each)
            with both(Path(name), [large, small], nginx, cores) as servers, load_process(cores) as load:
                for count in clients:
                    _compare(large if count == 1 else small, count, servers, load, rounds)
                servers.check_charges()


def _files(directory: Path, size: int, each: int) -> tuple[BenchmarkFile, BenchmarkFile]:
    root = directory / "files"
    root.mkdir()
    return make_file(root, "large.bin", size), make_file(root, "each.bin", each)


class Servers:
    """Both servers, and what the gateway must have been charged with."""

    def __init__(self, gateway: RunningServer, nginx: RunningServer, configuration: Path) -> None:
        self._gateway, self._nginx, self._configuration = gateway, nginx, configuration
        self._bearer = token()
        self.downloaded = 0

    def sides(self, file: BenchmarkFile, clients: int, *, hashed: bool = False) -> tuple[Side, Side]:
        """The gateway's download of ``file`` and nginx's, to each of ``clients``."""
        ours, peers = request_head(file.gateway_path, self._bearer), request_head(f"/{file.name}")
        return (
            Side(
                "gateway",
                [self._gateway.pid],
                Job(self._gateway.port, ours, file.size, clients, clients, hashed=hashed),
            ),
            Side("nginx", [self._nginx.pid], Job(self._nginx.port, peers, file.size, clients, clients, hashed=hashed)),
        )

    def check(self, file: BenchmarkFile, load: Load) -> None:
        """See that both serve the file byte for byte, and that the gateway serves it to nobody without a right."""
        for side in self.sides(file, 1, hashed=True):
            if load.run(side.job).sha256 != file.sha256:
                raise LoadError(f"{side.name} does not serve {file.name} as it is")
        self.downloaded += file.size
        try:
            load.run(Job(self._gateway.port, request_head(file.gateway_path), file.size))
        except LoadError as error:
            if "status 40" not in str(error):
                raise
        else:
            raise LoadError("the gateway serves the file to anybody: its checks are not what is measured")

    def check_charges(self) -> None:
        """See that every byte was counted against the quota: the gateway did all of its work."""
        charged = charged_bytes(self._configuration)
        if charged != self.downloaded:
            raise LoadError(f"{self.downloaded} bytes were downloaded, but {charged} were charged")
        click.echo(f"\nAll {self.downloaded / GIB:.1f} GiB that came from the gateway were charged to the quota.")


@contextlib.contextmanager
def both(directory: Path, files: list[BenchmarkFile], nginx: Nginx, cores: Cores) -> Iterator[Servers]:
    """Run PostgreSQL, Valkey, the gateway and nginx."""
    with (
        catalogue(directory, files, cores) as configuration,
        running_gateway(directory, configuration, cores.server) as gateway,
        running_nginx(nginx, directory, cores.server) as peer,
    ):
        yield Servers(gateway, peer, configuration)


def _compare(file: BenchmarkFile, clients: int, servers: Servers, load: Load, rounds: int) -> None:
    servers.check(file, load)
    sides = servers.sides(file, clients)
    samples = alternate(sides, load, rounds)
    servers.downloaded += (rounds + 1) * clients * file.size
    title = f"{clients} client{'s' * (clients > 1)}, {file.size / MIB:g} MiB each"
    click.echo(f"\n{title}; median (least-most) of {rounds} rounds in turn")
    click.echo(table([side.name for side in sides], samples, FIGURES))


if __name__ == "__main__":
    main()
