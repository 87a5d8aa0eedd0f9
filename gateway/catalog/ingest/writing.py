"""The rows of an ingest into PostgreSQL, a batch at a time, set by set, within the transaction of the caller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import asyncpg

from gateway.catalog.ingest.events import Count, IngestError, Rejection
from gateway.catalog.ingest.model import Dataset, Product, dataset_urn
from gateway.catalog.ingest.placing import Placed, Placement, Row, place
from gateway.catalog.ingest.stac import undescribed
from gateway.db import Connection

# The first key of the advisory locks of ingests; the second is the hash of the tenant's name. "ING" in ASCII.
_LOCK = 0x494E47
_IS_WRITTEN = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND classid = $1::bigint::oid
      AND objid = (hashtext($2)::bigint & 4294967295)::oid
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)"""

_STAGE = """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_products (
    tenant_id integer, dataset_id bigint, urn text, provider_id text, properties jsonb, geometry jsonb,
    west float8, south float8, east float8, north float8, start_datetime timestamptz, end_datetime timestamptz,
    body jsonb, quality_score float8, quality_level text
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_files (
    product_id bigint, asset_key text, data_type text, checksum text, checksum_algorithm text, size bigint,
    crc32 bigint, mime_type text, file_name text, reference boolean, body jsonb
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_copies (
    product_id bigint, asset_key text, storage text, location text, state text, size bigint, modified timestamptz,
    version text, verified_version text, broken_version text, unanswered boolean
) ON COMMIT DELETE ROWS;
"""
# PostgreSQL takes a new table with a single row for one of hundreds, and reads the whole catalogue to join it.
_FEW = """
SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off; SET LOCAL jit = off;
"""
_PRODUCT_COLUMNS = (
    "tenant_id", "dataset_id", "urn", "provider_id", "properties", "geometry", "west", "south", "east", "north",
    "start_datetime", "end_datetime", "body", "quality_score", "quality_level",
)  # fmt: skip
_FILE_COLUMNS = (
    "product_id", "asset_key", "data_type", "checksum", "checksum_algorithm", "size", "crc32", "mime_type", "file_name",
    "reference", "body",
)  # fmt: skip
_COPY_COLUMNS = (
    "product_id", "asset_key", "storage", "location", "state", "size", "modified", "version", "verified_version",
    "unanswered",
)  # fmt: skip

