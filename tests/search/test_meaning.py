"""What queries find in PostgreSQL is what they mean."""

from __future__ import annotations

import asyncio
import os

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.search.limits import Limits
from gateway.search.reading import parse
from tests.search.model import Case, Product, cases, catalogues
from tests.search.support import fill, found

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
AMPLE = Limits(octets=65_536, depth=64, clauses=2048, wildcards=256, tokens=16_384)


@pytest.mark.timeout(900 if FULL else 60)
def test_random_queries_find_what_they_mean_in_random_catalogues(database: str) -> None:
    async def check(connection: asyncpg.Connection, products: tuple[Product, ...], asked: list[Case]) -> None:
        await fill(connection, products)
        for text, holds in asked:
            expected = [product.urn for product in products if holds(product)]
            assert await found(connection, parse(text, AMPLE)) == expected, text

    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database, timeout=10))

        @settings(
            max_examples=300 if FULL else 8,
            deadline=None,
            database=None,
            # What fails is told as it is: smaller ones take minutes to find.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(catalogues(), st.lists(cases, min_size=25, max_size=25))
        def random_ones(products: tuple[Product, ...], asked: list[Case]) -> None:
            runner.run(check(connection, products, asked))

        try:
            random_ones()
        finally:
            runner.run(connection.close(timeout=10))
