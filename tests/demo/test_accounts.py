from __future__ import annotations

import asyncpg
import pytest

from gateway.demo.accounts import ACCOUNTS, TENANT, grant_all, seed
from gateway.demo.catalogue import LICENCE_URL, LICENSED, OPEN, RESTRICTED
from tests.demo.conftest import add_dataset, add_tenant

TABLES = ("tenants", "groups", "group_members", "access_rights", "licences", "licence_acceptances", "quota_limits")


@pytest.fixture
async def tenant(connection: asyncpg.Connection) -> int:
    """The tenant with the three Collections, and another tenant whose Collection has the same id."""
    tenant = await add_tenant(connection, TENANT)
    for collection in (OPEN, RESTRICTED, LICENSED):
        await add_dataset(connection, tenant, collection)
    await add_dataset(connection, await add_tenant(connection, "other"), OPEN)
    return tenant


async def rights(connection: asyncpg.Connection) -> set[tuple[str, ...]]:
    rows = await connection.fetch(
        """
        SELECT t.name AS tenant, collection_id, g.name, metadata_level, file_level
        FROM access_rights JOIN datasets d USING (dataset_id) JOIN groups g USING (group_id)
        JOIN tenants t ON t.tenant_id = d.tenant_id
        """
    )
    return {tuple(row) for row in rows}


def full(collection: str, group: str) -> tuple[str, ...]:
    return (TENANT, collection, group, "FULL_ACCESS", "INHERITED_ACCESS")


SEEDED = {full(OPEN, "public"), full(RESTRICTED, "science"), full(LICENSED, "science")}


def test_accounts_are_named_for_what_they_show() -> None:
    assert {(account.name, account.role, account.groups) for account in ACCOUNTS} == {
        ("scientist", "REGISTERED_USER", ("science",)),
        ("outsider", "REGISTERED_USER", ()),
        ("unlicensed", "REGISTERED_USER", ("science",)),
        ("limited", "REGISTERED_USER", ("science",)),
        ("admin", "PROJECT_ADMIN", ()),
    }
    assert all(account.email == f"{account.name}@demo.example" for account in ACCOUNTS)


async def test_each_collection_has_its_group(connection: asyncpg.Connection, tenant: int) -> None:
    await seed(connection)
    assert await rights(connection) == SEEDED
    groups = await connection.fetch("SELECT tenant_id, name, is_public FROM groups")
    assert {tuple(row) for row in groups} == {(tenant, "public", True), (tenant, "science", False)}


async def test_members_are_those_of_the_claims(connection: asyncpg.Connection, tenant: int) -> None:
    await seed(connection)
    rows = await connection.fetch("SELECT name, email FROM group_members JOIN groups USING (group_id)")
    assert {tuple(row) for row in rows} == {
        ("science", f"{name}@demo.example") for name in ("scientist", "unlicensed", "limited")
    }
    assert {tuple(row) for row in rows} == {(group, a.email) for a in ACCOUNTS for group in a.groups}


async def test_the_licence_stands_on_one_collection_and_two_accepted_it(
    connection: asyncpg.Connection, tenant: int
) -> None:
    await seed(connection)
    rows = await connection.fetch(
        "SELECT collection_id, name, version, url FROM datasets JOIN licences USING (licence_id)"
    )
    assert [tuple(row) for row in rows] == [(LICENSED, "demo-licence", 1, LICENCE_URL)]
    accepted = await connection.fetch("SELECT email, version FROM licence_acceptances")
    assert {tuple(row) for row in accepted} == {("scientist@demo.example", 1), ("admin@demo.example", 1)}


async def test_limits(connection: asyncpg.Connection, tenant: int) -> None:
    await seed(connection)
    rows = await connection.fetch("SELECT * FROM quota_limits")
    assert {tuple(row) for row in rows} == {
        (tenant, "user", "limited@demo.example", False, "downloads", "total", 3, 1, None, "closed"),
        (tenant, "anonymous", "", True, "downloads", "total", -1, 1, None, "closed"),
    }


async def test_seeding_again_changes_nothing(connection: asyncpg.Connection, tenant: int) -> None:
    async def rows() -> dict[str, list[str]]:
        found = {table: await connection.fetch(f"SELECT t::text FROM {table} t") for table in (*TABLES, "datasets")}
        return {table: sorted(row[0] for row in records) for table, records in found.items()}

    await seed(connection)
    before = await rows()
    await seed(connection)
    assert await rows() == before
    assert all(before.values())


async def test_seeding_mends_what_was_changed_and_a_new_licence_version_is_accepted(
    connection: asyncpg.Connection, tenant: int
) -> None:
    await seed(connection)
    await connection.execute("UPDATE access_rights SET file_level = 'NO_ACCESS'")
    await connection.execute("UPDATE quota_limits SET value = 0")
    await connection.execute("UPDATE groups SET is_public = NOT is_public")
    await connection.execute("UPDATE licences SET version = 2")
    await seed(connection)
    assert await rights(connection) == SEEDED
    assert await connection.fetchval("SELECT value FROM quota_limits WHERE subject = 'user'") == 3
    assert await connection.fetchval("SELECT name FROM groups WHERE is_public") == "public"
    accepted = await connection.fetch("SELECT email FROM licence_acceptances WHERE version = 2")
    assert {row["email"] for row in accepted} == {"scientist@demo.example", "admin@demo.example"}


async def test_without_collections_there_are_accounts_and_no_rights(connection: asyncpg.Connection) -> None:
    await seed(connection)
    assert await rights(connection) == set()
    assert await connection.fetchval("SELECT count(*) FROM group_members") == 3


async def test_seeding_is_done_wholly_or_not_at_all(connection: asyncpg.Connection, tenant: int) -> None:
    await connection.execute("DROP TABLE quota_limits")
    with pytest.raises(asyncpg.UndefinedTableError):
        await seed(connection)
    assert await connection.fetchval("SELECT count(*) FROM groups") == 0


async def test_grant_all_reaches_every_dataset_of_the_tenant_and_of_no_other(
    connection: asyncpg.Connection, tenant: int
) -> None:
    await add_dataset(connection, tenant, "somebody's own")
    await seed(connection)
    for _ in range(2):
        await grant_all(connection, "science")
        assert await rights(connection) == SEEDED | {full(OPEN, "science"), full("somebody's own", "science")}


async def test_grant_all_names_a_group_that_is_not_there(connection: asyncpg.Connection, tenant: int) -> None:
    with pytest.raises(LookupError, match="no group 'arts'"):
        await grant_all(connection, "arts")
