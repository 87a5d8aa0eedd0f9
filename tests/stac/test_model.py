"""Searches against a model: random catalogues with rights in PostgreSQL, every page of every search, there and back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import Rights
from gateway.db import Database
from gateway.identity.principal import Principal
from gateway.stac.model import Box, Interval, ItemRow, Search
from gateway.stac.searching import Bounds, Searching, searching
from tests.rights.model import Product, Right, World
from tests.rights.test_predicate import (
    COLOURS,
    DATASETS,
    FILES,
    LEVELS,
    METADATA,
    NAMES,
    POLICIES,
    SOME,
    TENANTS,
    bounds,
    callers,
    filled,
    groups,
    levels,
    roles,
    scores,
)
from tests.stac.model import Item, expected

BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
HOURS = (0, 1, 24, 25, 48, 720, 9000)
LONGITUDES = (-180.0, -179.0, -90.0, 0.0, 10.0, 90.0, 179.0, 180.0)
LATITUDES = (-90.0, -45.0, 0.0, 45.0, 90.0)

moments = SOME(HOURS).map(lambda hours: BEGIN + datetime.timedelta(hours=hours))
intervals = st.tuples(moments, moments).map(sorted)
extents = st.none() | moments.map(lambda moment: [moment, moment]) | intervals
latitudes = st.tuples(SOME(LATITUDES), SOME(LATITUDES)).map(sorted)
boxes: st.SearchStrategy[Box] = st.builds(
    lambda west, south_north, east: (west, south_north[0], east, south_north[1]),
    SOME(LONGITUDES),
    latitudes,
    SOME(LONGITUDES),
)
crossing = SOME([(179.0, -45.0, -179.0, 45.0), (10.0, 0.0, 0.0, 90.0), (180.0, -90.0, -90.0, 0.0)])


@dataclasses.dataclass(frozen=True)
class Made:
    """A product, and where and when it was taken."""

    product: Product
    extent: list[datetime.datetime] | None
    box: Box | None


made = st.lists(
    st.builds(
        Made,
        st.builds(
            Product,
            SOME([TENANTS[0], *TENANTS]),
            SOME(DATASETS),
            SOME([f"p{number}" for number in range(12)]),
            scores,
            SOME([None, *LEVELS]),
            SOME(COLOURS),
        ),
        extents,
        st.none() | boxes,
    ),
    unique_by=lambda one: one.product.urn,
    min_size=4,
    max_size=14,
)
rights = st.lists(
    st.builds(
        Right,
        SOME(TENANTS),
        SOME(DATASETS),
        st.tuples(SOME(TENANTS), SOME(NAMES)),
        SOME([*METADATA, "FULL_ACCESS", "FULL_ACCESS"]),
        SOME(FILES),
        bounds,
        bounds,
        levels,
        SOME([None, *COLOURS, "unknown"]),
    ),
    unique_by=lambda right: (right.tenant, right.dataset, right.group),
    min_size=4,
    max_size=12,
)
spans = st.builds(Interval, moments, st.none()) | st.builds(Interval, st.none(), moments)
spans |= intervals.map(lambda pair: Interval(*pair))
searches = st.lists(
    st.builds(
        Search,
        collections=st.none() | st.lists(SOME([*DATASETS, "unheard of"]), max_size=2).map(tuple),
        ids=st.none() | st.none() | st.lists(SOME(["p1", "p2", "p3", "px"]), max_size=3).map(tuple),
        bbox=st.none() | boxes | crossing,
        datetime=st.none() | spans,
        limit=SOME([1, 2, 3, 10]),
        newest_first=st.booleans(),
    ),
    min_size=2,
    max_size=4,
)
ways = st.builds(
    Bounds,
    rows=SOME([2, 500]),
    few=SOME([0, 16]),
    walk=SOME([0, 0, 0, 2, 2000]),
    walk_each=SOME([0, 1]),
    area=SOME([0, 1, 20_000]),
    far=SOME([1, 3, 20_000]),
)
"""Bounds that have every way of finding taken also in small catalogues; of a walk by nothing at all, too."""


class OneConnection:
    """Runs what a `Database` would, on a connection in a transaction."""

    timeout = 10.0
    most = 2

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.fetch = connection.fetch


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture
def connection(database: str, runner: asyncio.Runner) -> Iterator[asyncpg.Connection[Any]]:
    async def connect() -> asyncpg.Connection[Any]:
        opened = await asyncpg.connect(database)
        await opened.execute("SET plan_cache_mode = force_generic_plan")
        await opened.execute("SET synchronous_commit = off")
        return opened

    opened = runner.run(connect())
    yield opened
    runner.run(opened.close())


@contextlib.asynccontextmanager
async def catalogue_of(
    connection: asyncpg.Connection[Any], world: World, items: list[Made]
) -> AsyncIterator[dict[str, Item]]:
    """``items`` in the tables until the end of the block, by URN."""
    async with filled(connection, world):
        await connection.executemany(
            "UPDATE products SET start_datetime = $2, end_datetime = $3, west = $4, south = $5, east = $6, north = $7 "
            "WHERE urn = $1",
            [(one.product.urn, *(one.extent or (None, None)), *(one.box or (None,) * 4)) for one in items],
        )
        numbers = {row["urn"]: row["product_id"] for row in await connection.fetch("SELECT * FROM products")}
        yield {
            one.product.urn: Item(
                numbers[one.product.urn],
                one.product.dataset,
                one.product.name,
                one.extent[0] if one.extent else None,
                one.extent[1] if one.extent else None,
                one.box,
            )
            for one in items
        }


@pytest.mark.timeout(300)
@settings(
    max_examples=2000 if os.environ.get("GATEWAY_TEST_FULL") else 120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(groups, roles, rights, made, callers, searches, ways)
def test_pages_hold_what_the_caller_may_see_and_asks_for_in_order_there_and_back(
    runner: asyncio.Runner,
    connection: asyncpg.Connection[Any],
    groups: Any,
    roles: dict[tuple[str, str], str],
    rights: list[Right],
    made: list[Made],
    callers: list[Principal],
    searches: list[Search],
    ways: Bounds,
) -> None:
    world = World(groups, roles, [one.product for one in made], rights)

    async def run() -> None:
        async with (
            catalogue_of(connection, world, made) as items,
            searching(cast("Database", OneConnection(connection)), POLICIES, Rights(), bounds=ways) as catalogue,
        ):
            for who, search in zip(callers, searches, strict=False):
                seen = [
                    items[one.product.urn]
                    for one in made
                    if (verdict := world.verdict(who, one.product)) is not None and verdict.visible
                ]
                await check_pages(catalogue, who, search, [item.number for item in expected(seen, search)])

    runner.run(run())


async def check_pages(catalogue: Searching, who: Principal, search: Search, numbers: list[int]) -> None:
    pages = [await catalogue.search(who, search)]
    assert pages[0].previous is None
    while (token := pages[-1].next) is not None:
        pages.append(await catalogue.search(who, dataclasses.replace(search, token=token)))
    assert [item.product_id for page in pages for item in page.items] == numbers
    assert [len(page.items) for page in pages[:-1]] == [search.limit] * (len(pages) - 1)

    token, back = pages[-1].previous, list(pages[-1].items)
    while token is not None:
        page = await catalogue.search(who, dataclasses.replace(search, token=token))
        assert page.next is not None
        back, token = [*page.items, *back], page.previous
    assert ids(back) == numbers


def ids(items: list[ItemRow]) -> list[int]:
    return [item.product_id for item in items]
