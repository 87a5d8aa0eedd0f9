"""What happens when Redis may have lost counters: a new epoch.

It begins closed. Every process that lives stops admitting, and tells the ledger what it did itself; what is left of the
old stream goes to the ledger, too; then each puts the leases that it holds into the new epoch. When all have, it is
opened, and counters are loaded from the ledger as they are asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from gateway.quotas import accounts as counters
from gateway.quotas.drain import Drain
from gateway.quotas.epochs import Epochs, Tenancy
from gateway.quotas.journal import Journal
from gateway.quotas.keys import Keys
from gateway.quotas.leases import Lease, Leases, identifiers
from gateway.quotas.ledger import Epoch, Ledger
from gateway.quotas.reservation import accounts_in, from_about
from gateway.redis.scripts import Scripts

log = logging.getLogger(__name__)

REMEMBER_SECONDS = 600
"""Longer than any reservation can still be on its way to Redis."""
_AT_ONCE = 256
"""Calls under way."""
_STEP = 0.01
"""Seconds between looks whether calls are still under way."""


class Recovery:
    """This process's part in it."""

    def __init__(
        self,
        *,
        process: str,
        scripts: Scripts,
        ledger: Ledger,
        journal: Journal,
        epochs: Epochs,
        drain: Drain,
        leases: Leases,
        window: int,
        ttl: int,
        process_timeout: float,
    ) -> None:
        self._process = process
        self._scripts = scripts
        self._ledger = ledger
        self._journal = journal
        self._epochs = epochs
        self._drain = drain
        self._leases = leases
        self._window = window
        self._ttl = ttl
        self._process_timeout = process_timeout
        self._replayed: set[tuple[str, int]] = set()
        self.over: list[Keys] = []
        """Epochs that this process ended: nobody needs their keys."""
        self._turn = asyncio.Lock()
        self._first = asyncio.Lock()

    async def look(self) -> None:
        """Tell that this process lives, see what epochs there are, and do our part.

        Raises:
            GatewayError: PostgreSQL does not answer.
            RedisError, OSError, TimeoutError: Redis does not.
        """
        async with self._turn:
            for tenant, epoch in tuple(self._epochs.doubts):
                log.error("Redis may have lost quota counters of tenant %r: beginning epoch %s", tenant, epoch + 1)
                await self._ledger.begin(tenant, epoch + 1)
                self._epochs.doubts.discard((tenant, epoch))
            for tenant, latest in (await self._ledger.look(self._process)).items():
                await self._follow(tenant, latest)

    async def ensure(self, tenant: str) -> None:
        """Have a tenant that is new to this process be known.

        Raises:
            GatewayError, RedisError, OSError, TimeoutError: as `look`.
        """
        async with self._first:
            if tenant in self._epochs.tenancies:
                return
            await self.look()
            if tenant not in self._epochs.tenancies:
                await self._ledger.begin(tenant, 1)
                await self.look()

    async def _follow(self, tenant: str, epoch: Epoch) -> None:
        tenancy = self._epochs.tenancies.get(tenant)
        if tenancy is None:
            await self._join(tenant, epoch)
            return
        if tenancy.epoch == epoch.number and tenancy.opened:
            tenancy.position = max(tenancy.position, epoch.position)
            return
        if (tenant, tenancy.epoch) in self._epochs.doubts:
            return
        if (tenant, epoch.number) not in self._replayed:
            await self._replay(tenant, tenancy, epoch)
        if not epoch.opened and not await self._open(tenant, epoch):
            return
        if tenancy.epoch != epoch.number or not tenancy.opened:
            tenancy.epoch, tenancy.position = epoch.number, epoch.position
            tenancy.opened = True

    async def _join(self, tenant: str, epoch: Epoch) -> None:
        """Of a tenant that is new to this process there is nothing to tell.

        It is known when all is done: whoever asks for it before waits for that, in `ensure`.
        """
        await self._ledger.replayed(tenant, epoch.number, self._process)
        self._replayed.add((tenant, epoch.number))
        opened = epoch.opened or await self._open(tenant, epoch)
        self._epochs.tenancies[tenant] = Tenancy(epoch.number, opened, epoch.position)

    async def _replay(self, tenant: str, tenancy: Tenancy, epoch: Epoch) -> None:
        """Tell the ledger what this process knows, and put its leases into the new epoch."""
        tenancy.opened = False
        async with asyncio.timeout(5):
            while tenancy.calls:  # noqa: ASYNC110 - for one round trip at most
                await asyncio.sleep(_STEP)
        old, keys = Keys(tenant, tenancy.epoch), Keys(tenant, epoch.number)
        position = await self._ledger.position(tenant, tenancy.epoch) or 0
        await self._drain.drain(old, position, to_the_end=True)
        events = self._journal.waiting(tenant)
        await self._drop(keys, events)
        if events:
            await self._ledger.record(tenant, events)
        held, clock = self._leases.of(tenant), await self._ledger.clock(tenant)
        ended = await self._ledger.ended(tenant, identifiers(held))
        for lease in held:
            if lease.reservation.identifier not in ended:
                await self._restore(keys, lease, clock)
        # If others opened it meanwhile, since this process was slow, accounts were loaded without what it told.
        await counters.forget(self._scripts, keys, accounts_in(events))
        self._journal.recorded(tenant, len(events))
        await self._ledger.replayed(tenant, epoch.number, self._process)
        self._replayed.add((tenant, epoch.number))

    async def _drop(self, keys: Keys, events: Sequence[str]) -> None:
        """Have nobody restore leases that this process ended: theirs or, by its sweep, those of others."""
        ends = [event for event in events if '"k":"end"' in event]
        reservations = [from_about(keys.tenant, event[1:-1]) for event in ends]
        for first in range(0, len(reservations), _AT_ONCE):
            await asyncio.gather(
                *(
                    self._scripts.run(
                        "drop",
                        reservation.keys(keys),
                        (reservation.identifier, self._window if reservation.merges else 0, REMEMBER_SECONDS),
                    )
                    for reservation in reservations[first : first + _AT_ONCE]
                )
            )

    async def _restore(self, keys: Keys, lease: Lease, clock: int) -> None:
        reservation = lease.reservation
        await self._scripts.run(
            "restore",
            reservation.keys(keys),
            (
                reservation.identifier,
                reservation.promised,
                lease.mark,
                reservation.promised,
                lease.at,
                lease.opener,
                " ".join(map(str, reservation.windows)),
                reservation.about,
                self._window if reservation.merges else 0,
                self._ttl,
                clock,
            ),
        )

    async def _open(self, tenant: str, epoch: Epoch) -> bool:
        if epoch.number > 1 and await self._ledger.awaited(tenant, epoch.number, seconds=self._process_timeout):
            return False
        keys = Keys(tenant, epoch.number)
        # What was told since it began may be of a later time than was known then.
        clock = await self._ledger.clock(tenant)
        answer = await self._scripts.run("open", (keys.state,), (clock, epoch.ledger))
        if answer[0] != b"open":
            await self._ledger.begin(tenant, epoch.number + 1)
            return False
        await self._ledger.opened(tenant, epoch.number)
        if epoch.number > 1:
            self.over.append(Keys(tenant, epoch.number - 1))
        level = logging.WARNING if epoch.number > 1 else logging.INFO
        log.log(level, "quota counters of tenant %r are open in epoch %s", tenant, epoch.number)
        return True
