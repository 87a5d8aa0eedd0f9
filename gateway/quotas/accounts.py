"""Counters that Redis does not have are loaded from the ledger."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Literal

from gateway.quotas.epochs import CountersClosedError
from gateway.quotas.keys import Keys
from gateway.quotas.ledger import Balance, Ledger
from gateway.quotas.scripts import Scripts

_DAY_MICROSECONDS = 86_400_000_000
_ATTEMPTS = 3

Way = Literal["load", "compare", "repair"]
"""What ``load.lua`` does with the numbers."""


async def load(  # noqa: PLR0917 - what is loaded from where to where
    scripts: Scripts, ledger: Ledger, keys: Keys, accounts: Sequence[str], now: int, window: int
) -> None:
    """Have Redis count for ``accounts``: what the ledger has, and what waits for it.

    Args:
        scripts: to Redis.
        ledger: to load from.
        keys: of the tenant, in an epoch that is open.
        accounts: that are missing.
        now: by the clock of Redis, microseconds.
        window: seconds in which the same content counts as one download.

    Raises:
        CountersClosedError: it cannot be told now what they are.
        GatewayError: PostgreSQL does not answer.
        RedisError, OSError, TimeoutError: Redis does not.
    """
    missing = list(accounts)
    for account in missing:
        if account.startswith("user:"):
            await _recall(scripts, ledger, keys, account, window)
    for _ in range(_ATTEMPTS):
        day = day_of(now)
        late = []
        for balance in await ledger.balances(keys.tenant, keys.epoch, missing, date_of(day)):
            answer = await scripts.run("load", *arguments("load", keys, balance, day))
            if answer[0] != b"loaded":
                late.append(balance.account)
        if not late:
            return
        missing = late
    raise CountersClosedError(keys.tenant)


def arguments(way: Way, keys: Keys, balance: Balance, day: int) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
    """Keys and arguments of ``load.lua`` for what the ledger has of one account."""
    date = date_of(day)
    usage = balance.usage
    periods = ("total", date.isoformat(), f"{date:%Y-%m}")
    rolling: list[str | int] = []
    for period, amounts in usage.items():
        if period.startswith("r"):
            rolling += [*period[1:].split(":"), *amounts]
    return (
        (keys.state, keys.events, keys.account(balance.account)),
        (
            way,
            json.dumps(balance.account),
            balance.position,
            day,
            month_number(date),
            *(amount for period in periods for amount in usage.get(period, (0, 0))),
            *rolling,
        ),
    )


async def _recall(scripts: Scripts, ledger: Ledger, keys: Keys, account: str, window: int) -> None:
    for download in await ledger.downloads(keys.tenant, account, window):
        await scripts.run(
            "recall",
            (keys.state, keys.content(account, download.content)),
            (download.opener, download.began, download.octets, download.last + window * 1_000_000),
        )


def day_of(now: int) -> int:
    """The day since 1970 that a time in microseconds lies in."""
    return now // _DAY_MICROSECONDS


def date_of(day: int) -> datetime.date:
    """The date of a day since 1970."""
    return datetime.date(1970, 1, 1) + datetime.timedelta(days=day)


def month_number(date: datetime.date) -> int:
    """Months since March of the year 0, as ``lua/common.lua`` counts them."""
    return date.year * 12 + date.month - 3
