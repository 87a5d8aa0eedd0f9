"""Opening quotas, and what goes on in the background while they are open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

from gateway.config import Quotas as QuotaSettings
from gateway.config import Redis as RedisSettings
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.quotas.accounts import forget
from gateway.quotas.audit import Audit
from gateway.quotas.calls import SCRIPTS, UNKNOWN_ERRORS, Calls
from gateway.quotas.drain import Drain
from gateway.quotas.epochs import CountersClosedError, Epochs
from gateway.quotas.journal import Journal
from gateway.quotas.keys import Keys
from gateway.quotas.leases import Lease, Leases
from gateway.quotas.ledger import Ledger
from gateway.quotas.recovery import REMEMBER_SECONDS, Recovery
from gateway.quotas.reservation import accounts_in, from_lease
from gateway.quotas.service import Quotas
from gateway.redis.scripts import Scripts, open_scripts

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often a process tells that it lives, and sees whether an epoch began."""
DRAIN_SECONDS = 0.2
"""How often events of this process go to the ledger: what can be lost when it and Redis die at once."""
SWEEP_SECONDS = 5.0
"""How often leases are looked for that ran out, and events that nobody brought to the ledger."""
TIDY_SECONDS = 3600.0
"""How often sums are deleted that nothing counts any more."""
_CLOSE_TIMEOUT = 3.0

_EXPECTED = (*UNKNOWN_ERRORS, GatewayError)


