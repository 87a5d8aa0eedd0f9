"""Redirects to signed URLs with all checks, beside the same written plainly, and beside frameworks that check nothing.

``python -m benchmarks.redirects``: requests a second at 64 connections that are kept, and latencies at a single one, of
307 answers. The gateway verifies the token, asks PostgreSQL for the right and the file, reserves quota in Valkey,
settles it, signs, and writes its access log. The first peer does the same by the gateway's libraries as they are
usually used, but for the settlement (`benchmarks.plain_app`); the others answer with one and the same URL
(`benchmarks.bare_redirects`). Nobody asks the store, and none is there. Needs the ``demo`` extra and the ``dev`` group;
best run as root, as `benchmarks.large_file`. Figures to reach are shown beside what was measured, and are not judged
here.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import click

from benchmarks.bare_redirects import FRAMEWORKS
from benchmarks.harness import (
    MIB,
    Figure,
    Sample,
    Side,
    Spread,
    alternate,
    circumstances,
    ending_in_order,
    own_network,
    table,
)
from benchmarks.load import Job, Load, LoadError, load_process
from benchmarks.plain_app import STORE
from benchmarks.processes import Cores, choose_cores
from benchmarks.setting_up import (
    BenchmarkFile,
    FileCopy,
    RunningServer,
    catalogue_of,
    charged_bytes,
    request_head,
    running_app,
    running_gateway,
    running_plain_app,
    token,
)
from benchmarks.upstream import BUCKET, s3_storage

PLAIN = "plain"
LOG_SECONDS = 5
"""That the last lines of a log may take: they are gathered before they are written."""
AT_ONE, AT_MANY = (PLAIN, "aiohttp"), (PLAIN, "starlette", "fastapi")
"""Peers at a single connection, and at many."""
GOALS = {PLAIN: 8.0, "fastapi": 1.2}
"""Requests a second at many connections, as a multiple of the peer's."""
ADDED_GOAL = 0.6
"""Milliseconds that all checks may add to the median at one connection."""
BODIES = {PLAIN: len("307: Temporary Redirect")}
"""Bytes of a body that a peer sends along; the others send none."""
PACKAGES = "aiobotocore", "starlette", "fastapi", "uvicorn", "uvloop", "httptools"
FILE = BenchmarkFile("granule.tif", 64 * MIB, hashlib.sha256(b"").hexdigest())
"""Nobody reads it."""


def figures(peer: str, clients: int) -> tuple[Figure[Sample], ...]:
    """The rows of a comparison with ``peer``."""
    throughput = cpu = ""
    if clients > 1 and peer in GOALS:
        throughput, cpu = f">= {GOALS[peer]:g}", f"<= {1 / GOALS[peer]:.3g}"
    return (
        Figure("requests/s", lambda sample: sample.requests / sample.seconds, 0, throughput),
        Figure("latency: median, ms", lambda sample: 1000 * sample.median, 3),
        Figure("latency: p99, ms", lambda sample: 1000 * sample.p99, 3),
        Figure("CPU ms per request", lambda sample: 1000 * sample.server_cpu / sample.requests, 3, cpu),
        Figure("  PostgreSQL", lambda sample: 1000 * sample.neighbours_cpu["PostgreSQL"] / sample.requests, 3),
        Figure("  Valkey", lambda sample: 1000 * sample.neighbours_cpu["Valkey"] / sample.requests, 3),
        Figure("server's core busy, %", lambda sample: 100 * sample.server_cpu / sample.seconds, 0),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(1, 1000))
@click.option("--clients", default=64, show_default=True, type=click.IntRange(2, 256), help="Besides a single one.")
@click.option("--requests", default=5000, show_default=True, type=click.IntRange(256, 10**6), help="In each run.")
@click.option(
    "--single", default=1000, show_default=True, type=click.IntRange(1, 10**6), help="Likewise by one client."
)
def main(rounds: int, clients: int, requests: int, single: int) -> None:
    """Compare the gateway's redirects with those of its peers, and print medians, spreads and ratios."""
    with ending_in_order():
        network, cores = own_network(), choose_cores()
        click.echo(circumstances(network, cores, *(f"{name} {version(name)}" for name in PACKAGES)))
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-") as name,
            _running(Path(name), cores) as redirects,
            load_process(cores) as load,
        ):
            for count, number in ((clients, requests), (1, single)):
                redirects.compare(load, count, number, rounds)
            redirects.check()