_RECONCILE_FILES = """
DELETE FROM files
WHERE product_id IN (SELECT product_id FROM products JOIN staged_products USING (tenant_id, urn))
  AND NOT EXISTS (SELECT FROM staged_files staged
                  WHERE staged.product_id = files.product_id AND staged.asset_key = files.asset_key);

-- A storage that did not answer takes nothing back that it said of the same entry before.
UPDATE staged_copies staged SET size = copies.size, modified = copies.modified, version = copies.version
FROM copies JOIN files USING (file_id) JOIN staged_files USING (product_id, asset_key, body)
WHERE staged.unanswered AND staged.product_id = files.product_id AND staged.asset_key = files.asset_key
  AND staged.storage = copies.storage AND staged.location = copies.location;

-- The catalogue says the same as before, and so do the storages: what was computed from the bytes still holds.
UPDATE staged_files SET
    size = coalesce(staged_files.size, files.size),
    checksum = coalesce(staged_files.checksum, files.checksum),
    checksum_algorithm = coalesce(staged_files.checksum_algorithm, files.checksum_algorithm),
    crc32 = coalesce(staged_files.crc32, files.crc32)
FROM files
WHERE files.product_id = staged_files.product_id AND files.asset_key = staged_files.asset_key
  AND files.body = staged_files.body
  AND NOT EXISTS (SELECT FROM staged_copies staged
                  WHERE staged.product_id = files.product_id AND staged.asset_key = files.asset_key
                    AND NOT EXISTS (SELECT FROM copies
                                    WHERE copies.file_id = files.file_id AND copies.storage = staged.storage
                                      AND copies.location = staged.location
                                      AND copies.version IS NOT DISTINCT FROM staged.version));

-- A restored copy is one of the file as it was. Whoever is writing down another one now (he holds the row of the file)
-- ends first, so that the statements below see it, or finds that the file has changed.
SELECT FROM files JOIN staged_files staged USING (product_id, asset_key)
WHERE {changed}
FOR NO KEY UPDATE OF files;
DELETE FROM copies USING files JOIN staged_files staged USING (product_id, asset_key)
WHERE copies.file_id = files.file_id AND copies.entry_id IS NOT NULL AND {changed};
UPDATE copies SET restored_until = NULL FROM files JOIN staged_files staged USING (product_id, asset_key)
WHERE copies.file_id = files.file_id AND copies.restored_until IS NOT NULL AND {changed};

-- What was read of the same version and held against the same checksum need not be read again.
UPDATE staged_copies staged SET verified_version = copies.verified_version, broken_version = copies.broken_version
FROM copies JOIN files USING (file_id) JOIN staged_files USING (product_id, asset_key)
WHERE staged.verified_version IS NULL AND staged.product_id = files.product_id AND staged.asset_key = files.asset_key
  AND staged.storage = copies.storage AND staged.location = copies.location AND staged.version = copies.version
  AND staged_files.checksum_algorithm = files.checksum_algorithm
  AND lower(staged_files.checksum) = lower(files.checksum);
"""
# Whether other bytes may be meant: by the checksum, or where there is none by all that is known.
_CHANGED = """(
    staged.checksum_algorithm IS DISTINCT FROM files.checksum_algorithm
    OR lower(staged.checksum) IS DISTINCT FROM lower(files.checksum)
    OR coalesce(staged.size <> files.size, false)
    OR staged.checksum IS NULL AND (
        staged.size IS DISTINCT FROM files.size OR staged.body <> files.body
        OR EXISTS (SELECT FROM staged_copies one
                   WHERE one.product_id = staged.product_id AND one.asset_key = staged.asset_key
                     AND NOT EXISTS (SELECT FROM copies same
                                     WHERE same.file_id = files.file_id AND same.storage = one.storage
                                       AND same.location = one.location
                                       AND same.version IS NOT DISTINCT FROM one.version))
    )
)"""
_INSERT_FILES = """
INSERT INTO files ({columns}) SELECT {columns} FROM staged_files
ON CONFLICT (product_id, asset_key) DO UPDATE SET {updates};
"""
_RECONCILE_COPIES = """
DELETE FROM copies USING files JOIN staged_files USING (product_id, asset_key)
WHERE copies.file_id = files.file_id AND copies.entry_id IS NULL  -- the catalogue names none that lies in the cache
  AND NOT EXISTS (SELECT FROM staged_copies staged
                  WHERE staged.product_id = files.product_id AND staged.asset_key = files.asset_key
                    AND staged.storage = copies.storage AND staged.location = copies.location);
"""
_INSERT_COPIES = """
INSERT INTO copies (file_id, storage, location, state, size, modified, version, verified_version, broken_version)
SELECT file.file_id, storage, location, state, staged.size, modified, version, verified_version, broken_version
FROM staged_copies staged
CROSS JOIN LATERAL (SELECT file_id FROM files
                    WHERE product_id = staged.product_id AND asset_key = staged.asset_key OFFSET 0) AS file
ON CONFLICT (file_id, storage, location)
DO UPDATE SET state = EXCLUDED.state, size = EXCLUDED.size, modified = EXCLUDED.modified, version = EXCLUDED.version,
    verified_version = EXCLUDED.verified_version, broken_version = EXCLUDED.broken_version,
    restored_until = CASE WHEN copies.version IS NOT DISTINCT FROM EXCLUDED.version THEN copies.restored_until END
WHERE copies.entry_id IS NULL;
"""


