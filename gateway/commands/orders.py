"""``gateway orders``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from gateway.commands.shared import CONFIG, plain_errors
from gateway.config import Config, load

_MOST = 1000


@click.group()
def orders() -> None:
    """Look after orders."""


@orders.command()
@CONFIG
@click.option("--again", is_flag=True, help="Try all again that were given up.")
def notices(*, config_file: Path | None, again: bool) -> None:
    """Show which mails and webhook calls wait, failed or were given up."""
    with plain_errors():
        asyncio.run(_notices(load(config_file), again=again))


async def _notices(config: Config, *, again: bool) -> None:
    import gateway.db  # noqa: PLC0415 - each command loads only what it needs
    from gateway.errors import GatewayError  # noqa: PLC0415
    from gateway.notices import spool  # noqa: PLC0415
    from gateway.text import one_line  # noqa: PLC0415

    async with gateway.db.connect(config.database, ()) as database:
        try:
            if again:
                click.echo(f"{await spool.revive(database)} are tried again")
            for row in await spool.tally(database):
                since = f" since {row['oldest']:%Y-%m-%d %H:%M:%S%z}" if row["oldest"] is not None else ""
                click.echo(f"{row['channel']}: {row['waiting']} wait{since}, {row['given_up']} given up")
            for row in await spool.troubled(database, _MOST):
                state = "given up" if row["given_up_at"] is not None else "tried again"
                click.echo(
                    f"{row['notice_id']} {row['channel']} {one_line(row['tenant'])} order {row['order_id']} "
                    f"{row['kind']}: {state} after {row['tries']}: {one_line(row['error'])}"
                )
        except GatewayError as error:
            raise click.ClickException(f"given up: {error.detail}") from error
