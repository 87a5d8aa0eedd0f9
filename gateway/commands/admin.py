"""``gateway admin``: what administrators write, from the command line, without a running gateway."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.admin_grants import licences, rights, roles
from gateway.commands.admin_limits import limits
from gateway.commands.admin_people import groups, members, tenants
from gateway.commands.admin_shared import run
from gateway.commands.shared import CONFIG

if TYPE_CHECKING:
    from gateway.administration.changes import Actor
    from gateway.db import Database


@click.group()
def admin() -> None:
    """Tenants, groups, members, rights, licences, roles, limits, and the record of changes.

    Every change is recorded as made by "command line". Ends with status 1 if it is refused.
    """


@admin.command()
@click.option("--tenant", default="", help="Of this tenant; those of tenants that are gone unless given.")
@click.option("--email", help="Of this administrator.")
@click.option("--action", help='Like "group.create".')
@click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="In UTC.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=1))
@CONFIG
def changes(
    *,
    tenant: str,
    email: str | None,
    action: str | None,
    since: datetime.datetime | None,
    limit: int,
    config_file: Path | None,
) -> None:
    """What administrators changed, the newest first, as JSON lines."""
    from gateway.administration import records  # noqa: PLC0415

    equal = {name: value for name, value in (("email", email), ("action", action)) if value is not None}
    start = None if since is None else since.replace(tzinfo=datetime.UTC)
    wanted = records.Wanted(records.CHANGES, tenant, start=start, equal=equal)

    async def work(database: Database, _: Actor) -> None:
        async for some in records.pages(database, wanted, limit=limit):
            for one in some:
                click.echo(json.dumps(one))

    run(config_file, work)


for command in (tenants, groups, members, rights, licences, roles, limits):
    admin.add_command(command)
