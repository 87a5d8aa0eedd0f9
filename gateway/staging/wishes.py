"""Restores as their users see them, and what they may change of them: wishes are withdrawn, lifetimes get longer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from http import HTTPStatus

import asyncpg

from gateway.config.staging import Staging
from gateway.db import Connection, Database
from gateway.errors import GatewayError
from gateway.staging.estimates import estimating
from gateway.staging.model import Restore
from gateway.staging.requests import restore_of


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Whose restores are within reach."""

    tenant: str
    email: str
    """Empty: all anonymous callers together."""
    all_of_tenant: bool = False
    """Those of others in the tenant, too: an administrator."""


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """A restore, and the file that it is about."""

    restore: Restore
    product: str | None
    """URN; None if the file is gone."""
    checksum: str | None
    name: str | None
    size: int | None
    """Bytes."""
    data_type: str | None
    """None if the file is gone."""


def _told(restores: str) -> str:
    """A statement that tells of ``restores``, which has rows of that table and their ``total``."""
    return f"""
WITH found AS MATERIALIZED ({restores}), {estimating("found")}
SELECT found.*, typical.seconds AS typical, ahead.many AS ahead, now() AS now,
       p.urn, f.checksum, f.file_name, f.data_type, coalesce(f.size, found.size) AS file_size
FROM found
LEFT JOIN files f ON f.file_id = found.file_id
LEFT JOIN products p ON p.product_id = f.product_id
LEFT JOIN typical ON typical.storage = found.storage
LEFT JOIN ahead ON ahead.storage = found.storage AND ahead.priority = found.priority
ORDER BY found.restore_id DESC"""  # noqa: S608 - made of constants


_WISHED = """EXISTS (
    SELECT FROM restore_wishes w WHERE w.restore_id = r.restore_id AND w.tenant_id = r.tenant_id AND w.email = $3
)"""
_ONE = _told(f"""
    SELECT r.* FROM restores r JOIN tenants t ON t.tenant_id = r.tenant_id
    WHERE t.name = $1 AND r.restore_id = $2 AND ($4 OR {_WISHED})""")  # noqa: S608 - made of constants
_PAGE = _told("""
    SELECT r.*, mine.total FROM (
        SELECT restore_id, count(*) OVER () AS total FROM (
            SELECT DISTINCT w.restore_id FROM restore_wishes w JOIN tenants t ON t.tenant_id = w.tenant_id
            WHERE t.name = $1 AND w.email = $2
        ) wished ORDER BY restore_id DESC LIMIT $3 OFFSET $4
    ) mine JOIN restores r ON r.restore_id = mine.restore_id""")
_LOCK = f"""
SELECT r.restore_id, r.tenant_id, r.state, r.state = 'RESTORED' AND r.expires_at <= now() AS is_ending
FROM restores r JOIN tenants t ON t.tenant_id = r.tenant_id
WHERE t.name = $1 AND r.restore_id = $2 AND ($4 OR {_WISHED}) FOR NO KEY UPDATE OF r"""  # noqa: S608 - made of constants
_OTHERS = """
SELECT count(*) FILTER (WHERE email = $2 AND order_file_id = 0) AS own,
       count(*) FILTER (WHERE NOT (email = $2 AND order_file_id = 0) AND (order_file_id <> 0 OR NOT $3)) AS others
FROM restore_wishes WHERE restore_id = $1"""
_WITHDRAW = "DELETE FROM restore_wishes WHERE restore_id = $1 AND order_file_id = 0 AND (email = $2 OR $3)"
_CANCEL = "UPDATE restores SET state = 'CANCELED', ended_at = now() WHERE restore_id = $1"
_EXTEND = """
UPDATE restores r
SET hours = CASE WHEN r.state = 'RESTORED' THEN r.hours ELSE greatest(r.hours, $2::float8) END,
    wanted_until = CASE WHEN r.state = 'RESTORED'
                        THEN greatest(r.wanted_until, now() + make_interval(secs => $2::float8 * 3600))
                        ELSE r.wanted_until END,
    due_at = CASE WHEN r.state = 'RESTORED' THEN now() ELSE r.due_at END
WHERE r.restore_id = $1"""


