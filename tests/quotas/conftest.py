"""Processes on the tenant ``esa``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.db import Database
from tests.quotas.support import Process, opened_database, process


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    """A database with the tenant."""
    async with opened_database(database, "esa") as found:
        yield found


@pytest.fixture
async def one(redis_url: str, opened: Database) -> AsyncIterator[Process]:
    """A process."""
    async with process(redis_url, opened) as found:
        yield found
