"""Whoever asks reads what concerns him, by indexes: also where restores are many."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway.staging import products, requests, states, wishes
from tests.catalog.plans import scans

FILES, ENDED, QUEUED, OF_USER = 10_000, 10_000, 1_000, 500

_FILL = f"""
INSERT INTO tenants (name) VALUES ('esa');
INSERT INTO datasets (tenant_id, collection_id, urn, body) VALUES (1, 'c', 'd', '{{}}');
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
    SELECT 1, 1, 'urn-' || n, 'i-' || n, '{{}}', '{{}}' FROM generate_series(1, {FILES}) n;
INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, file_name, body)
    SELECT product_id, 'data', 'RAWDATA', md5(urn), 'MD5', 'n', '{{}}' FROM products;
INSERT INTO copies (file_id, storage, location, state) SELECT file_id, 'tape', 'x', 'NEARLINE' FROM files;
INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, hours, state, requested_at, started_at,
                      restored_at, expires_at, ended_at)
    SELECT 1, 1 + n % {FILES}, 1, 'tape', 'x', 1, 'EXPIRED', now(), now(), now(), now(), now()
    FROM generate_series(1, {ENDED}) n;
INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, hours, priority)
    SELECT 1, n, 1, 'tape', 'x', 1, 5 FROM generate_series(1, {QUEUED}) n;
INSERT INTO restore_wishes (restore_id, tenant_id, email)
    SELECT restore_id, 1, 'user-' || restore_id % 100 || '@example.org' FROM restores;
INSERT INTO restore_wishes (restore_id, tenant_id, email)
    SELECT restore_id, 1, 'x@example.org' FROM restores WHERE restore_id > {ENDED + QUEUED - OF_USER};
ANALYZE;
SET plan_cache_mode = force_generic_plan;
SET jit = off;
"""


@pytest.fixture
async def archive(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database)
    await connection.execute(_FILL)
    yield connection
    await connection.close()


STATEMENTS = [
    (requests._LOOK, "ARRAY[7]::bigint[], ARRAY['x@example.org']", 10 + 50 + QUEUED),
    (requests._SPENT, "ARRAY['esa'], ARRAY['x@example.org']", 10 + 2 * OF_USER),
    (requests._LOCK, "ARRAY[7]::bigint[]", 10),
    (states._STATES, "ARRAY[7, 9000]::bigint[]", 20 + 50 + QUEUED),
    (wishes._ONE, "'esa', 7, 'x@example.org', false", 10),
    (wishes._PAGE, "'esa', 'x@example.org', 20, 0", 200 + OF_USER + 50 + QUEUED),
    (products._OF_PRODUCTS, "'esa', ARRAY['urn-7', 'urn-8'], 100", 20),
    (products._BY_CHECKSUM, "'esa', ARRAY[md5('urn-7')], 100", 20),
]
"""With parameters, and most rows that may be read of large tables."""


async def test_copies_are_read_of_no_more_files_than_are_told(archive: asyncpg.Connection[Any]) -> None:
    await archive.execute(
        "INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, file_name, body) "
        "SELECT 7, 'a-' || n, 'RAWDATA', md5('same'), 'MD5', 'n', '{}' FROM generate_series(1, 3000) n; "
        "INSERT INTO copies (file_id, storage, location, state) "
        "SELECT file_id, 'tape', 'x', 'NEARLINE' FROM files WHERE checksum = md5('same'); ANALYZE;"
    )
    for statement, name in ((products._OF_PRODUCTS, "'urn-7'"), (products._BY_CHECKSUM, "md5('same')")):
        text = await archive.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".replace("$1", "'esa'")
            .replace("$2", f"ARRAY[{name}]")
            .replace("$3", "100")
        )
        read = [scan for scan in scans(json.loads(text)[0]["Plan"]) if scan[1] == "copies"]
        assert sum(rows for _, _, rows in read) <= 200, read


async def test_little_is_read(archive: asyncpg.Connection[Any]) -> None:
    wrong: list[object] = []
    for statement, parameters, most in STATEMENTS:
        await archive.execute(f"PREPARE asked AS {statement}")
        text = await archive.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked({parameters})")
        await archive.execute("DEALLOCATE asked")
        tables = {"files", "copies", "products", "restores", "restore_wishes"}
        read = [scan for scan in scans(json.loads(text)[0]["Plan"]) if scan[1] in tables]
        assert read
        if any(kind == "Seq Scan" for kind, _, _ in read) or sum(rows for _, _, rows in read) > most:
            wrong.append((statement, read))
    assert wrong == []
