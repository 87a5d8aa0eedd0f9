"""schema.sql: what it refuses, and what becomes of a database of the version before."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway.db import SCHEMA_VERSION, apply_schema, check_schema_of
from gateway.quotas.limits import MOST, MOST_BURST, Rule, complaint

VERSION_2 = """
DROP TABLE quota_limits;
CREATE TABLE quota_limits (
    tenant_id      integer NOT NULL REFERENCES tenants ON DELETE CASCADE,
    kind           text NOT NULL CHECK (kind IN ('user', 'default', 'anonymous')),
    email          text NOT NULL DEFAULT '' CHECK ((kind = 'user') = (email <> '')),
    max_downloads  bigint NOT NULL DEFAULT -1 CHECK (max_downloads >= -1), -- in all, for ever: REGARDS' maxQuota
    max_bytes      bigint NOT NULL DEFAULT -1 CHECK (max_bytes >= -1),     -- in all, for ever
    PRIMARY KEY (tenant_id, kind, email)
);
DELETE FROM schema_version;
INSERT INTO schema_version (version) VALUES (2);
INSERT INTO tenants (name) VALUES ('limited'), ('open'), ('bare');
"""
"""What version 2 had in place of this version's table."""

Row = tuple[str, str, str, bool, str, str, int]


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database, timeout=10)
    yield connection
    await connection.close(timeout=10)


async def described(connection: asyncpg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Columns, constraints and indexes of every table."""
    rows = await connection.fetch(
        """
        SELECT table_name::text, column_name::text, data_type::text, column_default::text, is_nullable::text
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL
        SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid), '', '' FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL
        SELECT tablename::text, indexname::text, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
        ORDER BY 1, 2, 3
        """
    )
    return [tuple(row) for row in rows]


async def rules(connection: asyncpg.Connection[Any]) -> set[Row]:
    rows = await connection.fetch(
        "SELECT t.name AS tenant, subject, q.name, shared, metric, period, value, burst, slow_rate, fail "
        "FROM quota_limits q JOIN tenants t USING (tenant_id)"
    )
    assert {tuple(row)[7:] for row in rows} <= {(1, None, "closed")}
    return {tuple(row)[:7] for row in rows}


async def test_a_database_of_version_2_becomes_one_like_a_new_one(connection: asyncpg.Connection[Any]) -> None:
    new = await described(connection)
    await connection.execute(VERSION_2)
    assert await described(connection) != new
    await apply_schema(connection)
    assert await described(connection) == new
    assert await check_schema_of(connection) == SCHEMA_VERSION


EARLIER_4 = """
ALTER TABLE tenants DROP CONSTRAINT tenants_licence_id_fkey;
ALTER TABLE tenants ADD FOREIGN KEY (licence_id) REFERENCES licences ON DELETE SET NULL;
ALTER TABLE licence_acceptances DROP CONSTRAINT licence_acceptances_licence_id_fkey;
ALTER TABLE licence_acceptances ADD FOREIGN KEY (licence_id) REFERENCES licences ON DELETE CASCADE;
DROP INDEX datasets_by_licence;
ALTER TABLE changes DROP COLUMN key_id;
ALTER TABLE link_keys DROP COLUMN api_key;
CREATE UNIQUE INDEX link_keys_in_use ON link_keys (tenant_id, email) WHERE revoked_at IS NULL;
ALTER TABLE download_log DROP COLUMN credential_id;
INSERT INTO tenants (name) VALUES ('esa');
INSERT INTO link_keys (key_id, tenant_id, email) SELECT 'aaaaaaaaaaaa', tenant_id, 'me@example.org' FROM tenants;
INSERT INTO changes (actor, action, object, detail) VALUES ('me@example.org', 'group.create', 'g', '{}');
INSERT INTO download_log (at, record, tenant, method, route, path, verdict, duration_ms)
    VALUES ('2026-11-02T00:00Z', 1, 'esa', 'GET', '/', '/', 'whole', 1);
