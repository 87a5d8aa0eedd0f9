"""What a page of a large STAC catalogue costs: PostgreSQL's time for it, whoever asks and however deep the page lies.

``python -m benchmarks.catalogue``: makes a catalogue of many items in many collections, large and small ones, and asks
for pages as callers who see one collection, some, half of them, or all. Of each question it prints the time of a page
through `Searching` (round trip, rows and all; of the first, on a connection that has yet to plan the statement, by
itself), and what PostgreSQL did for its last statement: blocks of tables and indexes that it touched, and items that it
looked at for those that it gave. At the end it says which large tables were read from end to end: none should be.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import click

from benchmarks.harness import conditions, ending_in_order
from benchmarks.processes import choose_cores, on_core
from gateway.config import Database, Rights
from gateway.db import Database as Pool
from gateway.db import apply_schema, connect
from gateway.embedded import Services, run_services
from gateway.identity.principal import Principal
from gateway.rights.policies import open_policies
from gateway.stac.model import Interval, Search
from gateway.stac.searching import Searching, searching

TENANT = "mission"
SOME = 10
"""Collections that a caller sees who sees some."""
BEGIN = datetime.datetime(2015, 1, 1, tzinfo=datetime.UTC)
YEARS = 10

# Of each hundred items one lasts for hours, of each thousand one for a month. Collections have about as many items as
# the cube of their rank says.
_CATALOGUE = """
INSERT INTO tenants (name) VALUES ('mission');
INSERT INTO groups (tenant_id, name) SELECT tenant_id, n FROM tenants, unnest('{{one,some,half}}'::text[]) n;
INSERT INTO datasets (tenant_id, collection_id, urn, body)
SELECT t.tenant_id, 'collection-' || n, 'URN:AIP:DATASET:mission:' || n || ':V1', '{{}}'
FROM tenants t, generate_series(1, {collections}) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
SELECT d.dataset_id, g.group_id, 'FULL_ACCESS', 'INHERITED_ACCESS'
FROM datasets d JOIN groups g ON CASE g.name WHEN 'one' THEN d.dataset_id = {collections} / 2
    WHEN 'some' THEN d.dataset_id % ({collections} / {some}) = 1 ELSE d.dataset_id % 2 = 0 END;
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, geometry, west, south, east, north,
                      start_datetime, end_datetime, body)
SELECT 1, 1 + floor({collections} * power(((n * 2654435761) % 1000003) / 1000003.0, 3)),
       'URN:FEATURE:DATA:mission:' || n || ':V1', 'item-' || n,
       jsonb_build_object('datetime', start, 'platform', 'sentinel-2a', 'eo:cloud_cover', n % 100, 'gsd', 10,
           'proj:epsg', 32632, 'instruments', '["msi"]'::jsonb, 'created', start, 'grid:code', 'MGRS-32TQM'),
       jsonb_build_object('type', 'Polygon', 'coordinates', jsonb_build_array(jsonb_build_array(
           jsonb_build_array(west, south), jsonb_build_array(west + 1, south), jsonb_build_array(west + 1, south + 1),
           jsonb_build_array(west, south + 1), jsonb_build_array(west, south)))),
       west, south, CASE WHEN west + 1 > 180 THEN west - 359 ELSE west + 1 END, south + 1, start,
       start + CASE WHEN n % 1000 = 7 THEN interval '30 days' WHEN n % 100 = 7 THEN interval '6 hours'
                    ELSE interval '0' END,
       jsonb_build_object('type', 'Feature', 'stac_version', '1.1.0', 'id', 'item-' || n, 'links', '[]'::jsonb)
FROM (
    SELECT n, timestamptz '{begin}' + interval '{years} years' * (n / {items}::float8) AS start,
           -180 + ((n * 48271) % 360000) / 1000.0 AS west, -80 + ((n * 69621) % 160000) / 1000.0 AS south
    FROM generate_series(1, {items}::bigint) n
) item;
INSERT INTO files (product_id, asset_key, data_type, size, mime_type, file_name, body)
SELECT product_id, 'data', 'RAWDATA', 1000000, 'image/tiff', 'file.tif',
       '{{"href": "https://example.org/file.tif", "type": "image/tiff", "roles": ["data"]}}' FROM products;
INSERT INTO copies (file_id, storage, location) SELECT file_id, 'disk', 'a/' || file_id FROM files;
"""
_WITHOUT = "DROP INDEX products_by_place, products_long, products_by_time, products_of_tenant_by_time, products_by_item"
_SCANS = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE n_live_tup > 10000"


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """A question that is measured."""

    name: str
    search: Search
    page: int = 1
    """How many pages before it are passed by, in pages of 10."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--items", default=1_000_000, show_default=True, type=click.IntRange(1000, 10**8))
