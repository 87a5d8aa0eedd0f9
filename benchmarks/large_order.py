"""One large order over HTTP: selected, created, prepared and listed whole, and the memory that all of it takes.

``python -m benchmarks.large_order``: everything in a catalogue of ``--files`` files goes into a basket and is ordered;
the worker is inside the gateway. Then all files are listed page by page, one page after the other.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import click

from benchmarks.harness import MIB, conditions, ending_in_order
from benchmarks.memory import forget_peaks, peak_rss, taken_by
from benchmarks.processes import choose_cores, on_core, process_tree
from benchmarks.setting_up import CALLER, disk_storage, running_gateway, token, write_configuration
from gateway.db import apply_schema
from gateway.embedded import run_services

PAGE = 1000
"""Files of a page, REGARDS' largest."""
_TIMEOUT = 900.0
"""Seconds that the gateway may take to answer."""

_CATALOGUE = """
INSERT INTO tenants (name) VALUES ('{tenant}');
INSERT INTO groups (tenant_id, name) SELECT tenant_id, '{group}' FROM tenants;
INSERT INTO datasets (tenant_id, collection_id, urn, body)
SELECT tenant_id, 'collection-' || n, 'URN:AIP:DATASET:bench:' || n || ':V1', '{{}}'
FROM tenants, generate_series(1, {datasets}) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
SELECT dataset_id, group_id, 'FULL_ACCESS', 'INHERITED_ACCESS' FROM datasets, groups;
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
SELECT tenant_id, dataset_id, 'URN:FEATURE:DATA:bench:' || n || ':V1', 'item-' || n, '{{}}', '{{}}'
FROM generate_series(1, {files}) n JOIN datasets ON collection_id = 'collection-' || (1 + {number});
INSERT INTO files
    (product_id, asset_key, data_type, checksum, checksum_algorithm, size, crc32, mime_type, file_name, body)
SELECT product_id, 'data', 'RAWDATA', md5(urn), 'MD5', 1000000, 1, 'image/tiff', provider_id || '.tif', '{{}}'
FROM products;
INSERT INTO copies (file_id, storage, location, size) SELECT file_id, 'disk', 'a/' || file_id, 1000000 FROM files;
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--files", default=1_000_000, show_default=True, type=click.IntRange(1000, 10_000_000))
@click.option("--datasets", default=100, show_default=True, type=click.IntRange(1, 1000))
@click.option("--interleaved", is_flag=True, help="As they come from day to day, and not one dataset after the other.")
def main(files: int, datasets: int, *, interleaved: bool) -> None:
    """Measure one order, and print what its steps take."""
    cores = choose_cores()
    with ending_in_order(), tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "files").mkdir()
        click.echo(
            conditions(f"gateway on core {cores.server}, PostgreSQL and client on core {cores.load}", "loopback")
        )
        with on_core(cores.load):
            services = run_services()
            neighbours = services.__enter__()
        try:
            asyncio.run(fill(neighbours.postgres_dsn, files, datasets, interleaved=interleaved))
            click.echo(f"{files:,} files in {datasets:,} datasets")
            configuration = write_configuration(
                directory,
                neighbours,
                f"{disk_storage(directory / 'files')}[orders]\nmax_files = {files}\ntimeout = {_TIMEOUT}\n",
            )
            with running_gateway(directory, configuration, cores.server) as gateway, on_core(cores.load):
                measure(gateway.pid, gateway.port, files)
        finally:
            services.__exit__(None, None, None)


async def fill(dsn: str, files: int, datasets: int, *, interleaved: bool) -> None:
    """Make the catalogue."""
    connection = await asyncpg.connect(dsn)
    try:
        await apply_schema(connection)
        number = f"n % {datasets}" if interleaved else f"(n - 1) * {datasets} / {files}"
        text = _CATALOGUE.format(
            tenant=CALLER.tenant, group=CALLER.groups[0], files=files, datasets=datasets, number=number
        )
        await connection.execute(text)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def measure(pid: int, port: int, files: int) -> None:
    """Order everything, and list it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    _ask(connection, "GET", "/order/basket")
    pids = process_tree(pid)
    idle = taken_by(pids).rss
    forget_peaks(pids)

    begun = time.perf_counter()
    basket = _ask(connection, "POST", "/order/basket/selection", {"selectAllOpenSearchRequest": ""})["content"]
    counted = sum(one["filesCount"] for one in basket["datasetSelections"])
    begun = _tell(f"selected, {counted:,} files counted", begun, pids)
    order = _ask(connection, "POST", "/user/orders", {})["content"]
    begun = _tell("created", begun, pids)
    while order["status"] in ("PENDING", "RUNNING"):
        time.sleep(0.2)
        order = _ask(connection, "GET", f"/user/orders/{order['id']}")["content"]
    begun = _tell(f"prepared: {order['status']}", begun, pids)
    listed, slowest = 0, 0.0
    for task in order["datasetTasks"]:
        number, pages = 0, 1
        while number < pages:
            asked = time.perf_counter()
            path = f"/orders/{order['id']}/dataset/{task['id']}/files?page={number}&size={PAGE}"
            page = _ask(connection, "GET", path)
            slowest = max(slowest, time.perf_counter() - asked)
            listed, pages, number = listed + len(page["content"]), page["metadata"]["totalPages"], number + 1
    _tell(f"listed {listed:,} files, slowest page {slowest * 1000:.0f} ms", begun, pids)
    click.echo(f"memory of the gateway before: {idle / MIB:.0f} MiB")
    if not counted == listed == files:
        raise click.ClickException("these are not all files")


def _tell(what: str, begun: float, pids: set[int]) -> float:
    now = time.perf_counter()
    click.echo(f"{what}: {now - begun:.1f} s, at most {peak_rss(pids) / MIB:.0f} MiB")
    forget_peaks(pids)
    return time.perf_counter()


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> Any:
    headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status not in (200, 201, 204):
        raise click.ClickException(f"{method} {path}: {answer.status} {content[:500]!r}")
    return json.loads(content) if content else None


if __name__ == "__main__":
    main()
