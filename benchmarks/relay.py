"""Files of an object store streamed through the gateway, with all its checks, beside relays without any.

``python -m benchmarks.relay``: 1 GiB to one client, then 64 MiB to each of 32, over plain HTTP and over TLS from the
store; beside nginx's ``proxy_pass``, and beside a Starlette application that relays with httpx or aiohttp. In the
place of the store is another nginx, so that the relays are what is measured: stores give far less than a relay can
take. Each peer is measured in several ways first, and compared in the one that gives most bytes a second; of those that
give nearly as many, in the one that takes the least CPU time.

The relay under test has a core of its own. The store's stand-in shares the other core with the load, PostgreSQL and
Valkey: beside the relay it would take the relay's time. What it does there is little over plain HTTP (sendfile) but
not nothing, and over TLS it encrypts; "server's core busy" tells whether the relay was what all waited for, and where
it was not, its CPU seconds per GiB are the figure to look at. The load sleeps when there is nothing to take instead of
polling, since otherwise it would take the stand-in's time; both wake each other on a core that is seldom idle.

Needs nginx, the ``demo`` extra and the ``dev`` group; best run as root, as `benchmarks.large_file`. Figures to reach
are shown beside what was measured, and are not judged here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
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
    check_served,
    circumstances,
    ending_in_order,
    measure,
    own_network,
    table,
)
from benchmarks.load import Job, Load, LoadError, load_process
from benchmarks.processes import Cores, choose_cores
from benchmarks.setting_up import (
    BenchmarkFile,
    Nginx,
    RunningServer,
    catalogue_of,
    charged_bytes,
    find_nginx,
    make_file,
    request_head,
    running_app,
    running_gateway,
    running_nginx,
    token,
)
from benchmarks.starlette_app import CLIENTS
from benchmarks.upstream import BUCKET, SCHEMES, TLS, Upstream, copies_over_each, over, running_upstream

TRIALS = 3
"""Runs of each way of a peer, before the best is compared."""
NEARLY = 0.9
"""A way that gives this share of what the fastest gives is as good: what limits both may be the store's stand-in."""
GOALS = {"http": (">= 1.0", "<= 1.0"), "https": (">= 0.9", "<= 1.1")}
"""What throughput and CPU time are to be beside those of any peer; over TLS the cipher is most of the cost for all."""
PACKAGES = "starlette", "uvicorn", "uvloop", "httptools", "httpx"
PROXIES = {
    "default": "",
    "off": "proxy_buffering off;",
    "1m": "proxy_buffer_size 1m; proxy_buffers 8 1m; proxy_max_temp_file_size 0;",
    "off-1m": "proxy_buffering off; proxy_buffer_size 1m; proxy_buffers 4 1m;",
}
"""Ways of nginx, by what their paths start with. Its buffers of 4 or 8 KiB are what makes it slow by default."""


def figures(scheme: str) -> tuple[Figure[Sample], ...]:
    """The rows of a comparison."""
    throughput, cpu = GOALS[scheme]
    return (
        Figure("MiB/s", lambda sample: sample.octets / MIB / sample.seconds, 0, throughput),
        Figure("CPU s per GiB", lambda sample: _per_gib(sample, sample.server_cpu), 3, cpu),
        Figure("  store's stand-in", lambda sample: _per_gib(sample, sample.neighbours_cpu["store"]), 3),
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
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(1, 1000))
@click.option(
    "--clients",
    default="1,32",
    show_default=True,
    callback=options.numbers(1, 256),
    help="Numbers of clients, in turn.",
)
@click.option(
    "--scheme",
    "schemes",
    default=SCHEMES,
    show_default=True,
    multiple=True,
    type=click.Choice(SCHEMES),
    help="Of the store; may be given twice.",
)
def main(size: int, each: int, rounds: int, clients: list[int], schemes: Sequence[str]) -> None:
    """Compare the gateway with other relays, and print medians, spreads and ratios."""
    nginx = find_nginx()
    with ending_in_order():
        network, cores = own_network(), choose_cores()
        click.echo(circumstances(network, cores, nginx.version, *(f"{name} {version(name)}" for name in PACKAGES)))
        click.echo(f"store     {nginx.version} in its place, on core {cores.load}; the load there sleeps when idle")
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            root = Path(name) / "store" / "files"
            (root / BUCKET).mkdir(parents=True)
            files = make_file(root / BUCKET, "large.bin", size), make_file(root / BUCKET, "each.bin", each)
            with _running(Path(name), files, nginx, cores) as relays, load_process(cores, polls=False) as load:
                for scheme in schemes:
                    for count in clients:
                        relays.compare(scheme, files[0] if count == 1 else files[1], count, load, rounds)
                relays.check()


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """A relay that the gateway is compared with."""

    server: RunningServer
    ways: Sequence[str]
    """What the paths of its ways to relay start with."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What a way of a peer gave."""

    side: Side
    rate: float
    """Most MiB/s."""
    cpu: float
    """Least seconds of CPU time per GiB."""

    @classmethod
    def of(cls, side: Side, samples: Sequence[Sample]) -> Trial:
        """The best of some runs: what else a machine does only ever makes a run worse."""
        rate, cpu, *_ = figures("http")
        return cls(side, max(map(rate.of, samples)), min(map(cpu.of, samples)))


def best(tried: Sequence[Trial]) -> Trial:
    """Of the ways that give nearly the most bytes a second, the one that takes the least CPU time."""
    most = max(trial.rate for trial in tried)
    return min((trial for trial in tried if trial.rate >= NEARLY * most), key=lambda trial: trial.cpu)


