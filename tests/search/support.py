"""Products of `tests.search.model` as rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from gateway.search.query import Query
from gateway.search.sql import Parameters, condition
from tests.search.model import DATASETS, Product

_EMPTY = (
    "TRUNCATE products, datasets CASCADE; INSERT INTO tenants (name) VALUES ('esa'), ('cnes') ON CONFLICT DO NOTHING"
)
_FILE = """
INSERT INTO files (product_id, asset_key, data_type, file_name, size, body)
SELECT product_id, $2, $3, $4, $5, '{}' FROM products WHERE urn = $1"""


async def fill(connection: asyncpg.Connection[Any], products: Sequence[Product]) -> None:
    """Have nothing but ``products`` in the catalogue of ``esa``, and a copy of some in another tenant's."""
    await connection.execute(_EMPTY)
    for tenant in ("esa", "cnes"):
        identifier = await connection.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", tenant)
        datasets = {
            collection: await connection.fetchval(
                "INSERT INTO datasets (tenant_id, collection_id, urn, title, body) "
                "VALUES ($1, $2, $3, $4, '{}') RETURNING dataset_id",
                identifier, collection, urn, title,
            )
            for collection, (urn, title) in DATASETS.items()
        }  # fmt: skip
        await connection.executemany(
            "INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body, created_at, updated_at, "
            "start_datetime, end_datetime, west, south, east, north, quality_score, quality_level) "
            "VALUES ($1, $2, $3, $4, $5, '{}', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            [
                (
                    identifier, datasets[one.dataset], one.urn, one.provider, json.dumps(one.properties), one.created,
                    one.updated, one.start, one.end, *(one.bbox or (None,) * 4), one.score, one.level,
                )
                for one in products
            ],
        )  # fmt: skip
    await connection.executemany(
        _FILE,
        [
            (product.urn, str(number), *file)
            for product in products
            for number, file in enumerate(product.files)
        ],
    )  # fmt: skip


async def found(connection: asyncpg.Connection[Any], query: Query) -> list[str]:
    """URNs of the products that ``query`` finds in the tenant ``esa``."""
    parameters = Parameters("esa")
    text = (
        "WITH caller AS (SELECT tenant_id FROM tenants WHERE name = $1) SELECT p.urn FROM products p "
        f"WHERE p.tenant_id = (SELECT tenant_id FROM caller) AND {condition(query, parameters)} ORDER BY p.product_id"
    )
    return [row["urn"] for row in await connection.fetch(text, *parameters.values)]
