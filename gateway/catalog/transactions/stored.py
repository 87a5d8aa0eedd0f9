"""Items and Collections as the catalogue holds them."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping

import asyncpg

from gateway.administration.work import missing
from gateway.catalog.ingest.model import Checksum, Copy, File, JsonObject
from gateway.db import Connection, Database
from gateway.errors import GatewayError
from gateway.text import is_storable

_ITEM = """
SELECT p.product_id, p.updated_at, p.properties, p.geometry, p.body
FROM products p JOIN datasets d USING (dataset_id) JOIN tenants t ON t.tenant_id = d.tenant_id
WHERE t.name = $1 AND d.collection_id = $2 AND p.provider_id = $3"""
_FILES = """
SELECT f.file_id, f.asset_key, f.data_type, f.checksum, f.checksum_algorithm, f.size, f.crc32, f.mime_type,
       f.file_name, f.reference, f.body
FROM files f WHERE f.product_id = $1 ORDER BY f.file_id"""
_COPIES = """
SELECT c.file_id, c.storage, c.location, c.state, c.size, c.modified, c.version, c.verified_version
FROM copies c JOIN files f USING (file_id) WHERE f.product_id = $1 AND c.entry_id IS NULL ORDER BY c.copy_id"""
_DATASET = """
SELECT dataset_id, updated_at, now() AS now FROM datasets
WHERE tenant_id = $1 AND collection_id = $2 FOR NO KEY UPDATE"""
_PRODUCT = "SELECT product_id, updated_at FROM products WHERE dataset_id = $1 AND provider_id = $2 FOR UPDATE"


@dataclasses.dataclass(frozen=True, slots=True)
class StoredItem:
    """An Item, outside a transaction."""

    updated: datetime.datetime
    entity: JsonObject
    """As it came, but for the order of its members."""
    files: Mapping[str, File]
    """By asset key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """A row that is locked until the transaction ends."""

    row_id: int
    updated: datetime.datetime


async def item(database: Database, tenant: str, collection: str, identifier: str) -> StoredItem:
    """An Item.

    Raises:
        GatewayError: 404; 503.
    """
    if not is_storable(collection) or not is_storable(identifier):
        raise no_item(collection, identifier)
    rows = await database.fetch(_ITEM, tenant, collection, identifier)
    if not rows:
        raise no_item(collection, identifier)
    row = rows[0]
    copies = await database.fetch(_COPIES, row["product_id"])
    files = [_file(one, copies) for one in await database.fetch(_FILES, row["product_id"])]
    entity: JsonObject = json.loads(row["body"])
    entity["properties"] = json.loads(row["properties"])
    entity["geometry"] = None if row["geometry"] is None else json.loads(row["geometry"])
    entity["assets"] = {file.asset_key: json.loads(file.body) for file in files}
    return StoredItem(row["updated_at"], entity, {file.asset_key: file for file in files})


async def hold_collection(connection: Connection, tenant_id: int, collection: str) -> tuple[Held, datetime.datetime]:
    """Lock a Collection; and the time that what this transaction writes will bear.

    Raises:
        GatewayError: 404.
    """
    row = await connection.fetchrow(_DATASET, tenant_id, collection) if is_storable(collection) else None
    if row is None:
        raise missing(f"There is no collection {collection!r}.")
    return Held(row["dataset_id"], row["updated_at"]), row["now"]


async def hold_item(connection: Connection, dataset_id: int, collection: str, identifier: str) -> Held:
    """Lock an Item.

    Raises:
        GatewayError: 404.
    """
    row = await connection.fetchrow(_PRODUCT, dataset_id, identifier) if is_storable(identifier) else None
    if row is None:
        raise no_item(collection, identifier)
    return Held(row["product_id"], row["updated_at"])


def no_item(collection: str, identifier: str) -> GatewayError:
    """404."""
    return missing(f"There is no item {identifier!r} in the collection {collection!r}.")


def _file(row: asyncpg.Record, copies: list[asyncpg.Record]) -> File:
    checksum = None if row["checksum"] is None else Checksum(row["checksum_algorithm"], row["checksum"])
    return File(
        asset_key=row["asset_key"],
        data_type=row["data_type"],
        checksum=checksum,
        size=row["size"],
        crc32=row["crc32"],
        mime_type=row["mime_type"],
        file_name=row["file_name"],
        reference=row["reference"],
        body=row["body"],
        copies=tuple(
            Copy(
                copy["storage"],
                copy["location"],
                copy["state"],
                copy["size"],
                copy["modified"],
                copy["version"],
                copy["verified_version"],
            )
            for copy in copies
            if copy["file_id"] == row["file_id"]
        ),
    )
