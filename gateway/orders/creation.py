"""How an order is made: one transaction in which PostgreSQL selects, cuts and counts, whatever the number of files."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import itertools
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

import asyncpg

from gateway.config import Orders as Settings
from gateway.config import Rights
from gateway.db import Connection, Database
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.orders.model import (
    ID_BITS,
    ORDERABLE,
    DatasetSelection,
    FileFilters,
    Numbering,
    Translator,
    Wish,
    everything,
)
from gateway.orders.patterns import refusal, whole
from gateway.orders.queue import WAKE
from gateway.rights.policies import Policies
from gateway.rights.predicate import CALLER, DATASET_RIGHTS, FACTS, PRODUCT_COLUMNS, RIGHTS, asked, caller_columns

LONGEST_LABEL = 50
MOST_AT_ONCE = 2
"""Orders that a process makes at a time."""
LIMIT_REACHED = "OrderLimitReached"
"""Code of the refusal of an order that is too large."""
_JUDGED_AT_ONCE = 1000
"""Products that policies are asked about together."""
_OWN_PARAMETERS = 17
"""Of `_fill`; those of a query come after them."""

Choose = Callable[[Connection], Awaitable[Sequence[DatasetSelection]]]
"""Gives what is ordered, within the transaction of the order."""

_NEW = """
INSERT INTO orders (tenant_id, owner, owner_subject, owner_role, owner_groups, label, on_success_url, correlation_id,
                    status, created_at, status_at, expires_at)
SELECT tenant_id, $2, $3, $4, $5, $6, $7, $8, 'PENDING', $9, $9, $10 FROM tenants WHERE name = $1
ON CONFLICT (tenant_id, owner, label) WHERE status <> 'DELETED' DO NOTHING RETURNING order_id, tenant_id"""

_TASK = """
INSERT INTO order_tasks (order_id, dataset, label, query, data_types, name_pattern)
SELECT $1, d.urn, coalesce(nullif(d.title, ''), d.collection_id), $4, $5, $6
FROM datasets d WHERE d.tenant_id = $2 AND d.urn = $3
RETURNING task_id, (SELECT dataset_id FROM datasets d WHERE d.tenant_id = $2 AND d.urn = $3) AS dataset_id"""

# Where an owner has sub-orders that wait, new ones come after them; else they come next, with those of others.
_FIRST_TURN = """
SELECT greatest(
    coalesce((SELECT turn - 1 FROM suborders WHERE state = 'WAITING' ORDER BY turn, suborder_id LIMIT 1), 0),
    coalesce((SELECT turn FROM suborders WHERE state = 'WAITING' AND tenant_id = $1 AND owner = $2
              ORDER BY turn DESC LIMIT 1), 0))"""

_COUNT = """
UPDATE order_tasks SET objects_count = $2, files_count = $3, files_size = $4, first_file = $5 WHERE task_id = $1"""

_BEGIN = """
UPDATE orders SET status = 'RUNNING', files_count = $2, files_pending = $2, files_size = $3, pending_size = $3
WHERE order_id = $1"""


def _products(condition: str) -> str:
    """A row ``product`` for each product of the dataset that is selected, with what the caller may."""
    return f"""
    caller AS MATERIALIZED (SELECT caller.* FROM {asked()} CROSS JOIN {CALLER} caller),
    judged AS (
        SELECT product.product_id, rights.visible, rights.downloadable, rights.questions, facts.facts
        FROM caller
        CROSS JOIN LATERAL (
            SELECT {PRODUCT_COLUMNS} FROM products p WHERE p.dataset_id = $6 AND ({condition})
        ) product
        CROSS JOIN {RIGHTS} rights
        LEFT JOIN {FACTS} facts ON true
    )"""  # noqa: S608 - made of constants and of a translator's text; values are bound


# The rights of most products follow from their dataset: FACTS costs nothing where there are no questions.
def _questions(condition: str) -> str:
    return f"""
