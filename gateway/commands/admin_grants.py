"""``gateway admin rights``, ``licences`` and ``roles``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands.admin_shared import TENANT, everything, run, show
from gateway.commands.shared import CONFIG, plain_errors
from gateway.config import load

if TYPE_CHECKING:
    from gateway.administration.changes import Actor
    from gateway.administration.work import Outcome
    from gateway.db import Database

LEVELS = {
    "metadata": ("NO_ACCESS", "RESTRICTED_ACCESS", "CUSTOM_ACCESS", "FULL_ACCESS"),
    "files": ("NO_ACCESS", "INHERITED_ACCESS", "CUSTOM_ACCESS"),
}


@click.group()
def rights() -> None:
    """What groups may do with collections."""


@rights.command("list")
@click.argument("collection")
@TENANT
@CONFIG
def list_rights(*, collection: str, tenant: str, config_file: Path | None) -> None:
    """Group, level of metadata, level of files, and what narrows them."""
    from gateway.administration import rights as work  # noqa: PLC0415

    async def listing(database: Database) -> AsyncIterator[Sequence[str]]:
        async for group, right in everything(
            lambda after, limit: work.rights(database, tenant, collection, after=after, limit=limit),
            lambda one: one[0],
            "",
        ):
            more = {
                "min": right.quality_min,
                "max": right.quality_max,
                "levels": right.quality_levels,
                "policy": right.policy,
                "options": right.policy_options,
            }
            narrowed = {name: value for name, value in more.items() if value is not None}
            yield group, right.metadata_level, right.file_level, json.dumps(narrowed) if narrowed else ""

    show(config_file, listing)


@rights.command("put")
@click.argument("collection")
@click.argument("group")
@click.option("--metadata", type=click.Choice(LEVELS["metadata"]), default="FULL_ACCESS", show_default=True)
@click.option("--files", type=click.Choice(LEVELS["files"]), default="INHERITED_ACCESS", show_default=True)
@click.option("--min-score", type=float, help="Least quality score of products.")
@click.option("--max-score", type=float, help="Greatest quality score of products.")
@click.option("--quality", "levels", multiple=True, help="Quality level of products; may be given several times.")
@click.option("--policy", help="Name of the policy plug-in that CUSTOM_ACCESS asks.")
@click.option("--policy-options", help="Its options, a JSON object.")
@TENANT
@CONFIG
def put_right(
    *,
    collection: str,
    group: str,
    metadata: str,
    files: str,
    min_score: float | None,
    max_score: float | None,
    levels: tuple[str, ...],
    policy: str | None,
    policy_options: str | None,
    tenant: str,
    config_file: Path | None,
) -> None:
    """Give a group a right, in place of the one it has."""
    from gateway.administration.rights import Right  # noqa: PLC0415
    from gateway.administration.rights import put_right as put  # noqa: PLC0415
    from gateway.rights.policies import policy_names  # noqa: PLC0415

    options = _json_object(policy_options)
    wanted = Right(metadata, files, min_score, max_score, levels or None, policy, options)
    with plain_errors():
        known = policy_names(load(config_file).policies)

    async def work(database: Database, actor: Actor) -> Outcome:
        return await put(database, tenant, collection, group, wanted, actor=actor, policies=known)

    click.echo(run(config_file, work))


@rights.command("delete")
@click.argument("collection")
@click.argument("group")
@TENANT
@CONFIG
def delete_right(*, collection: str, group: str, tenant: str, config_file: Path | None) -> None:
    """Take a right away."""
    from gateway.administration.rights import delete_right as delete  # noqa: PLC0415

    run(config_file, lambda database, actor: delete(database, tenant, collection, group, actor))


@click.group()
def licences() -> None:
    """Terms that must be accepted before private files are delivered."""


@licences.command("list")
@TENANT
@CONFIG
def list_licences(*, tenant: str, config_file: Path | None) -> None:
    """Name, version, URL, title, public or binding, and whether it is the default."""
    from gateway.administration import licences as work  # noqa: PLC0415

    async def listing(database: Database) -> AsyncIterator[Sequence[str]]:
        async for one in everything(
            lambda after, limit: work.licences(database, tenant, after=after, limit=limit), lambda one: one.name, ""
        ):
            kind = "public" if one.is_public else "binding"
            yield one.name, str(one.version), one.url, one.title or "", kind, "default" if one.is_default else ""

    show(config_file, listing)


@licences.command("put")
@click.argument("name")
@click.option("--url", required=True, help="Of its text.")
@click.option("--title")
@click.option("--public/--binding", default=False, help="Whether it is only shown, or must be accepted.")
@TENANT
@CONFIG
def put_licence(*, name: str, url: str, title: str | None, public: bool, tenant: str, config_file: Path | None) -> None:
    """Make a licence, or change it without asking anyone again."""
    from gateway.administration.licences import put_licence as put  # noqa: PLC0415

    click.echo(
        run(
            config_file,
            lambda database, actor: put(database, tenant, name, actor, url=url, title=title, is_public=public),
        )
    )


@licences.command("new-version")
@click.argument("name")
@click.option("--url", help="Where its text is now; where it was unless given.")
@TENANT
@CONFIG
def new_version(*, name: str, url: str | None, tenant: str, config_file: Path | None) -> None:
    """Ask everyone again."""
    from gateway.administration.licences import new_version as ask_again  # noqa: PLC0415

    version = run(config_file, lambda database, actor: ask_again(database, tenant, name, actor, url=url))
    click.echo(f"version {version}")


@licences.command("delete")
@click.argument("name")
@TENANT
@CONFIG
def delete_licence(*, name: str, tenant: str, config_file: Path | None) -> None:
    """Delete a licence that nothing uses and nobody accepted."""
    from gateway.administration.licences import delete_licence as delete  # noqa: PLC0415

    run(config_file, lambda database, actor: delete(database, tenant, name, actor))


@licences.command("assign")
@click.argument("collection")
@click.argument("name", required=False)
@TENANT
@CONFIG
def assign_licence(*, collection: str, name: str | None, tenant: str, config_file: Path | None) -> None:
    """Have a collection name a licence; none without NAME."""
    from gateway.administration.licences import assign_licence as assign  # noqa: PLC0415

    run(config_file, lambda database, actor: assign(database, tenant, collection, name, actor))


@licences.command("default")
@click.argument("name", required=False)
@TENANT
@CONFIG
def default_licence(*, name: str | None, tenant: str, config_file: Path | None) -> None:
    """Have the collections that name no licence be under this one; under none without NAME."""
    from gateway.administration.licences import put_default_licence as put  # noqa: PLC0415

    run(config_file, lambda database, actor: put(database, tenant, name, actor))


@click.group()
def roles() -> None:
    """Roles beside REGARDS' own."""