@click.option("--collections", default=1000, show_default=True, type=click.IntRange(SOME * 2, 10**5))
@click.option("--rounds", default=30, show_default=True, type=click.IntRange(3, 1000), help="Pages of each question.")
@click.option("--explain", is_flag=True, help="Print the whole plans.")
def main(items: int, collections: int, rounds: int, explain: bool) -> None:
    """Measure pages, and print their times and what was read for them."""
    cores = choose_cores()
    with ending_in_order():
        with on_core(cores.load):
            services = run_services()
            running = services.__enter__()
        try:
            with on_core(cores.server):
                click.echo(conditions(f"client on core {cores.server}, PostgreSQL on core {cores.load}", "loopback"))
                asyncio.run(fill(running.postgres_dsn, items, collections))
                asyncio.run(measure(running, items, collections, rounds, explain=explain))
        finally:
            services.__exit__(None, None, None)


async def fill(dsn: str, items: int, collections: int) -> None:
    """Make the catalogue; the indexes of searches are made after the rows, and how long that takes is told."""
    connection = await asyncpg.connect(dsn)
    try:
        await apply_schema(connection)
        await connection.execute(_WITHOUT)
        begun = time.perf_counter()
        # Rows of which it is known that they refer to one another.
        await connection.execute("SET session_replication_role = replica; SET maintenance_work_mem = '256MB'")
        text = _CATALOGUE.format(items=items, collections=collections, some=SOME, begin=BEGIN.isoformat(), years=YEARS)
        await connection.execute(text)
        filled = time.perf_counter()
        await apply_schema(connection)
        indexed = time.perf_counter()
        await connection.execute("VACUUM ANALYZE")
        click.echo(
            f"{items:,} items in {collections:,} collections: rows in {filled - begun:.0f} s, "
            f"indexes of searches in {indexed - filled:.0f} s"
        )
        sizes = await connection.fetch(
            "SELECT relname, pg_size_pretty(pg_relation_size(oid)) AS size FROM pg_class "
            "WHERE relname LIKE 'products%' AND relkind IN ('r', 'i') ORDER BY pg_relation_size(oid) DESC"
        )
        click.echo(", ".join(f"{row['relname']} {row['size']}" for row in sizes))
    finally:
        await connection.close()


def callers() -> dict[str, Principal]:
    """Who asks, by how many collections he sees."""
    made = {
        name: Principal(TENANT, name, f"{name}@example.org", "REGISTERED_USER", (name,))
        for name in ("one", "some", "half")
    }
    return {**made, "all": Principal(TENANT, "admin", "admin@example.org", "PROJECT_ADMIN")}


