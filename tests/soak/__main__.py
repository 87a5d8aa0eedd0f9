"""``python -m tests.soak``: a million raced reservations while processes, replies and Redis are lost; see ``--help``.

Starts a PostgreSQL and a Valkey of its own. Exit status 1 if anything is not as promised.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import asyncpg
import click

from gateway.db import apply_schema
from gateway.embedded import run_services
from tests.soak.supervisor import Options, Report, soak


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--reservations", default=1_000_000, show_default=True, type=click.IntRange(1000))
@click.option("--processes", default=4, show_default=True, type=click.IntRange(2, 64))
@click.option("--tasks", default=64, show_default=True, type=click.IntRange(1, 1000), help="Of each process.")
@click.option("--kills", default=20, show_default=True, type=click.IntRange(0, 1000), help="Of processes.")
@click.option("--restarts", default=6, show_default=True, type=click.IntRange(0, 100), help="Of Valkey.")
@click.option("--seed", default=1, show_default=True)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Directory for logs; empty or new.")
def main(
    reservations: int, processes: int, tasks: int, kills: int, restarts: int, seed: int, keep: Path | None
) -> None:
    """Race reservations, and see that the counts are right."""
    options = Options(reservations, processes, tasks, kills, restarts, seed=seed)
    with tempfile.TemporaryDirectory() as temporary, run_services() as services:
        directory = keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(_run(options, services.postgres_dsn, directory))
    click.echo(report.show())
    sys.exit(1 if report.violations else 0)


async def _run(options: Options, dsn: str, directory: Path) -> Report:
    connection = await asyncpg.connect(dsn)
    await apply_schema(connection)
    await connection.close()
    return await soak(options, dsn, directory)


if __name__ == "__main__":
    main()
