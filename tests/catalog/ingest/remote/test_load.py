"""Loads of another STAC API: every page once, in order, whatever the source does."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
from pathlib import Path

import asyncpg
import pytest
from aiohttp import web

from gateway.catalog.ingest import Count, IngestError, SourceError
from gateway.catalog.ingest.remote import client as client_module
from gateway.catalog.ingest.remote import pages
from tests.catalog.ingest.remote.api import CORE, SEARCH, StacApi, body, collection, cut, fine, item, stall, status
from tests.catalog.ingest.remote.conftest import Loading

ALL = [*(f"radar/scene-{n:05}" for n in range(5)), *(f"scenes/scene-{n:05}" for n in range(25))]
DATA = Path(__file__).parents[3] / "data" / "stac"
MOMENT = "2024-01-20T00:00:00Z"
QUERY = json.dumps({"updated": {"gte": MOMENT}})
FILTER = json.dumps({"op": ">=", "args": [{"property": "updated"}, {"timestamp": MOMENT}]})
TEXT = f"updated+%3E%3D+TIMESTAMP(%27{MOMENT}%27)"
SINCE = datetime.datetime(2024, 1, 20, tzinfo=datetime.UTC)


async def test_all_collections_and_items_come_page_by_page(api: StacApi, loading: Loading) -> None:
    result = await loading(api)
    assert (result.summary.collections, result.summary.items) == (Count(3), Count(30))
    assert (result.summary.files, result.told) == (30, [])
    assert await loading.ids() == ALL
    assert await loading.stops() == []
    assert [one for one in api.asked if "/items" in one] == [
        "GET /collections/empty/items?limit=10",
        "GET /collections/radar/items?limit=10",
        "GET /collections/scenes/items?limit=10",
        "GET /collections/scenes/items?limit=10&token=10",
        "GET /collections/scenes/items?limit=10&token=20",
    ]
    [row] = await loading.ingesting.rows("SELECT title FROM datasets WHERE collection_id = 'radar'")
    assert row == {"title": "The radar"}


async def test_again_nothing_is_new(api: StacApi, loading: Loading) -> None:
    await loading(api)
    result = await loading(api)
    assert (result.summary.collections, result.summary.items) == (Count(0, 3), Count(0, 30))


async def test_only_the_collections_that_are_wanted(api: StacApi, loading: Loading) -> None:
    await loading(api, "radar")
    assert await loading.ids() == ALL[:5]
    with pytest.raises(SourceError, match=r"/collections/none answered 404$"):
        await loading(api, "none")


@pytest.mark.parametrize("failure", [status(503), status(429), status(500), cut, stall])
async def test_what_fails_once_is_asked_again(api: StacApi, loading: Loading, failure: object) -> None:
    api.faults = [fine, fine, fine, failure, failure]  # type: ignore[list-item]
    await loading(api)
    assert await loading.ids() == ALL


async def test_a_source_is_left_alone_for_as_long_as_it_asks(api: StacApi, loading: Loading) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    past = "Sun, 06 Nov 1994 08:49:37 GMT"
    api.faults = [status(429, Retry_After="1"), status(503, Retry_After=past), fine, fine, fine, fine]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module.Client.__init__, "__kwdefaults__", {"sleep": sleep})
        await loading(api)
    assert waited[0] == 1
    assert 0 < waited[1] <= 0.02
    api.faults = [status(429, Retry_After="3600")]
    with pytest.raises(SourceError, match=r"answered 429 \(attempt 1\), and asks to be left alone for 3600 s$"):
        await loading(api)


async def test_a_load_that_stopped_goes_on_after_the_last_page(api: StacApi, loading: Loading) -> None:
    api.faults = [fine, fine, fine, fine, *[status(503)] * 3]
    with pytest.raises(SourceError, match=r"scenes/items\?… answered 503 \(attempt 3\)$"):
        await loading(api)
    assert await loading.ids() == ALL[:25]
    api.asked.clear()
    result = await loading(api)
    assert result.remarks == ["goes on after page 4, in the collection 'scenes'"]
    assert api.pages_asked() == ["GET /collections/scenes/items?limit=10&token=20"]
    assert (await loading.ids(), await loading.stops()) == (ALL, [])


async def test_where_the_place_is_no_longer_known_it_is_said_what_to_do(api: StacApi, loading: Loading) -> None:
    api.faults = [fine, fine, fine, status(404)]
    with pytest.raises(SourceError, match=r"answered 404$"):
        await loading(api)
    api.faults = [status(400)]
    with pytest.raises(SourceError, match=r"answered 400; if that page is no longer known there, begin anew"):
        await loading(api)
    await loading(api, restart=True)
    assert (await loading.ids(), await loading.stops()) == (ALL, [])


async def test_it_begins_anew_where_that_is_wanted_or_other_things_are(api: StacApi, loading: Loading) -> None:
    api.faults = [fine, fine, fine, status(404)]
    with pytest.raises(SourceError):
        await loading(api)
    api.asked.clear()
    await loading(api, "radar")
    assert api.pages_asked() == ["GET /collections/radar/items?limit=10"]
    [stop] = await loading.stops()
    assert stop["pages"] == 3
    api.asked.clear()
    await loading(api, restart=True)
    assert len(api.pages_asked()) == 5


async def test_a_load_that_is_cancelled_loses_no_page_that_it_wrote(api: StacApi, loading: Loading) -> None:
    reached = asyncio.Event()

    async def stop_here(request: web.Request) -> web.StreamResponse | None:
        reached.set()
        return await stall(request)

    api.faults = [fine, fine, fine, stop_here]
    task = asyncio.create_task(loading(api))
    await asyncio.wait_for(reached.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await loading.ids() == ALL[:15]
    await loading(api)
    assert await loading.ids() == ALL


async def test_a_page_that_fails_halfway_leaves_nothing_of_itself(api: StacApi, loading: Loading) -> None:
    half = json.dumps({"type": "FeatureCollection", "features": [item(7)]})[:-1] + ', "links": ['
    api.faults = [fine, fine, body(half)]
    with pytest.raises(SourceError, match="is not JSON"):
        await loading(api)
    assert await loading.ids() == ALL[:5]


@pytest.mark.parametrize(
    ("classes", "asked"),
    [
        (
            [f"{SEARCH}#query"],
            'POST /search {"collections": ["scenes"], "limit": 10, "query": ' + QUERY + "}",
        ),
        (
            [f"{SEARCH}#filter", "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json"],
            'POST /search {"collections": ["scenes"], "limit": 10, "filter-lang": "cql2-json", "filter": '
            + FILTER
            + "}",
        ),
        (
            [f"{SEARCH}#filter", "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text"],
            f"GET /search?collections=scenes&limit=10&filter-lang=cql2-text&filter={TEXT}",
        ),
        ([], "GET /collections/scenes/items?limit=10&datetime=2024-01-20T00:00:00Z/.."),
    ],
)
async def test_since_a_time_is_asked_for_as_well_as_the_source_can_tell(
    api: StacApi, loading: Loading, classes: list[str], asked: str
) -> None:
    api.conformance = [*CORE, SEARCH, *classes]
    result = await loading(api, "scenes", since=SINCE)
    first = re.sub(r"%20", "+", api.pages_asked()[0]).replace("%28", "(").replace("%29", ")")
    assert first == asked
    assert ("changed since then is loaded" in result.remarks[0]) == bool(classes)
    assert (result.remarks[0].startswith("the source cannot tell what changed")) == (not classes)


async def test_next_pages_are_searched_for_with_the_same_body(api: StacApi, loading: Loading) -> None:
    api.conformance = [SEARCH, f"{SEARCH}#query"]
    await loading(api, "scenes", since=SINCE, page_size=3)
    assert [int(one[-5:]) for one in await loading.ids()] == list(range(19, 25))
    bodies = [json.loads(one.partition(" ")[2].partition(" ")[2]) for one in api.pages_asked()]
    assert [one.get("token") for one in bodies] == [None, 3]
    assert all(one["query"] == {"updated": {"gte": "2024-01-20T00:00:00Z"}} for one in bodies)


async def test_a_conformance_declaration_of_its_own_is_read(api: StacApi, loading: Loading) -> None:
    api.conformance = [SEARCH, f"{SEARCH}#query"]
    places = {"conformance": "/conformance", "search": "search", "data": "./collections"}
    links = [{"rel": rel, "href": href, "method": "POST"} for rel, href in places.items()]
    api.documents["/v1"] = {"type": "Catalog", "links": links}
    await loading(f"{api.url}/v1", "scenes", since=SINCE)
    assert api.pages_asked()[0].startswith("POST /search")


@pytest.mark.parametrize(
    ("href", "reason"),
    [
        ("http://127.0.0.1:1/evil", "leads away from http://127.0.0.1:"),
        ("https://elsewhere.example/items", "leads away from"),
        ("file:///etc/passwd", "is no URL"),
        ("http://user:password@127.0.0.1/", "is no URL"),
        ("http://[", "is no URL"),
        (7, "has the href 7, no string"),
    ],
)
async def test_a_link_that_leads_elsewhere_is_not_followed(
    api: StacApi, loading: Loading, href: object, reason: str
) -> None:
    api.page_links = lambda link: link | {"href": href}
    with pytest.raises(SourceError, match=re.escape(reason)):
        await loading(api)
    # The page that the link stands on was taken; the load will ask for it again.
    assert len(await loading.ids()) == 15
    api.page_links = lambda link: link
    await loading(api)
    assert await loading.ids() == ALL


async def test_pages_that_lead_in_a_circle_end_the_load(api: StacApi, loading: Loading) -> None:
    api.items["scenes"] = [item(number) for number in range(100)]
    api.page_links = lambda link: link | {"href": re.sub("token=30", "token=0", link["href"])}
    with pytest.raises(SourceError, match="lead in a circle"):
        await loading(api)
    assert len(api.pages_asked()) < 20


async def test_the_same_page_under_ever_new_names_ends_the_load(api: StacApi, loading: Loading) -> None:
    page = {"type": "FeatureCollection", "features": [item(1)]}
    following = [
        body(json.dumps(page | {"links": [{"rel": "next", "href": f"/collections/scenes/items?token={number}"}]}))
        for number in range(10)
    ]
    api.faults = [fine, fine, *following]
    with pytest.raises(SourceError, match="has the same entries as a page before"):
        await loading(api)


async def test_pages_that_come_again_under_ever_new_names_end_the_load(api: StacApi, loading: Loading) -> None:
    following = []
    for number in range(50):
        page = {"type": "FeatureCollection", "features": [item(number % 3)]}
        link = {"rel": "next", "href": f"/collections/scenes/items?token={number}"}
        following.append(body(json.dumps(page | {"links": [link]})))
    api.faults = [fine, fine, *following]
    with pytest.raises(SourceError, match="has the same entries as a page before"):
        await loading(api)
    assert len(api.pages_asked()) < 20


async def test_too_many_empty_pages_end_the_load(
    api: StacApi, loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MOST_EMPTY", 5)
    page = {"type": "FeatureCollection", "features": []}
    api.faults = [fine, fine]
    api.faults += [
        body(json.dumps(page | {"links": [{"rel": "next", "href": f"/collections/scenes/items?token={number}"}]}))
        for number in range(10)
    ]
    with pytest.raises(SourceError, match="the last of 5 pages without an entry"):
        await loading(api)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "is no page of entries"),
        ("{}", "is no page of entries"),
        ('{"type": "FeatureCollection"}', "is no page of entries"),
        ('"text"', "is no page of entries"),
        ("<html>", "is not JSON"),
        ("", "is no page of entries"),
        (json.dumps(item(1)), "is no page of entries"),
    ],
)
async def test_what_is_no_page_ends_the_load(api: StacApi, loading: Loading, text: str, reason: str) -> None:
    api.faults = [fine, fine, body(text)]
    with pytest.raises(SourceError, match=reason):
        await loading(api)
    assert await loading.ids() == ALL[:5]


async def test_entries_that_are_not_what_was_asked_for_are_rejected(api: StacApi, loading: Loading) -> None:
    without = item(6)
    del without["collection"]
    api.items["scenes"] = [item(1), collection("evil"), {"id": "x", "entityType": "DATA"}, item(2, "radar"), without]
    result = await loading(api, "scenes")
    assert result.reasons == [
        "is no STAC Item",
        "is no STAC Item",
        "is of the collection 'radar', but 'scenes' was asked for",
    ]
    assert await loading.ids() == ["scenes/scene-00001", "scenes/scene-00006"]
    assert len(await loading.ingesting.rows("SELECT FROM datasets")) == 1


async def test_local_hrefs_of_a_source_are_refused_and_relative_ones_start_from_the_item(
    api: StacApi, loading: Loading
) -> None:
    own = {"rel": "self", "href": "https://archive.example/a/b/item.json"}
    api.items["scenes"] = [
        item(1, assets={"a": {"href": "file:///etc/passwd"}}),
        item(2, assets={"a": {"href": "./c.tif"}}, links=[own]),
        item(3, assets={"a": {"href": "/c.tif"}}, links=[{"rel": "self", "href": "/etc/item.json"}]),
    ]
    result = await loading(api, "scenes")
    assert result.reasons == [
        "asset 'a': href 'file:///etc/passwd' names a local path, which an entry from elsewhere may not"
    ]
    rows = await loading.ingesting.rows("SELECT location FROM copies ORDER BY 1")
    assert rows == [{"location": f"{api.url}/c.tif"}, {"location": "https://archive.example/a/b/c.tif"}]


async def test_pages_that_are_too_long_end_the_load(
    api: StacApi, loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    monkeypatch.setattr(client_module.Client.fetch, "__defaults__", (300_000,))
    api.faults = [endless]
    with pytest.raises(SourceError, match="gave more than 300000 bytes; ask for smaller pages"):
        await loading(api)


async def test_credentials_go_to_the_source_and_into_no_message(api: StacApi, loading: Loading) -> None:
    api.faults = [fine, status(403)]
    with pytest.raises(SourceError, match="answered 403: the token or API key is not good for it") as refused:
        await loading(api, Authorization="Bearer s3cret", X_API_Key="k3y")
    assert all(one["Authorization"] == "Bearer s3cret" and one["X-API-Key"] == "k3y" for one in api.fields)
    assert not {"s3cret", "k3y"} & set(re.split(r"\W", f"{refused.value} {refused.value.__cause__}"))
    with pytest.raises(SourceError, match="is no https: a token or API key is not sent there"):
        await loading("http://stac.example/", Authorization="Bearer s3cret")
    with pytest.raises(SourceError, match="must not have a user and a password"):
        await loading("https://user:password@stac.example/")


async def test_links_cannot_set_credentials_but_other_fields(api: StacApi, loading: Loading) -> None:
    headers = {"X-Page": "2", "Authorization": "Bearer stolen", "host": "evil", "x-split": "a\r\nb: c", "n": 1}
    api.page_links = lambda link: link | {"headers": headers}
    await loading(api, "scenes")
    assert (api.fields[-1]["X-Page"], "Authorization" in api.fields[-1]) == ("2", False)
    assert {name.lower() for name in api.fields[-1]}.isdisjoint({"x-split", "n", "b"})


async def test_redirects_are_followed_at_the_source_alone(api: StacApi, loading: Loading) -> None:
    api.faults = [status(307, Location="/collections/empty/items"), fine]
    await loading(api, "empty")
    api.faults = [status(302, Location="https://elsewhere.example/")]
    with pytest.raises(SourceError, match="leads away from"):
        await loading(api, "empty")
    api.faults = [status(302, Location="/collections/empty/items")] * 9
    with pytest.raises(SourceError, match="redirects more than 5 times"):
        await loading(api, "empty")


async def test_a_load_waits_for_others_who_write_but_not_for_ever(
    api: StacApi, loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.catalog.ingest.remote.load.LOCK_SECONDS", 0.2)
    other = await asyncpg.connect(loading.ingesting.dsn)
    try:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(x'494E47'::int, hashtext('earth'))")
            with pytest.raises(IngestError, match="another ingest of the tenant 'earth' is running"):
                await loading(api)
        await loading(api)
    finally:
        await other.close()
    assert await loading.ids() == ALL


async def test_a_source_that_is_not_there_is_said_so(loading: Loading) -> None:
    with pytest.raises(SourceError, match=r"gave no whole answer: ClientConnectorError \(attempt 3\)"):
        await loading("http://127.0.0.1:1/")


async def test_real_catalogues_come_as_they_are(api: StacApi, loading: Loading) -> None:
    documents = [json.loads(path.read_text()) for path in sorted(DATA.glob("*json"))]
    items = [one for document in documents for one in document.get("features", [document])]
    given = {(one["collection"], one["id"]): one for one in items if one["type"] == "Feature" and "collection" in one}
    api.items = {name: [] for name, _ in given}
    for (name, _), one in given.items():
        api.items[name].append(one)
    result = await loading(api, page_size=3)
    assert result.reasons == []
    rows = await loading.ingesting.rows(
        "SELECT d.collection_id AS c, provider_id AS i, p.properties, p.geometry, p.body, "
        "(SELECT jsonb_object_agg(asset_key, f.body) FROM files f WHERE f.product_id = p.product_id) AS assets "
        "FROM products p JOIN datasets d USING (dataset_id)"
    )
    assert len(rows) == len(given) > 30
    for row in rows:
        one = given[str(row["c"]), str(row["i"])]
        members = {name: json.loads(str(row[name])) for name in ("properties", "geometry", "assets") if row[name]}
        assert {**json.loads(str(row["body"])), **members} == one
