"""``gateway admin tenants``, ``groups`` and ``members``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.admin_shared import TENANT, everything, run, show
from gateway.commands.shared import CONFIG

if TYPE_CHECKING:
    from gateway.db import Database


@click.group()
def tenants() -> None:
    """Who shares this gateway."""


@tenants.command("list")
@CONFIG
def list_tenants(*, config_file: Path | None) -> None:
    """Name, and name of the licence of collections that name none."""
    from gateway.administration import tenants as work  # noqa: PLC0415

    async def listing(database: Database) -> AsyncIterator[Sequence[str]]:
        async for one in everything(
            lambda after, limit: work.tenants(database, after=after, limit=limit), lambda one: one.name, ""
        ):
            yield one.name, one.licence or ""

    show(config_file, listing)


@tenants.command("create")
@click.argument("name")
@CONFIG
def create_tenant(*, name: str, config_file: Path | None) -> None:
    """Make a tenant; one that is there stays as it is."""
    from gateway.administration.tenants import create_tenant as create  # noqa: PLC0415

    created = run(config_file, lambda database, actor: create(database, name, actor))
    click.echo("created" if created else "is there already")


@tenants.command("delete")
@click.argument("name")
@CONFIG
def delete_tenant(*, name: str, config_file: Path | None) -> None:
    """Delete a tenant that is empty."""
    from gateway.administration.tenants import delete_tenant as delete  # noqa: PLC0415

    run(config_file, lambda database, actor: delete(database, name, actor))


@click.group()
def groups() -> None:
    """Access groups."""


@groups.command("list")
@TENANT
@CONFIG
def list_groups(*, tenant: str, config_file: Path | None) -> None:
    """Name, members that the database knows, public or private."""
    from gateway.administration import groups as work  # noqa: PLC0415

    async def listing(database: Database) -> AsyncIterator[Sequence[str]]:
        async for one in everything(
            lambda after, limit: work.groups(database, tenant, after=after, limit=limit), lambda one: one.name, ""
        ):
            yield one.name, str(one.members), "public" if one.is_public else "private"

    show(config_file, listing)


@groups.command("put")
@click.argument("name")
@click.option("--public/--private", default=False, help="Whether it reaches everyone, anonymous callers included.")
@TENANT
@CONFIG
def put_group(*, name: str, public: bool, tenant: str, config_file: Path | None) -> None:
    """Make a group, or change it."""
    from gateway.administration.groups import put_group as put  # noqa: PLC0415

    click.echo(run(config_file, lambda database, actor: put(database, tenant, name, actor, is_public=public)))


@groups.command("delete")
@click.argument("name")
@TENANT
@CONFIG
def delete_group(*, name: str, tenant: str, config_file: Path | None) -> None:
    """Delete a group with its memberships and rights."""
    from gateway.administration.groups import delete_group as delete  # noqa: PLC0415

    run(config_file, lambda database, actor: delete(database, tenant, name, actor))


@click.group()
def members() -> None:
    """Members of groups, beside what tokens carry."""


@members.command("list")
@click.argument("group")
@TENANT
@CONFIG
def list_members(*, group: str, tenant: str, config_file: Path | None) -> None:
    """One e-mail address a line."""
    from gateway.administration import groups as work  # noqa: PLC0415

    async def listing(database: Database) -> AsyncIterator[Sequence[str]]:
        async for one in everything(
            lambda after, limit: work.members(database, tenant, group, after=after, limit=limit), str, ""
        ):
            yield (one,)

    show(config_file, listing)


@members.command("add")
@click.argument("group")
@click.argument("emails", nargs=-1, required=True)
@TENANT
@CONFIG
def add_members(*, group: str, emails: tuple[str, ...], tenant: str, config_file: Path | None) -> None:
    """Add members."""
    from gateway.administration.groups import add_members as add  # noqa: PLC0415

    added = run(config_file, lambda database, actor: add(database, tenant, group, emails, actor))
    click.echo(f"{len(added)} added")


@members.command("remove")
@click.argument("group")
@click.argument("email")
@TENANT
@CONFIG
def remove_member(*, group: str, email: str, tenant: str, config_file: Path | None) -> None:
    """Remove a member."""
    from gateway.administration.groups import remove_member as remove  # noqa: PLC0415

    run(config_file, lambda database, actor: remove(database, tenant, group, email, actor))


@members.command("put")
@click.argument("group")
@click.argument("file", type=click.File(encoding="utf-8"))
@TENANT
@CONFIG
def put_members(*, group: str, file: Any, tenant: str, config_file: Path | None) -> None:
    """Have exactly the members in FILE, one e-mail address a line; "-" reads standard input."""
    from gateway.administration.groups import put_members as put  # noqa: PLC0415

    emails = [line.strip() for line in file if line.strip()]
    added, removed = run(config_file, lambda database, actor: put(database, tenant, group, emails, actor))
    click.echo(f"{len(added)} added, {len(removed)} removed")
