"""How it stands with files: one statement for any number of them, and what it tells, as pure rules."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import asyncpg

from gateway.catalog.locate import read_copies
from gateway.catalog.model import Copy
from gateway.catalog.statements import COPIES
from gateway.config.staging import Staging
from gateway.db import Connection, Database
from gateway.locations import Location
from gateway.sources import Candidate, assess, restorable
from gateway.staging.estimates import estimating, expected
from gateway.staging.model import FileState, Restore, State

Row: TypeAlias = "asyncpg.Record | Mapping[str, Any]"

# A restore that goes on is the last of its file: the next can only begin when it has ended.
_STATES = f"""
WITH found AS MATERIALIZED (
    SELECT f.file_id, t.name AS tenant, copies.copies, last.*
    FROM (SELECT DISTINCT unnest($1::bigint[]) AS file_id) wanted
    JOIN files f ON f.file_id = wanted.file_id
    JOIN products p ON p.product_id = f.product_id
    JOIN tenants t ON t.tenant_id = p.tenant_id
    CROSS JOIN LATERAL (SELECT {COPIES} AS copies FROM copies c WHERE c.file_id = f.file_id) copies
    LEFT JOIN LATERAL (
        SELECT r.restore_id, r.state, r.storage, r.priority, r.requested_at, r.started_at, r.ready_at, r.expires_at
        FROM restores r WHERE r.file_id = f.file_id ORDER BY r.restore_id DESC LIMIT 1
    ) last ON true
), {estimating("found")}
SELECT found.*, typical.seconds AS typical, ahead.many AS ahead, now() AS now
FROM found
LEFT JOIN typical ON typical.storage = found.storage
LEFT JOIN ahead ON ahead.storage = found.storage AND ahead.priority = found.priority"""  # noqa: S608 - made of constants


async def states(
    database: Database | Connection,
    locations: Mapping[str, Location],
    settings: Staging,
    file_ids: Sequence[int],
) -> dict[int, State]:
    """How it stands with files, by their id; those that are gone are left out. One round trip.

    Args:
        database: of the catalogue.
        locations: those of this gateway, by name.
        settings: of staging.
        file_ids: of any tenants.

    Raises:
        GatewayError: 503 PostgreSQL does not answer (from a `Database`).
    """
    if not file_ids:
        return {}
    rows = await database.fetch(_STATES, list(file_ids))
    return {row["file_id"]: _of_row(row, locations, settings) for row in rows}


def of_restore(restore: Restore) -> State:
    """How it stands with the file of a restore that was just asked for, or goes on."""
    if restore.state == "RESTORED" and restore.expires_at is not None and not _is_past(restore.expires_at, restore.now):
        return State(restore.file_id, FileState.RESTORED, restore.restore_id, until=restore.expires_at)
    if restore.state in ("QUEUED", "STAGING"):
        since, ready = restore.requested_at, restore.ready_at
        return State(restore.file_id, FileState.RESTORING, restore.restore_id, since=since, ready=ready)
    if restore.state in ("RESTORED", "EXPIRED"):
        return State(restore.file_id, FileState.EXPIRED, restore.restore_id, since=restore.expires_at)
    return State(restore.file_id, FileState.NEARLINE)


def ready_of(row: Row, settings: Staging) -> datetime.datetime | None:
    """When the restore of a row that was told with `estimating` will be done; None if it does not go on."""
    if row["state"] not in ("QUEUED", "STAGING"):
        return None
    return expected(
        now=row["now"],
        started=row["started_at"],
        told=row["ready_at"],
        typical=row["typical"],
        ahead=row["ahead"] or 0,
        at_a_time=settings.store_files,
        poll=settings.poll,
    )


def state_of(
    file_id: int, copies: Sequence[Copy], locations: Mapping[str, Location], tenant: str, last: State | None
) -> State:
    """How it stands with a file of ``tenant`` that has these copies, and of which the ``last`` restore says that."""
    served = [one for copy in copies if isinstance(one := assess(copy, locations, tenant), Candidate)]
    ends = [one.copy.restored_until for one in served if not one.is_online]
    until = max((end for end in ends if end is not None), default=None)
    if len(ends) < len(served):
        return State(file_id, FileState.ONLINE)
    if until is not None:
        return State(file_id, FileState.RESTORED, last.restore_id if last is not None else None, until=until)
    if restorable(copies, locations, tenant):
        # What was restored and can be read no more, is gone before its time, or will be in a moment.
        if last is None:
            return State(file_id, FileState.NEARLINE)
        if last.state is FileState.RESTORED:
            return State(file_id, FileState.EXPIRED, last.restore_id)
        return last
    return State(file_id, FileState.LOST if all(copy.state == "LOST" for copy in copies) else FileState.OFFLINE)


def _of_row(row: Row, locations: Mapping[str, Location], settings: Staging) -> State:
    last = None
    if row["restore_id"] is not None:
        ready, expires = ready_of(row, settings), row["expires_at"]
        last = of_restore(
            Restore(
                row["restore_id"],
                row["file_id"],
                row["state"],
                row["requested_at"],
                ready,
                None,
                expires,
                None,
                now=row["now"],
            )
        )
    return state_of(row["file_id"], read_copies(row["copies"]), locations, row["tenant"], last)


def _is_past(instant: datetime.datetime, now: datetime.datetime | None) -> bool:
    return now is not None and instant <= now
