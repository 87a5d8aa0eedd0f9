"""Which epoch each tenant's counters are in, as far as this process knows, and whether they may be used."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator

from gateway.quotas.keys import Keys


class CountersClosedError(Exception):
    """Nobody knows at the moment what is charged to a tenant: Redis may have lost some of it."""


@dataclasses.dataclass(slots=True)
class Tenancy:
    """One tenant's counters, as this process sees them."""

    epoch: int
    """The one that this process takes part in."""
    opened: bool
    position: int = 0
    """In its stream: up to here the ledger has it, at least."""
    calls: int = 0
    """Calls of this process that are under way."""


class Epochs:
    """What this process knows of the epochs, and the calls that it makes in them."""

    def __init__(self) -> None:
        self.tenancies: dict[str, Tenancy] = {}
        self.doubted = asyncio.Event()
        """Set when an epoch that was open turns out not to be, so that somebody looks at once."""
        self.doubts: set[tuple[str, int]] = set()
        """Tenants and epochs of which that is so."""

    def keys(self, tenant: str) -> Keys:
        """The keys of ``tenant``.

        Raises:
            CountersClosedError: they must not be used now.
        """
        tenancy = self.tenancies.get(tenant)
        if tenancy is None or not tenancy.opened:
            raise CountersClosedError(tenant)
        return Keys(tenant, tenancy.epoch)

    def doubt(self, keys: Keys) -> None:
        """Use an epoch no more: its counters are not where they were, or not what they were."""
        tenancy = self.tenancies[keys.tenant]
        if tenancy.epoch == keys.epoch and tenancy.opened:
            tenancy.opened = False
            self.doubts.add((keys.tenant, keys.epoch))
            self.doubted.set()

    @contextlib.contextmanager
    def calling(self, tenant: str) -> Iterator[None]:
        """While the block runs, a call is under way."""
        tenancy = self.tenancies[tenant]
        tenancy.calls += 1
        try:
            yield
        finally:
            tenancy.calls -= 1
