"""What restores need, opened and closed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping

import gateway.db
from gateway.config import Config
from gateway.db import STAGING_POOL
from gateway.locations import Location
from gateway.notifications import Notifications
from gateway.orders.model import NoStager, Stager
from gateway.staging.cache import opened_cache
from gateway.staging.orders import RestoringStager
from gateway.staging.worker import Workers, working
from gateway.storage import CanStage

BY_INDEX = tuple(
    ("SELECT set_config($1, 'off', false)", (f"enable_{way}",)) for way in ("seqscan", "hashjoin", "mergejoin")
)
"""What connections for restores begin with: plans are made while tables are still empty, and kept while they grow by
hundreds of thousands of rows. Every row that is asked for here is found by an index."""


@dataclasses.dataclass(frozen=True, slots=True)
class Staging:
    """What the rest of the gateway asks."""

    stager: Stager
    """For orders."""
    workers: Workers | None
    """None where nothing can be restored."""

    @property
    def broken(self) -> int:
        """Copies that were found to be broken when they were restored, since the start: an alarm."""
        return self.workers.broken if self.workers is not None else 0


def restoring(locations: Mapping[str, Location]) -> dict[str, Location]:
    """Those that can restore, the best first."""
    best = sorted(locations.items(), key=lambda item: (item[1].priority, item[0]))
    return {
        name: location
        for name, location in best
        if location.type != "OFFLINE" and isinstance(location.storage, CanStage)
    }


@contextlib.asynccontextmanager
async def open_staging(
    config: Config, notifications: Notifications, locations: Mapping[str, Location]
) -> AsyncIterator[Staging]:
    """Restore what is asked for while the block runs, with as many workers as the settings say.

    Where no location can restore nothing is opened.

    Args:
        config: of the gateway.
        notifications: wake the workers.
        locations: all that there are.

    Raises:
        ConfigurationError: the database cannot be reached, or the cache cannot lie where it shall.
    """
    able, settings = restoring(locations), config.staging
    if not able:
        yield Staging(NoStager(), None)
        return
    own_pool = config.database.model_copy(update={"pool_size": STAGING_POOL, "timeout": config.orders.timeout})
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(gateway.db.connect(own_pool, BY_INDEX))
        cache = await stack.enter_async_context(opened_cache(config, locations, database))
        workers = Workers(database, settings, able, cache)
        if settings.workers:
            await stack.enter_async_context(working(workers, notifications))
        yield Staging(RestoringStager(database, settings, list(able)), workers)
