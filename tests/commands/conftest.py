"""What commands work on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.commands.support import Stand
from tests.harness import SCIENCE, Catalogue
from tests.s3.strict import StrictS3, strict_s3
from tests.stac.doors import Doors


@pytest.fixture
async def stand(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stand]:
    """Group ``science`` may download the collection ``restricted``; there is no file yet."""
    root = tmp_path / "archive"
    root.mkdir()
    connection = await asyncpg.connect(database)
    try:
        catalogue = Catalogue(connection, root)
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        yield Stand(tmp_path, database, redis_url, catalogue)
    finally:
        await connection.close()


@pytest.fixture
async def strict() -> AsyncIterator[StrictS3]:
    """An S3 server, empty."""
    async with strict_s3() as running:
        yield running


@pytest.fixture
def doors(database: str, redis_url: str, tmp_path: Path) -> Doors:
    return Doors(database, redis_url, tmp_path)