class Upkeep:
    """The background work of one process."""

    def __init__(
        self, scripts: Scripts, ledger: Ledger, journal: Journal, epochs: Epochs, settings: QuotaSettings
    ) -> None:
        self._scripts = scripts
        self._ledger = ledger
        self._journal = journal
        self._epochs = epochs
        self._settings = settings
        self.calls = Calls(scripts, epochs, journal)
        self.drain = Drain(scripts, ledger, journal)
        self.leases = Leases(self.calls, settings.lease_ttl, self._again)
        self.process = secrets.token_urlsafe(16)
        self.recovery = Recovery(
            process=self.process,
            scripts=scripts,
            ledger=ledger,
            journal=journal,
            epochs=epochs,
            drain=self.drain,
            leases=self.leases,
            window=settings.window,
            ttl=settings.lease_ttl,
            process_timeout=settings.process_timeout,
        )
        self.quotas = Quotas(
            scripts=scripts,
            ledger=ledger,
            epochs=epochs,
            calls=self.calls,
            recovery=self.recovery,
            leases=self.leases,
            settings=settings,
        )

    async def _again(self, lease: Lease) -> None:
        await self.quotas.again(lease)

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Do it while the block runs; then bring what is left to the ledger."""
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in {
                "quotas: epochs": _repeat(self.look, LOOK_SECONDS, wake=self._epochs.doubted),
                "quotas: ledger": _repeat(self.drain_ours, DRAIN_SECONDS),
                "quotas: heartbeats": _repeat(self.leases.beat, self._settings.lease_ttl / 3),
                "quotas: sweep": _repeat(self.sweep, SWEEP_SECONDS),
                "quotas: tidy": _repeat(self._ledger.tidy, TIDY_SECONDS),
            }.items()
        ]
        try:
            yield
        finally:
            await self.quotas.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(*_EXPECTED, TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._leave()

    async def look(self) -> None:
        """See what became of the epochs."""
        self._epochs.doubted.clear()
        await self.recovery.look()

    async def drain_ours(self) -> None:
        """Bring what this process did to the ledger."""
        for tenant in self._journal.tenants():
            await self._drain(tenant)
        for tenant, events in self.quotas.capped.waiting().items():
            await self._ledger.record(tenant, events)
            tenancy = self._epochs.tenancies.get(tenant)
            if tenancy is not None:
                await forget(self._scripts, Keys(tenant, tenancy.epoch), accounts_in(events))
            self.quotas.capped.recorded(tenant, events)

    async def sweep(self) -> None:
        """End the leases that ran out, bring to the ledger what nobody did, and clear epochs away that are over."""
        for tenant, tenancy in list(self._epochs.tenancies.items()):
            if not tenancy.opened:
                continue
            await self._sweep(tenant)
            await self._drain(tenant)
        while self.recovery.over:
            over = self.recovery.over[-1]
            async for key in self._scripts.scan(f"{over.prefix}*"):
                await self._scripts.call("UNLINK", key)
            self.recovery.over.pop()

    async def _drain(self, tenant: str) -> None:
        tenancy = self._epochs.tenancies[tenant]
        if tenancy.opened:
            tenancy.position = max(
                await self.drain.drain(Keys(tenant, tenancy.epoch), tenancy.position), tenancy.position
            )

    async def _sweep(self, tenant: str) -> None:
        answer = await self.calls.run("expired", tenant, lambda keys: (keys.state, keys.running("tenant")), ())
        for name in answer[1:]:
            keys = self._epochs.keys(tenant)
            lease = await self._scripts.call("GET", keys.lease(name.decode()))
            if lease in (None, b"ended"):
                # Ended, but still in the set: nothing but a repair by hand does that.
                await self._scripts.call("ZREM", keys.running("tenant"), name)
                continue
            reservation = from_lease(tenant, lease.decode())
            window = self._settings.window if reservation.merges else 0
            arguments = (reservation.identifier, "expire", 0, 0, window, REMEMBER_SECONDS)
            ended = await self.calls.run("finish", tenant, reservation.keys, arguments)
            if ended[0] == b"ended":
                log.warning("a lease ran out: its download is charged what it may have sent")

    async def _leave(self) -> None:
        await self.drain_ours()
        for tenant in self._journal.tenants():
            events = self._journal.waiting(tenant)
            await self._ledger.record(tenant, events)
            self._journal.recorded(tenant, len(events))
        await self._ledger.leave(self.process)


async def _repeat(work: Callable[[], Awaitable[None]], seconds: float, *, wake: asyncio.Event | None = None) -> None:
    """``work`` again and again; processes that began at the same moment do not go on so."""
    chance = random.Random()  # noqa: S311 - no secret
    while True:
        pause = seconds * chance.uniform(0.8, 1.2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await (wake or asyncio.Event()).wait()
                # Not at once again: what it waits for needs a moment.
                await asyncio.sleep(0.05)
        try:
            await work()
        except _EXPECTED as error:
            log.warning("%s: %r", asyncio.current_task().get_name(), error.__cause__ or error)  # type: ignore[union-attr]
        except Exception:
            log.exception("%s failed", asyncio.current_task().get_name())  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def open_audit(
    redis_settings: RedisSettings, settings: QuotaSettings, database: Database
) -> AsyncIterator[Audit]:
    """Open the connections to Redis to look at the counters, beside the gateways that use them.

    Raises:
        ConfigurationError: Redis cannot be reached.
    """
    async with open_scripts(redis_settings, SCRIPTS) as scripts:
        epochs, ledger = Epochs(), Ledger(database)
        upkeep = Upkeep(scripts, ledger, Journal(), epochs, settings)
        await upkeep.look()
        async with upkeep.going_on():
            # Counters that are lost are what the audit is there for.
            with contextlib.suppress(CountersClosedError):
                await upkeep.sweep()
            yield Audit(scripts, ledger, epochs, upkeep.recovery)


@contextlib.asynccontextmanager
async def open_quotas(
    redis_settings: RedisSettings, settings: QuotaSettings, database: Database
) -> AsyncIterator[Quotas]:
    """Open the connections to Redis, and keep counters, leases and ledger in order while the block runs.

    Raises:
        ConfigurationError: Redis cannot be reached.
    """
    async with open_scripts(redis_settings, SCRIPTS) as scripts:
        upkeep = Upkeep(scripts, Ledger(database), Journal(), Epochs(), settings)
        await upkeep.look()
        async with upkeep.going_on():
            yield upkeep.quotas
