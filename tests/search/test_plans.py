"""What PostgreSQL reads for a search: where an index helps, not all products."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from gateway.identity.principal import Principal
from gateway.search.products import FEW, Order, Part, count_statement, datasets_of, page_statement
from gateway.search.reading import parse
from tests.catalog.plans import scans
from tests.harness import principal

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
PRODUCTS = 200_000 if FULL else 20_000
DATASETS = 200

_FILL = f"""
INSERT INTO tenants (name) VALUES ('esa'), ('cnes');
INSERT INTO groups (tenant_id, name) VALUES (1, 'science'), (1, 'few');
INSERT INTO datasets (tenant_id, collection_id, urn, body)
    SELECT 1, 'c-' || n, 'd-' || n, '{{}}' FROM generate_series(1, {DATASETS}) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
    SELECT n, 1, 'FULL_ACCESS', 'INHERITED_ACCESS' FROM generate_series(1, {DATASETS}) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
    VALUES (7, 2, 'FULL_ACCESS', 'INHERITED_ACCESS');
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body, created_at, updated_at, start_datetime)
    SELECT 1, 1 + n % {DATASETS}, 'urn-' || n, 'i-' || n,
           jsonb_build_object('a', n, 'b', 'text-' || n, 'c', jsonb_build_object('d', n % 7 = 0)), '{{}}',
           '2020-01-01T00:00Z'::timestamptz + make_interval(mins => n),
           '2021-01-01T00:00Z'::timestamptz + make_interval(mins => n),
           '2022-01-01T00:00Z'::timestamptz + make_interval(mins => n)
    FROM generate_series(1, {PRODUCTS}) n;
INSERT INTO files (product_id, asset_key, data_type, file_name, body)
    SELECT product_id, 'data', 'RAWDATA', 'n', '{{}}' FROM products;
SET plan_cache_mode = force_custom_plan;
SET jit = off;
"""
SCIENTIST = principal("scientist", "science")
LITTLE = principal("few", "few")
ADMIN = principal("project", role="PROJECT_ADMIN")


@pytest.fixture
async def archive(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database, timeout=10)
    await connection.execute(_FILL)
    # As autovacuum would: what an index has not taken in yet makes it dear.
    await connection.execute("VACUUM ANALYZE")
    yield connection
    await connection.close(timeout=10)


async def read(connection: asyncpg.Connection[Any], statement: tuple[str, Sequence[object]]) -> dict[str, float]:
    """Rows read of each table."""
    text, parameters = statement
    explained = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *parameters))[0]["Plan"]
    found: dict[str, float] = {}
    for _, table, rows in scans(explained):
        found[table] = found.get(table, 0) + rows
    return found


async def statements(connection: asyncpg.Connection[Any], who: Principal, text: str) -> list[tuple[str, list[object]]]:
    """As a search makes them: how many there are decides on the second."""
    query, datasets = parse(text), await datasets_of(connection, who)
    count = count_statement(who, query, datasets)
    total: int = await connection.fetchval(count[0], *count[1])
    part = Part([Order("creationDate", descending=True)], 0, 20, is_of_few=total <= FEW)
    return [count, page_statement(who, query, datasets, part)]


@pytest.mark.timeout(600 if FULL else 60)
async def test_a_search_reads_no_more_than_it_must(archive: asyncpg.Connection[Any]) -> None:
    await what_an_index_finds_is_all_that_is_read(archive)
    await a_page_of_everything_reads_a_page(archive)
    await who_sees_one_dataset_reads_no_other(archive)
    await rights_are_looked_up_once_for_each_dataset_to_count(archive)


async def what_an_index_finds_is_all_that_is_read(archive: asyncpg.Connection[Any]) -> None:
    asked = {
        "id:urn-77": 1,
        'ipId:"urn-77" OR ipId:"urn-78" OR ipId:"urn-79"': 3,
        "providerId:i-77": 1,
        "providerId:i-1999*": 11,
        "properties.a:77": 1,
        "properties.b:text-77": 1,
        "properties.a:77 OR properties.b:text-78": 2,
        "tags:c-7": PRODUCTS // DATASETS,
        "tags:d-7 AND properties.b:text-*": PRODUCTS // DATASETS,
        "creationDate:[2020-01-01T01:00:00Z TO 2020-01-01T01:59:59Z]": 60,
        "lastUpdate:{* TO 2021-01-01T01:00:00Z}": 59,
        "start_datetime:[2022-01-01T01:00:00Z TO 2022-01-01T01:59:59Z]": 60,
    }
    for who in (SCIENTIST, ADMIN):
        for text, most in asked.items():
            for statement in await statements(archive, who, text):
                products = (await read(archive, statement))["products"]
                # The rows of a page are looked at once more.
                assert 1 <= products <= 2 * max(most, 20) + 20, (text, who.subject, products)


async def a_page_of_everything_reads_a_page(archive: asyncpg.Connection[Any]) -> None:
    for text in ("*:*", "creationDate:[* TO 2030-01-01]"):
        _, page = await statements(archive, ADMIN, text)
        assert (await read(archive, page))["products"] <= 100
        _, page = await statements(archive, SCIENTIST, text)
        assert (await read(archive, page))["products"] <= 100


async def who_sees_one_dataset_reads_no_other(archive: asyncpg.Connection[Any]) -> None:
    count, page = await statements(archive, LITTLE, "*:*")
    assert await archive.fetchval(count[0], *count[1]) == PRODUCTS // DATASETS
    assert len(await archive.fetch(page[0], *page[1])) == 20
    for statement in (count, page):
        assert (await read(archive, statement))["products"] <= 2 * PRODUCTS // DATASETS + 40


async def rights_are_looked_up_once_for_each_dataset_to_count(archive: asyncpg.Connection[Any]) -> None:
    count, _ = await statements(archive, SCIENTIST, "*:*")
    assert await archive.fetchval(count[0], *count[1]) == PRODUCTS
    assert (await read(archive, count))["access_rights"] <= 4 * DATASETS
