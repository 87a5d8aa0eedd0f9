"""``gateway sessions``: sessions of browsers."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.commands.keys import ACTOR, TENANT, connected, run
from gateway.commands.shared import CONFIG
from gateway.config import Config


@click.group()
def sessions() -> None:
    """Look after sessions of browsers."""


@sessions.command()
@CONFIG
@TENANT
@click.option("--email", help="All sessions of this user.")
@click.option("--all", "everything", is_flag=True, help="All sessions of the tenant.")
def end(*, config_file: Path | None, tenant: str, email: str | None, everything: bool) -> None:
    """End sessions; every gateway refuses their cookies at once. Whoever had one may log in again."""
    if everything == (email is not None):
        raise click.UsageError("name --email or --all")
    from gateway.administration.changes import Actor  # noqa: PLC0415 - each command loads only what it needs
    from gateway.administration.sessions import end_sessions  # noqa: PLC0415

    async def work(config: Config) -> int:
        async with connected(config) as database:
            return await end_sessions(database, Actor(ACTOR), tenant, email)

    click.echo(f"{run(work, config_file)} ended")
