"""Counters that Redis does not have are loaded from the ledger."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
from collections.abc import Sequence
from typing import Literal

from gateway.quotas.epochs import CountersClosedError
from gateway.quotas.keys import Keys
from gateway.quotas.ledger import Balance, Ledger
from gateway.redis.scripts import Scripts

_DAY_MICROSECONDS = 86_400_000_000
_ATTEMPTS = 3
_RECALLED_AT_ONCE = 100
"""Downloads: one script call does not hold up the others for long."""

Way = Literal["load", "compare", "repair"]
"""What ``load.lua`` does with the numbers."""


class Loader:
    """Loads each account once, however many ask for it at the same time."""

    def __init__(self, scripts: Scripts, ledger: Ledger, window: int) -> None:
        """Load from ``ledger``; ``window`` is how many seconds the same content counts as one download."""
        self._scripts = scripts
        self._ledger = ledger
        self._window = window
        self._under_way: dict[tuple[Keys, str], asyncio.Task[None]] = {}

    async def load(self, keys: Keys, accounts: Sequence[str], now: int) -> None:
        """Have Redis count for ``accounts``: what the ledger has, and what waits for it.

        Args:
            keys: of the tenant, in an epoch that is open.
            accounts: that are missing.
            now: by the clock of Redis, microseconds.

        Raises:
            CountersClosedError: it cannot be told now what they are.
            GatewayError: PostgreSQL does not answer.
            RedisError, OSError, TimeoutError: Redis does not.
        """
        # Whoever asks may be cancelled; the others still wait for the same.
        await asyncio.gather(*(asyncio.shield(self._task(keys, account, now)) for account in accounts))

    def _task(self, keys: Keys, account: str, now: int) -> asyncio.Task[None]:
        task = self._under_way.get((keys, account))
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(keys, account, now))
            self._under_way[keys, account] = task
            task.add_done_callback(lambda done: self._ended(keys, account, done))
        return task

    def _ended(self, keys: Keys, account: str, task: asyncio.Task[None]) -> None:
        del self._under_way[keys, account]
        if not task.cancelled():
            # Nobody may be left to hear of it.
            task.exception()

    async def _load(self, keys: Keys, account: str, now: int) -> None:
        if account.startswith("user:"):
            await self._recall(keys, account)
        for _ in range(_ATTEMPTS):
            day = day_of(now)
            forgotten = await times_forgotten(self._scripts, keys)
            for balance in await self._ledger.balances(keys.tenant, keys.epoch, [account], date_of(day)):
                answer = await self._scripts.run("load", *arguments("load", keys, balance, day, forgotten))
                if answer[0] == b"loaded":
                    return
        raise CountersClosedError(keys.tenant)

    async def _recall(self, keys: Keys, account: str) -> None:
        downloads = await self._ledger.downloads(keys.tenant, account, self._window)
        for first in range(0, len(downloads), _RECALLED_AT_ONCE):
            some = downloads[first : first + _RECALLED_AT_ONCE]
            names = (keys.content(account, download.content) for download in some)
            arguments_of = (
                (download.opener, download.began, download.octets, download.last + self._window * 1_000_000)
                for download in some
            )
            await self._scripts.run("recall", (keys.state, *names), tuple(itertools.chain(*arguments_of)))


async def forget(scripts: Scripts, keys: Keys, accounts: Sequence[str]) -> None:
    """Have ``accounts`` be loaded anew: the ledger has learnt of them what did not go through Redis.

    Raises:
        RedisError, OSError, TimeoutError: Redis does not answer.
    """
    if accounts:
        await scripts.run("forget", (keys.state, *(keys.account(account) for account in accounts)), ())


async def times_forgotten(scripts: Scripts, keys: Keys) -> int:
    """How often accounts were forgotten: to be read before what the ledger has of them.

    Raises:
        RedisError, OSError, TimeoutError: Redis does not answer.
    """
    return int(await scripts.call("HGET", keys.state, "forgotten") or 0)


def arguments(
    way: Way, keys: Keys, balance: Balance, day: int, forgotten: int = -1
) -> tuple[tuple[str, ...], tuple[str | int, ...]]:
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
            forgotten,
            balance.position,
            day,
            month_number(date),
            *(amount for period in periods for amount in usage.get(period, (0, 0))),
            *rolling,
        ),
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