@roles.command("list")
@TENANT
@CONFIG
def list_roles(*, tenant: str, config_file: Path | None) -> None:
    """Name and parent."""
    from gateway.administration import roles as work  # noqa: PLC0415

    async def listing(database: Database) -> AsyncIterator[Sequence[str]]:
        async for one in everything(
            lambda after, limit: work.roles(database, tenant, after=after, limit=limit), lambda one: one.name, ""
        ):
            yield one.name, one.parent

    show(config_file, listing)


@roles.command("put")
@click.argument("name")
@click.argument("parent")
@TENANT
@CONFIG
def put_role(*, name: str, parent: str, tenant: str, config_file: Path | None) -> None:
    """Make a role that may what PARENT may: PUBLIC, REGISTERED_USER, EXPLOIT or ADMIN."""
    from gateway.administration.roles import put_role as put  # noqa: PLC0415

    click.echo(run(config_file, lambda database, actor: put(database, tenant, name, parent, actor)))


@roles.command("delete")
@click.argument("name")
@TENANT
@CONFIG
def delete_role(*, name: str, tenant: str, config_file: Path | None) -> None:
    """Delete a role."""
    from gateway.administration.roles import delete_role as delete  # noqa: PLC0415

    run(config_file, lambda database, actor: delete(database, tenant, name, actor))


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter("it must be a JSON object", param_hint="--policy-options")
    return found