class Catalogue:
    """A tenant's part of the catalogue, open for one ingest. Made by `open_catalogue`."""

    def __init__(self, connection: Connection, tenant: str, tenant_id: int) -> None:
        self._connection = connection
        self._tenant = tenant
        self._tenant_id = tenant_id
        self._datasets: dict[str, int] = {}
        self._undescribed: dict[int, str] = {}
        self._staged = False

    @property
    def undescribed(self) -> tuple[str, ...]:
        """Ids of the collections that were made for items, and whose description did not come in this ingest."""
        return tuple(self._undescribed.values())

    def know(self, collection: str, dataset_id: int) -> None:
        """The collection is there, and stays as long as the transaction."""
        self._datasets[collection] = dataset_id

    async def write_datasets(self, datasets: Sequence[Dataset]) -> Count:
        """Insert or update collections; the last of several with the same id wins."""
        await self._look_up({dataset.collection_id for dataset in datasets})
        count = Count()
        latest: dict[str, Dataset] = {}
        for dataset in datasets:
            known = self._datasets.get(dataset.collection_id)
            new = dataset.collection_id not in latest and (known is None or known in self._undescribed)
            count += Count(accepted=1) if new else Count(updated=1)
            latest[dataset.collection_id] = dataset
            if known is not None:
                self._undescribed.pop(known, None)
        await self._insert([row for name, row in latest.items() if name not in self._datasets])
        await self._connection.executemany(
            "UPDATE datasets SET title = $2, body = $3, updated_at = now() WHERE dataset_id = $1",
            [(self._datasets[name], row.title, row.body) for name, row in latest.items()],
        )
        return count

    async def write_products(self, products: Sequence[Product]) -> tuple[Count, int, tuple[Rejection, ...]]:
        """Insert or update products with their files and copies, and delete the files and copies they no longer have.

        Returns the products written, the number of their files, and the products that contradict the catalogue.
        """
        await self._make_missing({product.collection for product in products})
        placement = await self._place(products)
        if placement.moves:
            statement = "UPDATE products SET dataset_id = $2 WHERE product_id = $1"
            await self._connection.executemany(statement, placement.moves)
        if self._staged:
            await self._connection.execute("TRUNCATE staged_products, staged_files, staged_copies")
        self._staged = True
        ids = await self._upsert_products(placement.rows)
        written = [(ids[row.urn], row.product) for row in placement.rows]
        await self._write_files(written, new=not placement.count.updated)
        files = sum(len(row.product.files) for row in placement.rows)
        return placement.count, files, placement.rejections

    async def _look_up(self, collections: Iterable[str]) -> None:
        urns = {name: dataset_urn(self._tenant, name) for name in collections if name not in self._datasets}
        if not urns:
            return
        found = await self._connection.fetch(
            """SELECT dataset_id, collection_id, urn FROM datasets
               WHERE tenant_id = $1 AND (collection_id = ANY ($2) OR urn = ANY ($3))""",
            self._tenant_id,
            list(urns),
            list(urns.values()),
        )
        by_id = {row["collection_id"]: row["dataset_id"] for row in found}
        by_urn = {row["urn"]: row["dataset_id"] for row in found}
        known = {name: by_id.get(name, by_urn.get(urn)) for name, urn in urns.items()}
        self._datasets |= {name: dataset_id for name, dataset_id in known.items() if dataset_id is not None}

    async def _make_missing(self, collections: set[str]) -> None:
        await self._look_up(collections)
        missing = sorted(name for name in collections if name not in self._datasets)
        if not missing:
            return
        await self._insert([undescribed(name) for name in missing])
        self._undescribed |= {self._datasets[name]: name for name in missing}

    async def _insert(self, datasets: Sequence[Dataset]) -> None:
        # A collection and the URN of its dataset may both be named before either is known: they are one dataset.
        urns = {dataset.collection_id: dataset_urn(self._tenant, dataset.collection_id) for dataset in datasets}
        rows = list({urns[dataset.collection_id]: dataset for dataset in datasets}.items())
        written = await self._connection.fetch(
            """INSERT INTO datasets (tenant_id, collection_id, urn, title, body)
               SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::jsonb[])
               ON CONFLICT (tenant_id, collection_id) DO UPDATE SET updated_at = now()
               RETURNING collection_id, dataset_id""",
            self._tenant_id,
            [dataset.collection_id for _, dataset in rows],
            [urn for urn, _ in rows],
            [dataset.title for _, dataset in rows],
            [dataset.body for _, dataset in rows],
        )
        ids = {urns[row["collection_id"]]: row["dataset_id"] for row in written}
        self._datasets |= {name: ids[urn] for name, urn in urns.items()}

    async def _place(self, products: Sequence[Product]) -> Placement:
        # One look-up by the unique key for each: of what the transaction wrote itself PostgreSQL knows no statistics,
        # and it would read all of it to join it.
        rows = await self._connection.fetch(
            """SELECT product.* FROM unnest($2::text[]) AS wanted (urn)
               CROSS JOIN LATERAL (SELECT product_id, urn, dataset_id, provider_id FROM products
                                   WHERE tenant_id = $1 AND urn = wanted.urn OFFSET 0) AS product
               UNION
               SELECT product.* FROM unnest($3::bigint[], $4::text[]) AS wanted (dataset_id, provider_id)
               CROSS JOIN LATERAL (SELECT product_id, urn, dataset_id, provider_id FROM products
                                   WHERE dataset_id = wanted.dataset_id AND provider_id = wanted.provider_id
                                   OFFSET 0) AS product""",
            self._tenant_id,
            [product.urn for product in products],
            [self._datasets[product.collection] for product in products],
            [product.provider_id for product in products],
        )
        return place(products, self._datasets, [Row(*row) for row in rows])

    async def _upsert_products(self, rows: Sequence[Placed]) -> dict[str, int]:
        await self._connection.copy_records_to_table(
            "staged_products", columns=_PRODUCT_COLUMNS, records=[self._record(row) for row in rows]
        )
        columns = ", ".join(_PRODUCT_COLUMNS)
        written = await self._connection.fetch(
            f"""INSERT INTO products ({columns}) SELECT {columns} FROM staged_products
                ON CONFLICT (tenant_id, urn) DO UPDATE SET {_updates(_PRODUCT_COLUMNS[1:])}, updated_at = now()
                RETURNING urn, product_id"""  # noqa: S608 - the columns are the constants above
        )
        return {row["urn"]: row["product_id"] for row in written}

    def _record(self, row: Placed) -> tuple[object, ...]:
        product, extent = row.product, row.product.extent
        return (
            self._tenant_id,
            row.dataset_id,
            row.urn,
            product.provider_id,
            product.properties,
            product.geometry,
            *(extent.bbox or (None,) * 4),
            extent.start,
            extent.end,
            product.body,
            product.quality.score,
            product.quality.level,
        )

    async def _write_files(self, products: Sequence[tuple[int, Product]], *, new: bool) -> None:
        """Write the files of these products; if all are ``new``, there are none that it could change."""
        files = [(product_id, file) for product_id, product in products for file in product.files]
        await self._connection.copy_records_to_table(
            "staged_files",
            columns=_FILE_COLUMNS,
            records=[
                (
                    product_id,
                    file.asset_key,
                    file.data_type,
                    file.checksum and file.checksum.value,
                    file.checksum and file.checksum.algorithm,
                    file.size,
                    file.crc32,
                    file.mime_type,
                    file.file_name,
                    file.reference,
                    file.body,
                )
                for product_id, file in files
            ],
        )
        await self._connection.copy_records_to_table(
            "staged_copies",
            columns=_COPY_COLUMNS,
            records=[
                (
                    product_id,
                    file.asset_key,
                    copy.storage,
                    copy.location,
                    copy.state,
                    copy.size,
                    copy.modified,
                    copy.version,
                    copy.verified_version,
                    copy.unanswered,
                )
                for product_id, file in files
                for copy in file.copies
            ],
        )
        # Without parameters these statements are planned anew for each batch. A plan kept from the first batch, when
        # the tables were empty, would read them from end to end for ever after.
        insert = _INSERT_FILES.format(columns=", ".join(_FILE_COLUMNS), updates=_updates(_FILE_COLUMNS[2:]))
        reconcile = ("", "") if new else (_RECONCILE_FILES.format(changed=_CHANGED), _RECONCILE_COPIES)
        await self._connection.execute(f"{reconcile[0]}{insert}{reconcile[1]}{_INSERT_COPIES}")


