"""A gateway before a store of Google's kind: the whole way of a file, streamed and by a signed URL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yarl

from gateway.locations import storage_locations
from gateway.storage import CanStream
from tests.harness import SCIENCE, SCIENTIST, Entry, RunningGateway, config_for, running_gateway
from tests.storage_plugins.object_server import ObjectServer, object_server, service_account_key
from tests.storage_plugins.support import CONTENT

NAME = "a b/é.tif"


@pytest.fixture
async def server() -> AsyncIterator[ObjectServer]:
    async with object_server() as server:
        server.objects[f"/bucket/pre/{NAME}"] = CONTENT
        yield server


@contextlib.asynccontextmanager
async def gateway_for(
    server: ObjectServer, database: str, redis_url: str, root: Path, delivery: str
) -> AsyncIterator[tuple[RunningGateway, Entry]]:
    storage = {
        "name": "objects",
        "plugin": "obstore",
        "tenants": ["*"],
        "delivery": delivery,
        "url": "gs://bucket/pre",
        "options": {"base_url": server.url, "service_account_key": service_account_key()},
        "client_options": {"allow_http": True},
    }
    config = config_for(database, redis_url, root, storage=[storage])
    async with storage_locations(config.storage) as locations, running_gateway(config, root) as gateway:
        held = locations["objects"].storage
        location = held.locate(f"gs://bucket/pre/{NAME}")
        assert isinstance(held, CanStream)
        assert location == NAME
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group(SCIENCE))
        entry = await gateway.catalogue.described(CONTENT)
        await gateway.catalogue.copy(entry, "objects", location, await held.stat(location))
        yield gateway, entry


async def test_a_file_is_streamed_whole_and_in_ranges(
    server: ObjectServer, database: str, redis_url: str, tmp_path: Path
) -> None:
    async with gateway_for(server, database, redis_url, tmp_path, "stream") as (gateway, entry):
        response, body = await gateway.get(entry.stac, SCIENTIST)
        assert (response.status, body) == (200, CONTENT)
        response, body = await gateway.get(entry.stac, SCIENTIST, Range="bytes=1000-1999999")
        assert (response.status, body) == (206, CONTENT[1000:2_000_000])
        response, _ = await gateway.get(entry.stac, SCIENTIST, Range="bytes=0-0,-1")
        assert (response.status, response.content_type) == (206, "multipart/byteranges")
        server.refuse(503, times=9)
        response, _ = await gateway.get(entry.stac, SCIENTIST)
        assert response.status == 503
        server.scripts.clear()


async def test_a_file_that_was_changed_is_not_delivered(
    server: ObjectServer, database: str, redis_url: str, tmp_path: Path
) -> None:
    async with gateway_for(server, database, redis_url, tmp_path, "stream") as (gateway, entry):
        server.objects[f"/bucket/pre/{NAME}"] = CONTENT[::-1]
        response, _ = await gateway.get(entry.stac, SCIENTIST)
        assert response.status == 502
        del server.objects[f"/bucket/pre/{NAME}"]
        response, _ = await gateway.get(entry.stac, SCIENTIST)
        assert response.status == 404


async def test_a_client_is_sent_to_the_store_that_gives_name_and_type(
    server: ObjectServer, database: str, redis_url: str, tmp_path: Path
) -> None:
    async with gateway_for(server, database, redis_url, tmp_path, "redirect") as (gateway, entry):
        answer, _ = await gateway.get(entry.stac, SCIENTIST)
        assert answer.status == 307
        url = yarl.URL(answer.headers["Location"], encoded=True)
        async with aiohttp.ClientSession() as session, session.get(url) as given:
            assert (given.status, await given.read()) == (200, CONTENT)
        wishes = server.requests[-1].query
        assert wishes["response-content-disposition"].startswith("attachment")
        assert wishes["response-content-type"]
