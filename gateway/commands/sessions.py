"""``gateway sessions``: sessions of browsers."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.commands.admin_shared import TENANT, run
from gateway.commands.shared import CONFIG


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
    from gateway.administration.sessions import end_sessions  # noqa: PLC0415 - each command loads only what it needs

    ended = run(config_file, lambda database, actor: end_sessions(database, actor, tenant, email))
    click.echo(f"{ended} ended")