"""
"""What version 4 was at first, with rows of its own."""


async def test_a_database_of_the_first_version_4_becomes_one_like_a_new_one(
    connection: asyncpg.Connection[Any],
) -> None:
    await connection.execute(
        "CREATE TABLE download_log_2026_11 PARTITION OF download_log FOR VALUES FROM ('2026-11-01') TO ('2026-12-01')"
    )
    new = await described(connection)
    await connection.execute(EARLIER_4)
    assert await described(connection) != new
    for _ in range(2):
        await apply_schema(connection)
        assert await described(connection) == new
    rows = await connection.fetch(
        "SELECT k.api_key, c.key_id, d.credential_id FROM link_keys k, changes c, download_log d"
    )
    assert [tuple(row) for row in rows] == [(None, None, None)]


async def test_limits_of_version_2_keep_their_meaning(connection: asyncpg.Connection[Any]) -> None:
    await connection.execute(VERSION_2)
    await connection.execute(
        """
        INSERT INTO quota_limits SELECT tenant_id, kind, email, downloads, bytes
        FROM tenants JOIN (VALUES
            ('limited', 'default', '', 10, -1),
            ('limited', 'user', 'a@example.org', -1, 20),
            ('limited', 'user', 'b@example.org', 0, -1),
            ('limited', 'anonymous', '', 30, 9223372036854775807),
            ('open', 'default', '', -1, -1),
            ('open', 'anonymous', '', -1, -1)
        ) AS old(name, kind, email, downloads, bytes) USING (name)
        """
    )
    await apply_schema(connection)
    expected: set[Row] = {
        ("limited", "tenant", "", False, "downloads", "total", 10),
        ("limited", "user", "a@example.org", False, "downloads", "total", -1),
        ("limited", "user", "a@example.org", False, "bytes", "total", 20),
        ("limited", "user", "b@example.org", False, "downloads", "total", 0),
        ("limited", "user", "b@example.org", False, "bytes", "total", -1),
        ("limited", "anonymous", "", True, "downloads", "total", 30),
        ("limited", "anonymous", "", True, "bytes", "total", MOST),
        ("open", "anonymous", "", True, "downloads", "total", -1),
        ("open", "anonymous", "", True, "bytes", "total", -1),
    }
    assert await rules(connection) == expected
    await apply_schema(connection)
    assert await rules(connection) == expected


async def test_running_the_schema_again_changes_nothing(connection: asyncpg.Connection[Any]) -> None:
    await connection.execute("INSERT INTO tenants (name) VALUES ('esa')")
    await connection.execute(
        "INSERT INTO quota_limits (tenant_id, subject, metric, period, value) "
        "SELECT tenant_id, 'tenant', 'rate', '1s', 5 FROM tenants"
    )
    before = await described(connection), await connection.fetch("SELECT * FROM quota_limits, schema_version")
    for _ in range(2):
        await apply_schema(connection)
    assert (await described(connection), await connection.fetch("SELECT * FROM quota_limits, schema_version")) == before


def variants() -> list[Rule]:
    """Rules of every combination of subject, metric and period, and each with one thing changed."""
    subjects = [("tenant", ""), ("anonymous", ""), ("group", "g"), ("role", "R"), ("user", "u"), ("planet", "p")]
    subjects += [("tenant", "x"), ("anonymous", "x"), ("group", ""), ("role", ""), ("user", "")]
    periods = ["total", "day", "month", "now", "1s", "99999999s", "0s", "01s", "100000000s", "year", "", "1s\n"]
    made: list[Any] = [
        {"subject": subject, "name": name, "shared": shared, "metric": metric, "period": period}
        for subject, name in subjects
        for shared in (False, True)
        for metric in ("downloads", "bytes", "concurrent", "rate", "files")
        for period in periods
    ]
    base = {"subject": "tenant", "name": "", "shared": True}
    for metric, period in (("downloads", "day"), ("bytes", "1s"), ("concurrent", "now"), ("rate", "1s")):
        changes: list[dict[str, Any]] = [
            *({"value": value} for value in (-2, -1, 0, MOST, MOST + 1)),
            *({"burst": burst} for burst in (-1, 0, 1, 2, MOST_BURST)),
            *({"slow_rate": rate} for rate in (-1, 0, 1, MOST, MOST + 1)),
            *({"fail": fail} for fail in ("closed", "capped", "open")),
        ]
        made += [{**base, "metric": metric, "period": period, **change} for change in changes]
    return [Rule(**{"value": 1, **fields}) for fields in made]


async def test_the_table_takes_the_rules_that_nobody_complains_of_and_no_others(
    connection: asyncpg.Connection[Any],
) -> None:
    tenant = await connection.fetchval("INSERT INTO tenants (name) VALUES ('esa') RETURNING tenant_id")
    statement = await connection.prepare("INSERT INTO quota_limits VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
    taken = 0
    for rule in variants():
        transaction = connection.transaction()
        await transaction.start()
        try:
            await statement.fetch(tenant, *dataclasses.astuple(rule))
            refused = False
        except asyncpg.CheckViolationError:
            refused = True
        await transaction.rollback()
        assert refused == (complaint(rule) is not None), (rule, complaint(rule))
        taken += not refused
    assert taken > 100


async def test_the_rules_of_a_tenant_end_with_it(connection: asyncpg.Connection[Any]) -> None:
    tenant = await connection.fetchval("INSERT INTO tenants (name) VALUES ('esa') RETURNING tenant_id")
    await connection.execute("INSERT INTO quota_limits VALUES ($1, 'tenant', '', true, 'bytes', 'day', 1)", tenant)
    await connection.execute("DELETE FROM tenants")
    assert await connection.fetchval("SELECT count(*) FROM quota_limits") == 0


LICENSED = """
INSERT INTO tenants (name) VALUES ('esa');
INSERT INTO licences (tenant_id, name, url) SELECT tenant_id, l.name, 'https://example.org' FROM tenants, (VALUES
    ('accepted'), ('default'), ('unused')) l (name);