class Relays:
    """The gateway, its peers, and what the gateway must have been charged with."""

    def __init__(
        self,
        upstream: Upstream,
        gateway: RunningServer,
        peers: Mapping[tuple[str, str], Peer],
        configuration: Path,
    ) -> None:
        self._upstream, self._gateway, self._peers, self._configuration = upstream, gateway, peers, configuration
        self._bearer = token()
        self._relayed = 0

    def compare(self, scheme: str, file: BenchmarkFile, clients: int, load: Load, rounds: int) -> None:
        """Measure the gateway and each peer in turn, and print what came."""
        ours = over(scheme, file)
        check_served(load, self._gateway.port, ours.gateway_path, self._bearer, ours)
        side = self._side("gateway", self._gateway, request_head(ours.gateway_path, self._bearer), file, clients)
        self._relayed += file.size
        title = f"{scheme}, {clients} client{'s' * (clients > 1)}, {file.size / MIB:g} MiB each"
        click.echo(f"\n{title}; median (least-most) of {rounds} rounds in turn")
        for name in sorted({name for name, _ in self._peers}):
            peer = self._best(name, self._peers[name, scheme], file, clients, load)
            samples = alternate((side, peer), load, rounds)
            self._relayed += (rounds + 1) * clients * file.size
            click.echo(table([side.name, peer.name], samples, figures(scheme)))

    def check(self) -> None:
        """See that the gateway did all of its work, and that TLS was the same for all.

        Raises:
            LoadError: it was not so.
        """
        charged, ciphers = charged_bytes(self._configuration), self._upstream.ciphers()
        if charged != self._relayed:
            raise LoadError(f"{self._relayed} bytes were downloaded, but {charged} were charged")
        if len(ciphers) > 1:
            raise LoadError(f"TLS was not the same for all: {', '.join(sorted(ciphers))}")
        click.echo(f"\nAll {self._relayed / GIB:.1f} GiB that came from the gateway were charged to the quota.")
        click.echo(f"TLS of all relays: {', '.join(ciphers) or 'none'}")

    def _best(self, name: str, peer: Peer, file: BenchmarkFile, clients: int, load: Load) -> Side:
        """The best way of the peer, after each was seen to give the right bytes."""
        sides = []
        for way in peer.ways:
            path = f"/{way}/{BUCKET}/{file.name}"
            side = self._side(f"{name} {way}", peer.server, request_head(path), file, clients)
            proof = Job(peer.server.port, request_head(path), file.size, hashed=True)
            if load.run(proof).sha256 != file.sha256:
                raise LoadError(f"{side.name} does not relay {file.name} as it is")
            sides.append(side)
        # In turn, as what is compared later: who is alone in a bad moment is not the worst.
        samples = [[measure(side, load) for side in sides] for _ in range(TRIALS)]
        tried = [Trial.of(side, runs) for side, runs in zip(sides, zip(*samples, strict=True), strict=True)]
        shown = (f"{trial.side.name} {trial.rate:,.0f} MiB/s {trial.cpu:.3f} s/GiB" for trial in tried)
        click.echo(f"ways, best of {TRIALS} runs: {', '.join(shown)}")
        return best(tried).side

    def _side(self, name: str, server: RunningServer, head: str, file: BenchmarkFile, clients: int) -> Side:
        job = Job(server.port, head, file.size, clients, clients)
        return Side(name, (server.pid,), job, {"store": self._upstream.pid})


@contextlib.contextmanager
def _running(directory: Path, files: Sequence[BenchmarkFile], nginx: Nginx, cores: Cores) -> Iterator[Relays]:
    """Run the store's stand-in, PostgreSQL, Valkey, the gateway and its peers."""
    store = directory / "store"
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(running_upstream(nginx, store, cores.load))
        copies = copies_over_each(store / "files", files)
        configuration = stack.enter_context(catalogue_of(directory, upstream.storages(), copies, cores))
        gateway = stack.enter_context(running_gateway(directory, configuration, cores.server))
        peers = {}
        for scheme in SCHEMES:
            place = directory / f"nginx-{scheme}"
            (place / "files").mkdir(parents=True)
            proxy = stack.enter_context(running_nginx(nginx, place, cores.server, **directives(upstream, scheme)))
            options = [f"--upstream={upstream.url(scheme)}", f"--ca-file={upstream.certificate}"]
            app = stack.enter_context(running_app(directory, cores.server, "starlette_app", *options))
            peers["nginx", scheme] = Peer(proxy, tuple(PROXIES))
            peers["Starlette", scheme] = Peer(app, CLIENTS)
        yield Relays(upstream, gateway, peers, configuration)


def directives(upstream: Upstream, scheme: str) -> dict[str, str]:
    """Have nginx relay the store over connections that are kept, and hold its certificate against its name."""
    http = f"    upstream store {{ server 127.0.0.1:{upstream.ports[scheme]}; keepalive 64; }}\n"
    server = "        proxy_http_version 1.1;\n        proxy_set_header Connection '';\n"
    if scheme == "https":
        server += (
            f"        proxy_{TLS};\n        proxy_ssl_verify on;\n        proxy_ssl_name 127.0.0.1;\n"
            f"        proxy_ssl_trusted_certificate {upstream.certificate};\n"
        )
    for way, directive in PROXIES.items():
        server += f"        location /{way}/ {{ {directive} proxy_pass {scheme}://store/; }}\n"
    return {"http": http, "server": server}


if __name__ == "__main__":
    main()
