"""All files of an order, page by page, for what holds them all: an archive, a metalink."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import AsyncGenerator, Sequence

import asyncpg

from gateway.catalog.model import ByAsset
from gateway.db import Database
from gateway.orders.lifecycle import FileState, Status
from gateway.orders.model import ID_BITS
from gateway.orders.reading import MOST_ID

PAGE = 500
"""Files that are read at once: some milliseconds of the loop."""

_COLUMNS = """
o.order_file_id, o.state, o.error, f.file_id, f.file_name, f.mime_type, f.size, f.checksum, f.checksum_algorithm,
f.crc32, f.asset_key, p.provider_id, c.collection_id"""
_CATALOGUE = """
LEFT JOIN files f ON f.file_id = o.file_id
LEFT JOIN products p ON p.product_id = f.product_id
LEFT JOIN datasets c ON c.dataset_id = p.dataset_id
ORDER BY o.order_file_id"""
# OFFSET 0 keeps the order: a page of the primary key leads to the catalogue, whatever the planner thinks.
_PAGE = f"""
SELECT {_COLUMNS} FROM (
    SELECT * FROM order_files WHERE order_file_id > $1 AND order_file_id <= $2
    ORDER BY order_file_id LIMIT {PAGE} OFFSET 0
) o {_CATALOGUE}"""  # noqa: S608 - made of constants
_SOME = f"""
SELECT {_COLUMNS} FROM (SELECT * FROM order_files WHERE order_file_id = ANY ($1::bigint[]) OFFSET 0) o {_CATALOGUE}"""  # noqa: S608

_OPENED = """
SELECT status, token_generation, created_at, expires_at > now() AS lasts FROM orders WHERE order_id = $1"""


@dataclasses.dataclass(frozen=True, slots=True)
class Ordered:
    """A file of an order, as order and catalogue have it now."""

    order_file_id: int
    state: FileState
    error: str | None
    asset: ByAsset | None
    """Where it is downloaded; None if the catalogue has it no more, as are those that follow."""
    file_id: int | None
    name: str | None
    mime_type: str | None
    size: int | None
    checksum: str | None
    checksum_algorithm: str | None
    crc32: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """An order that a token was made for."""

    status: Status
    generation: int
    """Of the tokens that open it."""
    created: datetime.datetime
    lasts: bool
    """Whether its time is not over."""


async def pages(database: Database, order_id: int) -> AsyncGenerator[list[Ordered], None]:
    """All files of an order by their ids, `PAGE` at a time. No connection is held between pages.

    Raises:
        GatewayError: 503.
    """
    last, stop = order_id << ID_BITS, ((order_id + 1) << ID_BITS) - 1
    while True:
        rows = await database.fetch(_PAGE, last, stop)
        yield [_ordered(row) for row in rows]
        if len(rows) < PAGE:
            return
        last = rows[-1]["order_file_id"]


async def some(database: Database, ids: Sequence[int]) -> dict[int, Ordered]:
    """Those of ``ids`` that there are, by id.

    Raises:
        GatewayError: 503.
    """
    return {row["order_file_id"]: _ordered(row) for row in await database.fetch(_SOME, ids)}


async def opened(database: Database, order_id: int) -> Opened | None:
    """The order that a token opens; None if there is none.

    Raises:
        GatewayError: 503.
    """
    rows = await database.fetch(_OPENED, order_id) if 0 < order_id <= MOST_ID else []
    if not rows:
        return None
    row = rows[0]
    return Opened(Status(row["status"]), row["token_generation"], row["created_at"], row["lasts"])


def _ordered(row: asyncpg.Record) -> Ordered:
    asset = None
    if row["asset_key"] is not None:
        asset = ByAsset(row["collection_id"], row["provider_id"], row["asset_key"])
    return Ordered(
        row["order_file_id"],
        FileState(row["state"]),
        row["error"],
        asset,
        row["file_id"],
        row["file_name"],
        row["mime_type"],
        row["size"],
        row["checksum"],
        row["checksum_algorithm"],
        row["crc32"],
    )
