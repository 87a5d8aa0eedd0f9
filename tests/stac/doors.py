"""A gateway of one's own, with these neighbours and those settings."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.storage import Stat
from tests.harness import SCIENCE, Entry, RunningGateway, config_for, running_gateway


@dataclasses.dataclass(frozen=True)
class Doors:
    """Where a gateway of one's own finds its neighbours."""

    database: str
    redis_url: str
    root: Path


@contextlib.asynccontextmanager
async def fresh(doors: Doors, dsn: str | None = None, **sections: object) -> AsyncIterator[RunningGateway]:
    """A gateway with these settings; group ``science`` may download the collection ``restricted``."""
    config = config_for(dsn or doors.database, doors.redis_url, doors.root, **sections)
    async with running_gateway(config, doors.root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


async def far_file(gateway: RunningGateway, content: bytes, item: str = "far", asset: str = "data") -> Entry:
    """A file at the storage ``far``, which is redirected to."""
    entry = await gateway.catalogue.described(content, item=item, asset=asset)
    await gateway.catalogue.copy(entry, "far", f"esa/{item}/{asset}", Stat(len(content), None, "v"))
    return entry
