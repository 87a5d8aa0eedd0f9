"""Look-ups that share a statement: each gets its own answer, and all rows are found by indexes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway import db
from gateway.catalog.locate import Catalog, catalog
from gateway.catalog.model import Address, ByAsset, ByChecksum, File
from gateway.catalog.statements import LOCATE_BY_ASSET, LOCATE_BY_CHECKSUM, WARM_UP
from gateway.config import Rights
from gateway.errors import GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.quotas.limits import Limit, Metric, Rule
from gateway.rights.policies import open_policies
from tests.catalog.plans import loops, plan, scans
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, RunningGateway, principal

MANY = 100_000 if os.environ.get("GATEWAY_TEST_FULL") else 10_000

_FILL = f"""
INSERT INTO tenants (name) SELECT 'tenant-' || n FROM generate_series(1, 10) n;
INSERT INTO groups (tenant_id, name, is_public)
    SELECT 1 + n % 10, 'group-' || n, n % 100 = 0 FROM generate_series(1, 1000) n;
INSERT INTO group_members (group_id, email)
    SELECT 1 + n % 1000, 'user-' || n / 5 || '@example.org' FROM generate_series(1, {MANY}) n;
INSERT INTO licences (tenant_id, name, url)
    SELECT 1 + n % 10, 'licence-' || n, 'https://example.org/' FROM generate_series(1, 1000) n;
INSERT INTO licence_acceptances (licence_id, email, version)
    SELECT 1 + n % 1000, 'user-' || n || '@example.org', 1 FROM generate_series(1, {MANY}) n;
INSERT INTO datasets (tenant_id, collection_id, urn, body, licence_id)
    SELECT 1 + n % 10, 'collection-' || n, 'dataset-' || n, '{{}}', 1 + n % 1000 FROM generate_series(1, 1000) n;
INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
    SELECT 1 + n % 1000, 1 + (n * 7) % 1000, 'FULL_ACCESS', 'INHERITED_ACCESS'
    FROM generate_series(1, {MANY}) n ON CONFLICT DO NOTHING;
INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body)
    SELECT tenant_id, dataset_id, 'urn-' || n, 'item-' || n, '{{}}', '{{}}'
    FROM generate_series(1, {MANY}) n JOIN datasets ON dataset_id = 1 + n % 1000;
INSERT INTO files (product_id, asset_key, data_type, checksum, checksum_algorithm, size, file_name, body)
    SELECT product_id, 'data', 'RAWDATA', md5(urn), 'MD5', 1, 'name', '{{}}' FROM products;
INSERT INTO copies (file_id, storage, location) SELECT file_id, 'disk', 'x' FROM files;
INSERT INTO quota_limits (tenant_id, subject, name, metric, period, value)
    SELECT 1 + n % 10, 'user', 'user-' || n || '@example.org', 'bytes', 'total', n FROM generate_series(1, {MANY}) n;
INSERT INTO quota_limits (tenant_id, subject, name, metric, period, value)
    SELECT tenant_id, 'group', name, 'bytes', 'total', 1 FROM groups;
ANALYZE;
SET plan_cache_mode = force_generic_plan;
"""
_QUESTIONS = """
SELECT t.name, 'user-' || product_id || '@example.org', '{group-1}', 'ROLE', false,
       p.urn, checksum, collection_id, provider_id
FROM products p JOIN files USING (product_id) JOIN datasets d USING (dataset_id)
JOIN tenants t ON t.tenant_id = d.tenant_id
ORDER BY product_id LIMIT $1"""

LARGE_TABLES = {
    "group_members",
    "licence_acceptances",
    "datasets",
    "access_rights",
    "products",
    "files",
    "copies",
    "quota_limits",
}


@pytest.fixture
async def large(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A catalogue in which a plan that reads a whole table shows."""
    connection = await asyncpg.connect(database)
    await connection.execute(_FILL)
    yield connection
    await connection.close()


async def test_the_rows_of_a_batch_are_found_by_indexes(large: asyncpg.Connection[Any]) -> None:
    for size in (1, 64):
        rows = await large.fetch(_QUESTIONS, size)
        assert len(rows) == size
        by_checksum = [(*row[:5], row["urn"], row["checksum"]) for row in rows]
        by_asset = [(*row[:5], row["collection_id"], row["provider_id"], "data") for row in rows]
        for statement, questions in ((LOCATE_BY_CHECKSUM, by_checksum), (LOCATE_BY_ASSET, by_asset)):
            explained = await plan(large, statement, questions)
            assert explained["Plan"]["Actual Rows"] == size
            assert "JIT" not in explained
            read = scans(explained["Plan"])
            assert {table for _, table, _ in read} > LARGE_TABLES
            for way, table, count in read:
                if table in LARGE_TABLES:
                    assert way in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"), (way, table)
                    assert count <= 200 * size, (table, count)


