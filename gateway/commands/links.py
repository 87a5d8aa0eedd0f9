"""``gateway links``: signed download links."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.commands.admin_shared import TENANT, run
from gateway.commands.shared import CONFIG


@click.group()
def links() -> None:
    """Look after signed download links."""


@links.command("revoke-key")
@CONFIG
@TENANT
@click.option("--email", help="All links of this user.")
@click.option("--key", "key_id", help="All links whose ids begin with this key id.")
@click.option("--all", "everything", is_flag=True, help="All links of the tenant.")
def revoke_key(
    *, config_file: Path | None, tenant: str, email: str | None, key_id: str | None, everything: bool
) -> None:
    """Revoke keys that links are signed with, and so all links that they signed; every gateway refuses them at once.

    Links that are made later are signed with new keys.
    """
    if everything == (email is not None or key_id is not None):
        raise click.UsageError("name --email, --key or both; or --all")
    from gateway.administration.links import revoke_keys  # noqa: PLC0415 - each command loads only what it needs

    revoked = run(config_file, lambda database, actor: revoke_keys(database, actor, tenant, email=email, key_id=key_id))
    if not revoked:
        raise click.ClickException("there is no such key in use")
    for one in revoked:
        click.echo(f"{one} is revoked")