async def one(database: Database, settings: Staging, scope: Scope, restore_id: int) -> Told:
    """A restore that is within reach.

    Raises:
        GatewayError: 404; 503 PostgreSQL does not answer.
    """
    rows = await database.fetch(_ONE, *_where(scope, restore_id))
    if not rows:
        raise no_restore(restore_id)
    return _of_row(rows[0], settings)


async def page(
    database: Database, settings: Staging, scope: Scope, *, limit: int, offset: int
) -> tuple[Sequence[Told], int]:
    """Restores that the user himself, or an order of his, wished; the newest first, and how many there are in all.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    rows = await database.fetch(_PAGE, scope.tenant, scope.email, limit, offset)
    if not rows and offset:
        # The number comes with the rows, of which a page beyond the last has none.
        rows = await database.fetch(_PAGE, scope.tenant, scope.email, 1, 0)
        return (), rows[0]["total"] if rows else 0
    return [_of_row(row, settings) for row in rows], rows[0]["total"] if rows else 0


async def cancel(database: Database, scope: Scope, restore_id: int) -> None:
    """Withdraw the wish of the user; an administrator withdraws those of all users. Orders keep theirs.

    The restore is called off if nobody is left who wants it. Whoever cancelled it sees it go on being so, while one who
    left it to others sees it no more.

    Raises:
        GatewayError: 404; 409 it is over, or goes on for orders alone; 503 PostgreSQL does not answer.
    """
    async with database.transaction() as connection:
        row = await _locked(connection, scope, restore_id)
        if row["state"] == "CANCELED":
            return
        if row["state"] not in ("QUEUED", "STAGING"):
            raise _conflict("This restore is over, so that there is nothing to cancel.")
        wishes = await connection.fetchrow(_OTHERS, restore_id, scope.email, scope.all_of_tenant)
        assert wishes is not None  # noqa: S101 - counts are always there
        if not wishes["others"]:
            await connection.execute(_CANCEL, restore_id)
        elif wishes["own"] or scope.all_of_tenant:
            await connection.execute(_WITHDRAW, restore_id, scope.email, scope.all_of_tenant)
        else:
            raise _conflict("This restore is part of an order: cancel that.")


async def extend(database: Database, scope: Scope, restore_id: int, hours: float) -> None:
    """Have it readable for ``hours``, from when it is restored or, if it is, from now on. It never gets less.

    Raises:
        GatewayError: 404; 409 it is over; 503 PostgreSQL does not answer.
    """
    async with database.transaction() as connection:
        row = await _locked(connection, scope, restore_id)
        if row["state"] not in ("QUEUED", "STAGING", "RESTORED") or row["is_ending"]:
            raise _conflict("This restore is over: ask for the file again.")
        await connection.execute(_EXTEND, restore_id, hours)


def no_restore(restore_id: object) -> GatewayError:
    """404."""
    return GatewayError(HTTPStatus.NOT_FOUND, f"There is no restore {restore_id}.")


async def _locked(connection: Connection, scope: Scope, restore_id: int) -> asyncpg.Record:
    row: asyncpg.Record | None = await connection.fetchrow(_LOCK, *_where(scope, restore_id))
    if row is None:
        raise no_restore(restore_id)
    return row


def _where(scope: Scope, restore_id: int) -> tuple[object, ...]:
    return scope.tenant, restore_id, scope.email, scope.all_of_tenant


def _of_row(row: asyncpg.Record, settings: Staging) -> Told:
    return Told(
        restore_of(row, settings), row["urn"], row["checksum"], row["file_name"], row["file_size"], row["data_type"]
    )


def _conflict(detail: str) -> GatewayError:
    return GatewayError(HTTPStatus.CONFLICT, detail)
