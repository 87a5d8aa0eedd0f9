"""Baskets: what users select, dataset by dataset, until they order it.

Whoever changes a basket locks its row first: additions at the same time come one after the other, and none is lost. A
selection is counted in the same transaction, with what its user may at that moment; an order counts anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import weakref
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar

import asyncpg

from gateway.config import Orders as Settings
from gateway.db import Connection, Database
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.orders.basket_page import BasketPage, basket_of
from gateway.orders.counting import Amount, Counter
from gateway.orders.dating import selection_date
from gateway.orders.model import DatasetSelection, FileFilters, Translator
from gateway.orders.patterns import refusal
from gateway.search.composition import dated, union
from gateway.search.limits import COMPOSED, check
from gateway.search.query import QueryError

MOST_AT_ONCE = 2
"""Baskets that a process changes at a time."""
MOST_OCTETS = 16 * 1024 * 1024
"""Of all queries of a basket together, in UTF-8: its page is told in one piece."""
NOTHING = "This selection contains no file that can be ordered"
_STEP = datetime.timedelta(milliseconds=1)

_MAKE = """
INSERT INTO baskets (tenant_id, owner) SELECT tenant_id, $2 FROM tenants WHERE name = $1
ON CONFLICT (tenant_id, owner) DO UPDATE SET owner = excluded.owner RETURNING basket_id"""
_LOCK = """
SELECT basket_id FROM baskets
WHERE tenant_id = (SELECT tenant_id FROM tenants WHERE name = $1) AND owner = $2 FOR UPDATE"""
_LAST = """
SELECT max(i.selected_at) FROM basket_datasets s JOIN basket_items i USING (selection_id) WHERE s.basket_id = $1"""
_FOUND = """
SELECT s.selection_id, s.dataset_id, s.data_types, s.name_pattern,
       ARRAY(SELECT i.query FROM basket_items i WHERE i.selection_id = s.selection_id ORDER BY i.selected_at DESC)
           AS queries