async def test_rules_are_looked_for_only_where_downloads_count(large: asyncpg.Connection[Any]) -> None:
    rows = await large.fetch(_QUESTIONS, 8)
    questions = [(*row[:5], row["urn"], row["checksum"]) for row in rows]
    counted = await plan(large, LOCATE_BY_CHECKSUM, questions, metered="RAWDATA")
    assert loops(counted["Plan"], "quota_limits") > len(questions)
    free = await plan(large, LOCATE_BY_CHECKSUM, questions, metered="DOCUMENT")
    assert loops(free["Plan"], "quota_limits") == 0
    assert free["Plan"]["Actual Rows"] == len(questions)
    await large.execute("DELETE FROM quota_limits WHERE subject = 'group'")
    before = loops(counted["Plan"], "groups")
    without = await plan(large, LOCATE_BY_CHECKSUM, questions, metered="RAWDATA")
    assert loops(without["Plan"], "groups") == before - len(questions)


ODD_GROUPS = ['"', "\\", '\\"', "{", "}", "a,b", "NULL", " ", "'", "$1", "Île", "北京", "a\nb"]


def lifetime(who: Principal, metric: Metric, value: int) -> Limit:
    return Limit(f"user:{who.email}", metric, "total", value)


async def outcome(files: Catalog, address: Address, who: Principal) -> File | str:
    try:
        return await files.locate(address, who)
    except GatewayError as error:
        return f"{error.status} {error.detail} {error.body}"


