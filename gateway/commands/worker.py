"""``gateway worker``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from gateway.commands.shared import CONFIG, plain_errors
from gateway.config import Config, load


@click.command()
@CONFIG
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="That work at a time.")
def worker(*, config_file: Path | None, workers: int) -> None:
    """Restore nearline files, prepare the files of orders, and tell their users, until SIGTERM or Ctrl-C.

    Any number of processes may, on any number of machines. One that dies loses nothing: another goes on.
    """
    from gateway.ops.logs import json_logs  # noqa: PLC0415 - each command loads only what it needs

    with plain_errors():
        config = load(config_file)
        with json_logs():
            asyncio.run(_work(config, workers))


async def _work(config: Config, workers: int) -> None:
    from gateway.locations import storage_locations  # noqa: PLC0415 - as above
    from gateway.notices.opening import sending_notices  # noqa: PLC0415
    from gateway.notifications import listening  # noqa: PLC0415
    from gateway.orders.service import offline_storages, order_tokens, work_database  # noqa: PLC0415
    from gateway.orders.sums import summing  # noqa: PLC0415
    from gateway.orders.worker import working  # noqa: PLC0415
    from gateway.server import until_stopped  # noqa: PLC0415
    from gateway.staging.opening import open_staging  # noqa: PLC0415
    from gateway.verification import verifying  # noqa: PLC0415

    # ``workers = 0`` of [staging] leaves all to this command.
    of_restores = config.staging.model_copy(update={"workers": max(1, config.staging.workers)})
    as_worker = config.model_copy(update={"staging": of_restores})
    async with (
        storage_locations(config.storage) as locations,
        work_database(config) as database,
        verifying(database, config.delivery.storage_timeout) as verifier,
        summing(config, database, verifier, locations) as sums,
        listening(config.database) as notifications,
        sending_notices(config, database, notifications, order_tokens(config)),
        open_staging(as_worker, notifications, locations) as staging,
        working(
            *(database, notifications, config.orders, staging.stager, sums),
            workers=workers,
            offline=offline_storages(config),
        ),
    ):
        click.echo(f"{workers} workers prepare orders", err=True)
        await until_stopped()
