"""Search of products: a page of what a caller may see, in the order that he wants, and how many there are."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg

from gateway.db import Connection, Database, no_answer
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.rights.policies import Policies, Verdict
from gateway.rights.predicate import CALLER, DATASET_RIGHTS, FACTS, PRODUCT_COLUMNS, RIGHTS, asked, caller_columns
from gateway.search.query import Query, QueryError
from gateway.search.sql import Parameters, condition
from gateway.text import is_storable

SORTS: Mapping[str, str] = {
    "id": "urn",
    "providerId": "provider_id",
    "creationDate": "created_at",
    "lastUpdate": "updated_at",
    "start_datetime": "start_datetime",
    "end_datetime": "end_datetime",
    "quality_score": "quality_score",
}
"""What products may be sorted by, and its column."""
FEW = 10_000
"""Products that are sorted in no time."""
MOST_ASKED = 1000
"""Products of a query that policies are asked about."""

_WITH = f"""
WITH caller AS MATERIALIZED (SELECT caller.* FROM {asked()} CROSS JOIN {CALLER} caller)"""  # noqa: S608 - made of constants; values are bound
# Nobody sees a product of a dataset that he may not see. To know these first spares going through the others, and shows
# PostgreSQL how few they are.
_DATASETS = f"""{_WITH}
SELECT dataset.dataset_id, rights.visible
FROM caller JOIN datasets dataset ON dataset.tenant_id = caller.tenant_id CROSS JOIN {DATASET_RIGHTS} rights"""  # noqa: S608 - as above
_OPEN = "(NOT rights.visible AND rights.questions IS NOT NULL)"
_BY_URN = f"""{_WITH}, page AS (
    SELECT {PRODUCT_COLUMNS}, 0 AS place FROM products p
    WHERE p.tenant_id = (SELECT tenant_id FROM caller) AND p.urn = $6
)"""  # noqa: S608 - as above
# The files of a product that has none are an empty list, not NULL.
_ROWS = f"""
SELECT rights.visible, rights.downloadable, rights.questions, facts.facts, p.urn, p.provider_id, p.properties::text,
       p.geometry::text, p.west, p.south, p.east, p.north, p.body ->> 'label' AS label, p.body ->> 'model' AS model,
       p.body -> 'tags' AS tags, p.created_at, p.updated_at, d.urn AS dataset, d.collection_id, files.files
FROM page product
CROSS JOIN caller
CROSS JOIN {RIGHTS} rights
LEFT JOIN {FACTS} facts ON true
JOIN products p ON p.product_id = product.product_id
JOIN datasets d ON d.dataset_id = p.dataset_id
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(json_build_array(
        f.asset_key, f.data_type, f.reference, f.mime_type, f.checksum, f.checksum_algorithm, f.size, f.file_name,
        EXISTS (SELECT FROM copies c WHERE c.file_id = f.file_id AND (c.state = 'ONLINE' OR c.restored_until > now())),
        (SELECT min(c.location) FROM copies c
         WHERE f.reference AND c.file_id = f.file_id AND c.location ~ '^https?://')
    ) ORDER BY f.file_id), '[]')::text AS files
    FROM files f WHERE f.product_id = product.product_id
) files
ORDER BY product.place"""  # noqa: S608 - as above


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What comes first."""

    name: str
    """One of `SORTS`."""
    descending: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What of the products that are found is wanted."""

    order: Sequence[Order]
    offset: int
    most: int
    is_of_few: bool
    """Whether there are at most `FEW` in all."""
    allowed: Sequence[int] = ()
    """Ids of products that policies let be seen."""


@dataclasses.dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a product that was found."""

    asset_key: str
    data_type: str
    reference: bool
    mime_type: str | None
    checksum: str | None
    checksum_algorithm: str | None
    size: int | None
    """Bytes."""
    name: str
    online: bool
    """Whether a copy can be had at once."""
    url: str | None
    """Of a reference: where somebody else has it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A product that the caller may see."""

    urn: str
    provider_id: str
    dataset: str
    """URN."""
    collection: str
    properties: Mapping[str, Any]
    geometry: Mapping[str, Any] | None
    bbox: tuple[float, float, float, float] | None
    label: str | None
    model: str | None
    tags: tuple[str, ...]
    created: datetime.datetime
    updated: datetime.datetime
    files: tuple[FoundFile, ...]
    """Those that he may download, whether or not their licence is accepted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A part of what was found."""

    products: tuple[Found, ...]
    total: int
    """Of all pages."""


