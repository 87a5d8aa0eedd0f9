"""Decisions on rights read what concerns them, by indexes, in one round trip: also in large archives."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway.catalog.statements import LOCATE_BY_ASSET, LOCATE_BY_CHECKSUM
from gateway.identity.principal import Principal
from gateway.rights.predicate import caller_columns
from tests.catalog.plans import loops, plan, scans, searches

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
DATASETS = 10_000 if FULL else 2_000
PRODUCTS = 200_000 if FULL else 10_000
GROUPS, OF_CALLER, PUBLIC, RIGHTS_EACH = 1_000, 200, 5, 10

_FILL = f"""
INSERT INTO tenants (name) VALUES ('esa'), ('cnes');
INSERT INTO groups (tenant_id, name, is_public)
    SELECT tenant_id, 'group-' || n, n % {GROUPS // PUBLIC} = 0 FROM tenants, generate_series(1, {GROUPS}) n;
INSERT INTO group_members
    SELECT group_id, 'x@example.org' FROM groups WHERE tenant_id = 1 AND group_id % {GROUPS // OF_CALLER} = 0;
INSERT INTO group_members
    SELECT 1 + (n * 7) % {GROUPS}, 'user-' || n / 20 || '@example.org' FROM generate_series(1, {20 * GROUPS}) n
    ON CONFLICT DO NOTHING;
INSERT INTO datasets (tenant_id, collection_id, urn, body)
    SELECT 1, 'c-' || n, 'd-' || n, '{{}}' FROM generate_series(1, {DATASETS}) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level, policy)
    SELECT d, 1 + (d * 7 + n) % {GROUPS}, 'FULL_ACCESS', CASE n % 2 WHEN 0 THEN 'INHERITED_ACCESS' ELSE 'NO_ACCESS' END,
           'properties'
    FROM generate_series(1, {DATASETS}) d, generate_series(1, {RIGHTS_EACH}) n;
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
    SELECT 1, 1 + n % {DATASETS}, 'urn-' || n, 'i-' || n, '{{}}', '{{}}' FROM generate_series(1, {PRODUCTS}) n;
INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, file_name, body)
    SELECT product_id, 'data', 'RAWDATA', md5(urn), 'MD5', 'n', '{{}}' FROM products;
INSERT INTO copies (file_id, storage, location) SELECT file_id, 'disk', 'x' FROM files;
ANALYZE;
SET plan_cache_mode = force_generic_plan;
"""
_ASKED = """
SELECT p.urn, checksum, collection_id, provider_id, asset_key
FROM products p JOIN files USING (product_id) JOIN datasets USING (dataset_id) ORDER BY md5(p.urn) LIMIT $1"""

BY_MEMBERSHIP = Principal("esa", "x", "x@example.org", "EXPLOIT")
NAMES = tuple(f"group-{number * GROUPS // OF_CALLER}" for number in range(1, OF_CALLER + 1))
BY_TOKEN = Principal("esa", "y", "y@example.org", "EXPLOIT", NAMES)


@pytest.fixture
async def archive(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database)
    await connection.execute(_FILL)
    yield connection
    await connection.close()


async def test_a_batch_of_decisions_reads_rights_and_groups_by_indexes(archive: asyncpg.Connection[Any]) -> None:
    rows = await archive.fetch(_ASKED, 64)
    for who in (BY_MEMBERSHIP, BY_TOKEN):
        by_checksum = [(*caller_columns(who), row["urn"], row["checksum"]) for row in rows]
        by_asset = [(*caller_columns(who), *tuple(row)[2:]) for row in rows]
        for statement, questions in ((LOCATE_BY_CHECKSUM, by_checksum), (LOCATE_BY_ASSET, by_asset)):
            found = await archive.fetch(statement, *zip(*questions, strict=True), ["RAWDATA"])
            assert len(found) == 64
            assert any(row["visible"] for row in found)
            explained = (await plan(archive, statement, questions))["Plan"]
            read: dict[str, float] = {}
            for way, table, count in scans(explained):
                read[table] = read.get(table, 0) + count
                if table in ("groups", "group_members", "access_rights", "products", "datasets", "files"):
                    assert way in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"), (way, table)
            # Of each caller his groups and the public ones (twice), and the groups of the rights that he has.
            assert read["group_members"] <= 64 * OF_CALLER
            assert read["groups"] <= 64 * (OF_CALLER + 2 * PUBLIC + RIGHTS_EACH)
            # Of each dataset its rights, which lie side by side, and not one after the other for each of 200 groups.
            assert read["access_rights"] <= 64 * (RIGHTS_EACH + 0.1)  # PostgreSQL rounds
            assert searches(explained, "access_rights") <= 64
            # No right leaves anything to a policy, so that nothing is read for one.
            assert loops(explained, "products") == 64


async def test_what_policies_look_at_is_read_only_where_they_are_asked(archive: asyncpg.Connection[Any]) -> None:
    rows = await archive.fetch(_ASKED, 16)
    await archive.execute(
        "UPDATE access_rights SET file_level = 'CUSTOM_ACCESS' WHERE dataset_id IN "
        "(SELECT dataset_id FROM products WHERE urn = ANY ($1))",
        [row["urn"] for row in rows[:4]],
    )
    everyone = tuple(f"group-{number}" for number in range(1, GROUPS + 1))
    who = Principal("esa", "z", "z@example.org", "EXPLOIT", everyone)
    questions = [(*caller_columns(who), row["urn"], row["checksum"]) for row in rows]
    found = await archive.fetch(LOCATE_BY_CHECKSUM, *zip(*questions, strict=True), ["RAWDATA"])
    assert [row["questions"] is not None for row in found] == [row["facts"] is not None for row in found]
    asked = sum(row["questions"] is not None for row in found)
    assert 4 <= asked < 16
    explained = await plan(archive, LOCATE_BY_CHECKSUM, questions)
    assert loops(explained["Plan"], "products") == 16 + asked
