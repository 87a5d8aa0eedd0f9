"""From the stream in Redis to the ledger in PostgreSQL, each event once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from gateway.quotas.journal import Journal
from gateway.quotas.keys import Keys
from gateway.quotas.ledger import Ledger
from gateway.redis.scripts import Scripts

log = logging.getLogger(__name__)

BATCH = 1000
"""Events in one transaction."""
_STEP = 0.02


class Drain:
    """Moves events. Any number of processes may: the position in the stream moves with the events, or neither does."""

    def __init__(self, scripts: Scripts, ledger: Ledger, journal: Journal) -> None:
        self._scripts = scripts
        self._ledger = ledger
        self._journal = journal

    async def drain(self, keys: Keys, position: int, *, to_the_end: bool = False) -> int:
        """Move what there is behind ``position``; gives the position afterwards.

        While somebody else is at it, it is left to him; ``to_the_end`` waits for him, and goes on if he fails.

        Raises:
            GatewayError: PostgreSQL does not answer.
            RedisError, OSError, TimeoutError: Redis does not.
        """
        # Somebody else may have moved events of ours.
        self._journal.confirm(keys.tenant, keys.epoch, position)
        while entries := await self._entries(keys, position):
            clock = int(await self._scripts.call("HGET", keys.state, "clock") or 0)
            ours = await self._ledger.drain(keys.tenant, keys.epoch, entries, position=position, clock=clock)
            if ours:
                if entries[0][0] != position + 1:
                    log.error("events %s to %s of the quota ledger are lost", position + 1, entries[0][0] - 1)
                position, done = entries[-1][0], len(entries) < BATCH
            else:
                moved = await self._ledger.position(keys.tenant, keys.epoch)
                position, done = moved or position, moved is None or not to_the_end
            await self._scripts.run("confirm", (keys.state, keys.events), (position,))
            self._journal.confirm(keys.tenant, keys.epoch, position)
            if done:
                break
            if not ours:
                await asyncio.sleep(_STEP)
        return position

    async def _entries(self, keys: Keys, position: int) -> Sequence[tuple[int, str]]:
        found = await self._scripts.call("XRANGE", keys.events, f"{position + 1}-0", "+", "COUNT", BATCH)
        return [(int(number.partition(b"-")[0]), body[b"e"].decode()) for number, body in found]
