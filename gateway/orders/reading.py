"""What is told of orders and their files: by pages, each in one statement."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import AsyncGenerator, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg

from gateway.db import Database
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.orders.lifecycle import Counts, FileState, Status
from gateway.orders.rows import COUNTS, counts_of

MOST_ID = 2**29 - 1
"""Of an order."""
_CSV_ROWS = 1000

_COLUMNS = f"""
order_id, owner, label, created_at, expires_at, percent, status, status_at, waiting_for_user, files_size, {COUNTS}"""
_TASKS = """
(SELECT json_agg(json_build_object('id', t.task_id, 'datasetLabel', t.label, 'objectsCount', t.objects_count,
                                   'filesCount', t.files_count, 'filesSize', t.files_size)
                 ORDER BY lower(t.label), t.task_id)::text
 FROM order_tasks t WHERE t.order_id = o.order_id)"""
_TENANT = "o.tenant_id = (SELECT tenant_id FROM tenants WHERE name = $1)"
_VISIBLE = f"{_TENANT} AND ($2::text IS NULL OR (o.owner = $2 AND o.status <> 'DELETED'))"

_ONE = f"SELECT {_COLUMNS}, {_TASKS} AS tasks FROM orders o WHERE {_VISIBLE} AND o.order_id = $3"  # noqa: S608 - constant


def _files(chosen: str) -> str:
    """What is told of each file of ``chosen``, a from item of rows of ``order_files``."""
    return f"""
SELECT o.order_file_id, o.state, o.error, o.size, s.suborder_id, p.urn, p.provider_id, f.data_type, f.reference,
       f.mime_type, f.checksum, f.checksum_algorithm, f.crc32, f.file_name,
       EXISTS (SELECT FROM copies c WHERE c.file_id = o.file_id
               AND (c.state = 'ONLINE' OR c.restored_until > now())) AS online
FROM {chosen} o
JOIN suborders s ON s.order_id = o.order_file_id >> 24 AND s.number = o.suborder
LEFT JOIN files f ON f.file_id = o.file_id
LEFT JOIN products p ON p.product_id = f.product_id
ORDER BY o.order_file_id"""  # noqa: S608 - made of constants


_OF_TASK = _files("(SELECT * FROM order_files WHERE order_file_id BETWEEN $1 AND $2 OFFSET 0)")
# The counters of sub-orders tell in which of them a page lies: no others are looked into.
_PARTS = """
SELECT number, first_file, files_count, before FROM (
    SELECT number, first_file, files_count, files_available,
           sum(files_available) OVER (ORDER BY number) - files_available AS before
    FROM suborders WHERE order_id = $1 AND files_available > 0 AND ($2::bigint IS NULL OR suborder_id = $2)
) counted
WHERE before < $3::bigint + $4::bigint AND before + files_available > $4::bigint"""
_READY = _files(f"""(
    WITH part AS MATERIALIZED ({_PARTS})
    SELECT ready.* FROM part CROSS JOIN LATERAL (
        SELECT * FROM order_files
        WHERE order_file_id BETWEEN part.first_file AND part.first_file + part.files_count - 1 AND state = 'AVAILABLE'
        OFFSET 0
    ) ready
    ORDER BY ready.order_file_id LIMIT $3 OFFSET $4::bigint - (SELECT coalesce(min(before), $4) FROM part)
)""")  # noqa: S608 - as above
_TASK = "SELECT first_file, files_count FROM order_tasks WHERE order_id = $1 AND task_id = $2"
_SUBORDER = "SELECT files_available FROM suborders WHERE order_id = $1 AND suborder_id = $2"

_DOOR = """
SELECT f.state, f.error, o.order_id, o.status, o.owner, o.owner_subject, o.owner_role, o.owner_groups,
       t.name AS tenant, c.collection_id, p.provider_id, a.asset_key
FROM order_files f
JOIN orders o ON o.order_id = f.order_file_id >> 24
JOIN tenants t USING (tenant_id)
LEFT JOIN files a ON a.file_id = f.file_id
LEFT JOIN products p ON p.product_id = a.product_id
LEFT JOIN datasets c ON c.dataset_id = p.dataset_id
WHERE f.order_file_id = $1"""
_OF_TOKENS = """
SELECT token_generation FROM orders
WHERE order_id = $1 AND expires_at > now() AND status NOT IN ('EXPIRED', 'DELETED')"""
_GENERATION = f"SELECT o.token_generation, o.status, o.expires_at FROM orders o WHERE {_VISIBLE} AND o.order_id = $3"  # noqa: S608


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Whose orders are within reach."""

    tenant: str
    owner: str | None
    """E-mail address; None for all of the tenant, deleted ones included."""


