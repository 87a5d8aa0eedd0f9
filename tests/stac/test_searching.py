"""Searches against a real PostgreSQL: what is found, what is refused, and pages that hold together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import math
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, cast

import asyncpg
import pytest

from gateway.config import Rights
from gateway.errors import GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.rights.policies import Policies
from gateway.rights.policy import Policy, PolicyError, Question
from gateway.stac.model import Box, FileRow, ItemRow, Search
from gateway.stac.searching import Bounds, Searching
from tests.harness import ADMIN, OUTSIDER, SCIENCE, SCIENTIST, TENANT, Catalogue, principal
from tests.proxy import counting_proxy
from tests.rights.support import grant
from tests.stac.support import BEGIN, item, opened

PUBLIC = anonymous(TENANT)


@pytest.fixture
async def catalogue(database: str, tmp_path: Path) -> AsyncIterator[Catalogue]:
    connection = await asyncpg.connect(database)
    made = Catalogue(connection, tmp_path)
    await made.grant("restricted", await made.group(SCIENCE))
    await made.grant("open", await made.group("everyone", public=True))
    yield made
    await connection.close()


def names(items: Sequence[ItemRow]) -> list[str]:
    return [one.item_id for one in items]


async def refusal(work: Any) -> tuple[HTTPStatus, str]:
    with pytest.raises(GatewayError) as error:
        await work
    return error.value.status, error.value.detail


async def walk(catalogue: Searching, who: Principal, search: Search) -> list[list[str]]:
    """The names on every page."""
    pages = [await catalogue.search(who, search)]
    while pages[-1].next is not None:
        pages.append(await catalogue.search(who, dataclasses.replace(search, token=pages[-1].next)))
    return [names(page.items) for page in pages]


async def test_an_item_has_all_that_documents_show(database: str, catalogue: Catalogue) -> None:
    entry = await catalogue.file(b"data", collection="open", item="a", asset="data")
    await catalogue.copy(entry, "tape", "x", None, state="NEARLINE")
    shape = {"type": "Point", "coordinates": [1, 2]}
    await catalogue.connection.execute(
        "UPDATE products SET properties = '{\"gsd\": 10}', geometry = $1, west = 1, south = 2, east = 1, north = 2, "
        'start_datetime = $2, end_datetime = $3, body = \'{"id": "a"}\'',
        json.dumps(shape),
        BEGIN,
        BEGIN + datetime.timedelta(hours=1),
    )
    await catalogue.connection.execute('UPDATE files SET body = \'{"href": "a.tif"}\'')
    async with opened(database) as search:
        one = await search.item(PUBLIC, "open", "a")
        assert (await search.search(PUBLIC, Search())).items == (one,)
    assert (one.collection_id, one.item_id, one.urn, one.bbox) == ("open", "a", entry.product, (1, 2, 1, 2))
    assert (json.loads(one.properties), json.loads(one.geometry or "")) == ({"gsd": 10}, shape)
    assert json.loads(one.body) == {"id": "a"}
    assert (one.start, one.end) == (BEGIN, BEGIN + datetime.timedelta(hours=1))
    assert one.files == (
        FileRow("data", "RAWDATA", '{"href": "a.tif"}', entry.checksum, "SHA-256", 4, "image/tiff", "a.tif",
                reference=False, states=("NEARLINE", "ONLINE"), restore=None, needs_login=False),
    )  # fmt: skip


async def test_collections_that_one_has_any_right_to_are_listed(database: str, catalogue: Catalogue) -> None:
    await catalogue.grant("teaser", await catalogue.group("everyone", public=True), metadata="RESTRICTED_ACCESS")
    await catalogue.dataset("hidden")
    await item(catalogue, "teaser", "t")
    async with opened(database) as search:
        seen = {who.subject: [one.collection_id for one in (await search.collections(who)).collections]
                for who in (PUBLIC, SCIENTIST, ADMIN)}  # fmt: skip
        assert seen == {
            "public": ["open", "teaser"],
            "scientist": ["open", "restricted", "teaser"],
            "admin": ["hidden", "open", "restricted", "teaser"],
        }
        assert (await search.collection(PUBLIC, "teaser")).urn == "URN:AIP:DATASET:esa:teaser:V1"
        # Who may know of a collection may not therefore see what is in it.
        assert (await search.search(PUBLIC, Search(collections=("teaser",)))).items == ()


async def test_collections_come_page_by_page_each_once(database: str, catalogue: Catalogue) -> None:
    everyone = await catalogue.group("everyone", public=True)
    for number in range(20):
        name = f"c{number:02}"
        await (catalogue.grant(name, everyone) if number % 2 else catalogue.dataset(name))
    expected = [f"c{number:02}" for number in range(20) if number % 2] + ["open"]
    for bounds in (Bounds(collections=3), Bounds(), Bounds(collections=2, listing=0)):
        async with opened(database, bounds=bounds) as search:
            for limit in (1, 3, 4, 11, 12, 1000):
                found: list[str] = []
                after: str | None = ""
                while after is not None:
                    page = await search.collections(PUBLIC, after=after, limit=limit)
                    assert 0 < len(page.collections) <= limit
                    found += [one.collection_id for one in page.collections]
                    after = page.next
                assert found == expected
            assert [one.collection_id for one in await search.collection_names(PUBLIC, 3)] == expected[:3]


async def test_a_collection_names_the_licence_that_applies(database: str, catalogue: Catalogue) -> None:
    await catalogue.licence("open", "https://example.org/own")
    await catalogue.connection.execute(
        "WITH l AS (INSERT INTO licences (tenant_id, name, url) SELECT tenant_id, 'all', 'https://example.org/all' "
        "FROM tenants RETURNING licence_id) UPDATE tenants SET licence_id = (SELECT licence_id FROM l)"
    )
    async with opened(database) as search:
        assert [one.licence_url for one in (await search.collections(SCIENTIST)).collections] == [
            "https://example.org/own", "https://example.org/all",
        ]  # fmt: skip


async def test_what_one_may_not_see_is_refused_as_a_download_is(database: str, catalogue: Catalogue) -> None:
    await item(catalogue, "restricted", "a")
    await item(catalogue, "restricted", "a", tenant="cnes")
    for hide, status in ((False, HTTPStatus.FORBIDDEN), (True, HTTPStatus.NOT_FOUND)):
        async with opened(database, Rights(hide_forbidden=hide)) as search:
            assert (await refusal(search.item(OUTSIDER, "restricted", "a")))[0] is status
            assert (await refusal(search.collection(OUTSIDER, "restricted")))[0] is status
            for missing in (search.item(SCIENTIST, "restricted", "b"), search.item(SCIENTIST, "x", "a"),
                            search.item(SCIENTIST, "restricted", "\0"), search.item(SCIENTIST, "\ud800", "a"),
                            search.item(principal("x", tenant="nowhere"), "restricted", "a"),
                            search.collection(SCIENTIST, "x"), search.collection(SCIENTIST, "\0")):  # fmt: skip
                assert (await refusal(missing))[0] is HTTPStatus.NOT_FOUND
            assert (await search.item(SCIENTIST, "restricted", "a")).item_id == "a"
            _, hidden = await refusal(search.item(OUTSIDER, "restricted", "a"))
            _, absent = await refusal(search.item(OUTSIDER, "restricted", "b"))
            assert (hidden.replace("'a'", "'b'") == absent) is hide


async def test_what_cannot_be_stored_is_not_found(database: str, catalogue: Catalogue) -> None:
    await item(catalogue, "open", "a")
    async with opened(database) as search:
        for asked in (Search(ids=("\0", "a")), Search(collections=("\udfff",)), Search(collections=("open", "\0"))):
            found = await search.search(PUBLIC, asked)
            assert names(found.items) == (["a"] if len(asked.ids or asked.collections or ()) == 2 else [])


@pytest.mark.parametrize(
    ("metadata", "files", "licence", "data_type", "needed"),
    [
        ("FULL_ACCESS", "INHERITED_ACCESS", None, "RAWDATA", False),
        ("FULL_ACCESS", "NO_ACCESS", None, "RAWDATA", True),
        ("FULL_ACCESS", "NO_ACCESS", None, "THUMBNAIL", False),
        ("FULL_ACCESS", "INHERITED_ACCESS", "asked for", "RAWDATA", True),
        ("FULL_ACCESS", "INHERITED_ACCESS", "asked for", "THUMBNAIL", False),
        ("FULL_ACCESS", "INHERITED_ACCESS", "public", "RAWDATA", False),
        ("FULL_ACCESS", "CUSTOM_ACCESS", None, "RAWDATA", True),
        ("CUSTOM_ACCESS", "INHERITED_ACCESS", None, "THUMBNAIL", True),
        ("NO_ACCESS", "NO_ACCESS", None, "RAWDATA", True),
        ("NO_ACCESS", "NO_ACCESS", None, "THUMBNAIL", True),
    ],
)
async def test_a_file_needs_a_login_where_everyone_would_be_refused_it(
    database: str, catalogue: Catalogue, metadata: str, files: str, licence: str | None, data_type: str, needed: bool
) -> None:
    everyone = await catalogue.group("everyone", public=True)
    await grant(catalogue, "open", everyone, metadata, files, policy="properties", options={"all": []})
    # What a group of the caller's own may says nothing of everyone.
    await catalogue.grant("open", await catalogue.group(SCIENCE))
    await catalogue.file(b"x", collection="open", item="a", data_type=data_type)
    if licence is not None:
        await catalogue.licence("open")
        await catalogue.connection.execute("UPDATE licences SET is_public = $1", licence == "public")
    async with opened(database) as search:
        (found,) = (await search.item(SCIENTIST, "open", "a")).files
        assert found.needs_login is needed


class Scripted:
    """Lets through what is ``good``, and does not know what to say of ``odd`` ones."""

    def __init__(self) -> None:
        self.asked = 0

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        return cls()

    async def decide(self, questions: Sequence[Question]) -> list[bool]:
        self.asked += len(questions)
        if any(question.product.properties.get("odd") for question in questions):
            raise PolicyError("I do not know")
        return [question.product.properties.get("good") is True for question in questions]

    async def close(self) -> None:
        pass


async def test_pages_are_full_though_rights_and_policies_let_few_items_through(
    database: str, catalogue: Catalogue
) -> None:
    group = await catalogue.group(SCIENCE)
    await grant(catalogue, "policed", group, "CUSTOM_ACCESS", policy="scripted")
    await grant(catalogue, "rated", group, quality=(5, None, None))
    expected = []
    for number in range(120):
        collection, good = ("policed", "rated")[number % 2], number % 10 < 2
        await item(catalogue, collection, f"{number}", hour=number, properties={"good": good}, score=9 if good else 1)
        expected += [f"{number}"] * good
    policies = Policies({"scripted": (cast("Policy", Scripted()), 5)})
    async with opened(database, policies=policies) as search:
        pages = await walk(search, SCIENTIST, Search(limit=5))
        assert [name for page in pages for name in page] == expected[::-1]
        assert [len(page) for page in pages] == [5] * 4 + [4]


async def test_a_search_that_no_policy_can_decide_is_no_answer(database: str, catalogue: Catalogue) -> None:
    await grant(catalogue, "policed", await catalogue.group(SCIENCE), "CUSTOM_ACCESS", policy="scripted")
    await item(catalogue, "policed", "a", properties={"odd": True})
    policies = Policies({"scripted": (cast("Policy", Scripted()), 5)})
    async with opened(database, policies=policies) as search:
        for work in (search.search(SCIENTIST, Search()), search.item(SCIENTIST, "policed", "a")):
            assert (await refusal(work))[0] is HTTPStatus.SERVICE_UNAVAILABLE
        # Who sees it anyway does not wait for the policy.
        assert names((await search.search(ADMIN, Search())).items) == ["a"]


async def test_a_page_that_takes_too_long_is_shorter_and_the_next_goes_on_from_there(
    database: str, catalogue: Catalogue
) -> None:
    group = await catalogue.group(SCIENCE)
    await grant(catalogue, "rated", group, quality=(5, None, None))
    for number in range(12):
        await item(catalogue, "rated", f"{number}", hour=number, score=9 if number % 3 == 2 else 1)
    async with opened(database, bounds=Bounds(rows=4, seconds=0)) as search:
        assert await walk(search, SCIENTIST, Search(limit=5)) == [["11", "8"], ["5"], ["2"], []]
        await catalogue.connection.execute("UPDATE products SET quality_score = 1")
        status, _ = await refusal(search.search(SCIENTIST, Search(limit=5)))
        assert status is HTTPStatus.SERVICE_UNAVAILABLE


async def test_intersections_are_exact(database: str, catalogue: Catalogue) -> None:
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [0, 10], [0, 0]]]}
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    near: tuple[float, float, float, float] = (0, 0, 10, 10)
    await item(catalogue, "open", "triangle", hour=1, box=near, geometry=triangle)
    await item(catalogue, "open", "bow", hour=2, box=near, geometry=bow)
    await item(catalogue, "open", "none", hour=3, box=near)
    await item(catalogue, "open", "odd", hour=4, box=near, geometry={"type": "Polygon", "coordinates": [[[0, 0]]]})
    await item(catalogue, "open", "flat", hour=5, box=near, geometry={"type": "Point", "coordinates": []})
    await item(
        catalogue, "open", "far", hour=6, box=(50, 50, 60, 60), geometry={"type": "Point", "coordinates": [5, 5]}
    )
    async with opened(database) as search:
        for point, expected in (([2, 1], ["triangle"]), ([5, 9], []), ([9, 5], ["bow"]), ([2, 5], ["bow", "triangle"])):
            geometry = json.dumps({"type": "Point", "coordinates": point})
            assert names((await search.search(PUBLIC, Search(intersects=geometry))).items) == expected, point
        crossing = json.dumps(bow)
        assert await walk(search, PUBLIC, Search(intersects=crossing, limit=1)) == [["bow"], ["triangle"]]


def star(points: int, *, turns: int, x: float = 0) -> dict[str, Any]:
    """A ring around ``x``, 0 that goes round ``turns`` times."""
    angles = (turns * math.tau * number / points for number in range(points))
    ring = [[x + math.cos(angle), math.sin(angle)] for angle in angles]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


async def test_a_polygon_that_crosses_itself_as_often_as_can_be_holds_up_no_search(
    database: str, catalogue: Catalogue
) -> None:
    """To take it apart would take minutes, during which no other search by ``intersects`` is answered."""
    for name, x in (("in", 0.0), ("edge", 0.999), ("out", 1.5)):
        await item(catalogue, "open", name, box=(x, 0, x, 0), geometry={"type": "Point", "coordinates": [x, 0]})
    await item(catalogue, "open", "star", box=(2, -1, 4, 1), geometry=star(4_001, turns=1_999, x=3))
    async with opened(database) as search:
        before = time.perf_counter()
        for asked, expected in (
            (star(4_001, turns=1_999), {"in"}),
            (star(4_001, turns=1_998), set()),
            ({"type": "GeometryCollection", "geometries": [star(101, turns=49)] * 50}, {"in"}),
            ({"type": "MultiPoint", "coordinates": [[1.5, 0], [3, 0], [8, 8]]}, {"out", "star"}),
            ({"type": "Point", "coordinates": [3.999, 0.999]}, set()),
        ):
            found = await search.search(PUBLIC, Search(intersects=json.dumps(asked)))
            assert set(names(found.items)) - {"edge"} == expected
        assert time.perf_counter() - before < 5


async def test_many_points_are_held_against_many_items_in_time(database: str, catalogue: Catalogue) -> None:
    ring = star(500, turns=1)
    for number in range(40):
        await item(catalogue, "open", f"{number}", box=(-1, -1, 1, 1), geometry=ring)
    points = [[0.99, 0.99 - number / 1e6] for number in range(9_999)]
    nowhere = {"type": "MultiPoint", "coordinates": points}
    async with opened(database) as search:
        before = time.perf_counter()
        assert names((await search.search(PUBLIC, Search(intersects=json.dumps(nowhere)))).items) == []
        assert time.perf_counter() - before < 5
        points.append([0.5, 0.5])
        assert len((await search.search(PUBLIC, Search(intersects=json.dumps(nowhere), limit=50))).items) == 40


async def test_polygons_that_overlap_hide_nothing(database: str, catalogue: Catalogue) -> None:
    """Counted together, what is within two of them would be outside."""
    square = [[[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]]
    twice = {"type": "MultiPolygon", "coordinates": [square, square]}
    await item(catalogue, "open", "point", box=(1, 1, 1, 1), geometry={"type": "Point", "coordinates": [1, 1]})
    await item(catalogue, "open", "twice", box=(0, 0, 2, 2), geometry=twice)
    async with opened(database) as search:
        for asked in (twice, {"type": "Point", "coordinates": [1, 1]}):
            found = await search.search(PUBLIC, Search(intersects=json.dumps(asked)))
            assert set(names(found.items)) == {"point", "twice"}


async def test_what_touches_180_or_goes_beyond_is_met_from_both_sides(database: str, catalogue: Catalogue) -> None:
    def square(west: float, east: float) -> dict[str, Any]:
        return {"type": "Polygon", "coordinates": [[[west, 0], [east, 0], [east, 5], [west, 5], [west, 0]]]}

    places: dict[str, tuple[Box, dict[str, Any]]] = {
        "beyond": ((175, 0, 185, 5), square(175, 185)),
        "before": ((-185, 0, -178, 5), square(-185, -178)),
        "edge": ((-180, 1, -180, 1), {"type": "Point", "coordinates": [-180, 1]}),
        "far": ((0, 0, 5, 5), square(0, 5)),
    }
    for name, (box, geometry) in places.items():
        await item(catalogue, "open", name, box=box, geometry=geometry)
    async with opened(database) as search:
        for place, expected in (
            ([180, 1], {"beyond", "before", "edge"}),
            ([-180, 1], {"beyond", "before", "edge"}),
            ([176, 1], {"beyond", "before"}),
            ([-179, 1], {"beyond", "before"}),
            ([-176, 1], {"beyond"}),
            ([-174, 1], set()),
            ([1, 1], {"far"}),
        ):
            asked = Search(intersects=json.dumps({"type": "Point", "coordinates": place}))
            assert set(names((await search.search(PUBLIC, asked)).items)) == expected, place


async def test_a_collection_of_geometries_is_all_of_them(database: str, catalogue: Catalogue) -> None:
    for name, place in (("a", [0, 0]), ("b", [5, 5]), ("c", [10, 10]), ("d", [20, 20])):
        x, y = place
        await item(catalogue, "open", name, box=(x, y, x, y), geometry={"type": "Point", "coordinates": place})
    inner = {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [5, 5, 100]}]}
    line = {"type": "MultiLineString", "coordinates": [[[9, 9], [11, 11]], [[0, 0], [0, 0]]]}
    asked = json.dumps({"type": "GeometryCollection", "geometries": [inner, line]})
    async with opened(database) as search:
        assert names((await search.search(PUBLIC, Search(intersects=asked))).items) == ["c", "b", "a"]


async def test_a_page_of_items_that_are_large_is_shorter_than_asked(database: str, catalogue: Catalogue) -> None:
    for number in range(12):
        await item(catalogue, "open", f"{number}", hour=number, properties={"x": "y" * 1000})
    async with opened(database, bounds=Bounds(rows=3, characters=2_000)) as search:
        pages = await walk(search, PUBLIC, Search(limit=10))
        assert [name for page in pages for name in page] == [f"{number}" for number in reversed(range(12))]
        assert [len(page) for page in pages] == [3, 3, 3, 3, 0]
        assert await walk(search, PUBLIC, Search(limit=2)) == [["11", "10"], ["9", "8"], ["7", "6"], ["5", "4"],
                                                               ["3", "2"], ["1", "0"]]  # fmt: skip


async def test_a_search_ends_after_the_seconds_that_it_is_given(database: str, catalogue: Catalogue) -> None:
    await catalogue.grant("rated", await catalogue.group("everyone", public=True))
    await catalogue.connection.execute("UPDATE access_rights SET quality_min = 1")
    for number in range(30):
        await item(catalogue, "rated", f"{number}", hour=number, score=float(number % 30 == 0))
    async with opened(database, bounds=Bounds(rows=2)) as search:
        found = await search.search(ADMIN, Search(limit=3), seconds=0)
        assert (names(found.items), found.next is not None) == (["29", "28"], True)
        status, _ = await refusal(search.search(PUBLIC, Search(limit=3), seconds=0))
        assert status is HTTPStatus.SERVICE_UNAVAILABLE


async def test_what_goes_over_180_is_found_from_both_sides_and_once(database: str, catalogue: Catalogue) -> None:
    boxes: dict[str, Box] = {
        "over": (170, -10, -170, 10),
        "around": (-180, -10, 180, 10),
        "at": (175, -10, 180, 10),
        "west": (-179, -10, -178, 10),
        "far": (0, -10, 10, 10),
        "beyond": (185, -10, 195, 10),
    }
    for name, box in boxes.items():
        await item(catalogue, "open", name, box=box)
    # As much is walked as is there, and nothing: then the index of places is asked.
    for walked in (2000, 0):
        async with opened(database, bounds=Bounds(walk=walked, walk_each=0)) as search:
            for asked, expected in (
                ((171, 0, 172, 1), {"over", "around"}),
                ((-180, 0, -175, 1), {"over", "around", "at", "west", "beyond"}),
                ((176, 0, -178.5, 1), {"over", "around", "at", "west"}),
                ((-176, 0, -175, 1), {"over", "around", "beyond"}),
                ((5, 10, 5, 10), {"around", "far"}),
            ):
                found = names((await search.search(PUBLIC, Search(bbox=asked))).items)
                assert len(found) == len(set(found))
                assert set(found) == expected, asked


async def test_what_lies_far_behind_others_is_found_though_it_is_too_much_to_sort(
    database: str, catalogue: Catalogue
) -> None:
    for number in range(40):
        here = number % 4 == 0 and number < 30
        await item(catalogue, "open", f"{number}", hour=number, box=(0, 0, 1, 1) if here else (50, 0, 51, 1))
    bounds = Bounds(walk=2, walk_each=0, area=3, far=7)
    asked = Search(bbox=(0, 0, 2, 2), limit=3)
    async with opened(database, bounds=bounds) as search:
        assert await walk(search, PUBLIC, asked) == [["28", "24", "20"], ["16", "12", "8"], ["4", "0"]]
        oldest = await walk(search, PUBLIC, dataclasses.replace(asked, newest_first=False))
        assert oldest == [["0", "4", "8"], ["12", "16", "20"], ["24", "28"]]
        # The same among several collections, few or many.
        await item(catalogue, "restricted", "x", hour=-1, box=(0, 0, 1, 1))
    for few in (16, 1):
        async with opened(database, bounds=dataclasses.replace(bounds, few=few)) as search:
            assert await walk(search, SCIENTIST, asked) == [["28", "24", "20"], ["16", "12", "8"], ["4", "0", "x"]]


async def test_pages_never_repeat_or_lose_an_item_while_others_are_added(database: str, catalogue: Catalogue) -> None:
    chance = random.Random(7)
    there = [f"{number}" for number in range(60)]
    for name in there:
        await item(catalogue, "open", name, hour=chance.choice([None, *range(20)]))
    for search in (Search(limit=7), Search(limit=7, newest_first=False)):
        async with opened(database) as catalogue_of:
            seen: list[str] = []
            token = None
            while True:
                page = await catalogue_of.search(PUBLIC, dataclasses.replace(search, token=token))
                seen += names(page.items)
                if (token := page.next) is None:
                    break
                await item(catalogue, "open", f"new {chance.random()}", hour=chance.choice([None, *range(20)]))
            assert len(seen) == len(set(seen))
            assert set(there) <= set(seen)


async def test_a_page_of_items_that_are_gone_ends_the_walk(database: str, catalogue: Catalogue) -> None:
    for number in range(4):
        await item(catalogue, "open", f"{number}", hour=number)
    async with opened(database) as search:
        first = await search.search(PUBLIC, Search(limit=2))
        await catalogue.connection.execute("DELETE FROM products WHERE provider_id IN ('0', '1')")
        page = await search.search(PUBLIC, Search(limit=2, token=first.next))
        assert (page.items, page.next, page.previous) == ((), None, None)


async def test_a_token_leads_nobody_to_what_he_may_not_see(database: str, catalogue: Catalogue) -> None:
    for number in range(4):
        await item(catalogue, "restricted", f"{number}", hour=number)
    await item(catalogue, "open", "old", hour=-1)
    async with opened(database) as search:
        first = await search.search(SCIENTIST, Search(limit=2))
        token = first.next or ""
        page = await search.search(OUTSIDER, Search(limit=2, token=token))
        assert names(page.items) == ["old"]
        for wrong in (token[:-1], token + "A", "x", Search(limit=2).__repr__()):
            assert (await refusal(search.search(SCIENTIST, Search(token=wrong))))[0] is HTTPStatus.BAD_REQUEST


async def test_a_page_is_one_round_trip(database: str, catalogue: Catalogue) -> None:
    for number in range(30):
        await item(catalogue, "open", f"{number}", hour=number, box=(0, 0, 1, 1))
    async with counting_proxy(database) as (postgres, dsn), opened(dsn, pool_size=1) as search:
        for asked in (Search(), Search(bbox=(0, 0, 1, 1)), Search(limit=100), Search(ids=("1", "2"))):
            await search.search(PUBLIC, asked)  # prepares the statement
            before = postgres.round_trips
            await search.search(PUBLIC, asked)
            assert postgres.round_trips == before + 1


async def test_without_postgresql_there_is_no_answer(database: str, catalogue: Catalogue) -> None:
    await item(catalogue, "open", "a")
    async with contextlib.AsyncExitStack() as stack:
        _, dsn = await stack.enter_async_context(counting_proxy(database))
        async with opened(dsn, timeout=1) as search:
            await search.search(PUBLIC, Search())
            await stack.aclose()
            for work in (search.search(PUBLIC, Search()), search.item(PUBLIC, "open", "a"),
                         search.collections(PUBLIC), search.collection(PUBLIC, "open")):  # fmt: skip
                assert (await refusal(work))[0] is HTTPStatus.SERVICE_UNAVAILABLE


async def test_long_searches_leave_connections_to_downloads(database: str, catalogue: Catalogue) -> None:
    """Half of the connections, however many search; who gets no turn in time is told so."""
    await item(catalogue, "open", "a")
    async with opened(database, pool_size=4, timeout=0.5) as search:
        lock = await asyncpg.connect(database)
        async with lock.transaction():
            await lock.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
            waiting = [asyncio.create_task(search.search(PUBLIC, Search())) for _ in range(6)]
            while await lock.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
                await asyncio.sleep(0.01)
            busy = await lock.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            assert busy == 2
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        await lock.close()
        assert {type(answer) for answer in answers} == {GatewayError}
        assert names((await search.search(PUBLIC, Search())).items) == ["a"]
