"""What is counted is what an order takes, whatever the rights."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
from collections.abc import AsyncIterator, Awaitable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar, cast

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.config import Orders, Rights
from gateway.db import Connection, Database
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.orders.counting import Amount, Counter
from gateway.orders.creation import Creator, EmptyOrderError
from gateway.orders.model import DatasetSelection, FileFilters, Wish
from gateway.orders.service import translate
from gateway.quotas.limits import Limit
from gateway.quotas.outlook import outlook
from gateway.quotas.standing import Standing
from tests.orders.support import SECRET
from tests.rights.model import Right, World
from tests.rights.test_predicate import (
    COLOURS,
    DATASETS,
    EMAILS,
    FILES,
    NAMES,
    POLICIES,
    bounds,
    filled,
    groups,
    levels,
    products,
    roles,
)

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
OPEN = ["QUICKLOOK_SD"]
_FILES = """
INSERT INTO files (product_id, asset_key, data_type, file_name, size, body)
SELECT product_id, kind, kind, provider_id || '-' || kind, CASE WHEN kind <> 'QUICKLOOK_MD' THEN 7 END, '{}'
FROM products, unnest(ARRAY['RAWDATA', 'QUICKLOOK_SD', 'QUICKLOOK_MD', 'DOCUMENT']) kind
WHERE NOT (provider_id = 'p2' AND kind = 'QUICKLOOK_SD')"""
_TAKEN = """
SELECT p.dataset_id, count(DISTINCT p.product_id), count(*), coalesce(sum(f.size), 0)::bigint,
       count(*) FILTER (WHERE f.data_type = 'RAWDATA'),
       coalesce(sum(f.size) FILTER (WHERE f.data_type = 'RAWDATA'), 0)::bigint
FROM order_files o JOIN files f USING (file_id) JOIN products p USING (product_id)
WHERE o.order_file_id >> 24 = $1 GROUP BY 1"""

Result = TypeVar("Result")

filters = st.builds(
    FileFilters,
    st.sampled_from([(), (), ("RAWDATA",), ("QUICKLOOK_SD", "QUICKLOOK_MD"), ("DOCUMENT",)]),
    st.sampled_from([None, None, None, "p1-.*", "p1"]),
)
queries = st.sampled_from(
    [*["*:*"] * 4, "providerId:p1", 'ipId:"none" OR providerId:p2', "tags:d1", "creationDate:<2000-01-01"]
)
# Those of the predicate, with more rights of those who ask.
worlds = st.builds(
    World,
    groups,
    roles,
    products,
    st.lists(
        st.builds(
            Right,
            st.just("esa"),
            st.sampled_from(DATASETS),
            st.tuples(st.just("esa"), st.sampled_from(NAMES)),
            st.sampled_from(["RESTRICTED_ACCESS", "CUSTOM_ACCESS", "FULL_ACCESS", "FULL_ACCESS"]),
            st.sampled_from(FILES),
            bounds,
            bounds,
            levels,
            st.sampled_from([None, *COLOURS, *COLOURS, *COLOURS, "silent", "unknown"]),
        ),
        unique_by=lambda right: (right.dataset, right.group),
        min_size=2,
        max_size=6,
    ),
)
callers = st.lists(
    st.builds(
        Principal,
        st.sampled_from(["esa", "esa", "esa", "cnes"]),
        st.just("login"),
        st.sampled_from(EMAILS),
        st.sampled_from(["REGISTERED_USER", "REGISTERED_USER", "EXPLOIT", "ADMIN", "curator"]),
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple),
    ),
    min_size=2,
    max_size=3,
)


class OneConnection:
    """Runs what a `Database` would, on a connection in a transaction."""

    most = 1
    timeout = 5.0

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        async with self._connection.transaction():
            yield self._connection


async def if_decided(asked: Awaitable[Result]) -> Result | None:
    """None where a policy cannot decide."""
    try:
        return await asked
    except GatewayError as error:
        if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return None


async def check(
    connection: asyncpg.Connection[Any], who: Principal, query: str, wanted: FileFilters, tenant_urns: list[str]
) -> Mapping[int, Amount]:
    counter = Counter(POLICIES, OPEN, ["RAWDATA"])
    counted = await if_decided(counter.count(connection, who, await translate(query), wanted))
    creator = Creator(
        cast("Database", OneConnection(connection)),
        Orders(secret=SecretStr(SECRET)),
        Rights(open_data_types=["QUICKLOOK_SD"]),
        POLICIES,
        translate,
        lambda: datetime.datetime.now(datetime.UTC),
    )

    async def choose(_: Connection) -> list[DatasetSelection]:
        return [DatasetSelection(urn, query, wanted) for urn in tenant_urns]

    async def take() -> dict[int, Amount]:
        try:
            order_id = await creator.create(who, Wish(), choose)
        except EmptyOrderError:
            return {}
        return {row[0]: Amount(*row[1:]) for row in map(tuple, await connection.fetch(_TAKEN, order_id))}

    taken = await if_decided(take())
    # Of a product without a file that is wanted an order asks policies, too.
    if taken is not None:
        assert counted == taken
    return taken or {}


@pytest.mark.timeout(900 if FULL else 60)
def test_random_selections_count_what_an_order_would_take(database: str) -> None:
    counted: list[Mapping[int, Amount]] = []

    async def run(
        connection: asyncpg.Connection[Any], world: World, who: list[Principal], query: str, wanted: FileFilters
    ) -> None:
        async with filled(connection, world):
            await connection.execute(_FILES)
            for one in who:
                rows = await connection.fetch(
                    "SELECT urn FROM datasets JOIN tenants USING (tenant_id) WHERE name = $1", one.tenant
                )
                counted.append(await check(connection, one, query, wanted, [row["urn"] for row in rows]))

    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database, timeout=10))

        @settings(
            max_examples=500 if FULL else 30,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(worlds, callers, queries, filters)
        def random_ones(world: World, who: list[Principal], query: str, wanted: FileFilters) -> None:
            runner.run(run(connection, world, who, query, wanted))

        try:
            random_ones()
        finally:
            runner.run(connection.close(timeout=10))
    full = [amount for one in counted for amount in one.values()]
    assert len(full) > len(counted) // 4, "most of them were about nothing"
    assert any(amount.metered_files for amount in full)
    assert any(amount.files and not amount.metered_files for amount in full)


def test_what_is_left_is_what_the_tightest_hard_limit_leaves() -> None:
    def standing(metric: Any, period: str, value: int, used: int, slow: int | None = None) -> Standing:
        return Standing(Limit("user:a", metric, period, value, slow_rate=slow), "within", used, None)

    nothing = outlook([standing("concurrent", "now", 1, 1), standing("rate", "1s", 1, 1)])
    assert (nothing.downloads, nothing.octets, nothing.standings) == (None, None, ())
    assert nothing.suffices(10**9, 10**18)
    left = outlook(
        [
            standing("downloads", "day", 10, 4),
            standing("downloads", "total", 100, 99),
            standing("downloads", "month", 1, 1, slow=5),
            standing("bytes", "total", 50, 80),
        ]
    )
    assert (left.downloads, left.octets, len(left.standings)) == (1, 0, 4)
    assert (left.suffices(1, 0), left.suffices(2, 0), left.suffices(1, 1)) == (True, False, False)
    assert dataclasses.replace(left, octets=None).suffices(1, 10**18)