@dataclasses.dataclass(frozen=True, slots=True)
class Filters:
    """Which orders are wanted."""

    owner: str | None = None
    statuses: frozenset[Status] | None = None
    after: datetime.datetime | None = None
    before: datetime.datetime | None = None
    waiting: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What is told of an order."""

    order_id: int
    owner: str
    label: str
    created: datetime.datetime
    expires: datetime.datetime
    percent: int
    status: Status
    status_at: datetime.datetime
    waiting: bool
    size: int
    counts: Counts
    tasks: Sequence[dict[str, Any]]
    """As they are told."""


@dataclasses.dataclass(frozen=True, slots=True)
class OrderFile:
    """What is told of a file of an order; None where the catalogue does not have it any more."""

    order_file_id: int
    suborder_id: int
    state: FileState
    error: str | None
    size: int | None
    product: str | None
    item: str | None
    data_type: str | None
    reference: bool | None
    mime_type: str | None
    checksum: str | None
    checksum_algorithm: str | None
    crc32: int | None
    name: str | None
    online: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Door:
    """A file of an order, for its download."""

    order_id: int
    state: FileState
    error: str | None
    status: Status
    owner: Principal
    """By what he was known when he ordered."""
    asset: tuple[str, str, str] | None
    """Collection, item and key of the asset; None if it is gone."""


async def one(database: Database, scope: Scope, order_id: int) -> Order:
    """An order.

    Raises:
        GatewayError: 404 there is none within ``scope``; 503.
    """
    rows = await database.fetch(_ONE, scope.tenant, scope.owner, order_id) if 0 < order_id <= MOST_ID else []
    if not rows:
        raise no_order(order_id)
    return _order(rows[0])


async def page(
    database: Database, scope: Scope, filters: Filters, *, limit: int, offset: int
) -> tuple[list[Order], int]:
    """Some orders, the newest first, and how many there are.

    Raises:
        GatewayError: 503.
    """
    condition, parameters = _where(scope, filters)
    count = await database.fetch(f"SELECT count(*) AS total FROM orders o WHERE {condition}", *parameters)  # noqa: S608
    place = len(parameters)
    rows = await database.fetch(
        f"SELECT {_COLUMNS}, {_TASKS} AS tasks FROM orders o WHERE {condition} "  # noqa: S608 - values are bound
        f"ORDER BY o.order_id DESC LIMIT ${place + 1} OFFSET ${place + 2}",
        *parameters,
        limit,
        offset,
    )
    return [_order(row) for row in rows], count[0]["total"]


async def pieces(database: Database, scope: Scope, filters: Filters) -> AsyncGenerator[list[Order], None]:
    """All orders by id, a thousand at a time; the first piece comes even if it is empty.

    Raises:
        GatewayError: 503.
    """
    condition, parameters = _where(scope, filters)
    place, last = len(parameters), 0
    while True:
        rows = await database.fetch(
            f"SELECT {_COLUMNS}, NULL AS tasks FROM orders o WHERE {condition} AND o.order_id > ${place + 1} "  # noqa: S608
            f"ORDER BY o.order_id LIMIT {_CSV_ROWS}",
            *parameters,
            last,
        )
        yield [_order(row) for row in rows]
        if len(rows) < _CSV_ROWS:
            return
        last = rows[-1]["order_id"]


async def files_of_task(
    database: Database, order_id: int, task_id: int, *, limit: int, offset: int
) -> tuple[list[OrderFile], int]:
    """Some files of a dataset task of an order that the caller may see, and how many there are.

    Raises:
        GatewayError: 404 the order has no such task; 503.
    """
    tasks = await database.fetch(_TASK, order_id, task_id)
    if not tasks:
        raise GatewayError(HTTPStatus.NOT_FOUND, f"Dataset task with id : {task_id} doesn't exist")
    first, total = tasks[0]["first_file"], tasks[0]["files_count"]
    last = first + min(offset + limit, total) - 1
    rows = await database.fetch(_OF_TASK, first + offset, last) if offset < total else []
    return [_file(row) for row in rows], total


async def ready(
    database: Database, order: Order, suborder_id: int | None, *, limit: int, offset: int
) -> tuple[list[OrderFile], int]:
    """Some available files of an order, or of a sub-order of it, and how many there are.

    Raises:
        GatewayError: 404 the order has no such sub-order; 503.
    """
    total = order.counts.available
    if suborder_id is not None:
        found = await database.fetch(_SUBORDER, order.order_id, suborder_id)
        if not found:
            raise GatewayError(HTTPStatus.NOT_FOUND, f"Files task with id : {suborder_id} doesn't exist")
        total = found[0]["files_available"]
    rows = await database.fetch(_READY, order.order_id, suborder_id, limit, offset) if offset < total else []
    return [_file(row) for row in rows], total


async def door(database: Database, order_file_id: int) -> Door | None:
    """A file of an order, whoever asks.

    Raises:
        GatewayError: 503.
    """
    rows = await database.fetch(_DOOR, order_file_id) if 0 < order_file_id < 1 << 63 else []
    if not rows:
        return None
    row = rows[0]
    owner = Principal(
        tenant=row["tenant"],
        subject=row["owner_subject"],
        email=row["owner"],
        role=row["owner_role"],
        groups=tuple(row["owner_groups"]),
        credential="order token",
        scopes=frozenset({"download"}),
    )
    asset = None
    if row["asset_key"] is not None:
        asset = row["collection_id"], row["provider_id"], row["asset_key"]
    return Door(
        row["order_id"],
        FileState(row["state"]),
        row["error"],
        Status(row["status"]),
        owner,
        asset,
    )


async def generation(database: Database, scope: Scope, order_id: int) -> tuple[int, Status, datetime.datetime]:
    """Of what generation the tokens of an order are, its status, and when it ends.

    Raises:
        GatewayError: 404, 503.
    """
    rows = await database.fetch(_GENERATION, scope.tenant, scope.owner, order_id) if 0 < order_id <= MOST_ID else []
    if not rows:
        raise no_order(order_id)
    return rows[0]["token_generation"], Status(rows[0]["status"]), rows[0]["expires_at"]


async def current_generation(database: Database, order_id: int) -> int | None:
    """Of what generation the tokens of an order are; None if it is over, or there is none.

    Raises:
        GatewayError: 503.
    """
    rows = await database.fetch(_OF_TOKENS, order_id)
    return rows[0]["token_generation"] if rows else None


def no_order(order_id: object) -> GatewayError:
    """404 in REGARDS' words, the same whether an order does not exist or is somebody else's."""
    entity = "fr.cnes.regards.modules.order.domain.Order"
    return GatewayError(HTTPStatus.NOT_FOUND, f"Entity {entity} with id : {order_id} doesn't exist")


def _where(scope: Scope, filters: Filters) -> tuple[str, list[object]]:
    parts, parameters = [_TENANT], list[object]([scope.tenant])

    def add(text: str, value: object) -> None:
        parameters.append(value)
        parts.append(text.format(f"${len(parameters)}"))

    if scope.owner is not None:
        add("o.owner = {}", scope.owner)
        parts.append("o.status <> 'DELETED'")
    if filters.owner is not None:
        add("o.owner = {}", filters.owner)
    if filters.statuses is not None:
        # Written out, and not bound: how many orders are in a status, the planner knows for each.
        names = ", ".join(f"'{status.value}'" for status in Status if status in filters.statuses)
        parts.append(f"o.status IN ({names})" if names else "false")
    if filters.after is not None:
        add("o.created_at >= {}", filters.after)
    if filters.before is not None:
        add("o.created_at <= {}", filters.before)
    if filters.waiting is not None:
        parts.append("o.waiting_for_user" if filters.waiting else "NOT o.waiting_for_user")
    return " AND ".join(parts), parameters


def _order(row: asyncpg.Record) -> Order:
    return Order(
        row["order_id"],
        row["owner"],
        row["label"],
        row["created_at"],
        row["expires_at"],
        row["percent"],
        Status(row["status"]),
        row["status_at"],
        row["waiting_for_user"],
        row["files_size"],
        counts_of(row),
        json.loads(row["tasks"] or "[]"),
    )


def _file(row: asyncpg.Record) -> OrderFile:
    return OrderFile(
        row["order_file_id"],
        row["suborder_id"],
        FileState(row["state"]),
        row["error"],
        row["size"],
        row["urn"],
        row["provider_id"],
        row["data_type"],
        row["reference"],
        row["mime_type"],
        row["checksum"],
        row["checksum_algorithm"],
        row["crc32"],
        row["file_name"],
        row["online"],
    )
