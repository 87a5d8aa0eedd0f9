"""Holding the counters in Redis against the ledger, and putting them right."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

from gateway.quotas import accounts as counters
from gateway.quotas.epochs import CountersClosedError, Epochs
from gateway.quotas.keys import Keys, tenant_and_epoch
from gateway.quotas.ledger import Ledger
from gateway.quotas.recovery import Recovery
from gateway.redis.scripts import Scripts

_STEP = 0.1
_ATTEMPTS = 5
_BATCH = 500


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it should be, or was not before it was repaired."""

    tenant: str
    what: str
    """The account, or what else it is about."""
    text: str


@dataclasses.dataclass(slots=True)
class Tally:
    """How much was looked at."""

    tenants: int = 0
    accounts: int = 0


class Audit:
    """Compares and repairs. Other processes may go on meanwhile."""

    def __init__(self, scripts: Scripts, ledger: Ledger, epochs: Epochs, recovery: Recovery) -> None:
        self._scripts = scripts
        self._ledger = ledger
        self._epochs = epochs
        self._recovery = recovery
        self.tally = Tally()

    @property
    def tenants(self) -> list[str]:
        """Those that have counters."""
        return sorted(self._epochs.tenancies)

    async def check(self, *, repair: bool) -> AsyncIterator[Finding]:
        """Compare each counter with the ledger and what waits for it; ``repair`` sets those that differ.

        Raises:
            GatewayError: PostgreSQL does not answer.
            RedisError, OSError, TimeoutError: Redis does not.
        """
        for tenant in self.tenants:
            self.tally.tenants += 1
            try:
                keys = self._epochs.keys(tenant)
            except CountersClosedError:
                yield Finding(tenant, "epoch", "is closed: nobody is admitted until all processes told what they did")
                continue
            async for finding in self._accounts(keys, repair=repair):
                yield finding
        async for finding in self._sums():
            yield finding
        async for finding in self._old_keys(repair=repair):
            yield finding

    async def rebuild(self, tenant: str) -> None:
        """Begin anew from the ledger, whatever Redis holds. It returns when downloads are admitted again.

        Raises:
            GatewayError, RedisError, OSError, TimeoutError: as `check`.
        """
        keys = Keys(tenant, self._epochs.tenancies[tenant].epoch)
        await self._scripts.call("HDEL", keys.state, "run")
        tenancy = self._epochs.tenancies[tenant]
        self._epochs.doubt(keys)
        await self._recovery.look()
        while not tenancy.opened or tenancy.epoch == keys.epoch:
            await asyncio.sleep(_STEP)
            await self._recovery.look()

    async def _accounts(self, keys: Keys, *, repair: bool) -> AsyncIterator[Finding]:
        names: list[str] = []
        async for key in self._scripts.scan(f"{keys.account('')}*"):
            names.append(keys.account_of(key))
            if len(names) == _BATCH:
                async for finding in self._compare(keys, names, repair=repair):
                    yield finding
                names = []
        async for finding in self._compare(keys, names, repair=repair):
            yield finding

    async def _compare(self, keys: Keys, names: list[str], *, repair: bool) -> AsyncIterator[Finding]:
        left = sorted(set(names))
        self.tally.accounts += len(left)
        for _ in range(_ATTEMPTS):
            left, unsure = [], left
            day = counters.day_of(await self._now(keys))
            forgotten = await counters.times_forgotten(self._scripts, keys)
            for balance in await self._ledger.balances(keys.tenant, keys.epoch, unsure, counters.date_of(day)):
                way: counters.Way = "repair" if repair else "compare"
                answer = await self._scripts.run("load", *counters.arguments(way, keys, balance, day, forgotten))
                if answer[0] == b"different":
                    yield Finding(keys.tenant, balance.account, _differences(answer[1:]))
                elif answer[0] not in (b"equal", b"missing"):
                    left.append(balance.account)
            if not left:
                return
            await asyncio.sleep(_STEP)
        for name in left:
            yield Finding(keys.tenant, name, "cannot be compared: the ledger is too far behind")

    async def _now(self, keys: Keys) -> int:
        answer = await self._scripts.run("usage", (keys.state,), ())
        return int(answer[1])

    async def _sums(self) -> AsyncIterator[Finding]:
        for row in await self._ledger.wrong_sums():
            yield Finding(row.tenant, row.account, f"the sums of the ledger say {row.told}, its entries {row.summed}")

    async def _old_keys(self, *, repair: bool) -> AsyncIterator[Finding]:
        """Keys of epochs that are over: nobody reads them, but they take memory."""
        old: dict[str, int] = {}
        async for key in self._scripts.scan("gateway:{*}:*"):
            tenant, epoch = tenant_and_epoch(key)
            tenancy = self._epochs.tenancies.get(tenant)
            if tenancy is None or epoch < tenancy.epoch:
                old[tenant] = old.get(tenant, 0) + 1
                if repair:
                    await self._scripts.call("UNLINK", key)
        for tenant, count in old.items():
            yield Finding(tenant, "keys", f"{count} are of epochs that are over")


def _differences(answer: list[bytes]) -> str:
    triples = [answer[first : first + 3] for first in range(0, len(answer), 3)]
    return "; ".join(
        f"{field.decode()} is {found.decode()}, should be {expected.decode()}"
        for field, found, expected in sorted(triples)
    )
