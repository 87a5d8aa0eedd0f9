"""What administrators read page by page, the newest first: the record of downloads and that of changes.

Each page is one short statement that goes on after the last record of the page before: whoever reads slowly, or for
hours, holds no connection and no snapshot meanwhile.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import AsyncGenerator, Mapping, Sequence

import asyncpg

from gateway.administration.work import no_tenant
from gateway.db import Database
from gateway.text import is_storable

MOST = 1000
"""Records of one page."""

Record = dict[str, object]
"""A record by the names of its members."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record."""

    name: str
    source: str
    """What rows come from."""
    of_tenant: str
    """Which of them are the tenant's; ``$1`` is its name, ``$2`` when it was made."""
    of_none: str
    """Which of them are of no tenant; with the same parameters, the name being empty."""
    time: str
    number: str
    """Columns by which records are ordered."""
    columns: Mapping[str, str]
    """Column by the name of the member."""
    filters: Mapping[str, str]
    """Column that must be equal, by the name of the filter."""


DOWNLOADS = Kind(
    "downloads",
    "download_log",
    # Not those of another tenant that once had the name.
    "tenant = $1 AND at >= $2",
    "tenant = $1 AND at >= $2",
    "at",
    "record",
    {
        "at": "at",
        "tenant": "tenant",
        "subject": "subject",
        "email": "email",
        "role": "role",
        "credential": "credential",
        "credentialId": "credential_id",
        "address": "address",
        "method": "method",
        "route": "route",
        "path": "path",
        "product": "product",
        "file": "file",
        "fileId": "file_id",
        "verdict": "verdict",
        "reason": "reason",
        "status": "status",
        "promised": "promised",
        "sent": "sent",
        "storage": "storage",
        "delivery": "delivery",
        "durationMs": "duration_ms",
        "requestId": "request_id",
        "userAgent": "user_agent",
    },
    {"email": "email", "product": "product", "status": "status", "verdict": "verdict"},
)
CHANGES = Kind(
    "changes",
    "changes",
    "tenant_id = (SELECT t.tenant_id FROM tenants t WHERE t.name = $1) AND changed_at >= $2",
    "tenant_id IS NULL AND $1 = '' AND changed_at >= $2",
    "changed_at",
    "change_id",
    {
        "at": "changed_at",
        "actor": "actor",
        "action": "action",
        "object": "object",
        "detail": "detail",
        "address": "address",
        "requestId": "request_id",
        "keyId": "key_id",
    },
    {"email": "actor", "action": "action", "object": "object"},
)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A record's place in the order."""

    at: datetime.datetime
    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are wanted."""

    kind: Kind
    tenant: str
    """Name; empty for records of no tenant: of callers whom nobody knows, of tenants that are gone."""
    start: datetime.datetime | None = None
    """The earliest time."""
    end: datetime.datetime | None = None
    """The time before which they are."""
    equal: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    """Values by the name of a filter."""


async def page(
    database: Database, wanted: Wanted, *, before: Place | None, limit: int
) -> tuple[list[Record], Place | None]:
    """At most ``limit`` records after the place ``before``, the newest first; and the last one's place, if more follow.

    Raises:
        GatewayError: 404 there is no such tenant; 503 PostgreSQL does not answer in time.
    """
    since = await _since(database, wanted.tenant)
    if not all(is_storable(value) for value in wanted.equal.values() if isinstance(value, str)):
        return [], None
    statement, parameters = _statement(wanted, since, before, limit + 1)
    rows = await database.fetch(statement, *parameters)
    kept = rows[:limit]
    last = Place(kept[-1]["_at"], kept[-1]["_number"]) if len(rows) > limit else None
    return [_record(wanted.kind, row) for row in kept], last


async def pages(database: Database, wanted: Wanted, *, limit: int | None) -> AsyncGenerator[list[Record], None]:
    """All records that are wanted, ``limit`` of them at most, a page at a time.

    Raises:
        GatewayError: as `page`.
    """
    before, left = None, limit
    while left is None or left > 0:
        found, before = await page(database, wanted, before=before, limit=MOST if left is None else min(MOST, left))
        yield found
        if before is None:
            return
        if left is not None:
            left -= len(found)


async def _since(database: Database, tenant: str) -> datetime.datetime:
    if not tenant:
        return datetime.datetime.fromtimestamp(0, datetime.UTC)
    statement = "SELECT created_at FROM tenants WHERE name = $1"
    rows = await database.fetch(statement, tenant) if is_storable(tenant) else []
    if not rows:
        raise no_tenant(tenant)
    created: datetime.datetime = rows[0]["created_at"]
    return created


def _statement(
    wanted: Wanted, since: datetime.datetime, before: Place | None, limit: int
) -> tuple[str, Sequence[object]]:
    """The statement has the conditions that are asked for and no others, so that its plan can be one for them."""
    kind = wanted.kind
    parameters: list[object] = [wanted.tenant, since]

    def bound(value: object) -> str:
        parameters.append(value)
        return f"${len(parameters)}"

    conditions = [kind.of_tenant if wanted.tenant else kind.of_none]
    conditions += [f"{kind.filters[name]} = {bound(value)}" for name, value in wanted.equal.items()]
    if wanted.start is not None:
        conditions.append(f"{kind.time} >= {bound(wanted.start)}")
    if wanted.end is not None:
        conditions.append(f"{kind.time} < {bound(wanted.end)}")
    if before is not None:
        at = bound(before.at)
        # The first says to PostgreSQL which months need no look.
        conditions.append(f"{kind.time} <= {at} AND ({kind.time}, {kind.number}) < ({at}, {bound(before.number)})")
    columns = ", ".join(f"{column} AS {name}" for name, column in (*_quoted(kind), *_order(kind)))
    statement = (
        f"SELECT {columns} FROM {kind.source} WHERE {' AND '.join(conditions)} "  # noqa: S608 - made of constants
        f"ORDER BY {kind.time} DESC, {kind.number} DESC LIMIT {bound(limit)}"
    )
    return statement, parameters


def _quoted(kind: Kind) -> list[tuple[str, str]]:
    return [(f'"{name}"', column) for name, column in kind.columns.items()]


def _order(kind: Kind) -> list[tuple[str, str]]:
    return [("_at", kind.time), ("_number", kind.number)]


def _record(kind: Kind, row: asyncpg.Record) -> Record:
    record: Record = {name: row[name] for name in kind.columns}
    at = row["_at"]
    record["at"] = at.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(record.get("detail"), str):
        record["detail"] = json.loads(row["detail"])
    return record
