"""Orders downloaded as one ZIP from the gateway, with all its checks, beside servers that check nothing.

``python -m benchmarks.order_archive``: an order of 100 files of 16 MiB whose CRC-32 are known beside nginx that sends
the very same bytes from one file; the same order without CRC-32 beside zipstream-ng, which computes them, too; and one
of many small files beside zipstream-ng. For each answer the gateway looks every file up, with the rights of the caller,
and counts it in the quota. Needs nginx, zipstream-ng and the ``demo`` extra; best run as root, which gives it a network
namespace of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

import asyncpg
import click

from benchmarks import options
from benchmarks.archive import Comparison, Served, compare, make_files
from benchmarks.archive_app import zipstream_of
from benchmarks.harness import MIB, circumstances, ending_in_order, own_network
from benchmarks.load import LoadError, load_process
from benchmarks.processes import Cores, choose_cores
from benchmarks.setting_up import (
    RunningServer,
    catalogue,
    find_nginx,
    running_app,
    running_gateway,
    running_nginx,
    token,
)
from gateway.config import load as load_config
from gateway.crc32 import crc32

PATIENCE_SECONDS = 600
# Every answer is to compute all CRC-32 anew, though the gateway remembers them.
_FORGETTING = """
UPDATE files SET crc32 = NULL;
CREATE FUNCTION forget_crc32() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.crc32 := NULL; RETURN NEW; END';
CREATE TRIGGER forget_crc32 BEFORE UPDATE ON files FOR EACH ROW EXECUTE FUNCTION forget_crc32()"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--files", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Large members.")
@click.option("--size", default="16MiB", show_default=True, callback=options.size, help="Bytes of each.")
@click.option("--small-files", default=5000, show_default=True, type=click.IntRange(1, 100_000), help="Small members.")
@click.option("--small-size", default="16KiB", show_default=True, callback=options.size, help="Bytes of each.")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 1000))
@click.option("--clients", default="1,16", show_default=True, callback=options.numbers(1, 256), help="In turn.")
def main(*, files: int, size: int, small_files: int, small_size: int, rounds: int, clients: list[int]) -> None:
    """Compare archives of orders, and print medians, spreads and ratios."""
    nginx = find_nginx()
    with ending_in_order(), tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        network, cores = own_network(), choose_cores()
        computed = f"CRC-32 by {crc32.__module__}"
        click.echo(circumstances(network, cores, nginx.version, f"zipstream-ng {version('zipstream-ng')}", computed))
        large, small = Path(name) / "large", Path(name) / "small"
        with load_process(cores) as load:
            with _ordered(large, files, size, cores) as order:
                order.save(large / "peer" / "files" / "order.zip")
                with running_nginx(nginx, large / "peer", cores.server) as peer:
                    for count in clients:
                        known = order.served()
                        sendfile = Served("nginx", peer, "/order.zip", known.length)
                        compare(Comparison("CRC-32 known", known, sendfile, ">= 0.85", same=True), load, rounds, count)
                shutil.rmtree(large / "peer")
                asyncio.run(_forget_sums(order.configuration))
                compare(Comparison("CRC-32 not known", order.served(), order.zipstream, ">= 2"), load, rounds)
            shutil.rmtree(large)
            with _ordered(small, small_files, small_size, cores) as order:
                compare(Comparison("small members, CRC-32 known", order.served(), order.zipstream, " "), load, rounds)


@dataclasses.dataclass(frozen=True, slots=True)
class _Order:
    """An order that is ready, and its archive by zipstream-ng."""

    gateway: RunningServer
    configuration: Path
    order_id: int
    zipstream: Served

    def served(self) -> Served:
        """Its archive as the gateway has it now."""
        length = int(_ask(self.gateway, "HEAD", self._path).headers["Content-Length"])
        return Served("gateway", self.gateway, self._path, length, token())

    def save(self, target: Path) -> None:
        """Write the archive into a file."""
        target.parent.mkdir(parents=True)
        with target.open("wb") as file:
            shutil.copyfileobj(_ask(self.gateway, "GET", self._path), file, MIB)

    @property
    def _path(self) -> str:
        return f"/user/orders/{self.order_id}/download"


@contextlib.contextmanager
def _ordered(directory: Path, count: int, size: int, cores: Cores) -> Iterator[_Order]:
    """Have the gateway serve files that are made here, and order them all."""
    directory.mkdir()
    root = directory / "files"
    made = make_files(root, count, size)
    with (
        catalogue(directory, made, cores) as configuration,
        running_gateway(directory, configuration, cores.server) as gateway,
        running_app(directory, cores.server, "archive_app", f"--directory={root}", "--zipstream") as peer,
    ):
        order_id = _order(gateway)
        yield _Order(gateway, configuration, order_id, Served("zipstream-ng", peer, "/", len(zipstream_of(root))))


def _order(gateway: RunningServer) -> int:
    """Order everything, and wait until it is ready.

    Raises:
        LoadError: it is not.
    """
    order_id: int = json.load(_ask(gateway, "POST", "/user/orders/apply", json.dumps({"queries": [""]})))["orderId"]
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        status = json.load(_ask(gateway, "GET", f"/user/orders/{order_id}"))["content"]["status"]
        if status == "DONE":
            return order_id
        if status not in ("PENDING", "RUNNING"):
            break
        time.sleep(0.2)
    raise LoadError(f"the order is {status}")


def _ask(gateway: RunningServer, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS)
    connection.request(method, path, body, {"Authorization": f"Bearer {token()}", "Connection": "close"})
    response = connection.getresponse()
    if response.status != HTTPStatus.OK:
        raise LoadError(f"{method} {path}: status {response.status}: {response.read(1000)!r}")
    return response


async def _forget_sums(configuration: Path) -> None:
    connection = await asyncpg.connect(load_config(configuration).database.dsn.get_secret_value())
    try:
        await connection.execute(_FORGETTING)
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
