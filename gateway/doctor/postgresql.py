"""Looks at PostgreSQL."""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from gateway.catalog.statements import WARM_UP
from gateway.config import Database
from gateway.db import NEIGHBOUR_ERRORS, check_schema_of, one_connection
from gateway.doctor.clocks import clock_finding, skew
from gateway.doctor.findings import Finding, Findings, ok, problem, warning
from gateway.errors import ConfigurationError
from gateway.ops.audit_table import TABLE
from gateway.orders.service import POOL_SIZE

OLDEST_VERSION = 15
CONNECTIONS_BESIDE_POOL = 2 + POOL_SIZE
"""Of a gateway process: one hears of changes, one writes the record of downloads, some make and prepare orders."""

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


async def look_at_postgresql(settings: Database) -> Findings:
    """Whether it is there, new enough, has our schema, answers, takes records and changes, has room, knows the time."""
    try:
        async with one_connection(settings) as connection:
            yield _version(connection)
            schema = await _schema(connection)
            yield schema
            if schema.level == "ok":
                yield await _look_ups(connection)
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
    each = pool_size + CONNECTIONS_BESIDE_POOL
    text = f"room for {room} connections, {room // each} gateway processes with pool_size {pool_size}"
    if room < each:
        return problem(text, "raise max_connections (or the limit of the role or database), or lower pool_size")
    if room < 2 * each:
        return warning(text, "a second process, or one that replaces it, does not start: raise max_connections")
    return ok(text)
