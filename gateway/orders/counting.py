"""What a query selects, counted as an order would take it: by the same rights, and the same files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import asyncpg

from gateway.db import Connection
from gateway.errors import unavailable
from gateway.identity.principal import Principal
from gateway.orders.model import ORDERABLE, FileFilters, Numbering
from gateway.orders.patterns import whole
from gateway.rights.policies import Policies
from gateway.rights.predicate import CALLER, DATASET_RIGHTS, FACTS, PRODUCT_COLUMNS, RIGHTS, asked, caller_columns

_JUDGED_AT_ONCE = 1000
"""Products that policies are asked about together."""
_OWN_PARAMETERS = 10
"""Of `_count`; those of a query come after them."""
_QUESTION_PARAMETERS = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Amount:
    """How much is selected."""

    objects: int = 0
    """Products with a file that is wanted."""
    files: int = 0
    size: int = 0
    """Bytes of the files whose size is known."""
    metered_files: int = 0
    """Those of the files that count in quotas."""
    metered_size: int = 0

    def __add__(self, other: Amount) -> Amount:
        """Both, where they have nothing in common."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Amount(*(one + another for one, another in pairs))


_FIELDS = tuple(field.name for field in dataclasses.fields(Amount))
_SUMS = {
    "files": "count(*)",
    "size": "sum(f.size)",
    "metered_files": "count(*) FILTER (WHERE f.data_type = ANY ($10::text[]))",
    "metered_size": "sum(f.size) FILTER (WHERE f.data_type = ANY ($10::text[]))",
}
_OPEN_SUMS = {
    "files": "count(*) FILTER (WHERE f.data_type = ANY ($8::text[]))",
    "size": "sum(f.size) FILTER (WHERE f.data_type = ANY ($8::text[]))",
    "metered_files": "count(*) FILTER (WHERE f.data_type = ANY ($8::text[]) AND f.data_type = ANY ($10::text[]))",
    "metered_size": "sum(f.size) FILTER (WHERE f.data_type = ANY ($8::text[]) AND f.data_type = ANY ($10::text[]))",
}
"""Of files that are open to whoever sees their product."""
_WITH = f"WITH caller AS MATERIALIZED (SELECT caller.* FROM {asked()} CROSS JOIN {CALLER} caller)"  # noqa: S608 - made of constants; values are bound
# As orders have it: what rights alone decide, and what is left to policies.
_CERTAIN = "rights.visible AND (rights.downloadable OR rights.questions IS NULL)"
_LEFT_OPEN = "rights.questions IS NOT NULL AND NOT (rights.visible AND rights.downloadable)"


def _count(condition: str) -> str:
    """A row for each dataset: what SQL alone knows of it, and whether more is left to policies.

    Rights are the same for all products of a dataset that are rated the same: they are looked up once for these.
    """
    of_product = ", ".join(
        [f"{sum_} AS {name}" for name, sum_ in _SUMS.items()]
        + [f"{sum_} AS open_{name}" for name, sum_ in _OPEN_SUMS.items()]
    )
    of_rating = ", ".join(f"sum({kind}{name}) AS {kind}{name}" for kind in ("", "open_") for name in _SUMS)
    counted = ", ".join(
        f"coalesce(sum(CASE WHEN rights.downloadable THEN product.{name} ELSE product.open_{name} END)"
        f" FILTER (WHERE {_CERTAIN}), 0)::bigint AS {name}"
        for name in _FIELDS
    )
    return f"""{_WITH}, selected AS (
    SELECT p.product_id, p.dataset_id, p.quality_score, p.quality_level, {of_product}
    FROM products p JOIN files f ON f.product_id = p.product_id
    WHERE p.tenant_id = (SELECT tenant_id FROM caller) AND p.dataset_id = ANY (ARRAY(
        SELECT dataset.dataset_id FROM caller JOIN datasets dataset ON dataset.tenant_id = caller.tenant_id
        CROSS JOIN {DATASET_RIGHTS} rights
        WHERE rights.visible AND ($6::bigint[] IS NULL OR dataset.dataset_id = ANY ($6::bigint[]))
    )) AND ({condition}) AND f.data_type = ANY ($7::text[]) AND ($9::text IS NULL OR f.file_name ~ $9::text)
    GROUP BY p.product_id
), rated AS (
    SELECT dataset_id, quality_score, quality_level, count(*) AS objects,
           count(*) FILTER (WHERE open_files > 0) AS open_objects, {of_rating}
    FROM selected GROUP BY 1, 2, 3
)
SELECT product.dataset_id, {counted}, coalesce(bool_or({_LEFT_OPEN}), false) AS left_open
FROM rated product CROSS JOIN caller CROSS JOIN {RIGHTS} rights
GROUP BY product.dataset_id"""  # noqa: S608 - as above