class Redirects:
    """The gateway and its peers."""

    def __init__(self, gateway: RunningServer, peers: dict[str, RunningServer], configuration: Path, log: Path) -> None:
        self._gateway, self._peers, self._configuration, self._log = gateway, peers, configuration, log
        self._bearer = token()
        self._head = request_head(FILE.gateway_path, self._bearer)
        self._answered = 0

    def compare(self, load: Load, clients: int, requests: int, rounds: int) -> None:
        """Measure the gateway and each peer in turn, and print what came."""
        title = f"{clients} connection{'s' * (clients > 1)}"
        click.echo(f"\n{title}; median (least-most) of {rounds} rounds in turn, {requests} requests each")
        for name in AT_MANY if clients > 1 else AT_ONE:
            peer = self._peers[name]
            sides = self._side("gateway", self._gateway, clients, requests), self._side(name, peer, clients, requests)
            samples = alternate(sides, load, rounds)
            self._answered += (rounds + 1) * requests
            click.echo(table([side.name for side in sides], samples, figures(name, clients)))
            if name == "aiohttp":
                click.echo(about_added(*samples))

    def check(self) -> None:
        """See that the gateway did all of its work: a signed URL, nothing without a token, charges and log lines.

        Raises:
            LoadError: it was not so.
        """
        for name, port in (("gateway", self._gateway.port), (PLAIN, self._peers[PLAIN].port)):
            check_redirect(name, *_get(port, self._bearer))
            if (status := _get(port, None)[0]) not in (401, 403):
                raise LoadError(f"{name} answers {status} without a token")
        self._answered += 1
        # What is handed over is charged once for each caller and content.
        charged = charged_bytes(self._configuration)
        if charged != FILE.size:
            raise LoadError(f"{FILE.size} bytes are charged for redirects to one file, not {charged}")
        deadline = time.monotonic() + LOG_SECONDS
        while (lines := count_answers(self._log.read_text(), 307)) < self._answered and time.monotonic() < deadline:
            time.sleep(0.1)
        if lines != self._answered:
            raise LoadError(f"{self._answered} redirects were given, but {lines} are in the access log")
        click.echo(f"\nAll {self._answered} redirects of the gateway were charged and logged.")

    def _side(self, name: str, server: RunningServer, clients: int, requests: int) -> Side:
        job = Job(server.port, self._head, BODIES.get(name, 0), clients, requests, status=307)
        return Side(name, (server.pid,), job)


def check_redirect(name: str, status: int, target: str) -> None:
    """See that an answer leads to a signed URL of the store.

    Raises:
        LoadError: it does not.
    """
    url = urlsplit(target)
    if status != 307 or f"{url.scheme}://{url.netloc}" != STORE or "Signature=" not in url.query:
        raise LoadError(f"{name} gives no redirect to a signed URL: {status} {url.scheme}://{url.netloc}{url.path}")


def count_answers(log: str, status: int) -> int:
    """Lines of the gateway's access log with ``status``."""
    lines = (line for line in log.splitlines() if line.startswith("{"))
    return sum(json.loads(line).get("status") == status for line in lines)


def about_added(ours: Sequence[Sample], bare: Sequence[Sample]) -> str:
    """What the checks add to the latency of bare redirects, as a line."""
    added = (1000 * (our.median - its.median) for our, its in zip(ours, bare, strict=True))
    return f"all checks add to the median latency: {Spread.of(added).show(3)} ms; to reach <= {ADDED_GOAL:g} ms"


def _get(port: int, bearer: str | None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        connection.request("GET", FILE.gateway_path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location", "")


@contextlib.contextmanager
def _running(directory: Path, cores: Cores) -> Iterator[Redirects]:
    """Run PostgreSQL, Valkey, the gateway and its peers."""
    copy = FileCopy("s3", f"{BUCKET}/{FILE.name}", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "its-etag")
    storage = s3_storage("s3", STORE, delivery="redirect")
    with contextlib.ExitStack() as stack:
        configuration = stack.enter_context(catalogue_of(directory, storage, {FILE: copy}, cores))
        gateway = stack.enter_context(running_gateway(directory, configuration, cores.server))
        peers = {PLAIN: stack.enter_context(running_plain_app(directory, configuration, cores.server, "redirect"))}
        for framework in FRAMEWORKS:
            app = running_app(directory, cores.server, "bare_redirects", f"--framework={framework}")
            peers[framework] = stack.enter_context(app)
        yield Redirects(gateway, peers, configuration, directory / "gateway.log")


if __name__ == "__main__":
    main()
