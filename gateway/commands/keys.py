"""``gateway keys``: API keys."""

from __future__ import annotations

import datetime
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gateway.commands.admin_shared import TENANT, everything, run
from gateway.commands.shared import CONFIG, plain_errors
from gateway.config import load
from gateway.identity.principal import SCOPES
from gateway.text import one_line

if TYPE_CHECKING:
    from gateway.administration.changes import Actor
    from gateway.db import Database
    from gateway.http.forwarded import Network
    from gateway.identity.principal import Scope


def _networks(_context: object, _option: object, values: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(map(ipaddress.ip_network, values))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@CONFIG
@TENANT
@click.option("--email", required=True, help="Who quotas, licences and memberships are bound to.")
@click.option("--label", required=True, help="What the key is for.")
@click.option("--subject", help="Login; the e-mail address unless given.")
@click.option("--role", default="REGISTERED_USER", show_default=True)
@click.option("--group", "groups", multiple=True, help="An access group; may be given several times.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(sorted(SCOPES)),
    default=["download"],
    show_default=True,
    help="What it is good for; may be given several times.",
)
@click.option(
    "--network", "networks", multiple=True, callback=_networks, help="That it may be shown from, like 192.0.2.0/24."
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True, max=36500), help="After which it ends.")
def create(
    *,
    config_file: Path | None,
    tenant: str,
    email: str,
    label: str,
    subject: str | None,
    role: str,
    groups: tuple[str, ...],
    scopes: tuple[str, ...],
    networks: tuple[Network, ...],
    days: float | None,
) -> None:
    """Make a key. It is printed once, on standard output; nobody can tell it again."""
    from gateway.administration.keys import NewKey, create  # noqa: PLC0415 - each command loads only what it needs

    expires = None if days is None else datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    new = NewKey(
        label, subject or email, email, role, groups, cast("tuple[Scope, ...]", scopes), networks or None, expires
    )
    with plain_errors():
        longest = load(config_file).identity.api_keys.max_lifetime
    key, shown = run(
        config_file,
        lambda database, actor: create(database, actor, tenant, new, creator_role=None, max_lifetime=longest),
    )
    click.echo(f"key {key.key_id} of {one_line(email)}, for {', '.join(key.scopes)}", err=True)
    click.echo(shown)


@keys.command("list")
@CONFIG
@TENANT
@click.option("--email", help="Of this user alone.")
def list_(*, config_file: Path | None, tenant: str, email: str | None) -> None:
    """List keys, the newest first, revoked ones last."""
    from gateway.administration.keys import FIRST, list_keys, time_of  # noqa: PLC0415 - as above

    async def work(database: Database, _: Actor) -> None:
        async for key in everything(
            lambda after, limit: list_keys(database, tenant, email, after=after, limit=limit),
            lambda key: key.place,
            FIRST,
        ):
            state = f"revoked {time_of(key.revoked)}" if key.revoked else f"expires {time_of(key.expires) or 'never'}"
            used = f"last used {time_of(key.last_used) or 'never'}"
            scopes = ",".join(key.scopes)
            click.echo(one_line(f"{key.key_id}  {key.email}  {key.role}  {scopes}  {state}, {used}  {key.label!r}"))

    run(config_file, work)


@keys.command()
@CONFIG
@TENANT
@click.argument("key_id")
def revoke(*, config_file: Path | None, tenant: str, key_id: str) -> None:
    """Revoke the key KEY_ID, which are the 12 characters after gdk_; every gateway refuses it at once."""
    from gateway.administration.keys import revoke  # noqa: PLC0415

    if re.fullmatch("[0-9A-Za-z]{12}", key_id) is None:
        raise click.BadParameter("must be the 12 characters after gdk_, not the whole key", param_hint="KEY_ID")

    run(config_file, lambda database, actor: revoke(database, actor, tenant, key_id))
    click.echo(f"{key_id} is revoked")