FROM basket_datasets s WHERE s.basket_id = $1 AND (s.dataset_id = ANY ($2::bigint[]) OR s.selection_id = $3::bigint)"""
_COLUMNS = "objects_count, files_count, files_size, metered_count, metered_size"
_PUT_DATASETS = f"""
INSERT INTO basket_datasets (basket_id, dataset_id, query, {_COLUMNS})
SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
ON CONFLICT (basket_id, dataset_id) DO UPDATE SET query = excluded.query, objects_count = excluded.objects_count,
    files_count = excluded.files_count, files_size = excluded.files_size, metered_count = excluded.metered_count,
    metered_size = excluded.metered_size"""  # noqa: S608 - made of constants
_ADD_ITEMS = f"""
INSERT INTO basket_items (selection_id, selected_at, query, {_COLUMNS})
SELECT s.selection_id, $2, $3, counted.objects, counted.files, counted.size, counted.metered, counted.metered_size
FROM unnest($4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
    AS counted(dataset_id, objects, files, size, metered, metered_size)
JOIN basket_datasets s ON s.basket_id = $1 AND s.dataset_id = counted.dataset_id"""  # noqa: S608 - as above
_PUT_FILTERS = "UPDATE basket_datasets SET data_types = $2, name_pattern = $3 WHERE selection_id = $1"
_PUT_ITEM = """
UPDATE basket_items SET objects_count = $3, files_count = $4, files_size = $5, metered_count = $6, metered_size = $7
WHERE selection_id = $1 AND query = $2"""
_DROP_DATASET = "DELETE FROM basket_datasets WHERE basket_id = $1 AND selection_id = $2"
_DROP_ITEMS = """
DELETE FROM basket_items WHERE selected_at = $3
    AND selection_id = (SELECT selection_id FROM basket_datasets WHERE basket_id = $1 AND selection_id = $2)
RETURNING selection_id"""
_DROP = "DELETE FROM baskets WHERE basket_id = $1"
_MEASURE = """
SELECT count(*) AS datasets, coalesce(sum(octet_length(s.query) + items.octets), 0)::bigint AS octets
FROM basket_datasets s CROSS JOIN LATERAL (
    SELECT coalesce(sum(octet_length(i.query)), 0) AS octets FROM basket_items i WHERE i.selection_id = s.selection_id
) items WHERE s.basket_id = $1"""
_TAKEN = """
SELECT d.urn, s.query, s.data_types, s.name_pattern FROM basket_datasets s JOIN datasets d USING (dataset_id)
WHERE s.basket_id = $1 ORDER BY lower(coalesce(nullif(d.title, ''), d.collection_id)), d.dataset_id"""


Key = TypeVar("Key", bound=Hashable)


class EmptySelectionError(Exception):
    """Nothing is selected that the caller may have."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Selected:
    """All selections of a dataset, while they are changed."""

    dataset_id: int
    filters: FileFilters
    queries: Sequence[str]
    """The newest first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Baskets:
    """Changes baskets.

    Every method raises `GatewayError` 503 where PostgreSQL, or a policy that matters, does not answer; those that give
    a page give None to whom has no basket.
    """

    database: Database
    """Of its own: to count takes longer than a look-up."""
    settings: Settings
    counter: Counter
    translate: Translator
    places: asyncio.Semaphore = dataclasses.field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE))
    """Orders and workers need connections, too."""
    turns: weakref.WeakValueDictionary[tuple[str, str | None], asyncio.Lock] = dataclasses.field(
        default_factory=weakref.WeakValueDictionary
    )
    """Of each user: however much he asks for at once, one connection is enough for it."""

    async def add(self, principal: Principal, query: str) -> BasketPage | None:
        """Add what ``query``, which was seen to be one by itself, finds now.

        Raises:
            EmptySelectionError: it finds no file that can be ordered.
            GatewayError: 404 there is no such tenant; 409 the basket would be too large; 422 PostgreSQL cannot answer
                the query.
        """
        async with self._changing(principal) as connection:
            basket_id = await connection.fetchval(_MAKE, principal.tenant, principal.email)
            if basket_id is None:
                raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {principal.tenant!r}.")
            date = await self._date(connection, basket_id, principal.tenant)
            item = dated(query, date)
            asked = await self.translate(item)
            counted = dict(await self.counter.count(connection, principal, asked, FileFilters()))
            if not counted:
                raise EmptySelectionError
            rows = await connection.fetch(_FOUND, basket_id, list(counted), None)
            before = {row["dataset_id"]: _selected(row) for row in rows}
            for filters, ids in _grouped({one.dataset_id: one.filters for one in before.values()}).items():
                if filters != FileFilters():
                    filtered = await self.counter.count(connection, principal, asked, filters, ids)
                    counted |= {one: filtered.get(one, Amount()) for one in ids}
            now = [
                dataclasses.replace(before[one], queries=[item, *before[one].queries])
                if one in before
                else _Selected(one, FileFilters(), [item])
                for one in counted
            ]
            await self._see_that_it_fits(now)
            alone = {one.dataset_id: counted[one.dataset_id] for one in now if len(one.queries) == 1}
            await self._put(connection, principal, basket_id, now, alone)
            await connection.execute(_ADD_ITEMS, basket_id, date, item, list(counted), *_columns(counted.values()))
            await self._see_that_the_basket_fits(connection, basket_id)
            return await basket_of(connection, principal)

    async def remove_dataset(self, principal: Principal, selection_id: int) -> BasketPage | None:
        """Take all selections of a dataset away; an id that is not in the basket changes nothing."""
        async with self._changing(principal) as connection:
            basket_id = await connection.fetchval(_LOCK, principal.tenant, principal.email)
            if basket_id is not None:
                await connection.execute(_DROP_DATASET, basket_id, selection_id)
            return await basket_of(connection, principal)

    async def remove_items(self, principal: Principal, selection_id: int, date: datetime.datetime) -> BasketPage | None:
        """Take one selection of a dataset away; one that is not in the basket changes nothing."""
        async with self._changing(principal) as connection:
            basket_id = await connection.fetchval(_LOCK, principal.tenant, principal.email)
            if basket_id is not None and await connection.fetchval(_DROP_ITEMS, basket_id, selection_id, date):
                row = await connection.fetchrow(_FOUND, basket_id, [], selection_id)
                assert row is not None  # noqa: S101 - it is locked
                if row["queries"]:
                    await self._put(connection, principal, basket_id, [_selected(row)], {})
                else:
                    await connection.execute(_DROP_DATASET, basket_id, selection_id)
            return await basket_of(connection, principal)

    async def filter(self, principal: Principal, selection_id: int, filters: FileFilters) -> BasketPage | None:
        """Have only some files of what is selected of a dataset, and count anew.

        Raises:
            GatewayError: 400 the pattern is none; 404 there is no such selection in the basket.
        """
        if filters.name_pattern is not None and (reason := refusal(filters.name_pattern)):
            raise GatewayError(HTTPStatus.BAD_REQUEST, reason)
        try:
            async with self._changing(principal) as connection:
                basket_id = await connection.fetchval(_LOCK, principal.tenant, principal.email)
                if basket_id is None:
                    return None
                row = await connection.fetchrow(_FOUND, basket_id, [], selection_id)
                if row is None:
                    detail = f"Dataset selection with id : {selection_id} doesn't exist"
                    raise GatewayError(HTTPStatus.NOT_FOUND, detail)
                await connection.execute(_PUT_FILTERS, selection_id, list(filters.data_types), filters.name_pattern)
                selected = dataclasses.replace(_selected(row), filters=filters)
                for query in selected.queries:
                    amount = await self._count(connection, principal, query, filters, [selected.dataset_id])
                    of_item = amount.get(selected.dataset_id, Amount())
                    await connection.execute(_PUT_ITEM, selection_id, query, *dataclasses.astuple(of_item))
                await self._put(connection, principal, basket_id, [selected], {})
                return await basket_of(connection, principal)
        except asyncpg.InvalidRegularExpressionError as error:
            raise GatewayError(HTTPStatus.BAD_REQUEST, "The pattern of file names cannot be understood.") from error

    async def empty(self, principal: Principal) -> None:
        """Leave nothing of the basket."""
        async with self._changing(principal) as connection:
            basket_id = await connection.fetchval(_LOCK, principal.tenant, principal.email)
            await connection.execute(_DROP, basket_id)

    async def take(self, connection: Connection, principal: Principal) -> Sequence[DatasetSelection]:
        """What an order of it is made of; the basket is gone if the transaction of ``connection`` ends well."""
        basket_id = await connection.fetchval(_LOCK, principal.tenant, principal.email)
        rows = await connection.fetch(_TAKEN, basket_id)
        await connection.execute(_DROP, basket_id)
        return [
            DatasetSelection(row["urn"], row["query"], FileFilters(tuple(row["data_types"]), row["name_pattern"]))
            for row in rows
        ]

    @contextlib.asynccontextmanager
    async def _changing(self, principal: Principal) -> AsyncIterator[Connection]:
        turn = self.turns.setdefault((principal.tenant, principal.email), asyncio.Lock())
        try:
            async with (
                asyncio.timeout(self.settings.timeout),
                turn,
                self.places,
                self.database.transaction() as connection,
            ):
                # The plan of a selection depends on what is selected.
                await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
                yield connection
        except TimeoutError as error:
            raise unavailable("There is too much to do at the moment; try again.") from error
        except asyncpg.IntegrityConstraintViolationError as error:
            raise unavailable("A dataset was deleted meanwhile; try again.") from error
        except asyncpg.InvalidRegularExpressionError:
            raise
        except asyncpg.DataError as error:
            detail = "The query cannot be understood."
            raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, detail) from error

    async def _date(self, connection: Connection, basket_id: int, tenant: str) -> datetime.datetime:
        """Of a new selection: it has one of its own, by which it can be removed."""
        date = await selection_date(connection, tenant)
        last: datetime.datetime | None = await connection.fetchval(_LAST, basket_id)
        return date if last is None or date > last else last + _STEP

    async def _count(
        self, connection: Connection, principal: Principal, query: str, filters: FileFilters, ids: Sequence[int]
    ) -> Mapping[int, Amount]:
        return await self.counter.count(connection, principal, await self.translate(query), filters, ids)

    async def _put(
        self,
        connection: Connection,
        principal: Principal,
        basket_id: int,
        selected: Sequence[_Selected],
        known: Mapping[int, Amount],
    ) -> None:
        """Write the selections of datasets, each with its union; what is ``known`` of them need not be counted."""
        queries = {one.dataset_id: union(one.queries) for one in selected}
        amounts = dict(known)
        # Datasets that were always selected together have the same query: one statement counts them all.
        alike = _grouped({one.dataset_id: (queries[one.dataset_id], one.filters) for one in selected})
        for (query, filters), ids in alike.items():
            if missing := [one for one in ids if one not in known]:
                counted = await self._count(connection, principal, query, filters, missing)
                amounts |= {one: counted.get(one, Amount()) for one in missing}
        ordered = [amounts[one] for one in queries]
        await connection.execute(_PUT_DATASETS, basket_id, list(queries), list(queries.values()), *_columns(ordered))

    async def _see_that_it_fits(self, selected: Sequence[_Selected]) -> None:
        most = self.settings.basket_selections
        if any(len(one.queries) > most for one in selected):
            raise _full(f"A basket has at most {most} selections of a dataset: order what is there, or remove some.")
        if 2 * sum(sum(map(len, one.queries)) for one in selected) > MOST_OCTETS:
            raise _full("The queries of the basket are too long together: order what is there, or remove some.")
        try:
            # It may take seconds.
            await asyncio.to_thread(_check, {tuple(one.queries) for one in selected})
        except QueryError as error:
            detail = f"The selections of a dataset are too much for one order: {error} Order what is there first."
            raise _full(detail) from error

    async def _see_that_the_basket_fits(self, connection: Connection, basket_id: int) -> None:
        row = await connection.fetchrow(_MEASURE, basket_id)
        assert row is not None  # noqa: S101 - it counts
        most = self.settings.basket_datasets
        if row["datasets"] > most:
            raise _full(f"A basket has selections of at most {most} datasets: narrow the query.")
        if row["octets"] > MOST_OCTETS:
            raise _full("The queries of the basket are too long together: order what is there, or remove some.")


def _check(all_queries: Iterable[Sequence[str]]) -> None:
    for queries in all_queries:
        check(union(queries), COMPOSED)


def _selected(row: asyncpg.Record) -> _Selected:
    return _Selected(row["dataset_id"], FileFilters(tuple(row["data_types"]), row["name_pattern"]), row["queries"])


def _grouped(values: Mapping[int, Key]) -> dict[Key, list[int]]:
    """Who has the same value."""
    found: dict[Key, list[int]] = {}
    for one, value in values.items():
        found.setdefault(value, []).append(one)
    return found


def _columns(amounts: Iterable[Amount]) -> list[list[int]]:
    rows = [dataclasses.astuple(amount) for amount in amounts]
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(5)]


def _full(detail: str) -> GatewayError:
    return GatewayError(HTTPStatus.CONFLICT, detail)
