"""``gateway admin limits``: rules of quota."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from gateway.commands.admin_shared import TENANT, everything, run, show
from gateway.commands.shared import CONFIG
from gateway.quotas.limits import Metric, Rule, Subject

if TYPE_CHECKING:
    from gateway.db import Database

_SUBJECT = click.argument("subject", type=click.Choice(get_args(Subject)))
_METRIC = click.argument("metric", type=click.Choice(get_args(Metric)))
_PERIOD = click.argument("period")
_NAME = click.option("--name", default="", help="Of the group or role; e-mail address of the user.")
_SHARED = click.option("--shared/--each", default=False, help="One counter for all of them, or one for each.")


@click.group()
def limits() -> None:
    """How much may be downloaded: rules of quota."""


@limits.command("list")
@TENANT
@CONFIG
def list_limits(*, tenant: str, config_file: Path | None) -> None:
    """Subject, name, shared or each, metric, period, value, and what else a rule says."""
    from gateway.quotas.administration import FIRST, rules  # noqa: PLC0415 - each command loads only what it needs

    async def listing(database: Database) -> AsyncIterator[Sequence[str]]:
        async for rule in everything(
            lambda after, limit: rules(database, tenant, after=after, limit=limit), lambda rule: rule.key, FIRST
        ):
            more = [f"burst {rule.burst}"] * (rule.burst != 1) + ["capped"] * (rule.fail == "capped")
            more += [] if rule.slow_rate is None else [f"slow {rule.slow_rate}"]
            shared = "shared" if rule.shared else "each"
            yield rule.subject, rule.name, shared, rule.metric, rule.period, str(rule.value), " ".join(more)

    show(config_file, listing)


@limits.command("put", context_settings={"ignore_unknown_options": True})
@_SUBJECT
@_METRIC
@_PERIOD
@click.argument("value", type=int)
@_NAME
@_SHARED
@click.option("--burst", default=1, show_default=True, help="Starts that may come at once (rate only).")
@click.option("--slow-rate", type=int, help="Bytes a second beyond the limit, instead of a refusal.")
@click.option("--capped", is_flag=True, help="Admit a few while Redis is out of reach (concurrent and rate only).")
@TENANT
@CONFIG
def put_limit(*, tenant: str, config_file: Path | None, capped: bool, **parts: Any) -> None:
    """Write a rule, in place of the one of the same subject, name, sharing, metric and period.

    PERIOD is total, day, month, now, or rolling seconds like 3600s; VALUE is -1 for unlimited, 0 for forbidden.
    """
    from gateway.quotas.administration import put_rule  # noqa: PLC0415

    rule = Rule(**parts, fail="capped" if capped else "closed")
    run(config_file, lambda database, actor: put_rule(database, tenant, rule, actor))


@limits.command("delete")
@_SUBJECT
@_METRIC
@_PERIOD
@_NAME
@_SHARED
@TENANT
@CONFIG
def delete_limit(
    *, subject: str, metric: str, period: str, name: str, shared: bool, tenant: str, config_file: Path | None
) -> None:
    """Delete a rule."""
    from gateway.quotas.administration import delete_rule  # noqa: PLC0415

    found = run(
        config_file,
        lambda database, actor: delete_rule(
            database,
            tenant,
            cast("Subject", subject),
            name,
            shared=shared,
            metric=cast("Metric", metric),
            period=period,
            actor=actor,
        ),
    )
    if not found:
        raise click.ClickException("There is no such rule.")