WITH {_products(condition)}
SELECT product_id, visible, downloadable, questions, facts FROM judged
WHERE questions IS NOT NULL AND NOT (visible AND downloadable)"""  # noqa: S608 - as above


_BY_RIGHTS = "SELECT product_id, downloadable FROM judged WHERE visible AND (downloadable OR questions IS NULL)"
"""Products of which SQL alone knows what the caller may."""
_BY_POLICIES = """
SELECT product_id, judged.downloadable FROM unnest($18::bigint[], $19::boolean[]) AS judged(product_id, downloadable)
JOIN products p USING (product_id) WHERE p.dataset_id = $6"""


def _fill(products: str, condition: str | None) -> str:
    """Write the files of ``products`` into the order, cut them into sub-orders, and count. `_OWN_PARAMETERS` bound."""
    # Of those that policies let through the caller is known; his parameters are there all the same, with their types.
    judged = _products(condition) if condition is not None else f"caller AS (SELECT FROM {asked()})"
    return f"""
WITH {judged}, wanted AS ({products}), chosen AS (
    SELECT f.product_id, f.file_id, f.size
    FROM wanted JOIN files f USING (product_id)
    WHERE f.data_type = ANY ($7::text[]) AND (wanted.downloadable OR f.data_type = ANY ($8::text[]))
      AND ($9::text IS NULL OR f.file_name ~ $9::text)
    LIMIT $10::bigint
), placed AS (
    SELECT product_id, file_id, size, row_number() OVER place AS number,
           coalesce(sum(size) OVER (place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS octets,
           dense_rank() OVER (ORDER BY product_id) AS object
    FROM chosen WINDOW place AS (ORDER BY product_id, file_id)
), cut AS MATERIALIZED (
    SELECT file_id, size, object, $11::bigint + number AS order_file_id,
           $12::integer + dense_rank() OVER (ORDER BY div(octets, $13::bigint), (number - 1) / $14::integer) AS suborder
    FROM placed
), written AS (
    INSERT INTO order_files (order_file_id, suborder, file_id, state, size)
    SELECT order_file_id, suborder, file_id, 'PENDING', size FROM cut
), parts AS (
    INSERT INTO suborders (order_id, number, task_id, tenant_id, owner, state, turn, first_file, files_count,
                           files_size, files_pending)
    SELECT o.order_id, cut.suborder, $16::bigint, o.tenant_id, o.owner, 'WAITING', $17::bigint + cut.suborder,
           min(cut.order_file_id), count(*), coalesce(sum(cut.size), 0), count(*)
    FROM cut, orders o WHERE o.order_id = $15 GROUP BY o.order_id, cut.suborder
)
SELECT count(*) AS files, coalesce(max(object), 0) AS objects, coalesce(sum(size), 0)::bigint AS size,
       coalesce(max(suborder), $12::integer) AS suborder
FROM cut"""  # noqa: S608 - as above


_DATASETS = f"""
WITH caller AS MATERIALIZED (SELECT caller.* FROM {asked()} CROSS JOIN {CALLER} caller)
SELECT dataset.urn FROM caller JOIN datasets dataset ON dataset.tenant_id = caller.tenant_id
CROSS JOIN {DATASET_RIGHTS} rights
WHERE rights.visible AND EXISTS (SELECT FROM products p WHERE p.dataset_id = dataset.dataset_id AND ({{}}))
ORDER BY lower(coalesce(nullif(dataset.title, ''), dataset.collection_id)), dataset.dataset_id"""  # noqa: S608 - as above


class EmptyOrderError(Exception):
    """Nothing is selected that the caller may have."""


@dataclasses.dataclass(slots=True)
class _Draft:
    """An order while it is made."""

    order_id: int
    tenant_id: int
    turn: int
    files: int = 0
    size: int = 0
    suborder: int = 0
    conditions: dict[str, Numbering] = dataclasses.field(default_factory=dict)
    """By query: many datasets may have the same one, which may be long."""

    @property
    def last_file(self) -> int:
        return (self.order_id << ID_BITS) + self.files


@dataclasses.dataclass(frozen=True, slots=True)
class Creator:
    """Makes orders."""

    database: Database
    """Of its own, with all the time that a large order takes."""
    settings: Settings
    rights: Rights
    policies: Policies
    translate: Translator
    clock: Callable[[], datetime.datetime]
    places: asyncio.Semaphore = dataclasses.field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE))
    """Of orders that are being made: workers need connections, too."""

    async def create(self, principal: Principal, wish: Wish, choose: Choose) -> int:
        """Make an order of what ``choose`` gives, with what ``principal`` may now; its id. All of it, or nothing.

        Raises:
            EmptyOrderError: there is no file that he may have.
            GatewayError: 422 the label, a query or a pattern is not good, or there are too many files; 503 PostgreSQL
                does not answer, or a policy that matters cannot decide.
        """
        try:
            async with asyncio.timeout(self.settings.timeout), self.places, self.database.transaction() as connection:
                # The plan of a selection depends on what is selected; that of a look-up does not. Indexes are in
                # memory, or on disks without heads: else all files would be read for each of a hundred datasets.
                await connection.execute(
                    "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL random_page_cost = 1.1"
                )
                selections = await choose(connection)
                if not selections:
                    raise EmptyOrderError
                draft = await self._begin(connection, principal, wish)
                for selection in selections:
                    await self._add(connection, draft, principal, selection)
                if draft.files == 0:
                    raise EmptyOrderError
                if wish.most_bytes is not None and draft.size > wish.most_bytes:
                    raise _refused(f"The files have {draft.size} bytes in all.", code=LIMIT_REACHED)
                await connection.execute(_BEGIN, draft.order_id, draft.files, draft.size)
                await connection.execute(WAKE)
                return draft.order_id
        except TimeoutError as error:
            raise unavailable("There is too much to do at the moment; try again.") from error
        except asyncpg.DataError as error:
            raise _refused("A query or pattern cannot be understood.") from error

    async def datasets(
        self, connection: Connection, principal: Principal, query: str, filters: FileFilters
    ) -> list[DatasetSelection]:
        """What ``query`` selects, by dataset.

        Raises:
            GatewayError: 422 the query cannot be understood.
        """
        condition = (await self._condition(query))(6)
        statement = _DATASETS.format(condition.sql)
        who = ([value] for value in caller_columns(principal))
        rows = await connection.fetch(statement, *who, *condition.parameters)
        return [DatasetSelection(row["urn"], query, filters) for row in rows]

    async def _condition(self, query: str) -> Numbering:
        return await self.translate(query) if query else everything

    async def _begin(self, connection: Connection, principal: Principal, wish: Wish) -> _Draft:
        now = self.clock()
        label = wish.label.strip() if wish.label is not None else None
        if label is not None and len(label) > LONGEST_LABEL:
            raise _refused("TOO_MANY_CHARACTERS_IN_LABEL")
        for name in [label] if label else _labels(now):
            row = await connection.fetchrow(
                _NEW,
                principal.tenant,
                principal.email,
                principal.subject,
                principal.role,
                list(principal.groups),
                name,
                wish.on_success_url,
                wish.correlation_id,
                now,
                now + datetime.timedelta(days=self.settings.days),
            )
            if row is not None:
                turn = await connection.fetchval(_FIRST_TURN, row["tenant_id"], principal.email)
                return _Draft(row["order_id"], row["tenant_id"], turn)
            if not await connection.fetchval("SELECT true FROM tenants WHERE name = $1", principal.tenant):
                raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {principal.tenant!r}.")
        raise _refused("LABEL_NOT_UNIQUE_FOR_OWNER")

    async def _add(
        self, connection: Connection, draft: _Draft, principal: Principal, selection: DatasetSelection
    ) -> None:
        filters, first = selection.filters, draft.last_file + 1
        if filters.name_pattern is not None and (reason := refusal(filters.name_pattern)):
            raise _refused(reason)
        task = await connection.fetchrow(
            _TASK,
            draft.order_id,
            draft.tenant_id,
            selection.dataset,
            selection.query,
            list(filters.data_types),
            filters.name_pattern,
        )
        if task is None:
            return
        who = tuple([value] for value in caller_columns(principal))
        number = draft.conditions.get(selection.query)
        if number is None:
            number = draft.conditions[selection.query] = await self._condition(selection.query)
        # Before its parameters `_questions` has the caller and the dataset alone.
        asking, filling = number(7), number(_OWN_PARAMETERS + 1)
        before_files, before_size = draft.files, draft.size
        add = _Filling(self, connection, draft, task["task_id"], selection)
        own = (*who, task["dataset_id"])
        objects = await add.fill(_fill(_BY_RIGHTS, filling.sql), own, filling.parameters)
        statement = _questions(asking.sql)
        cursor = connection.cursor(statement, *own, *asking.parameters, prefetch=_JUDGED_AT_ONCE)
        batch: list[asyncpg.Record] = []
        async for row in cursor:
            batch.append(row)
            if len(batch) == _JUDGED_AT_ONCE:
                objects += await self._judged(add, principal, batch, own)
                batch = []
        if batch:
            objects += await self._judged(add, principal, batch, own)
        if draft.files == before_files:
            await connection.execute("DELETE FROM order_tasks WHERE task_id = $1", task["task_id"])
            return
        size = draft.size - before_size
        await connection.execute(_COUNT, task["task_id"], objects, draft.files - before_files, size, first)

    async def _judged(
        self, add: _Filling, principal: Principal, rows: Sequence[asyncpg.Record], own: tuple[object, ...]
    ) -> int:
        """Add what policies let through."""
        verdicts = await self.policies.judge(principal, rows)
        if any(verdict.visible is None or verdict.downloadable is None for verdict in verdicts):
            # An order that lacks files for such a reason would be taken for whole.
            raise unavailable("What decides on these products does not answer at the moment.", code="PolicyUnavailable")
        seen = [(row["product_id"], one.downloadable) for row, one in zip(rows, verdicts, strict=True) if one.visible]
        columns = ([product for product, _ in seen], [may for _, may in seen])
        return await add.fill(_fill(_BY_POLICIES, None), own, columns) if seen else 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Filling:
    """Fills one task."""

    creator: Creator
    connection: Connection
    draft: _Draft
    task_id: int
    selection: DatasetSelection

    async def fill(self, statement: str, own: tuple[object, ...], more: Sequence[object]) -> int:
        """Run ``statement`` of `_fill`; the number of products that it added."""
        draft, settings = self.draft, self.creator.settings
        types = self.selection.filters.data_types or ORDERABLE
        left = settings.max_files - draft.files
        row = await self.connection.fetchrow(
            statement,
            *own,
            [one for one in types if one in ORDERABLE],
            self.creator.rights.open_data_types,
            whole(self.selection.filters.name_pattern),
            left + 1,
            draft.last_file,
            draft.suborder,
            settings.suborder_size,
            settings.suborder_files,
            draft.order_id,
            self.task_id,
            draft.turn,
            *more,
        )
        assert row is not None  # noqa: S101 - it counts
        if row["files"] > left:
            raise _refused(f"An order has at most {settings.max_files} files.", code=LIMIT_REACHED)
        draft.files += row["files"]
        draft.size += row["size"]
        draft.suborder = row["suborder"]
        objects: int = row["objects"]
        return objects


def _labels(now: datetime.datetime) -> Sequence[str]:
    """Names for an order without one: REGARDS', and with a number if it is taken."""
    name = now.astimezone(datetime.UTC).strftime("Order of %Y/%m/%d at %H:%M:%S")
    return [name, *(f"{name} ({number})" for number in itertools.islice(itertools.count(2), 1000))]


def _refused(detail: str, code: str = "") -> GatewayError:
    return GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, code)
