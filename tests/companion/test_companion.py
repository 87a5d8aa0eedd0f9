"""The gateway in front of a STAC API that exists already: walked, searched, downloaded from, failing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest
import yarl

from gateway.companion.rewriting import DOWNLOAD_CLASS
from tests.companion.upstream_api import COLLECTION, CONTENT, UpstreamApi, upstream_api
from tests.harness import (
    OUTSIDER,
    SCIENCE,
    SCIENTIST,
    TENANT,
    RunningGateway,
    bearer,
    config_for,
    principal,
    running_gateway,
)

Start = Callable[..., AbstractAsyncContextManager[RunningGateway]]

FOREIGNER = principal("foreigner", SCIENCE, tenant="other")


@pytest.fixture
async def api() -> AsyncIterator[UpstreamApi]:
    async with upstream_api() as found:
        yield found


@pytest.fixture
def start(api: UpstreamApi, database: str, redis_url: str, tmp_path: Path) -> Start:
    """Starts a gateway in front of it; arguments are settings of the companion."""

    @asynccontextmanager
    async def started(**settings: object) -> AsyncIterator[RunningGateway]:
        host = api.root.removeprefix("http://").removesuffix("/stac")
        storage = {
            "name": "web",
            "plugin": "http",
            "tenants": [TENANT],
            "hosts": [host],
            "schemes": ["http"],
            "networks": ["127.0.0.0/8"],
        }
        config = config_for(
            database,
            redis_url,
            tmp_path,
            storage=[storage],
            companion={"upstream": f"{api.root}/", "tenant": TENANT, **settings},
        )
        async with running_gateway(config, tmp_path) as gateway:
            await gateway.catalogue.grant(COLLECTION, await gateway.catalogue.group(SCIENCE))
            yield gateway

    return started


def path_of(item: str, *rest: str) -> str:
    parts = "".join(f"/{part}" for part in rest)
    return f"/collections/{quote(COLLECTION, safe='')}/items/{quote(item, safe='')}{parts}"


async def test_who_walks_the_catalogue_finds_downloads_of_this_gateway(api: UpstreamApi, start: Start) -> None:
    original = json.loads(json.dumps(api.item("i/1")))
    async with start() as gateway:
        answer, body = await gateway.get("/")
        landing = json.loads(body)
        assert answer.status == 200
        assert DOWNLOAD_CLASS in landing["conformsTo"]
        assert [link["href"] for link in landing["links"]] == [
            gateway.url,
            f"{gateway.url}/collections",
            f"{gateway.url}/search",
        ]
        answer, body = await gateway.get(path_of("i/1"))
        item = json.loads(body)
        download = item["assets"]["data"]["href"]
        assert answer.status == 200
        assert download == f"{gateway.url}{path_of('i/1', 'download', 'data')}"
        assert item["assets"]["data"]["alternate"]["origin"]["href"] == original["assets"]["data"]["href"]
        assert item["assets"]["docs"]["href"] == "https://elsewhere.example.org/docs.html"
        assert item["links"][0]["href"] == f"{gateway.url}{path_of('i/1')}"
        answer, content = await gateway.get(download.removeprefix(gateway.url), SCIENTIST)
        assert (answer.status, content) == (200, CONTENT["a.tif"])
        assert (await gateway.usage(SCIENTIST)) == (1, len(content))


async def test_a_search_is_sent_on_and_its_page_rewritten(api: UpstreamApi, start: Start) -> None:
    for number in range(50):
        api.item(f"i{number}")
    async with start() as gateway:
        query = {"limit": 50, "bbox": [0, 0, 9, 9]}
        async with gateway.session.post(f"{gateway.url}/search?fields=a%2Fb", json=query) as answer:
            page = await answer.json(content_type="application/geo+json")
    assert json.loads(api.bodies[0]) == query
    assert api.asked[-1][:2] == ("POST", "/stac/search?fields=a/b")
    assert len(page["features"]) == 50
    assert all(item["assets"]["data"]["href"].startswith(gateway.url) for item in page["features"])


async def test_rights_are_those_of_this_gateway(api: UpstreamApi, start: Start) -> None:
    api.item("one")
    async with start() as gateway:
        statuses = [
            (await gateway.get(path_of("one", "download", "data"), who))[0].status
            for who in (None, OUTSIDER, FOREIGNER, SCIENTIST)
        ]
    assert statuses == [401, 403, 404, 200]


async def test_an_item_of_which_the_upstream_knows_nothing_is_404_and_asked_for_once(
    api: UpstreamApi, start: Start
) -> None:
    async with start() as gateway:
        for _ in range(5):
            answer, body = await gateway.get(path_of("none", "download", "data"), SCIENTIST)
            assert answer.status == 404
            assert set(json.loads(body)) == {"code", "description"}
    assert len(api.asked) == 1


async def test_many_downloads_of_an_item_ask_for_it_once_and_others_take_its_etag(
    api: UpstreamApi, start: Start
) -> None:
    api.item("one")
    async with start(max_age=0.3) as gateway:
        path = path_of("one", "download", "data")
        answers = await asyncio.gather(*(gateway.get(path, SCIENTIST) for _ in range(20)))
        assert {answer.status for answer, _ in answers} == {200}
        assert len(api.asked) == 1
        written = await _updated(gateway)
        await asyncio.sleep(0.35)
        assert (await gateway.get(path, SCIENTIST))[0].status == 200
        assert len(api.asked) == 2
        assert await _updated(gateway) == written


async def test_an_item_that_changes_upstream_is_delivered_as_it_is_now(api: UpstreamApi, start: Start) -> None:
    api.item("one")
    async with start(max_age=0) as gateway:
        path = path_of("one", "download", "data")
        assert (await gateway.get(path, SCIENTIST))[1] == CONTENT["a.tif"]
        api.item("one", "b.tif")
        assert (await gateway.get(path, SCIENTIST))[1] == CONTENT["b.tif"]


async def test_an_upstream_out_of_reach_is_502_or_504_but_what_is_known_is_delivered(
    api: UpstreamApi, start: Start
) -> None:
    api.item("known")
    api.item("unknown")
    async with start(max_age=0, timeout=0.2) as gateway:
        known, unknown = (path_of(name, "download", "data") for name in ("known", "unknown"))
        assert (await gateway.get(known, SCIENTIST))[0].status == 200
        for trouble, status in (("fails", 502), ("stalls", 504)):
            setattr(api, trouble, True)
            assert (await gateway.get(known, SCIENTIST))[1] == CONTENT["a.tif"]
            for path, who in ((unknown, SCIENTIST), ("/", None), (path_of("known"), None)):
                answer, body = await gateway.get(path, who)
                assert (answer.status, path) == (status, path)
                assert answer.headers["Retry-After"] == "10"
                assert set(json.loads(body)) >= {"code"}
            setattr(api, trouble, False)


async def test_a_page_that_breaks_off_looks_broken(api: UpstreamApi, start: Start) -> None:
    for number in range(400):
        api.item(f"i{number}")
    api.breaks = True
    async with start() as gateway, gateway.session.get(f"{gateway.url}/search") as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


@pytest.mark.parametrize("text", ["", "<html>", "[1", '{"type":'])
async def test_what_is_no_json_is_502(api: UpstreamApi, start: Start, text: str) -> None:
    api.tells = text
    async with start() as gateway:
        answer, _ = await gateway.get(path_of("one"))
        assert answer.status == 502
        answer, _ = await gateway.get(path_of("one", "download", "data"), SCIENTIST)
        assert answer.status == 502


@pytest.mark.parametrize(
    "change",
    [
        {"id": "another"},
        {"collection": "another"},
        {"assets": 7},
        {"properties": None},
    ],
)
async def test_an_item_that_is_not_what_was_asked_for_is_502(
    api: UpstreamApi, start: Start, change: dict[str, object]
) -> None:
    item = api.item("one")
    item |= change
    async with start() as gateway:
        answer, _ = await gateway.get(path_of("one", "download", "data"), SCIENTIST)
        assert answer.status == 502
        rows = await gateway.catalogue.connection.fetchval("SELECT count(*) FROM products")
        assert rows == 0


@pytest.mark.parametrize("href", ["file:///etc/passwd", "//theirs/a", "s3://theirs/a", "x:", ""])
async def test_an_asset_that_no_storage_here_holds_is_none_of_this_gateway(
    api: UpstreamApi, start: Start, href: str
) -> None:
    item = api.item("one")
    assert isinstance(item["assets"], dict)
    item["assets"]["other"] = {"href": href}
    async with start() as gateway:
        assert (await gateway.get(path_of("one", "download", "data"), SCIENTIST))[0].status == 200
        assert (await gateway.get(path_of("one", "download", "other"), SCIENTIST))[0].status == 404
        _, body = await gateway.get(path_of("one"))
        assert "/download/" not in json.loads(body)["assets"]["other"]["href"]


async def test_the_callers_token_is_shown_to_nobody_unless_that_is_set(api: UpstreamApi, start: Start) -> None:
    api.item("one")
    async with start() as gateway:
        await gateway.get("/", SCIENTIST)
        await gateway.get(path_of("one", "download", "data"), SCIENTIST)
    assert {authorization for _, _, authorization in api.asked} == {None}
    async with start(authorization="Bearer of the gateway") as gateway:
        await gateway.get("/", SCIENTIST)
    assert api.asked[-1][2] == "Bearer of the gateway"
    async with start(forward_authorization=True) as gateway:
        await gateway.get("/", SCIENTIST)
    assert str(api.asked[-1][2]).startswith("Bearer ey")


async def test_paths_lead_nowhere_but_into_the_upstream(api: UpstreamApi, start: Start) -> None:
    async with start() as gateway:
        for path in ("/collections/%2e%2e/%2e%2e/files/a.tif", "/collections/x/..%2f..%2f..%2ffiles/a.tif"):
            async with gateway.session.get(f"{gateway.url.rstrip('/')}", allow_redirects=False) as answer:
                assert answer.status == 200
            answer, body = await gateway.get(path)
            assert answer.status in (400, 404)
            assert body != CONTENT["a.tif"]
        answer, _ = await gateway.get("/collections/moved-away")
        assert (answer.status, answer.headers["Location"]) == (307, f"{gateway.url}/collections/moved")
        answer, _ = await gateway.request("DELETE", path_of("one"))
        assert answer.status == 405


async def test_no_server_takes_a_path_for_one_above_the_upstream(api: UpstreamApi, start: Start) -> None:
    """Some take what follows a semicolon for no part of a segment, and a backslash for a slash."""
    async with start(authorization="Bearer of the gateway") as gateway:
        for path in (
            "/collections/..;/..;a=b/files/a.tif",
            "/collections/x/%2e%2e%3bx/y",
            "/collections/..%5c..%5cfiles",
            "/collections/.;/x",
        ):
            url = yarl.URL(f"{gateway.url}{path}", encoded=True)
            async with gateway.session.get(url) as answer:
                assert (answer.status, path) == (400, path)
        await gateway.get("/collections/a..;b/items")
    assert [path for _, path, _ in api.asked] == ["/stac/collections/a..;b/items"]


@pytest.mark.parametrize("text", ['{"a": 1e999}', '{"a": NaN}'])
async def test_an_upstream_that_tells_nonsense_is_502(api: UpstreamApi, start: Start, text: str) -> None:
    api.tells = text
    async with start() as gateway:
        answer, _ = await gateway.get("/search")
        assert answer.status == 502


async def test_an_upstream_that_tells_nonsense_later_is_cut(api: UpstreamApi, start: Start) -> None:
    """Neither an error in the gateway's own log, nor an answer that looks whole."""
    api.tells = '{"features": [1e999]}'
    async with start() as gateway:
        with pytest.raises(aiohttp.ClientPayloadError):
            await gateway.get("/search")


