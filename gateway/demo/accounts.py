"""Who may what in the demo: its accounts, groups, rights, licence and limits."""

from __future__ import annotations

import dataclasses

import asyncpg

from gateway.demo.catalogue import ARCHIVED, LICENCE_URL, LICENSED, OPEN, RESTRICTED
from gateway.quotas.limits import UNLIMITED, Rule

TENANT = "demo"
PUBLIC_GROUP = "public"
SCIENCE_GROUP = "science"
LICENCE = "demo-licence"
LIMITED_DOWNLOADS = 3
"""Downloads that the account ``limited`` has in all."""
TIMEOUT = 10.0
"""Seconds that one statement may take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """A user of the demo."""

    name: str
    email: str
    role: str
    """A role of REGARDS."""
    groups: tuple[str, ...]
    """Groups beside the public one; in the database and in the claims of the account's token."""
    shows: str
    """What the account is there to show."""


def _account(name: str, shows: str, *, role: str = "REGISTERED_USER", groups: tuple[str, ...] = ()) -> Account:
    return Account(name, f"{name}@demo.example", role, groups, shows)


SCIENTIST = _account("scientist", "may download everything", groups=(SCIENCE_GROUP,))
OUTSIDER = _account("outsider", "is in no group: 403 on what is restricted")
UNLICENSED = _account("unlicensed", "has not accepted the licence: 423", groups=(SCIENCE_GROUP,))
LIMITED = _account("limited", f"has {LIMITED_DOWNLOADS} downloads in all, then 429", groups=(SCIENCE_GROUP,))
ADMIN = _account("admin", "administers the project", role="PROJECT_ADMIN")

ACCOUNTS = (SCIENTIST, OUTSIDER, UNLICENSED, LIMITED, ADMIN)
LICENCE_ACCEPTED = (SCIENTIST, ADMIN)

_RIGHTS = (
    (OPEN, PUBLIC_GROUP),
    (RESTRICTED, SCIENCE_GROUP),
    (LICENSED, SCIENCE_GROUP),
    (ARCHIVED, SCIENCE_GROUP),
)
_LIMITS = (
    Rule("user", LIMITED.email, False, "downloads", "total", LIMITED_DOWNLOADS),
    Rule("anonymous", "", True, "downloads", "total", UNLIMITED),
)


async def seed(connection: asyncpg.Connection) -> None:
    """Give the ingested Collections of the demo their groups, rights, licence and limits, in one transaction.

    Doing it again changes nothing; a Collection that is not in the database is passed over.

    Raises:
        asyncpg.PostgresError, OSError, TimeoutError: the database did not do it; then nothing is changed.
    """
    async with connection.transaction():
        tenant = await _tenant(connection)
        for group in (PUBLIC_GROUP, SCIENCE_GROUP):
            await _group(connection, tenant, group)
        for account in ACCOUNTS:
            for group in account.groups:
                await _member(connection, tenant, group, account.email)
        for collection, group in _RIGHTS:
            await _grant(connection, tenant, group, collection)
        await _licence(connection, tenant)
        for rule in _LIMITS:
            await _limit(connection, tenant, rule)


async def grant_all(connection: asyncpg.Connection, group: str = SCIENCE_GROUP) -> None:
    """Let ``group`` see and download every dataset of the demo's tenant, for a catalogue that is not the demo's own.

    Raises:
        LookupError: the tenant has no such group.
        asyncpg.PostgresError, OSError, TimeoutError: the database did not do it; then nothing is changed.
    """
    async with connection.transaction():
        tenant = await _tenant(connection)
        known = await connection.fetchval(
            "SELECT 1 FROM groups WHERE tenant_id = $1 AND name = $2", tenant, group, timeout=TIMEOUT
        )
        if known is None:
            raise LookupError(f"the tenant {TENANT!r} has no group {group!r}")
        await _grant(connection, tenant, group, None)


async def _tenant(connection: asyncpg.Connection) -> int:
    await connection.execute(
        "INSERT INTO tenants (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", TENANT, timeout=TIMEOUT
    )
    tenant: int = await connection.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", TENANT, timeout=TIMEOUT)
    return tenant


async def _group(connection: asyncpg.Connection, tenant: int, name: str) -> None:
    await connection.execute(
        """
        INSERT INTO groups (tenant_id, name, is_public) VALUES ($1, $2, $3)
        ON CONFLICT (tenant_id, name) DO UPDATE SET is_public = EXCLUDED.is_public
        """,
        tenant,
        name,
        name == PUBLIC_GROUP,
        timeout=TIMEOUT,
    )


async def _member(connection: asyncpg.Connection, tenant: int, group: str, email: str) -> None:
    await connection.execute(
        """
        INSERT INTO group_members (group_id, email) SELECT group_id, $3 FROM groups WHERE tenant_id = $1 AND name = $2
        ON CONFLICT DO NOTHING
        """,
        tenant,
        group,
        email,
        timeout=TIMEOUT,
    )


async def _grant(connection: asyncpg.Connection, tenant: int, group: str, collection: str | None) -> None:
    """Full metadata and file access to one Collection, or to all of the tenant where ``collection`` is None."""
    await connection.execute(
        """
        INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level)
        SELECT d.dataset_id, g.group_id, 'FULL_ACCESS', 'INHERITED_ACCESS'
        FROM datasets d JOIN groups g ON g.tenant_id = d.tenant_id
        WHERE d.tenant_id = $1 AND g.name = $2 AND ($3::text IS NULL OR d.collection_id = $3)
        ON CONFLICT (dataset_id, group_id)
        DO UPDATE SET metadata_level = EXCLUDED.metadata_level, file_level = EXCLUDED.file_level
        """,
        tenant,
        group,
        collection,
        timeout=TIMEOUT,
    )


async def _licence(connection: asyncpg.Connection, tenant: int) -> None:
    licence: int = await connection.fetchval(
        """
        INSERT INTO licences (tenant_id, name, url) VALUES ($1, $2, $3)
        ON CONFLICT (tenant_id, name) DO UPDATE SET url = EXCLUDED.url
        RETURNING licence_id
        """,
        tenant,
        LICENCE,
        LICENCE_URL,
        timeout=TIMEOUT,
    )
    await connection.execute(
        "UPDATE datasets SET licence_id = $1 WHERE tenant_id = $2 AND collection_id = $3",
        licence,
        tenant,
        LICENSED,
        timeout=TIMEOUT,
    )
    await connection.execute(
        """
        INSERT INTO licence_acceptances (licence_id, email, version)
        SELECT licence_id, unnest($2::text[]), version FROM licences WHERE licence_id = $1
        ON CONFLICT DO NOTHING
        """,
        licence,
        [account.email for account in LICENCE_ACCEPTED],
        timeout=TIMEOUT,
    )


async def _limit(connection: asyncpg.Connection, tenant: int, rule: Rule) -> None:
    await connection.execute(
        """
        INSERT INTO quota_limits (tenant_id, subject, name, shared, metric, period, value, burst, slow_rate, fail)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (tenant_id, subject, name, shared, metric, period) DO UPDATE
        SET value = EXCLUDED.value, burst = EXCLUDED.burst, slow_rate = EXCLUDED.slow_rate, fail = EXCLUDED.fail
        """,
        tenant,
        *dataclasses.astuple(rule),
        timeout=TIMEOUT,
    )