async def open_catalogue(connection: Connection, tenant: str, *, wait: float = 1.0) -> Catalogue:
    """Make ready to write, within the transaction that is open; the tenant is created if it does not exist.

    Raises:
        IngestError: another ingest of the tenant is running, and did not end in ``wait`` seconds.
    """
    # Before the tenant's row is touched: a second ingest of a new tenant would wait for that row.
    await take_turn(connection, tenant, wait=wait)
    await connection.execute("INSERT INTO tenants (name) VALUES ($1) ON CONFLICT DO NOTHING", tenant)
    tenant_id: int = await connection.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", tenant)
    return await catalogue_of(connection, tenant, tenant_id)


async def catalogue_of(connection: Connection, tenant: str, tenant_id: int, *, few: bool = False) -> Catalogue:
    """Make ready to write for a tenant that is there, by whoever has taken his turn in the transaction that is open.

    ``few``: of at most some dozens of products.
    """
    await connection.execute(f"SET LOCAL plan_cache_mode = force_custom_plan; {_FEW if few else ''}{_STAGE}")
    return Catalogue(connection, tenant, tenant_id)


async def take_turn(connection: Connection, tenant: str, *, wait: float) -> None:
    """Wait for all others who write to the tenant's part of the catalogue; keep them out until the transaction ends.

    Raises:
        IngestError: another one did not end in ``wait`` seconds.
    """
    if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, hashtext($2))", _LOCK, tenant):
        return
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {int(wait * 1000)}")
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK, tenant)
            await connection.execute("SET LOCAL lock_timeout = DEFAULT")
    except asyncpg.LockNotAvailableError as error:
        raise IngestError(f"another ingest of the tenant {tenant!r} is running; wait for its end") from error


async def is_written(connection: Connection, tenant: str) -> bool:
    """Whether somebody writes to the tenant's part of the catalogue now, or waits for his turn.

    What he writes will say that it was made when his transaction began.
    """
    found: bool = await connection.fetchval(_IS_WRITTEN, _LOCK, tenant)
    return found


def _updates(columns: Iterable[str]) -> str:
    return ", ".join(f"{column} = EXCLUDED.{column}" for column in columns)
