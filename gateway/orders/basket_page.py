"""What a basket holds, as its user sees it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Protocol

import asyncpg

from gateway.identity.principal import Principal
from gateway.orders.counting import Amount
from gateway.orders.model import FileFilters

_AMOUNT = "{0}.objects_count, {0}.files_count, {0}.files_size, {0}.metered_count, {0}.metered_size"
_BASKET = f"""
SELECT b.basket_id, b.owner, s.selection_id, d.urn, coalesce(nullif(d.title, ''), d.collection_id) AS label, s.query,
       s.data_types, s.name_pattern, {_AMOUNT.format("s")}, items.items
FROM baskets b
LEFT JOIN (basket_datasets s JOIN datasets d USING (dataset_id)) ON s.basket_id = b.basket_id
LEFT JOIN LATERAL (
    SELECT json_agg(json_build_array(to_char(i.selected_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                                     i.query, {_AMOUNT.format("i")}) ORDER BY i.selected_at DESC)::text AS items
    FROM basket_items i WHERE i.selection_id = s.selection_id
) items ON true
WHERE b.tenant_id = (SELECT tenant_id FROM tenants WHERE name = $1) AND b.owner = $2
ORDER BY lower(coalesce(nullif(d.title, ''), d.collection_id)), s.selection_id"""  # noqa: S608 - made of constants


class Reads(Protocol):
    """A database, or a connection of it."""

    async def fetch(self, statement: str, /, *parameters: Any) -> list[asyncpg.Record]:
        """The rows of ``statement``."""


@dataclasses.dataclass(frozen=True, slots=True)
class ItemsPage:
    """One selection, as far as it concerns a dataset."""

    date: str
    """As REGARDS writes it: UTC, milliseconds."""
    query: str
    amount: Amount


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetPage:
    """All selections of one dataset."""

    selection_id: int
    dataset: str
    """URN."""
    label: str
    query: str
    filters: FileFilters
    amount: Amount
    """Of all selections together; what several of them find counts once."""
    items: Sequence[ItemsPage]
    """The newest first."""


@dataclasses.dataclass(frozen=True, slots=True)
class BasketPage:
    """A basket."""

    basket_id: int
    owner: str
    datasets: Sequence[DatasetPage]
    """By label."""

    @property
    def amount(self) -> Amount:
        """Of all datasets: they have no file in common."""
        return sum((one.amount for one in self.datasets), Amount())


async def basket_of(reads: Reads, principal: Principal) -> BasketPage | None:
    """The basket of ``principal``; None if he has none.

    Raises:
        GatewayError: 503.
    """
    rows = await reads.fetch(_BASKET, principal.tenant, principal.email)
    # Queries may be megabytes.
    return await asyncio.to_thread(_page, rows) if rows else None


def _page(rows: Sequence[asyncpg.Record]) -> BasketPage:
    found = [_dataset(row) for row in rows if row["selection_id"] is not None]
    return BasketPage(rows[0]["basket_id"], rows[0]["owner"], found)


def _dataset(row: asyncpg.Record) -> DatasetPage:
    items = [ItemsPage(date, query, Amount(*amount)) for date, query, *amount in json.loads(row["items"] or "[]")]
    return DatasetPage(
        row["selection_id"],
        row["urn"],
        row["label"],
        row["query"],
        FileFilters(tuple(row["data_types"]), row["name_pattern"]),
        Amount(row["objects_count"], row["files_count"], row["files_size"], row["metered_count"], row["metered_size"]),
        items,
    )
