"""Small files through the gateway beside nginx whose auth_request asks the plain application to do the checks.

``python -m benchmarks.small_files``: 4 KiB and 1 MiB files to 64 connections that are kept open, both sides in turn on
one core, which nginx shares with the application. Needs nginx and the ``demo`` extra, best as root, as
`benchmarks.large_file` does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks.harness import (
    MIB,
    Figure,
    Sample,
    Side,
    alternate,
    check_served,
    circumstances,
    ending_in_order,
    own_network,
    table,
)
from benchmarks.load import Job, load_process
from benchmarks.processes import Cores, choose_cores
from benchmarks.setting_up import (
    BenchmarkFile,
    Nginx,
    catalogue,
    find_nginx,
    make_file,
    request_head,
    running_gateway,
    running_nginx,
    running_plain_app,
    token,
)

SIZES = {"4KiB.bin": 4096, "1MiB.bin": MIB}
FIGURES: tuple[Figure[Sample], ...] = (
    Figure("requests/s", lambda sample: sample.requests / sample.seconds, 0, ">= 1.0"),
    Figure("CPU ms per request", lambda sample: 1000 * sample.server_cpu / sample.requests, 3, "<= 1.0"),
    Figure("  PostgreSQL", lambda sample: 1000 * sample.neighbours_cpu["PostgreSQL"] / sample.requests, 3),
    Figure("  Valkey", lambda sample: 1000 * sample.neighbours_cpu["Valkey"] / sample.requests, 3),
    Figure("servers' core busy, %", lambda sample: 100 * sample.server_cpu / sample.seconds, 0),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000))
@click.option("--clients", default=64, show_default=True, type=click.IntRange(1, 256))
@click.option("--requests", default=2000, show_default=True, type=click.IntRange(256, 10**6), help="In each run.")
def main(rounds: int, clients: int, requests: int) -> None:
    """Compare the gateway with nginx and auth_request, and print medians, spreads and ratios."""
    nginx = find_nginx()
    with ending_in_order():
        network, cores = own_network(), choose_cores()
        click.echo(circumstances(network, cores, nginx.version))
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            directory = Path(name)
            (directory / "files").mkdir()
            files = [make_file(directory / "files", name, size) for name, size in SIZES.items()]
            _run(directory, files, nginx, cores, rounds=rounds, clients=clients, requests=requests)


def _run(
    directory: Path,
    files: list[BenchmarkFile],
    nginx: Nginx,
    cores: Cores,
    *,
    rounds: int,
    clients: int,
    requests: int,
) -> None:
    with (
        catalogue(directory, files, cores) as configuration,
        running_gateway(directory, configuration, cores.server) as gateway,
        running_plain_app(directory, configuration, cores.server, "auth") as checks,
        running_nginx(nginx, directory, cores.server, **_directives(checks.port, files)) as peer,
        load_process(cores) as load,
    ):
        bearer = token()
        for file in files:
            ours = Job(gateway.port, request_head(file.gateway_path, bearer), file.size, clients, requests)
            peers = Job(peer.port, request_head(f"/{file.name}", bearer), file.size, clients, requests)
            sides = Side("gateway", [gateway.pid], ours), Side("auth_request", [peer.pid, checks.pid], peers)
            check_served(load, gateway.port, file.gateway_path, bearer, file)
            check_served(load, peer.port, f"/{file.name}", bearer, file)
            samples = alternate(sides, load, rounds)
            title = f"{file.size / 1024:g} KiB, {clients} connections; median (least-most) of {rounds} rounds in turn"
            click.echo(f"\n{title}, {requests} requests each")
            click.echo(table([side.name for side in sides], samples, FIGURES))


def _directives(port: int, files: list[BenchmarkFile]) -> dict[str, str]:
    """Have nginx ask the application, over connections that are kept, before it serves one of the files."""
    http = f"    upstream checks {{ server 127.0.0.1:{port}; keepalive 64; }}\n"
    server = "        proxy_http_version 1.1;\n        proxy_set_header Connection '';\n"
    for file in files:
        server += (
            f"        location = /{file.name} {{ auth_request /checks/{file.name}; }}\n"
            f"        location = /checks/{file.name} {{ internal; proxy_pass_request_body off; "
            f"proxy_pass http://checks{file.gateway_path}; }}\n"
        )
    return {"http": http, "server": server}


if __name__ == "__main__":
    main()