def asks(items: int, collections: int) -> Sequence[Ask]:
    """What is asked."""
    middle = BEGIN + datetime.timedelta(days=365 * YEARS / 2)
    day, month = (Interval(middle, middle + datetime.timedelta(days=days)) for days in (1, 30))
    alps = (5.0, 44.0, 17.0, 48.0)
    fiji = (177.0, -20.0, -178.0, -15.0)
    triangle = json.dumps({"type": "Polygon", "coordinates": [[[5, 44], [17, 44], [11, 48], [5, 44]]]})
    deep = max(2, min(10_000, items // 20))
    one = (f"collection-{collections // 2}",)
    return (
        Ask("newest", Search()),
        Ask(f"newest, page {deep:,}", Search(), deep),
        Ask("oldest", Search(newest_first=False)),
        Ask("newest, 1,000 items", Search(limit=1000)),
        Ask("of one collection", Search(collections=one)),
        Ask("a day", Search(datetime=day)),
        Ask("a day, oldest first", Search(datetime=day, newest_first=False)),
        Ask("a month, to its end", Search(datetime=month, limit=10_000)),
        Ask("the Alps", Search(bbox=alps)),
        Ask("the Alps, page 20", Search(bbox=alps), 20),
        Ask("the Alps, a day", Search(bbox=alps, datetime=day)),
        Ask("the Alps, a month", Search(bbox=alps, datetime=month)),
        Ask("Fiji, over 180°", Search(bbox=fiji)),
        Ask("half the Earth", Search(bbox=(0.0, -90.0, 180.0, 90.0))),
        Ask("a field", Search(bbox=(11.0, 46.0, 11.001, 46.001))),
        Ask("a triangle", Search(intersects=triangle)),
        Ask("20 ids", Search(ids=tuple(f"item-{number * items // 21}" for number in range(1, 21)))),
    )


class Recording(Pool):
    """Runs statements, and keeps the last one."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool._pool, pool.timeout)
        self.last: tuple[str, tuple[object, ...]] = "", ()

    async def fetch(self, statement: str, *parameters: object) -> list[asyncpg.Record]:
        """As a `Database`."""
        self.last = statement, parameters
        return await super().fetch(statement, *parameters)


async def measure(services: Services, items: int, collections: int, rounds: int, *, explain: bool) -> None:
    """Ask everything as everyone."""
    connection = await asyncpg.connect(services.postgres_dsn)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    settings = Database.model_validate({"dsn": services.postgres_dsn, "timeout": 60})
    before = await _scans(connection)
    async with connect(settings, ()) as pool, open_policies([]) as policies:
        database = Recording(pool)
        async with searching(database, policies, Rights()) as catalogue:
            for ask in asks(items, collections):
                click.echo(f"\n{ask.name}")
                for name, who in callers().items():
                    sample = await _sample(catalogue, who, ask, rounds)
                    if sample is None:
                        click.echo(f"  sees {name:5} has no such page")
                        continue
                    plan = json.loads(await explained(connection, *database.last, form="JSON"))[0]
                    click.echo(f"  sees {name:5} {sample}, {_told(plan)}")
                    if explain:
                        click.echo(await explained(connection, *database.last, form="TEXT"))
    await asyncio.sleep(1)  # statistics are told when a connection is idle, or ends
    after = await _scans(connection)
    await connection.close()
    read = sorted(name for name in after if after[name] != before[name])
    click.echo(f"\nlarge tables that were read from end to end: {', '.join(read) or 'none'}")


async def _sample(catalogue: Searching, who: Principal, ask: Ask, rounds: int) -> str | None:
    """What the page takes; None if there is none."""
    search = ask.search
    passed = (ask.page - 1) * search.limit
    while passed:
        many = min(passed, 10_000)
        found = await catalogue.search(who, dataclasses.replace(search, limit=many))
        if found.next is None:
            return None
        search, passed = dataclasses.replace(search, token=found.next), passed - many
    seconds: list[float] = []
    count, until = 0, time.perf_counter() + 10
    while len(seconds) <= rounds and (len(seconds) < 3 or time.perf_counter() < until):
        begun = time.perf_counter()
        page = await catalogue.search(who, search)
        seconds.append(time.perf_counter() - begun)
        count = len(page.items)
    ordered = sorted(seconds[1:])  # the first plans the statement
    return (
        f"{count:5} items, least {ordered[0] * 1000:7.2f} ms, median {statistics.median(ordered) * 1000:7.2f}, "
        f"first {seconds[0] * 1000:7.2f}"
    )


def _told(plan: dict[str, Any]) -> str:
    touched = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return f"PostgreSQL {plan['Execution Time']:7.2f} ms, {touched:6} blocks, {_rows(plan['Plan']):7.0f} items read"


async def explained(
    connection: asyncpg.Connection[Any], statement: str, parameters: Sequence[object], form: str
) -> str:
    """The plan that is kept for a prepared statement: parameters of EXPLAIN itself would make another one."""
    prepared = await connection.prepare(statement)
    literals = [
        await connection.fetchval(f"SELECT quote_nullable($1::{_named(kind)}::text)", value)
        for kind, value in zip(prepared.get_parameters(), parameters, strict=True)
    ]
    await connection.execute(f"PREPARE page AS {statement}")
    rows = await connection.fetch(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT {form}) EXECUTE page({', '.join(literals)})"
    )
    await connection.execute("DEALLOCATE page")
    return "\n".join(row[0] for row in rows)


def _named(kind: asyncpg.Type) -> str:
    return f"{kind.name.removesuffix('[]')}[]" if kind.kind == "array" else kind.name


def _rows(node: dict[str, Any]) -> float:
    """How many rows of items were read, or looked at in an index."""
    own = 0.0
    if node.get("Relation Name") == "products":
        dropped = sum(node.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Index Recheck"))
        own = (node["Actual Rows"] + dropped) * node["Actual Loops"]
    return own + sum(_rows(part) for part in node.get("Plans", []))


async def _scans(connection: asyncpg.Connection[Any]) -> dict[str, int]:
    """How often each large table was read from end to end."""
    return {row["relname"]: row["seq_scan"] for row in await connection.fetch(_SCANS)}


if __name__ == "__main__":
    main()
