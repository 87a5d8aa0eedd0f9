"""Looks at PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import asyncpg

from gateway.catalog.statements import WARM_UP
from gateway.config import Database
from gateway.db import BESIDE_POOL, NEIGHBOUR_ERRORS, check_schema_of, one_connection
from gateway.doctor.clocks import clock_finding, skew
from gateway.doctor.findings import Finding, Findings, ok, problem, warning
from gateway.errors import ConfigurationError
from gateway.ops.audit_table import TABLE

OLDEST_VERSION = 15

_ROOM = """
SELECT current_setting('max_connections')::int AS most,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,
       r.rolsuper AS superuser, r.rolconnlimit AS of_role, d.datconnlimit AS of_database
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()"""


_RECORDS = """
SELECT n.nspname AS schema, has_schema_privilege(n.oid, 'CREATE') AS may_create, ARRAY(
    SELECT c.relname::text FROM pg_class c
    WHERE (c.oid = t.oid OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = t.oid))
        AND NOT pg_has_role(c.relowner, 'USAGE')
    ORDER BY c.relname) AS of_others
FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = to_regclass($1)"""

# Those with CUSTOM_ACCESS that ask nobody who is there.
_LOST_RIGHTS = """
SELECT g.name AS group_name, d.collection_id, t.name AS tenant, r.policy, count(*) OVER () AS number
FROM access_rights r JOIN groups g USING (group_id) JOIN datasets d USING (dataset_id)
JOIN tenants t ON t.tenant_id = d.tenant_id
WHERE 'CUSTOM_ACCESS' IN (r.metadata_level, r.file_level) AND (r.policy = ANY ($1::text[])) IS NOT TRUE
ORDER BY t.name, d.collection_id, g.name LIMIT $2"""
_NAMED = 3
"""Rights that a finding names."""


async def look_at_postgresql(settings: Database, policies: Collection[str]) -> Findings:
    """Whether it is there, new enough, has our schema, answers, takes records and changes, has room, knows the time.

    And whether its rights ask none but ``policies``.
    """
    try:
        async with one_connection(settings) as connection:
            yield _version(connection)
            schema = await _schema(connection)
            yield schema
            if schema.level == "ok":
                look_ups = await _look_ups(connection)
                yield look_ups
                if look_ups.level == "ok":
                    yield await _rights(connection, policies)
                yield await _records(connection)
            yield await _writable(connection)
            yield await _room(connection, settings.pool_size)
            before = time.time()
            theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
            yield clock_finding(skew(theirs, before, time.time()))
    except ConfigurationError as error:
        yield problem(str(error), "start it, or set dsn of [database] to where it listens, with user and password")
    except NEIGHBOUR_ERRORS as error:
        yield problem(f"a look-up failed: {type(error).__name__}: {error}", "see its log")


def _version(connection: asyncpg.Connection[Any]) -> Finding:
    text = f"reachable, version {connection.get_settings().server_version}"
    if connection.get_server_version().major < OLDEST_VERSION:
        return problem(text, f"upgrade it to version {OLDEST_VERSION} or later")
    return ok(text)


async def _schema(connection: asyncpg.Connection[Any]) -> Finding:
    try:
        version = await check_schema_of(connection)
    except ConfigurationError as error:
        text, _, remedy = str(error).partition("; ")
        return problem(text, remedy)
    return ok(f"schema version {version}")


async def _look_ups(connection: asyncpg.Connection[Any]) -> Finding:
    try:
        for statement, parameters in WARM_UP:
            await connection.fetchrow(statement, *parameters)
    except asyncpg.InsufficientPrivilegeError as error:
        return problem(
            f"refuses look-ups: {error}", "GRANT the role of database.dsn SELECT on all tables of the schema"
        )
    return ok("answers look-ups")


async def _rights(connection: asyncpg.Connection[Any], policies: Collection[str]) -> Finding:
    rows = await connection.fetch(_LOST_RIGHTS, list(policies), _NAMED)
    if not rows:
        return ok("rights ask policies that there are")
    named = [f"{row['policy']!r} ({row['collection_id']} of {row['tenant']}: {row['group_name']})" for row in rows]
    number = rows[0]["number"]
    return problem(
        f"{number} rights leave it to a policy that nobody knows, so they open nothing: {', '.join(named)}"
        + (", …" if number > _NAMED else ""),
        "name it in a table of [[policies]], or put other rights in place (gateway admin rights put)",
    )


async def _records(connection: asyncpg.Connection[Any]) -> Finding:
    """Whether months of the record can be made and dropped."""
    row = await connection.fetchrow(_RECORDS, TABLE)
    assert row is not None  # noqa: S101 - the schema is there
    cannot = "the record of downloads cannot be kept: its role"
    if row["of_others"]:
        tables = ", ".join(row["of_others"])
        return problem(
            f"{cannot} does not own {tables}",
            "ALTER TABLE each OWNER TO the role of database.dsn, or GRANT that role the one that owns them",
        )
    if not row["may_create"]:
        return problem(
            f"{cannot} may make no tables in the schema {row['schema']}",
            f"GRANT CREATE ON SCHEMA {row['schema']} TO the role of database.dsn",
        )
    return ok("the record of downloads can be kept")


async def _writable(connection: asyncpg.Connection[Any]) -> Finding:
    if await connection.fetchval("SHOW transaction_read_only") == "on":
        return problem(
            "takes no changes: licences cannot be accepted, nor verified copies recorded",
            "name the primary in dsn of [database], not a standby",
        )
    return ok("takes changes")


async def _room(connection: asyncpg.Connection[Any], pool_size: int) -> Finding:
    row = await connection.fetchrow(_ROOM)
    assert row is not None  # noqa: S101 - whoever is connected has a role and a database
    limits = [row["most"] - (0 if row["superuser"] else row["reserved"])]
    limits += [limit for limit in (row["of_role"], row["of_database"]) if limit >= 0 and not row["superuser"]]
    room = min(limits)
    needed = pool_size + BESIDE_POOL
    text = f"room for {room} connections, {room // needed} gateway processes with pool_size {pool_size}"
    if room < needed:
        return problem(text, "raise max_connections (or the limit of the role or database), or lower pool_size")
    if room < 2 * needed:
        return warning(text, "a second process, or one that replaces it, does not start: raise max_connections")
    return ok(text)
