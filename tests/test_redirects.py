"""Redirects to a storage that signs: what they cost, and that nobody is sent there who may not have the file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.storage import CopyUnavailableError
from storage_plugins.s3.plugin import S3Storage
from tests.harness import FAR, OUTSIDER, SCIENTIST, Entry, RunningGateway, config_for, running_gateway
from tests.proxy import CountingProxy, counting_proxy
from tests.quotas.holders import until

CONTENT = b"content " * 1000


@pytest.fixture
async def redirecting(
    database: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[tuple[RunningGateway, CountingProxy, CountingProxy]]:
    """A gateway before the storage ``far``."""
    async with (
        counting_proxy(database) as (postgres, dsn),
        counting_proxy(redis_url) as (redis, url),
        running_gateway(config_for(dsn, url, tmp_path, storage=[FAR]), tmp_path) as running,
    ):
        await running.catalogue.grant("restricted", await running.catalogue.group("science"))
        yield running, postgres, redis


@pytest.mark.usefixtures("no_background")
async def test_one_round_trip_each_in_all(
    redirecting: tuple[RunningGateway, CountingProxy, CountingProxy],
) -> None:
    gateway, postgres, redis = redirecting
    entries = [await gateway.catalogue.file(CONTENT, item=f"item-{number}", storage="far") for number in range(5)]
    # The first makes the tenant and the caller's counters known to the process and to Redis.
    assert (await gateway.get(entries[0].stac, SCIENTIST))[0].status == 307
    for entry in entries:
        for path in (entry.stac, entry.regards):
            before = postgres.round_trips, redis.round_trips
            response, body = await gateway.get(path, SCIENTIST)
            assert (response.status, body) == (307, b"")
            await asyncio.sleep(0.01)
            assert (postgres.round_trips - before[0], redis.round_trips - before[1]) == (1, 1)
    # The same content under five names is one download, which is charged once.
    assert await gateway.usage(SCIENTIST) == (1, len(CONTENT))


async def test_the_answer_leads_to_the_storage_and_says_what_the_file_is(
    redirecting: tuple[RunningGateway, CountingProxy, CountingProxy],
) -> None:
    gateway, _, _ = redirecting
    entry = await gateway.catalogue.file(CONTENT, name="Île 北京.tif", storage="far")
    response, _ = await gateway.get(entry.stac, SCIENTIST, Range="bytes=0-9")
    assert response.status == 307
    location = urlsplit(response.headers["Location"])
    assert (location.netloc, location.path) == ("storage.example.org", "/esa/restricted/item/data")
    wishes = parse_qs(location.query)
    assert wishes["response-content-type"] == ["image/tiff"]
    assert wishes["response-content-disposition"][0].startswith("attachment; filename=")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Repr-Digest"].startswith("sha-256=:")
    assert not {"ETag", "Last-Modified", "Accept-Ranges", "Content-Disposition"} & set(response.headers)
    assert await gateway.usage(SCIENTIST) == (1, len(CONTENT))


async def test_whoever_may_not_have_the_file_gets_no_url_and_is_charged_nothing(
    redirecting: tuple[RunningGateway, CountingProxy, CountingProxy],
) -> None:
    gateway, _, _ = redirecting
    entry = await gateway.catalogue.file(CONTENT, storage="far")
    other = await gateway.catalogue.file(CONTENT[1:], item="other", storage="far")
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=1)
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 307
    for path, who, status in ((entry.stac, OUTSIDER, 403), (entry.stac, None, 401), (other.stac, SCIENTIST, 429)):
        response, body = await gateway.get(path, who)
        assert response.status == status
        assert "Location" not in response.headers
        assert b"storage.example.org" not in body
    assert await gateway.usage(SCIENTIST) == (1, len(CONTENT))
    assert await gateway.usage(OUTSIDER) == (0, 0)


async def test_what_cannot_be_signed_costs_nothing(
    redirecting: tuple[RunningGateway, CountingProxy, CountingProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sign(*_: object, **__: object) -> None:
        raise CopyUnavailableError("no credentials")

    gateway, _, redis = redirecting
    entry = await gateway.catalogue.file(CONTENT, storage="far")
    monkeypatch.setattr(S3Storage, "sign", sign)
    before = redis.round_trips
    response, _ = await gateway.get(entry.stac, SCIENTIST)
    assert response.status == 503
    assert int(response.headers["Retry-After"]) > 0
    assert redis.round_trips == before
    assert await gateway.usage(SCIENTIST) == (0, 0)


async def test_without_redis_nobody_is_sent_there(
    redirecting: tuple[RunningGateway, CountingProxy, CountingProxy],
) -> None:
    gateway, _, redis = redirecting
    entry = await gateway.catalogue.file(CONTENT, storage="far")
    redis.shut = True
    redis.cut()
    response, _ = await gateway.get(entry.stac, SCIENTIST)
    assert response.status == 503
    assert "Location" not in response.headers
    redis.shut = False
    await until(lambda: _is_sent_there(gateway, entry), "callers are sent there again")


async def _is_sent_there(gateway: RunningGateway, entry: Entry) -> bool:
    status = (await gateway.get(entry.stac, SCIENTIST))[0].status
    assert status in (307, 503)
    return status == 307
