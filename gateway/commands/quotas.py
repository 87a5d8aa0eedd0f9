"""``gateway quotas check`` and ``gateway quotas rebuild``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.shared import CONFIG, plain_errors
from gateway.config import Config, load

if TYPE_CHECKING:
    from gateway.quotas.audit import Audit

_LEDGER_SECONDS = 600.0
"""That PostgreSQL may take to sum up the ledger."""


@click.group()
def quotas() -> None:
    """Look after the quota counters."""


@quotas.command()
@CONFIG
@click.option("--repair", is_flag=True, help="Set what differs to what the ledger says.")
def check(*, config_file: Path | None, repair: bool) -> None:
    """Hold the counters in Redis against the ledger in PostgreSQL, and its sums against its entries.

    Gateways may go on meanwhile. Ends with status 1 if anything differs, or differed before it was repaired.
    """
    with plain_errors():
        found = _run(_check(load(config_file), repair=repair))
    if found:
        sys.exit(1)


@quotas.command()
@CONFIG
@click.option("--tenant", "tenants", multiple=True, help="Only this one; may be given several times.")
def rebuild(*, config_file: Path | None, tenants: tuple[str, ...]) -> None:
    """Count anew from the ledger, whatever Redis holds.

    For a moment downloads are refused with 503, until every running gateway has told what it did itself.
    """
    with plain_errors():
        _run(_rebuild(load(config_file), tenants))


def _run(work: Coroutine[object, object, int]) -> int:
    from gateway.errors import GatewayError  # noqa: PLC0415 - each command loads only what it needs
    from gateway.quotas.calls import UNKNOWN_ERRORS  # noqa: PLC0415

    try:
        return asyncio.run(work)
    except GatewayError as error:
        raise click.ClickException(f"given up: {error.detail}") from error
    except UNKNOWN_ERRORS as error:
        raise click.ClickException(f"given up: Redis does not answer: {error!r}") from error


async def _check(config: Config, *, repair: bool) -> int:
    found = 0
    async with _audit(config) as audit:
        async for finding in audit.check(repair=repair):
            found += 1
            click.echo(f"{finding.tenant}: {finding.what}: {finding.text}")
        tally = audit.tally
    result = "all as the ledger says" if not found else f"{found} found" + (", repaired" if repair else "")
    click.echo(f"{tally.accounts} accounts of {tally.tenants} tenants: {result}")
    return found


async def _rebuild(config: Config, tenants: tuple[str, ...]) -> int:
    async with _audit(config) as audit:
        known = audit.tenants
        for name in tenants:
            if name not in known:
                raise click.ClickException(f"tenant {name!r} has no counters; there are: {', '.join(known) or 'none'}")
        for name in tenants or known:
            await audit.rebuild(name)
            click.echo(f"{name}: counters are loaded anew from the ledger")
    return 0


@contextlib.asynccontextmanager
async def _audit(config: Config) -> AsyncIterator[Audit]:
    import gateway.db  # noqa: PLC0415
    from gateway.quotas.upkeep import open_audit  # noqa: PLC0415

    settings = config.database.model_copy(update={"timeout": _LEDGER_SECONDS})
    async with (
        gateway.db.connect(settings, ()) as database,
        open_audit(config.redis, config.quotas, database) as audit,
    ):
        yield audit
