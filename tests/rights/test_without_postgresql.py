"""What decisions cost PostgreSQL, and what is answered without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import SCIENTIST, Entry, RunningGateway, bearer, config_for, running_gateway
from tests.proxy import CountingProxy, counting_proxy


@pytest.fixture
async def proxied(
    database: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[tuple[RunningGateway, CountingProxy, Entry]]:
    async with (
        counting_proxy(database) as (postgres, dsn),
        running_gateway(config_for(dsn, redis_url, tmp_path), tmp_path) as gateway,
    ):
        made = gateway.catalogue
        await made.grant("restricted", await made.group("science"))
        entry = await made.file(b"look", data_type="QUICKLOOK_SD")
        await made.licence("restricted")
        yield gateway, postgres, entry


def requests(entry: Entry) -> list[tuple[str, str, bytes | None]]:
    return [
        ("GET", entry.stac, None),
        ("HEAD", entry.regards, None),
        ("GET", f"/entities/{entry.product}/access", None),
        ("POST", "/entities/access", json.dumps([entry.product] * 900).encode()),
        ("GET", "/license", None),
        ("GET", "/collections/restricted/license", None),
    ]


async def send(gateway: RunningGateway, method: str, path: str, body: bytes | None) -> tuple[int, str]:
    async with gateway.session.request(
        method, f"{gateway.url}{path}", headers=bearer(SCIENTIST), data=body
    ) as response:
        await response.read()
        return response.status, response.headers.get("Retry-After", "")


@pytest.mark.usefixtures("no_background")
async def test_each_decision_is_one_round_trip(proxied: tuple[RunningGateway, CountingProxy, Entry]) -> None:
    gateway, postgres, entry = proxied
    for request in requests(entry):
        # The first prepares the statement on the connection.
        assert (await send(gateway, *request))[0] == 200, request
        await asyncio.sleep(0.01)
        before = postgres.round_trips
        assert (await send(gateway, *request))[0] == 200
        await asyncio.sleep(0.01)
        assert postgres.round_trips - before == 1, request


@pytest.mark.usefixtures("no_background")
async def test_without_postgresql_nothing_is_allowed_and_nothing_denied(
    proxied: tuple[RunningGateway, CountingProxy, Entry],
) -> None:
    gateway, postgres, entry = proxied
    every = [
        *requests(entry),
        ("PUT", "/license", None),
        ("PUT", "/collections/restricted/license", None),
        ("GET", f"{entry.stac}?acceptLicense=true", None),
    ]
    for request in every:
        assert (await send(gateway, *request))[0] == 200
    postgres.shut = True
    postgres.cut()
    for request in every:
        status, retry_after = await send(gateway, *request)
        assert (status, retry_after.isdigit()) == (503, True), request
    postgres.shut = False
    for request in every:
        assert (await send(gateway, *request))[0] == 200
