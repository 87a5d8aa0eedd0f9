"""A gateway with a tape, and a stock of restored copies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import SCIENCE, RunningGateway, running_gateway
from tests.staging.stock import Stock, stock_of
from tests.staging.tape import load_tape, tape_config


@pytest.fixture
async def archive(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningGateway]:
    """A running gateway with storages ``disk`` and ``tape``; rights as of ``gateway``."""
    root = tmp_path / "archive"
    root.mkdir()
    load_tape(monkeypatch)
    async with running_gateway(tape_config(database, redis_url, root), root) as running:
        catalogue = running.catalogue
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        await catalogue.grant("open", await catalogue.group("everyone", public=True))
        yield running


@pytest.fixture
async def stock(database: str, tmp_path: Path) -> AsyncIterator[Stock]:
    async with stock_of(database, tmp_path / "cache") as made:
        yield made