async def test_an_upstream_that_nests_without_end_is_502_or_passes(api: UpstreamApi, start: Start) -> None:
    """How deep Python can write depends on the thread: what it cannot write is the upstream's fault."""
    async with start() as gateway:
        for depth in (500, 900, 5_000):
            api.tells = f'{{"a": {"[" * depth}{"]" * depth}}}'
            answer, _ = await gateway.get("/search")
            assert answer.status in (200, 502)


_ODD_ITEMS: tuple[dict[str, Any], ...] = (
    {"assets": {"bad": {"href": "https://[odd/x"}}},
    {"assets": {"bad": {"href": "http://h:99999999/x"}}},
    {"assets": {"bad": {"href": "\ud800"}}},
    {"assets": {"\ud800": {"href": "a"}, "\0": {"href": "a"}}},
    {"properties": {"datetime": "2026-01-01T00:00:00Z", "x": float("inf"), "y": float("nan")}},
    {"properties": {"datetime": "2026-01-01T00:00:00Z", "x": "\ud800\0"}},
    {"properties": {"datetime": "0001-01-01T00:00:00Z"}},
    {"properties": {"datetime": "2026-01-01T00:00:00Z", "x": json.loads("[" * 500 + "]" * 500)}},
    {"geometry": {"type": "Point", "coordinates": [float("inf"), 10**400]}, "bbox": [1e308, 2, float("nan"), 4]},
    {"properties": None, "links": 1, "stac_extensions": {"a": 1}},
    {"assets": 1, "geometry": {"type": "Polygon", "coordinates": 3}},
)


