"""Behind proxies: whom to believe, and handing files over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import OUTSIDER, SCIENTIST, RunningGateway, config_for, running_gateway

TEXT = b"exactly this\n" * 1000


def storage(root: Path, field: str, prefix: str) -> list[dict[str, object]]:
    return [
        {
            "name": "disk",
            "plugin": "local",
            "tenants": ["*"],
            "root": str(root),
            "offload": field,
            "offload_prefix": prefix,
        }
    ]


@pytest.fixture(params=["X-Accel-Redirect", "X-Sendfile"])
async def offloading(
    request: pytest.FixtureRequest, database: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[tuple[RunningGateway, str]]:
    config = config_for(
        database, redis_url, tmp_path,
        server={"port": 0, "shutdown_timeout": 1, "trusted_proxies": ["127.0.0.0/8"]},
        storage=storage(tmp_path, request.param, "/_archive"),
    )  # fmt: skip
    async with running_gateway(config, tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group("science"))
        running.session.headers["X-Sendfile-Type"] = request.param
        yield running, request.param


async def test_a_file_is_handed_to_the_listed_proxy_and_charged_in_full(
    offloading: tuple[RunningGateway, str],
) -> None:
    gateway, field = offloading
    entry = await gateway.catalogue.file(TEXT)
    response, body = await gateway.get(entry.stac, SCIENTIST)
    assert (response.status, body) == (200, b"")
    assert response.headers[field] == "/_archive/esa/restricted/item/data"
    assert response.headers["ETag"] == f'"{entry.checksum}"'
    assert "Repr-Digest" in response.headers
    assert "Last-Modified" in response.headers
    assert "Content-Range" not in response.headers
    # nginx would say it twice, Apache not at all.
    assert ("Accept-Ranges" in response.headers) == (field == "X-Sendfile")
    assert await gateway.usage(SCIENTIST) == (1, len(TEXT))


async def test_a_listed_proxy_that_does_not_offer_to_send_files_is_streamed_to(
    offloading: tuple[RunningGateway, str],
) -> None:
    """A load balancer would pass an empty answer on."""
    gateway, field = offloading
    entry = await gateway.catalogue.file(TEXT)
    for offer in ("", "X-Something"):
        response, body = await gateway.get(entry.stac, SCIENTIST, X_Sendfile_Type=offer)
        assert (response.status, body) == (200, TEXT)
        assert field not in response.headers


async def test_what_the_proxy_would_answer_otherwise_is_answered_here(
    offloading: tuple[RunningGateway, str],
) -> None:
    gateway, field = offloading
    entry = await gateway.catalogue.file(TEXT)
    tag = f'"{entry.checksum}"'
    for fields, expected in [
        ({"If_Match": tag}, TEXT),
        ({"If_None_Match": '"other"'}, TEXT),
        ({"If_Modified_Since": "Sat, 01 Jan 2000 00:00:00 GMT"}, TEXT),
        ({"If_Unmodified_Since": "Sat, 01 Jan 2050 00:00:00 GMT"}, TEXT),
        ({"Range": "bytes=0-4", "If_Range": '"other"'}, TEXT),
        ({"Range": "lines=0-4"}, TEXT),
        # nginx refuses these spellings.
        ({"Range": "bytes=0-4,"}, TEXT[:5]),
        ({"Range": "bytes=0-99999999999999999999"}, TEXT),
        ({"Range": "bytes=-99999999999999999999"}, TEXT),
    ]:
        response, body = await gateway.get(entry.stac, SCIENTIST, **fields)
        assert field not in response.headers, fields
        assert body == expected
    response, body = await gateway.get(entry.stac, SCIENTIST, Range="bytes=0-4,10-14")
    assert field not in response.headers
    assert response.status == 206
    response, body = await gateway.get(entry.stac, SCIENTIST, Range="bytes=1-4")
    assert (response.status, body) == (206, TEXT[1:5])
    assert field not in response.headers
    for method, who, status in [("HEAD", SCIENTIST, 200), ("GET", OUTSIDER, 403)]:
        response, _ = await gateway.request(method, entry.stac, who)
        assert response.status == status
        assert field not in response.headers


async def test_a_changed_or_missing_file_is_not_handed_over(offloading: tuple[RunningGateway, str]) -> None:
    gateway, field = offloading
    entry = await gateway.catalogue.file(TEXT)
    entry.path.write_bytes(b"changed")
    response, _ = await gateway.get(entry.stac, SCIENTIST)
    assert response.status == 502
    assert field not in response.headers
    entry.path.unlink()
    response, _ = await gateway.get(entry.stac, SCIENTIST)
    assert response.status == 404
    assert field not in response.headers
    assert await gateway.usage(SCIENTIST) == (0, 0)


async def test_anyone_else_is_streamed_to(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path, storage=storage(tmp_path, "X-Accel-Redirect", "/_archive"))
    async with running_gateway(config, tmp_path) as gateway:
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group("science"))
        entry = await gateway.catalogue.file(TEXT)
        response, body = await gateway.get(
            entry.stac, SCIENTIST, X_Forwarded_For="127.0.0.1", Forwarded="for=127.0.0.1"
        )
        assert (response.status, body) == (200, TEXT)
        assert "X-Accel-Redirect" not in response.headers


async def test_links_follow_the_public_url_or_the_listed_proxy_and_nobody_else(
    offloading: tuple[RunningGateway, str], gateway: RunningGateway
) -> None:
    told = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "data.example"}
    entry = await gateway.catalogue.file(TEXT)
    await gateway.catalogue.licence("restricted")
    for running, expected in [(offloading[0], "https://data.example/"), (gateway, f"{gateway.url}/")]:
        response, _ = await running.get(entry.regards, SCIENTIST, **told)
        assert response.status == 423
        assert (await response.json())["accept"].startswith(expected)


@pytest.mark.parametrize("host", ["", "a b", "user@host", "host/path", "a,b", "[::1", "host:99999999"])
async def test_a_bad_host_is_400(gateway: RunningGateway, host: str) -> None:
    response, _ = await gateway.get("/health/live", Host=host)
    assert response.status == 400
