"""Orders made by hand: a creator and a database for them, and a catalogue of many files."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg
from pydantic import SecretStr

import gateway.db
from gateway.config import Database as DatabaseSettings
from gateway.config import Orders, PolicyTable, Rights
from gateway.db import Connection, Database
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.orders.actions import Actions
from gateway.orders.creation import Creator
from gateway.orders.model import Condition, DatasetSelection, FileFilters, Numbering, Stager, Wish
from gateway.orders.reading import Order, Scope, one
from gateway.orders.worker import Workers
from gateway.rights.policies import open_policies
from tests.harness import SCIENTIST, TENANT

SECRET = "the secret that order tokens are made with, in all tests"
NO_WISH = Wish()
URN = "URN:AIP:DATASET:esa:{}:V1"
MINE = Scope(TENANT, SCIENTIST.email)


async def translate(query: str) -> Numbering:
    """``id:<id of an item>`` and ``from:<id>``; of anything else it says that it cannot be understood."""
    name, _, value = query.partition(":")
    if name == "id":
        return lambda first: Condition(f"p.provider_id = ${first}", (value,))
    if name == "from":
        return lambda first: Condition(f"p.provider_id >= ${first}", (value,))
    raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, f"cannot understand {query!r}")


def selection(collection: str = "restricted", query: str = "", **filters: Any) -> DatasetSelection:

    return DatasetSelection(URN.format(collection), query, FileFilters(**filters))


@dataclasses.dataclass
class Shop:
    """Everything that orders need, without a gateway."""

    database: Database
    connection: asyncpg.Connection
    settings: Orders
    creator: Creator
    actions: Actions

    async def order(self, *selections: DatasetSelection, who: Principal = SCIENTIST, wish: Wish = NO_WISH) -> int:
        async def choose(_: Connection) -> Sequence[DatasetSelection]:
            return selections or [selection()]

        return await self.creator.create(who, wish, choose)

    async def see(self, order_id: int, scope: Scope = MINE) -> Order:
        return await one(self.database, scope, order_id)

    def workers(self, stager: Stager) -> Workers:
        return Workers(self.database, self.settings, stager)

    async def counts_agree(self) -> None:
        """Every counter is what counting gives."""
        wrong = await self.connection.fetch(_WRONG)
        assert [dict(row) for row in wrong] == []


_WRONG = """
SELECT o.order_id, o.status, o.files_pending, counted.* FROM orders o
CROSS JOIN LATERAL (
    SELECT count(*) AS files, coalesce(sum(size), 0) AS size,
           count(*) FILTER (WHERE state = 'PENDING') AS pending,
           count(*) FILTER (WHERE state = 'AVAILABLE') AS available,
           count(*) FILTER (WHERE state = 'DOWNLOADED') AS downloaded,
           count(*) FILTER (WHERE state = 'DOWNLOAD_ERROR') AS download_error,
           count(*) FILTER (WHERE state = 'ERROR') AS error,
           coalesce(sum(size) FILTER (WHERE state = 'PENDING'), 0) AS pending_size
    FROM order_files f WHERE f.order_file_id >> 24 = o.order_id
) counted
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE files_pending = 0 AND files_available > 0) AS waiting,
           coalesce(sum(files_pending), 0) AS pending, coalesce(sum(files_available), 0) AS available,
           coalesce(sum(files_count), 0) AS files
    FROM suborders s WHERE s.order_id = o.order_id
) parts
WHERE o.status NOT IN ('EXPIRED', 'DELETED') AND (
    o.files_count, o.files_size, o.files_pending, o.files_available, o.files_downloaded, o.files_download_error,
    o.files_error, o.pending_size, o.suborders_waiting, o.files_pending, o.files_available, o.files_count
) IS DISTINCT FROM (
    counted.files, counted.size, counted.pending, counted.available, counted.downloaded, counted.download_error,
    counted.error, counted.pending_size, parts.waiting, parts.pending, parts.available, parts.files
)"""


@contextlib.asynccontextmanager
async def open_shop(dsn: str, *policies: PolicyTable, **settings: Any) -> AsyncIterator[Shop]:
    of_orders = Orders(secret=SecretStr(SECRET), **settings)
    neighbour = DatabaseSettings(dsn=SecretStr(dsn), pool_size=4, timeout=300)
    connection = await asyncpg.connect(dsn)
    try:
        async with gateway.db.connect(neighbour, ()) as database, open_policies(policies) as asked:
            creator = Creator(
                database, of_orders, Rights(), asked, translate, lambda: datetime.datetime.now(datetime.UTC)
            )
            yield Shop(database, connection, of_orders, creator, Actions(database, of_orders, creator))
    finally:
        await connection.close()


async def fill(
    connection: asyncpg.Connection, *, products: int, files: int, collection: str = "many", state: str = "ONLINE"
) -> None:
    """A collection that group ``science`` may have, with that many products of that many files of 1000 bytes."""
    await connection.execute(
        _FILL.format(collection=collection, state=state),
    )
    await connection.execute(_PRODUCTS.format(collection=collection, products=products))
    await connection.execute(_FILES.format(collection=collection, files=files))
    await connection.execute(_COPIES.format(collection=collection, state=state))
    await connection.execute("ANALYZE products, files, copies")


_FILL = """
INSERT INTO tenants (name) VALUES ('esa') ON CONFLICT DO NOTHING;
INSERT INTO groups (tenant_id, name) SELECT tenant_id, 'science' FROM tenants ON CONFLICT DO NOTHING;
INSERT INTO datasets (tenant_id, collection_id, urn, body)
    SELECT tenant_id, '{collection}', 'URN:AIP:DATASET:esa:{collection}:V1', '{{}}' FROM tenants;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
    SELECT dataset_id, group_id, 'FULL_ACCESS', 'INHERITED_ACCESS' FROM datasets, groups
    WHERE collection_id = '{collection}' AND name = 'science'"""
_PRODUCTS = """
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
SELECT tenant_id, dataset_id, 'URN:FEATURE:DATA:esa:{collection}-' || n || ':V1', to_char(n, 'FM0000000'),
       '{{}}', '{{}}'
FROM datasets, generate_series(1, {products}) n WHERE collection_id = '{collection}'"""
_FILES = """
INSERT INTO files (product_id, asset_key, data_type, size, file_name, body)
SELECT product_id, 'a' || n, 'RAWDATA', 1000, provider_id || '-' || n || '.tif', '{{}}'
FROM products JOIN datasets USING (dataset_id), generate_series(1, {files}) n WHERE collection_id = '{collection}'"""
_COPIES = """
INSERT INTO copies (file_id, storage, location, state)
SELECT file_id, 'disk', file_id::text, '{state}'
FROM files JOIN products USING (product_id) JOIN datasets USING (dataset_id) WHERE collection_id = '{collection}'"""
