"""A gateway that makes links, with a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.links.support import CONTENT, linking
from tests.harness import Entry, RunningGateway


@pytest.fixture
async def gateway(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with linking(database, redis_url, tmp_path) as running:
        yield running


@pytest.fixture
async def entry(gateway: RunningGateway) -> Entry:
    return await gateway.catalogue.file(CONTENT)
