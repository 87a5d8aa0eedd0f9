"""Rows of a catalogue, put into the database by plain SQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def add_tenant(connection: asyncpg.Connection, name: str) -> int:
    tenant: int = await connection.fetchval("INSERT INTO tenants (name) VALUES ($1) RETURNING tenant_id", name)
    return tenant


async def add_dataset(connection: asyncpg.Connection, tenant: int, collection: str) -> int:
    dataset: int = await connection.fetchval(
        "INSERT INTO datasets (tenant_id, collection_id, urn, body) VALUES ($1, $2, $3, '{}') RETURNING dataset_id",
        tenant,
        collection,
        f"URN:AIP:DATASET:{collection}",
    )
    return dataset


async def add_product(connection: asyncpg.Connection, tenant: int, dataset: int, item: str) -> int:
    product: int = await connection.fetchval(
        """
        INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
        VALUES ($1, $2, $3, $4, '{}', '{}') RETURNING product_id
        """,
        tenant,
        dataset,
        f"URN:FEATURE:DATA:demo:{item}:V1",
        item,
    )
    return product


async def add_file(
    connection: asyncpg.Connection,
    product: int,
    asset: str,
    *,
    checksum: str | None = None,
    algorithm: str | None = None,
    size: int | None = None,
    data_type: str = "RAWDATA",
) -> int:
    file: int = await connection.fetchval(
        """
        INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, size, file_name, body)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING file_id
        """,
        product,
        asset,
        data_type,
        checksum,
        algorithm,
        size,
        f"{asset} as a name",
        json.dumps({}),
    )
    return file


async def add_copy(
    connection: asyncpg.Connection,
    file: int,
    storage: str,
    location: str,
    *,
    size: int | None = None,
    version: str | None = "as it was seen",
) -> None:
    await connection.execute(
        "INSERT INTO copies (file_id, storage, location, size, version) VALUES ($1, $2, $3, $4, $5)",
        file,
        storage,
        location,
        size,
        version,
    )