async def test_whoever_shares_a_statement_gets_what_he_would_get_alone(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entries = [
        await made.file(b"%d" % number, collection=collection, item=f"item-{number}")
        for number, collection in enumerate(["restricted", "open", "licensed", "odd", "nobody"])
    ]
    await made.grant("licensed", await made.group("everyone", public=True))
    await made.licence("licensed")
    for name in ODD_GROUPS:
        await made.grant("odd", await made.group(name))
    await made.limit("user", SCIENTIST.email or "", downloads=3, octets=30)
    await made.limit("tenant", downloads=4)
    await made.limit("anonymous", downloads=5)
    for name in ODD_GROUPS:
        await made.rule(Rule("group", name, True, "bytes", "day", 7))
    odd_one = principal("odd")
    callers = [SCIENTIST, OUTSIDER, ADMIN, anonymous("esa"), anonymous("nowhere"), principal("x", tenant="cnes")]
    callers += [principal("odd", name) for name in ODD_GROUPS]
    callers += [principal("odd", *ODD_GROUPS), principal("odd", "a", "b", ",", '"NULL"', "null", "{}")]
    addresses: list[Address] = [ByAsset("open", "item-1", "absent"), ByChecksum("absent", "0")]
    for entry in entries:
        addresses += [ByAsset(entry.collection, entry.item, entry.asset), ByChecksum(entry.product, entry.checksum)]
    asked = list(itertools.product(addresses, callers))
    random.Random(12).shuffle(asked)
    async with gateway_catalog(gateway, "RAWDATA") as files:
        alone = [await outcome(files, address, who) for address, who in asked]
        together = await asyncio.gather(*(outcome(files, address, who) for address, who in asked))
    assert together == alone
    by_question = dict(zip(asked, together, strict=True))
    restricted, opened, licensed, odd, nobody = addresses[2::2]
    for (address, who), expected in {
        (restricted, SCIENTIST): (lifetime(SCIENTIST, "bytes", 30), lifetime(SCIENTIST, "downloads", 3)),
        (restricted, ADMIN): (lifetime(ADMIN, "downloads", 4),),
        (opened, anonymous("esa")): (Limit("anonymous", "downloads", "total", 5),),
        (nobody, ADMIN): (lifetime(ADMIN, "downloads", 4),),
        (odd, principal("odd", *ODD_GROUPS)): (
            lifetime(odd_one, "downloads", 4),
            *(Limit(f"group:{name}", "bytes", "day", 7) for name in sorted(ODD_GROUPS)),
        ),
        **{
            (odd, principal("odd", name)): (
                lifetime(odd_one, "downloads", 4),
                Limit(f"group:{name}", "bytes", "day", 7),
            )
            for name in ODD_GROUPS
        },
    }.items():
        found = by_question[address, who]
        assert isinstance(found, File), (address, who, found)
        assert found.limits == expected
    for question, status in {
        (restricted, OUTSIDER): "403",
        (licensed, SCIENTIST): "423",
        (nobody, SCIENTIST): "403",
        (odd, callers[-1]): "403",
        (opened, anonymous("nowhere")): "404",
    }.items():
        assert str(by_question[question]).startswith(status), question


@contextlib.asynccontextmanager
async def gateway_catalog(gateway: RunningGateway, *metered: str) -> AsyncIterator[Catalog]:
    async with (
        db.connect(gateway.config.database, WARM_UP) as database,
        open_policies(()) as policies,
        catalog(database, metered, Rights(), policies) as files,
    ):
        yield files


RULES = [
    Rule("tenant", "", False, "bytes", "total", 1),
    Rule("tenant", "", True, "rate", "1s", 2, burst=5, fail="capped"),
    Rule("user", SCIENTIST.email or "", False, "downloads", "day", 3, slow_rate=1000),
    Rule("user", "somebody@example.org", False, "downloads", "day", 4),
    Rule("user", SCIENTIST.role, False, "downloads", "month", 5),
    Rule("role", SCIENTIST.role, True, "bytes", "3600s", 6),
    Rule("role", SCIENTIST.email or "", True, "bytes", "3600s", 7),
    Rule("role", "PUBLIC", True, "bytes", "3600s", 8),
    Rule("group", "of the token", True, "concurrent", "now", 9),
    Rule("group", "of the database", True, "concurrent", "now", 10),
    Rule("group", "of both", True, "concurrent", "now", 11),
    Rule("group", "of everyone", True, "concurrent", "now", 12),
    Rule("group", "of others", True, "concurrent", "now", 13),
    Rule("group", "never made", True, "concurrent", "now", 14),
    Rule("anonymous", "", False, "downloads", "day", 15),
    Rule("anonymous", "", True, "downloads", "day", 16),
]


async def test_a_look_up_brings_the_rules_that_concern_the_caller_and_no_others(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    await made.file(b"of everyone", collection="open", item="one")
    await made.grant("open", await made.group("of everyone", public=True))
    for name in ("of the token", "of the database", "of both", "of others"):
        await made.group(name)
    await made.connection.execute(
        "INSERT INTO group_members SELECT group_id, $1 FROM groups WHERE name IN ('of the database', 'of both')",
        SCIENTIST.email,
    )
    await made.connection.execute(
        "INSERT INTO group_members SELECT group_id, 'somebody@example.org' FROM groups WHERE name = 'of others'"
    )
    for rule in RULES:
        await made.rule(rule)
    await made.tenant("cnes")
    await made.rule(Rule("tenant", "", True, "bytes", "total", 0), tenant="cnes")
    scientist = dataclasses.replace(SCIENTIST, groups=("of the token", "of both", "of the token", "never made"))
    address = ByAsset("open", "one", "data")
    async with gateway_catalog(gateway, "RAWDATA") as files:
        of_scientist = (await files.locate(address, scientist)).limits
        of_anonymous = (await files.locate(address, anonymous("esa", "192.0.2.7/32"))).limits
    tenant = Limit("tenant", "rate", "1s", 2, 5, capped=True)
    assert of_scientist == (
        lifetime(SCIENTIST, "bytes", 1),
        Limit(f"user:{SCIENTIST.email}", "downloads", "day", 3, slow_rate=1000),
        Limit("group:never made", "concurrent", "now", 14),
        Limit("group:of both", "concurrent", "now", 11),
        Limit("group:of everyone", "concurrent", "now", 12),
        Limit("group:of the database", "concurrent", "now", 10),
        Limit("group:of the token", "concurrent", "now", 9),
        Limit(f"role:{SCIENTIST.role}", "bytes", "3600s", 6),
        tenant,
    )
    assert of_anonymous == (
        Limit("network:192.0.2.7/32", "downloads", "day", 15),
        Limit("anonymous", "downloads", "day", 16),
        Limit("group:of everyone", "concurrent", "now", 12),
        Limit("role:PUBLIC", "bytes", "3600s", 8),
        tenant,
    )


async def test_a_change_of_a_rule_applies_to_the_next_look_up(gateway: RunningGateway) -> None:
    made, address = gateway.catalogue, ByAsset("restricted", "one", "data")
    await made.file(b"of members", item="one")
    async with gateway_catalog(gateway, "RAWDATA") as files:
        for value in (5, 0, 5):
            await made.rule(Rule("tenant", "", False, "downloads", "total", value))
            assert (await files.locate(address, SCIENTIST)).limits == (lifetime(SCIENTIST, "downloads", value),)
        await made.connection.execute("DELETE FROM quota_limits")
        assert (await files.locate(address, SCIENTIST)).limits == ()


async def test_only_files_of_metered_data_types_have_limits(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    await made.file(b"data", item="one", asset="data")
    await made.file(b"look", item="one", asset="look", data_type="QUICKLOOK_SD")
    await made.file(b"same", item="one", asset="document", data_type="DOCUMENT")
    same = await made.file(b"same", item="one", asset="raw", data_type="RAWDATA")
    await made.grant("restricted", await made.group("everyone", public=True))
    refused = (Limit("anonymous", "downloads", "total", 0),)
    for metered, counted, taken in (
        (("RAWDATA",), {"data", "raw"}, "RAWDATA"),
        (("DOCUMENT",), {"document"}, "DOCUMENT"),
        (("QUICKLOOK_SD", "RAWDATA", "DOCUMENT"), {"data", "look", "document", "raw"}, "DOCUMENT"),
        ((), set(), "DOCUMENT"),
    ):
        async with gateway_catalog(gateway, *metered) as files:
            for asset in ("data", "look", "document", "raw"):
                file = await files.locate(ByAsset("restricted", "one", asset), anonymous("esa"))
                assert (file.is_metered, file.limits) == (asset in counted, refused if asset in counted else ())
                assert file.is_public == (asset == "look" and asset not in counted)
            found = await files.locate(ByChecksum(same.product, same.checksum), anonymous("esa"))
            assert found.data_type == taken
