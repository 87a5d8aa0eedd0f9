"""A glacier class of S3: downloads through a gateway that restores, whatever the catalogue says of the object."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.storage import Stat
from tests.commands.support import BUCKET, s3_storage
from tests.harness import SCIENCE, SCIENTIST, config_for, running_gateway
from tests.s3.strict import strict_s3

CONTENT = b"0123456789" * 1000


@pytest.mark.parametrize("state", ["NEARLINE", "ONLINE"])
async def test_from_cold_to_downloaded(database: str, redis_url: str, tmp_path: Path, state: str) -> None:
    async with strict_s3() as strict:
        storage = s3_storage(strict, delivery="stream")
        config = config_for(database, redis_url, tmp_path, storage=[storage], staging={"poll": 0.2})
        async with running_gateway(config, tmp_path) as gateway:
            catalogue = gateway.catalogue
            await catalogue.grant("restricted", await catalogue.group(SCIENCE))
            stored = strict.store.put(BUCKET, "esa/cold", CONTENT, storage_class="GLACIER")
            entry = await catalogue.described(CONTENT)
            stat = Stat(len(CONTENT), stored.modified, stored.etag.strip('"'))
            await catalogue.copy(entry, "store", f"{BUCKET}/esa/cold", stat, state=state)

            answer, body = await gateway.get(entry.stac, SCIENTIST)
            assert (answer.status, json.loads(body)["code"]) == (503, "Restoring")
            # S3 tells that it takes hours at most.
            async with asyncio.timeout(30):
                while not await catalogue.connection.fetchval(
                    "SELECT started_at FROM restores WHERE state = 'STAGING'"
                ):
                    await asyncio.sleep(0.05)
                while (await gateway.get(entry.stac, SCIENTIST))[0].headers["Retry-After"] != "3600":
                    await asyncio.sleep(0.1)
            strict.store.finish_restoration(BUCKET, "esa/cold")
            async with asyncio.timeout(30):
                while (answer := (await gateway.get(entry.stac, SCIENTIST))[0]).status == 503:
                    await asyncio.sleep(0.1)
            answer, body = await gateway.get(entry.stac, SCIENTIST)
            assert (answer.status, body) == (200, CONTENT)
            assert answer.headers["File-State"].startswith("restored;until=@")
            assert await catalogue.connection.fetchval("SELECT count(*) FROM restores") == 1
            assert await catalogue.connection.fetchval("SELECT state FROM copies") == "NEARLINE"
