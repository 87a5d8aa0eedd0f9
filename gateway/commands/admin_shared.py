"""What the commands that administer have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.commands.shared import plain_errors
from gateway.config import load
from gateway.text import one_line

if TYPE_CHECKING:
    from gateway.administration.changes import Actor
    from gateway.db import Database

K = TypeVar("K")
T = TypeVar("T")

TENANT = click.option("--tenant", required=True, help="Tenant that it belongs to.")
PAGE = 1000
"""Entries that are asked for at a time."""


def run(config_file: Path | None, work: Callable[[Database, Actor], Awaitable[T]]) -> T:
    """Do ``work`` with the database of the configuration; a refusal is said in plain words."""
    import gateway.db  # noqa: PLC0415 - each command loads only what it needs
    from gateway.administration.changes import Actor  # noqa: PLC0415
    from gateway.errors import GatewayError  # noqa: PLC0415

    async def connected() -> T:
        settings = load(config_file).database.model_copy(update={"pool_size": 1})
        async with gateway.db.connect(settings, ()) as database:
            return await work(database, Actor("command line"))

    with plain_errors():
        try:
            return asyncio.run(connected())
        except GatewayError as error:
            raise click.ClickException(one_line(error.detail)) from error


async def everything(
    list_some: Callable[[K, int], Awaitable[Sequence[T]]], key: Callable[[T], K], after: K
) -> AsyncIterator[T]:
    """All entries of a list after ``after``, page by page."""
    while True:
        found = await list_some(after, PAGE)
        for one in found:
            yield one
        if len(found) < PAGE:
            return
        after = key(found[-1])


def show(config_file: Path | None, listing: Callable[[Database], AsyncIterator[Sequence[str]]]) -> None:
    """Print each row of a listing on a line, its cells separated by tabs."""

    async def work(database: Database, _: Actor) -> None:
        async for cells in listing(database):
            click.echo("\t".join(map(one_line, cells)))

    run(config_file, work)