def _questions(condition: str) -> str:
    """The products on which policies decide, with what they look at."""
    return f"""{_WITH}
SELECT product.product_id, rights.visible, rights.downloadable, rights.questions, facts.facts
FROM caller
CROSS JOIN LATERAL (
    SELECT {PRODUCT_COLUMNS} FROM products p
    WHERE p.tenant_id = caller.tenant_id AND p.dataset_id = ANY ($6::bigint[]) AND ({condition})
) product
CROSS JOIN {RIGHTS} rights
LEFT JOIN {FACTS} facts ON true
WHERE {_LEFT_OPEN}"""  # noqa: S608 - as above


_OF_POLICIES = """
SELECT p.dataset_id, count(DISTINCT p.product_id) AS objects, count(*) AS files,
       coalesce(sum(f.size), 0)::bigint AS size,
       count(*) FILTER (WHERE f.data_type = ANY ($6::text[])) AS metered_files,
       coalesce(sum(f.size) FILTER (WHERE f.data_type = ANY ($6::text[])), 0)::bigint AS metered_size
FROM unnest($1::bigint[], $2::boolean[]) AS judged(product_id, downloadable)
JOIN products p USING (product_id)
JOIN files f ON f.product_id = p.product_id
WHERE f.data_type = ANY ($3::text[]) AND (judged.downloadable OR f.data_type = ANY ($4::text[]))
  AND ($5::text IS NULL OR f.file_name ~ $5::text)
GROUP BY p.dataset_id"""
"""The same of products that policies let through."""


@dataclasses.dataclass(frozen=True, slots=True)
class Counter:
    """Counts, within the transaction of whoever asks."""

    policies: Policies
    open_data_types: Sequence[str]
    """Of files that are open to whoever sees their product."""
    metered_data_types: Sequence[str]
    """Of files that count in quotas."""

    async def count(
        self,
        connection: Connection,
        principal: Principal,
        query: Numbering,
        filters: FileFilters,
        datasets: Sequence[int] | None = None,
    ) -> Mapping[int, Amount]:
        """What of ``query`` an order of ``principal`` would have now, by dataset; none of those without a file.

        Args:
            connection: in a transaction.
            principal: whose rights count.
            query: which products.
            filters: which of their files.
            datasets: ids of those that matter; None for all.

        Raises:
            GatewayError: 503 a policy that matters cannot decide.
        """
        who = tuple([value] for value in caller_columns(principal))
        types = [one for one in filters.data_types or ORDERABLE if one in ORDERABLE]
        pattern = whole(filters.name_pattern)
        counting = query(_OWN_PARAMETERS + 1)
        rows = await connection.fetch(
            _count(counting.sql),
            *who,
            datasets,
            types,
            self.open_data_types,
            pattern,
            self.metered_data_types,
            *counting.parameters,
        )
        found = {row["dataset_id"]: _amount(row) for row in rows}
        open_ones = [row["dataset_id"] for row in rows if row["left_open"]]
        if open_ones:
            asking = query(_QUESTION_PARAMETERS + 1)
            statement = _questions(asking.sql)
            cursor = connection.cursor(statement, *who, open_ones, *asking.parameters, prefetch=_JUDGED_AT_ONCE)
            batch: list[asyncpg.Record] = []
            async for row in cursor:
                batch.append(row)
                if len(batch) == _JUDGED_AT_ONCE:
                    await self._add_judged(connection, principal, batch, (types, pattern), found)
                    batch = []
            if batch:
                await self._add_judged(connection, principal, batch, (types, pattern), found)
        return {dataset: amount for dataset, amount in found.items() if amount.files}

    async def _add_judged(
        self,
        connection: Connection,
        principal: Principal,
        rows: Sequence[asyncpg.Record],
        wanted: tuple[list[str], str | None],
        found: dict[int, Amount],
    ) -> None:
        """Add what policies let through."""
        verdicts = await self.policies.judge(principal, rows)
        if any(verdict.visible is None or verdict.downloadable is None for verdict in verdicts):
            raise unavailable("What decides on these products does not answer at the moment.", code="PolicyUnavailable")
        seen = [(row["product_id"], one.downloadable) for row, one in zip(rows, verdicts, strict=True) if one.visible]
        types, pattern = wanted
        counted = await connection.fetch(
            _OF_POLICIES,
            [product for product, _ in seen],
            [may for _, may in seen],
            types,
            self.open_data_types,
            pattern,
            self.metered_data_types,
        )
        for row in counted:
            found[row["dataset_id"]] = found.get(row["dataset_id"], Amount()) + _amount(row)


def _amount(row: asyncpg.Record) -> Amount:
    return Amount(*(row[name] for name in _FIELDS))
