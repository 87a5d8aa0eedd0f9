"""Searches read what they give, by indexes, also in large archives, whoever asks: by plans that are made once."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway.config import Database, Rights
from gateway.db import Database as Pool
from gateway.db import connect
from gateway.identity.principal import Principal
from gateway.rights.policies import open_policies
from gateway.stac.model import Interval, Search
from gateway.stac.searching import Bounds, searching
from tests.catalog.plans import scans

ITEMS, COLLECTIONS, TENANT = 10_000, 400, "esa"
BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
WALK = 500
CROWDED = Bounds(walk=0, walk_each=0, area=5, far=WALK)

# An item each hour. Another tenant has more than half of all; one of a hundred items lasts a month.
_FILL = f"""
INSERT INTO tenants (name) VALUES ('esa'), ('cnes');
INSERT INTO groups (tenant_id, name) SELECT 1, n FROM unnest('{{one,some,many}}'::text[]) n;
INSERT INTO datasets (tenant_id, collection_id, urn, body)
    SELECT 1 + n % 2, 'c-' || n, 'd-' || n, '{{}}' FROM generate_series(1, {2 * COLLECTIONS}) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
    SELECT dataset_id, g.group_id, 'FULL_ACCESS', 'INHERITED_ACCESS' FROM datasets d JOIN groups g USING (tenant_id)
    WHERE CASE g.name WHEN 'one' THEN d.dataset_id = 100 WHEN 'some' THEN d.dataset_id % 100 = 0
                      ELSE d.dataset_id % 4 = 0 END;
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body, west, south, east, north,
                      start_datetime, end_datetime)
    SELECT d.tenant_id, d.dataset_id, 'urn-' || n, 'i-' || n, '{{}}', '{{}}',
           -180 + n * 37 % 359, -90 + n * 53 % 179, -179 + n * 37 % 359, -89 + n * 53 % 179, start,
           start + CASE WHEN n % 100 = 0 THEN interval '30 days' ELSE interval '0' END
    FROM generate_series(1, {2 * ITEMS}) n
    JOIN datasets d ON d.dataset_id = 1 + n * 7919 % {2 * COLLECTIONS},
    LATERAL (SELECT timestamptz '2020-01-01T00:00Z' + n * interval '30 minutes' AS start) time;
INSERT INTO files (product_id, asset_key, data_type, file_name, body)
    SELECT product_id, 'data', 'RAWDATA', 'n', '{{}}' FROM products;
INSERT INTO copies (file_id, storage, location) SELECT file_id, 'disk', 'x' FROM files;
"""

MIDDLE = BEGIN + datetime.timedelta(days=400)
DAY = Interval(MIDDLE, MIDDLE + datetime.timedelta(days=1))
WHO = [Principal(TENANT, name, f"{name}@example.org", "REGISTERED_USER", (name,)) for name in ("one", "some", "many")]
WHO.append(Principal(TENANT, "admin", "admin@example.org", "PROJECT_ADMIN"))


class Recording(Pool):
    """Runs statements, and keeps the last one."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool._pool, pool.timeout)
        self.last: tuple[str, tuple[object, ...]] = "", ()
        self.read = 0

    async def fetch(self, statement: str, *parameters: object) -> list[asyncpg.Record]:
        self.last = statement, parameters
        self.read += 1
        return await super().fetch(statement, *parameters)


@pytest.fixture(params=["analysed", "never analysed"])
async def archive(database: str, request: pytest.FixtureRequest) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database)
    await connection.execute("SET synchronous_commit = off")
    await connection.execute(_FILL)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    if request.param == "analysed":
        await connection.execute("ANALYZE")
    yield connection
    await connection.close()


async def explain(
    connection: asyncpg.Connection[Any], statement: str, parameters: tuple[object, ...]
) -> dict[str, Any]:
    """What the plan that is kept for ``statement`` does."""
    prepared = await connection.prepare(statement)
    kinds = [
        f"{one.name.removesuffix('[]')}[]" if one.kind == "array" else one.name for one in prepared.get_parameters()
    ]
    literals = [
        await connection.fetchval(f"SELECT quote_nullable($1::{kind}::text)", value)
        for kind, value in zip(kinds, parameters, strict=True)
    ]
    await connection.execute(f"PREPARE page AS {statement}")
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page({', '.join(literals)})")
    await connection.execute("DEALLOCATE page")
    return dict(json.loads(text)[0]["Plan"])


@pytest.mark.timeout(120)
async def test_pages_read_what_they_give_by_indexes(database: str, archive: asyncpg.Connection[Any]) -> None:
    narrow, wide, over = (5.0, 40.0, 15.0, 50.0), (-180.0, -90.0, 180.0, 90.0), (170.0, 0.0, -170.0, 10.0)
    settings = Database.model_validate({"dsn": database, "timeout": 10})
    async with connect(settings, ()) as pool, open_policies([]) as policies:
        recorded = Recording(pool)
        async with searching(recorded, policies, Rights(), bounds=Bounds(walk=WALK)) as catalogue:
            for box, time, newest, collections in itertools.product(
                (None, narrow, wide, over), (None, DAY), (True, False), (None, ("c-100", "c-200"))
            ):
                asked = Search(bbox=box, datetime=time, newest_first=newest, collections=collections)
                for who in WHO:
                    page = await catalogue.search(who, asked)
                    read = items_read(await explain(archive, *recorded.last), f"{asked} of {who.subject}")
                    # An item is looked at in a walk, again to see whether more lie behind it, in the index of places
                    # (these boxes hold at most a tenth of all), of each dataset's own, and as it is given.
                    assert read <= 6 * WALK, (who.subject, asked)
                    if who.subject == "one":
                        assert read <= 4 * ITEMS / COLLECTIONS
                    assert len(page.items) == 10 or box is not None or time is not None
            # Where too much lies in the box to be sorted.
            half = Search(bbox=(0.0, -90.0, 180.0, 90.0))
            async with searching(recorded, policies, Rights(), bounds=CROWDED) as crowded:
                for who, newest in itertools.product(WHO, (True, False)):
                    recorded.read = 0
                    page = await crowded.search(who, dataclasses.replace(half, newest_first=newest))
                    assert len(page.items) == 10
                    assert recorded.read > 1
                    assert items_read(await explain(archive, *recorded.last), f"half of {who.subject}") <= 4 * WALK
            for who in WHO:
                await catalogue.search(who, Search(ids=tuple(f"i-{number}" for number in range(1, 200, 2))))
                assert items_read(await explain(archive, *recorded.last), f"ids of {who.subject}") <= 100 + 2 * 11


def items_read(plan: dict[str, Any], what: str) -> float:
    read = 0.0
    for way, table, rows in scans(plan):
        if table in ("products", "files", "copies"):
            assert way in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"), (what, way, table)
        read += rows * (table == "products")
    return read