async def test_whatever_the_upstream_says_of_an_item_is_no_error_of_the_gateway(api: UpstreamApi, start: Start) -> None:
    wanted = []
    for number, odd in enumerate(_ODD_ITEMS):
        found: dict[str, Any] = api.item(f"i{number}")
        more = odd.get("assets")
        found.update({"assets": found["assets"] | more} if isinstance(more, dict) else odd)
        wanted.append({"collection": COLLECTION, "item": f"i{number}", "asset": "data"})
    async with start() as gateway:
        for number, odd in enumerate(_ODD_ITEMS):
            answer, _ = await gateway.get(path_of(f"i{number}", "download", "data"), SCIENTIST)
            assert answer.status in (200, 404, 502), odd
        async with gateway.session.post(f"{gateway.url}/download", json=wanted, headers=bearer(SCIENTIST)) as listed:
            assert listed.status == 200
            assert sum("href" in one for one in (await listed.json())["files"]) >= 3


async def test_of_many_files_each_item_is_asked_for_once(api: UpstreamApi, start: Start) -> None:
    for number in range(3):
        api.item(f"i{number}")
    names = ["i0", "i1", "i1", "i2", "none"]
    wanted = [{"collection": COLLECTION, "item": name, "asset": "data"} for name in names]
    async with start(timeout=0.3, max_age=0.2) as gateway:
        url = f"{gateway.url}/download"
        async with gateway.session.post(url, json=wanted, headers=bearer(SCIENTIST)) as answer:
            found = (await answer.json())["files"]
        assert [one.get("size") for one in found] == [len(CONTENT["a.tif"])] * 4 + [None]
        assert found[-1]["error"]["status"] == 404
        assert len(api.asked) == 4
        api.fails = True
        await asyncio.sleep(0.25)
        api.items.clear()
        wanted.append({"collection": COLLECTION, "item": "other", "asset": "data"})
        async with gateway.session.post(url, json=wanted, headers=bearer(SCIENTIST)) as answer:
            found = (await answer.json())["files"]
        assert ["error" in one for one in found] == [False] * 4 + [True] * 2
        assert found[-1]["error"]["status"] == 502


async def test_a_link_token_is_not_sent_on(api: UpstreamApi, start: Start) -> None:
    async with start() as gateway:
        await gateway.get("/search?link=secret&limit=1&orderToken=secret")
    assert api.asked[-1][1] == "/stac/search?limit=1"


async def _updated(gateway: RunningGateway) -> object:
    connection: asyncpg.Connection = gateway.catalogue.connection
    return await connection.fetchval("SELECT updated_at FROM products")
