"""A stock for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.staging.stock import Stock, stock_of


@pytest.fixture
async def stock(database: str, tmp_path: Path) -> AsyncIterator[Stock]:
    async with stock_of(database, tmp_path / "cache") as made:
        yield made
