"""Orders without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.orders.support import Shop, open_shop


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with open_shop(database, suborder_files=3, suborder_size=2500) as opened:
        yield opened
