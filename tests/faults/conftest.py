"""Gateways with short deadlines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.harness import SCIENCE, RunningGateway, config_for, running_gateway

SEND_TIMEOUT = 0.6


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    """Closes what the test opened."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
async def impatient(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway that waits `SEND_TIMEOUT` for a client to take a byte."""
    root = tmp_path / "archive"
    root.mkdir()
    config = config_for(database, redis_url, root, delivery={"send_timeout": SEND_TIMEOUT})
    async with running_gateway(config, root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running