class ProductSearch:
    """Searches products, a few at a time: downloads, which share the connections, do not wait for searches."""

    def __init__(self, database: Database, policies: Policies, open_data_types: Sequence[str]) -> None:
        """Search in ``database``; files of ``open_data_types`` are open to whoever sees their product."""
        self._database = database
        self._policies = policies
        self._open = frozenset(open_data_types)
        self._turns = asyncio.Semaphore(max(1, database.most // 2))

    async def find(self, principal: Principal, query: Query, order: Sequence[Order], offset: int, most: int) -> Page:
        """The products of ``query`` that ``principal`` may see: up to ``most``, from ``offset`` on.

        What a policy hides is not found at all: counts and short pages would tell of it.

        Raises:
            QueryError: PostgreSQL takes too long for it, or policies would be asked about too many products.
            GatewayError: 503 PostgreSQL, or a policy that decides, does not answer.
        """
        async with self._searching() as connection:
            datasets = await datasets_of(connection, principal)
            text, parameters = count_statement(principal, query, datasets)
            ((certain, left_open),) = await connection.fetch(text, *parameters)
            if left_open > MOST_ASKED:
                raise QueryError(f"A policy decides on more than {MOST_ASKED} of these products: narrow the query.")
            asked: list[asyncpg.Record] = []
            if left_open:
                text, parameters = open_statement(principal, query, datasets)
                asked = await connection.fetch(text, *parameters)
        # No connection is held while policies think.
        verdicts = await self._policies.judge(principal, asked, files=False)
        judged = zip(asked, verdicts, strict=True)
        allowed = [row["product_id"] for row, verdict in judged if _decided(verdict.visible)]
        total = certain + len(allowed)
        if offset >= total:
            return Page((), total)
        text, parameters = page_statement(
            principal, query, datasets, Part(order, offset, most, is_of_few=total <= FEW, allowed=allowed)
        )
        async with self._searching() as connection:
            rows = await connection.fetch(text, *parameters)
        return Page(await self._visible(principal, rows), total)

    async def get(self, principal: Principal, urn: str) -> Found | None:
        """The product ``urn``; None where the tenant of ``principal`` has none.

        Raises:
            GatewayError: 403 he may not see it; 503 PostgreSQL, or a policy that decides, does not answer.
        """
        if not is_storable(urn):
            return None
        rows = await self._database.fetch(_BY_URN + _ROWS, *_who(principal), urn)
        found = await self._visible(principal, rows)
        if rows and not found:
            raise GatewayError(HTTPStatus.FORBIDDEN, "You have no right to this product.")
        return found[0] if found else None

    @contextlib.asynccontextmanager
    async def _searching(self) -> AsyncIterator[Connection]:
        """A connection for a statement or two of a search, when it is its turn."""
        try:
            async with asyncio.timeout(self._database.timeout):
                await self._turns.acquire()
        except TimeoutError as error:
            raise no_answer() from error
        try:
            async with self._database.transaction() as connection:
                # A query is best answered by a plan of its own: one for all queries of its form suits few. The
                # statements end before the transaction does, which cannot tell that it was they who took so long.
                milliseconds = max(1, int(self._database.timeout * 450))
                await connection.execute(
                    f"SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL statement_timeout = {milliseconds}"
                )
                try:
                    yield connection
                except asyncpg.QueryCanceledError as error:
                    what = "The query takes too long: narrow it, for example by tags or creationDate."
                    raise QueryError(what) from error
        finally:
            self._turns.release()

    async def _visible(self, principal: Principal, rows: Sequence[asyncpg.Record]) -> tuple[Found, ...]:
        verdicts = await self._policies.judge(principal, rows)
        # Properties may be megabytes of JSON.
        return await asyncio.to_thread(self._read, [*zip(rows, verdicts, strict=True)])

    def _read(self, judged: Sequence[tuple[asyncpg.Record, Verdict]]) -> tuple[Found, ...]:
        return tuple(self._product(row, verdict) for row, verdict in judged if _decided(verdict.visible))

    def _product(self, row: asyncpg.Record, verdict: Verdict) -> Found:
        files = tuple(FoundFile(*columns) for columns in json.loads(row["files"]))
        if any(file.data_type not in self._open for file in files) and not _decided(verdict.downloadable):
            files = tuple(file for file in files if file.data_type in self._open)
        bbox = (row["west"], row["south"], row["east"], row["north"])
        tags = json.loads(row["tags"] or "null")
        return Found(
            urn=row["urn"],
            provider_id=row["provider_id"],
            dataset=row["dataset"],
            collection=row["collection_id"],
            properties=json.loads(row["properties"]),
            geometry=json.loads(row["geometry"] or "null"),
            bbox=None if row["west"] is None else bbox,
            label=row["label"],
            model=row["model"],
            tags=tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
            created=row["created_at"],
            updated=row["updated_at"],
            files=files,
        )


async def datasets_of(connection: Connection, principal: Principal) -> list[int] | None:
    """The datasets that the caller may see; None for all there are."""
    rows = await connection.fetch(_DATASETS, *_who(principal))
    found = [row["dataset_id"] for row in rows if row["visible"]]
    return None if len(found) == len(rows) else found


def count_statement(principal: Principal, query: Query, datasets: Sequence[int] | None) -> tuple[str, list[object]]:
    """How many products of ``query`` the caller sees for certain, and on how many policies decide.

    Rights are the same for all products of a dataset that are rated the same: they are looked up once for these.
    """
    parameters = Parameters(*_who(principal))
    found = _found(query, datasets, parameters)
    text = f"""{_WITH}
SELECT coalesce(sum(product.products) FILTER (WHERE rights.visible), 0)::bigint,
       coalesce(sum(product.products) FILTER (WHERE {_OPEN}), 0)::bigint
FROM (
    SELECT p.dataset_id, p.quality_score, p.quality_level, count(*) AS products {found} GROUP BY 1, 2, 3
) product CROSS JOIN caller CROSS JOIN {RIGHTS} rights"""  # noqa: S608 - as above
    return text, parameters.values


def open_statement(principal: Principal, query: Query, datasets: Sequence[int] | None) -> tuple[str, list[object]]:
    """The products of ``query`` on which policies decide whether the caller sees them, with what they look at."""
    parameters = Parameters(*_who(principal))
    found = _found(query, datasets, parameters)
    text = f"""{_WITH}
SELECT product.product_id, rights.visible, rights.downloadable, rights.questions, facts.facts
FROM (SELECT {PRODUCT_COLUMNS} {found} OFFSET 0) product
CROSS JOIN caller CROSS JOIN {RIGHTS} rights LEFT JOIN {FACTS} facts ON true
WHERE {_OPEN} LIMIT {MOST_ASKED}"""  # noqa: S608 - as above
    return text, parameters.values


def page_statement(
    principal: Principal, query: Query, datasets: Sequence[int] | None, part: Part
) -> tuple[str, list[object]]:
    """The rows of a page: a statement and its parameters. What is equal is ordered by when the catalogue met it."""
    parameters = Parameters(*_who(principal))
    found = _found(query, datasets, parameters)
    allowed = parameters.bind(part.allowed, "bigint[]")
    most, skipped = parameters.bind(part.most, "bigint"), parameters.bind(part.offset, "bigint")
    columns = "".join(f", p.{SORTS[one.name]} AS sort_{number}" for number, one in enumerate(part.order))
    directions = ["DESC" if one.descending else "ASC" for one in part.order]
    by = [f"product.sort_{number} {direction}" for number, direction in enumerate(directions)]
    by.append(f"product.product_id {directions[-1]}")
    # Of few all are found and then sorted; else PostgreSQL, which cannot know how few they are, might go through all
    # products in their order until it has met them.
    fence = "OFFSET 0" if part.is_of_few else ""
    text = f"""{_WITH}, page AS (
    SELECT sorted.*, row_number() OVER () AS place
    FROM (
        SELECT product.* FROM (SELECT {PRODUCT_COLUMNS}{columns} {found} {fence}) product
        CROSS JOIN caller CROSS JOIN {RIGHTS} rights
        WHERE rights.visible OR product.product_id = ANY ({allowed})
        ORDER BY {", ".join(by)} LIMIT {most} OFFSET {skipped}
    ) sorted
)
{_ROWS}"""  # noqa: S608 - as above
    return text, parameters.values


def _found(query: Query, datasets: Sequence[int] | None, parameters: Parameters) -> str:
    conditions = ["p.tenant_id = (SELECT tenant_id FROM caller)", condition(query, parameters)]
    if datasets is not None:
        conditions.append(f"p.dataset_id = ANY ({parameters.bind(datasets, 'bigint[]')})")
    return f"FROM products p WHERE {' AND '.join(conditions)}"


def _who(principal: Principal) -> list[object]:
    return [[value] for value in caller_columns(principal)]


def _decided(decision: bool | None) -> bool:
    if decision is None:
        raise unavailable("What decides on a product does not answer at the moment.", code="PolicyUnavailable")
    return decision
