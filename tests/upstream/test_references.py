"""Files that somebody else holds: handed out as their URL, or fetched from there, and never with a token."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.harness import SCIENCE, SCIENTIST, Entry, RunningGateway, config_for, running_gateway

BYTES = random.Random(41).randbytes(200_000)
CURL, WGET = "curl/8.5.0", "Wget/1.21.3"


class Site:
    """A web server of somebody else."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, web.BaseRequest]] = []
        self.heads = True
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((f"{request.method} {request.raw_path}", request))
        if request.method == "HEAD" and not self.heads:
            return web.Response(status=405)
        fields = {"ETag": '"1"', "Content-Type": "image/tiff"}
        if request.method == "HEAD":
            return web.Response(headers={**fields, "Content-Length": str(len(BYTES))})
        span = request.http_range
        body = BYTES[span.start or 0 : span.stop]
        if "Range" in request.headers:
            fields["Content-Range"] = f"bytes {span.start}-{(span.start or 0) + len(body) - 1}/{len(BYTES)}"
            return web.Response(status=206, body=body, headers=fields)
        return web.Response(body=body, headers=fields)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    runner = web.ServerRunner(web.Server(site.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()


@contextlib.asynccontextmanager
async def gateway_for(
    site: Site, database: str, redis_url: str, root: Path, **options: object
) -> AsyncIterator[RunningGateway]:
    table = {
        "name": "web",
        "plugin": "http",
        "tenants": ["*"],
        "hosts": [site.url.removeprefix("http://")],
        "schemes": ["http"],
        "networks": ["127.0.0.0/8"],
        **options,
    }
    config = config_for(database, redis_url, root, storage=[table], delivery={"storage_timeout": 1})
    async with running_gateway(config, root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


async def reference(gateway: RunningGateway, url: str, *, size: int | None = None) -> Entry:
    """A file of which an ingest knew no more than its URL."""
    entry = await gateway.catalogue.described(BYTES, reference=True, checksum=False)
    await gateway.catalogue.connection.execute("UPDATE files SET size = $1", size)
    await gateway.catalogue.copy(entry, "web", url, None)
    return entry


async def test_a_reference_is_handed_out_as_its_url(site: Site, database: str, redis_url: str, tmp_path: Path) -> None:
    """Just as the catalogue has it, without asking the site: it may know no HEAD, and the range is its business."""
    async with gateway_for(site, database, redis_url, tmp_path, public=True) as gateway:
        url = f"{site.url}/a%2Fb//c.tif?version=1&x=%20"
        entry = await reference(gateway, url)
        for fields in ({}, {"Range": "bytes=5-9"}, {"If_None_Match": '"1"'}):
            response, body = await gateway.get(entry.stac, SCIENTIST, User_Agent=CURL, **fields)
            assert (response.status, response.headers["Location"], body) == (307, url, b"")
            assert response.headers["Cache-Control"] == "no-store"
        assert not site.requests


async def test_a_client_that_would_send_its_token_on_is_streamed_to(
    site: Site, database: str, redis_url: str, tmp_path: Path
) -> None:
    async with gateway_for(site, database, redis_url, tmp_path, public=True) as gateway:
        entry = await reference(gateway, f"{site.url}/scene.tif")
        response, body = await gateway.get(entry.stac, SCIENTIST, User_Agent=WGET)
        assert (response.status, body) == (200, BYTES)
        response, body = await gateway.get(entry.stac, SCIENTIST, User_Agent=WGET, Range="bytes=5-9")
        assert (response.status, body) == (206, BYTES[5:10])
        assert not any("Authorization" in request.headers for _, request in site.requests)
        assert await gateway.usage(SCIENTIST) == (1, len(BYTES) + 5)


async def test_a_site_whose_urls_stay_here_is_streamed_from(
    site: Site, database: str, redis_url: str, tmp_path: Path
) -> None:
    async with gateway_for(site, database, redis_url, tmp_path) as gateway:
        entry = await reference(gateway, f"{site.url}/scene.tif", size=len(BYTES))
        response, body = await gateway.get(entry.stac, SCIENTIST, User_Agent=CURL)
        assert (response.status, body) == (200, BYTES)
        assert response.headers.get("Server-Timing") is None
        head, _ = await gateway.request("HEAD", entry.stac, SCIENTIST)
        assert head.headers["Content-Length"] == str(len(BYTES))
        site.heads = False
        assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 503


@pytest.mark.parametrize(
    "href", ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/x", "file:///etc/passwd"]
)
async def test_what_is_not_listed_is_not_fetched(
    site: Site, database: str, redis_url: str, tmp_path: Path, href: str
) -> None:
    async with gateway_for(site, database, redis_url, tmp_path, public=True) as gateway:
        entry = await reference(gateway, href)
        for agent in (CURL, WGET):
            response, body = await gateway.get(entry.stac, SCIENTIST, User_Agent=agent)
            assert response.status in (404, 503), body
            assert "Location" not in response.headers
        assert await gateway.usage(SCIENTIST) == (0, 0)