INSERT INTO licence_acceptances (licence_id, email, version)
    SELECT licence_id, 'me@example.org', 1 FROM licences WHERE name = 'accepted';
UPDATE tenants SET licence_id = (SELECT licence_id FROM licences WHERE name = 'default')
"""
CASCADE = """
ALTER TABLE licence_acceptances DROP CONSTRAINT licence_acceptances_licence_id_fkey;
ALTER TABLE licence_acceptances ADD FOREIGN KEY (licence_id) REFERENCES licences ON DELETE CASCADE
"""
"""What earlier versions had."""


@pytest.mark.parametrize("before", ["", CASCADE], ids=["new", "migrated"])
async def test_what_was_accepted_and_what_is_in_the_way_is_not_deleted_with_a_licence(
    connection: asyncpg.Connection[Any], before: str
) -> None:
    await connection.execute(f"{before}; {LICENSED}")
    await apply_schema(connection)
    for name in ("accepted", "default"):
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("DELETE FROM licences WHERE name = $1", name)
    await connection.execute("DELETE FROM licences WHERE name = 'unused'")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await connection.execute("DELETE FROM tenants")
    assert await connection.fetchval("SELECT count(*) FROM licence_acceptances") == 1
    assert await connection.fetchval("SELECT licence_id IS NOT NULL FROM tenants")
    await connection.execute("DELETE FROM licence_acceptances")
    await connection.execute("DELETE FROM tenants")


async def test_the_datasets_of_a_licence_are_found_by_an_index(connection: asyncpg.Connection[Any]) -> None:
    await connection.execute("SET enable_seqscan = off")
    rows = await connection.fetch("EXPLAIN SELECT FROM datasets WHERE licence_id = 1")
    assert "Index Cond: (licence_id = 1)" in " ".join(row[0] for row in rows)
