"""The companion mode as a whole, from its settings."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from gateway.companion.items import Items
from gateway.companion.passing import THREADS, PassingOn, deliverable
from gateway.companion.taking import Taker
from gateway.companion.upstream import open_upstream
from gateway.config import Api, Companion
from gateway.db import Database
from gateway.locations import Location


@dataclasses.dataclass(frozen=True, slots=True)
class Following:
    """What a gateway in front of another STAC API has more than others."""

    items: Items | None = None
    passing_on: PassingOn | None = None


@contextlib.asynccontextmanager
async def following(
    settings: Companion | None, api: Api, database: Database, locations: Mapping[str, Location]
) -> AsyncIterator[Following]:
    """Stand in front of the upstream, if there is one, while the block runs.

    Raises:
        ConfigurationError: the settings cannot be used.
    """
    if settings is None:
        yield Following()
        return
    every, tenant = list(locations.values()), settings.tenant
    async with open_upstream(settings) as upstream:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="companion") as threads:
            delivers = deliverable(every, tenant)
            passing_on = PassingOn(upstream, api.stac_prefix, api.public_url, delivers, threads)
            items = Items(upstream, tenant, settings.max_age, Taker(database, every, tenant, delivers))
            try:
                yield Following(items, passing_on)
            finally:
                await items.close()
