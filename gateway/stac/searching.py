"""Searches the catalogue for callers: what they may not see is not found."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg

from gateway.config import Rights
from gateway.db import Database, no_answer
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.rights.policies import Policies
from gateway.rights.predicate import caller_columns
from gateway.stac.finding import CROWDED
from gateway.stac.matching import Matching, matching
from gateway.stac.model import (
    CollectionName,
    CollectionPage,
    CollectionRow,
    Direction,
    FileRow,
    ItemRow,
    LastRestore,
    Page,
    Search,
)
from gateway.stac.question import Question, outermost, question
from gateway.stac.search import MOST_COLLECTIONS
from gateway.stac.statements import COLLECTION, COLLECTION_NAMES, COLLECTIONS, ITEM, PAGE_SECRET, Statement
from gateway.stac.tokens import OLDEST, Place, Tokens
from gateway.staging.model import RestoreState
from gateway.text import is_storable


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """How much is done for a page."""

    rows: int = 500
    """Items that one statement gives: making them takes the loop some milliseconds."""
    seconds: float = 10
    """After which a page is given that is not full, as long as there is something on it."""
    few: int = 16
    """Datasets that are read one by one, where more are read as one."""
    walk: int = 2000
    """Items that are read in order before they are looked for otherwise,"""
    walk_each: int = 4
    """and how many more for each that is wanted."""
    area: int = 5_000
    """Items in a box that are sorted to find the next ones."""
    far: int = 10_000
    """Items that are read in order where more lie in the box."""
    collections: int = 250
    """Collections that one statement gives."""
    characters: int = 8 * 1024 * 1024
    """Of what items came as, after which a page is given that is not full: some have megabytes, and all that is made
    of them takes some five times as much memory."""
    listing: int = 32 * 1024 * 1024
    """The same of collections: more, as there are clients that read one page of them."""


class Searching:
    """Walks and searches the catalogue. Made by `searching`."""

    def __init__(
        self,
        database: Database,
        policies: Policies,
        settings: Rights,
        tokens: Tokens,
        matching: Matching,
        *,
        bounds: Bounds,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._policies = policies
        self._settings = settings
        self._tokens = tokens
        self._matching = matching
        self._bounds = bounds
        self._clock = clock
        # Downloads are looked up by the same connections, and must not wait for long searches.
        self._turns = asyncio.Semaphore(max(1, database.most // 2))

    async def collections(
        self, principal: Principal, *, after: str = "", limit: int = MOST_COLLECTIONS
    ) -> CollectionPage:
        """The collections that ``principal`` may see, by id: ``limit`` at most, and fewer where they are large.

        ``after`` is the token of the page, or nothing for the first.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        found: list[CollectionRow] = []
        characters = 0
        while True:
            # One more tells whether there is another page.
            most = min(limit + 1 - len(found), self._bounds.collections)
            rows = await self._fetch(COLLECTIONS, principal, {"collection": after, "most": most})
            found += map(_collection, rows)
            characters += sum(len(row["body"]) for row in rows)
            if len(found) > limit:
                return CollectionPage(tuple(found[:limit]), found[limit - 1].collection_id)
            if len(rows) < most:
                return CollectionPage(tuple(found), None)
            after = found[-1].collection_id
            if characters > self._bounds.listing:
                return CollectionPage(tuple(found), after)

    async def collection_names(self, principal: Principal, most: int) -> tuple[CollectionName, ...]:
        """The first collections that ``principal`` may see, by id: ``most`` at most.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        rows = await self._fetch(COLLECTION_NAMES, principal, {"most": most})
        return tuple(CollectionName(row["collection_id"], row["title"]) for row in rows)

    async def collection(self, principal: Principal, collection_id: str) -> CollectionRow:
        """A collection.

        Raises:
            GatewayError: 404 there is none in the caller's tenant; 403 he may not see it (404 by setting); 503
                PostgreSQL does not answer.
        """
        missing = GatewayError(HTTPStatus.NOT_FOUND, f"There is no collection {collection_id!r}.")
        rows = await self._one(COLLECTION, principal, {"collection": collection_id})
        if not rows:
            raise missing
        if not rows[0]["visible"]:
            raise self._forbidden("collection", missing)
        return _collection(rows[0])

    async def item(self, principal: Principal, collection_id: str, item_id: str) -> ItemRow:
        """An item.

        Raises:
            GatewayError: 404 there is none in the caller's tenant; 403 he may not see it (404 by setting); 503
                PostgreSQL, or the policy that decides, does not answer.
        """
        missing = GatewayError(HTTPStatus.NOT_FOUND, f"There is no item {item_id!r} in collection {collection_id!r}.")
        values = {"collection": collection_id, "item": item_id, "open_types": self._settings.open_data_types}
        rows = await self._one(ITEM, principal, values)
        if not rows:
            raise missing
        if not await self._visible(principal, rows):
            raise self._forbidden("product", missing)
        return _item(rows[0])

    async def search(self, principal: Principal, search: Search, *, seconds: float | None = None) -> Page:
        """The page of ``search`` that its token leads to, or the first.

        ``seconds``, unless `Bounds` say less: after which a page is given that is not full.

        Raises:
            GatewayError: 400 the token is not one of this search; 503 PostgreSQL, or the policy that decides, does not
                answer.
        """
        from_token = self._tokens.read(principal.tenant, search)
        direction: Direction = from_token[0] if from_token else "next"
        down = search.newest_first == (direction == "next")
        place = from_token[1] if from_token else outermost(down=down)
        until = self._clock() + min(self._bounds.seconds, self._bounds.seconds if seconds is None else seconds)
        found, on = await self._from(place, principal, search, until, down=down)
        return self._page(principal, search, direction, found, on)

    async def _from(
        self, place: Place, principal: Principal, search: Search, until: float, *, down: bool
    ) -> tuple[list[ItemRow], Place | None]:
        """The next items after ``place``, as many as a page has, and where to go on; None if there are no more.

        After ``until``, in seconds of the clock, those that were found by then.
        """
        found: list[tuple[Place, ItemRow]] = []
        characters = 0
        asked = question(search, down=down)
        # One more tells whether there is another page.
        batch = search.limit + 1
        while True:
            most = min(batch, self._bounds.rows)
            rows = await self._rows(principal, asked, place, most)
            if rows and rows[0]["mark"] == CROWDED:
                asked = question(search, down=down, on=True)
                continue
            read, after = _read(rows, most)
            kept = await self._for_caller(principal, search, read)
            found += [(_place(row), _item(row)) for row in kept]
            characters += sum(map(_characters, kept))
            if len(found) > search.limit:
                return [item for _, item in found[: search.limit]], found[search.limit - 1][0]
            if after is None:
                return [item for _, item in found], None
            place = after
            late = self._clock() > until
            if late and not found:
                raise _too_wide()
            if late or characters > self._bounds.characters:
                return [item for _, item in found], place
            batch = search.limit + 1 - len(found)
            if len(kept) < len(read):
                # A right or the exact test says no to some: perhaps to many.
                batch = max(batch, 4 * most)

    async def _rows(self, principal: Principal, asked: Question, place: Place, most: int) -> Sequence[asyncpg.Record]:
        bounds = self._bounds
        values = {
            **asked.after(place),
            "most": most,
            "few": bounds.few,
            "walk": bounds.walk + bounds.walk_each * most,
            "area": bounds.area,
            "far": bounds.far,
            "open_types": self._settings.open_data_types,
        }
        return await self._fetch(asked.statement, principal, values)

    def _page(
        self, principal: Principal, search: Search, direction: Direction, items: list[ItemRow], on: Place | None
    ) -> Page:
        """The page of ``items``, which came in ``direction``, and go ``on`` in it."""
        back = Place(items[0].start or OLDEST, items[0].product_id) if items and search.token is not None else None
        places: dict[Direction, Place | None] = {"next": on, "previous": back}
        if direction == "previous":
            items.reverse()
            places = {"next": back, "previous": on}
        following, preceding = (
            None if place is None else self._tokens.make(principal.tenant, search, to, place)
            for to, place in places.items()
        )
        return Page(tuple(items), following, preceding)

    async def _for_caller(
        self, principal: Principal, search: Search, rows: Sequence[asyncpg.Record]
    ) -> Sequence[asyncpg.Record]:
        """Those of ``rows`` that ``search`` asks for and ``principal`` may see."""
        open_ones = [row for row in rows if row["visible"] or row["questions"] is not None]
        if search.intersects is not None:
            try:
                async with asyncio.timeout(self._bounds.seconds):
                    matches = await self._matching.intersecting(
                        search.intersects, [row["geometry"] for row in open_ones]
                    )
            except TimeoutError as error:
                raise _too_wide() from error
            open_ones = [row for row, match in zip(open_ones, matches, strict=True) if match]
        return await self._visible(principal, open_ones)

    async def _visible(self, principal: Principal, rows: Sequence[asyncpg.Record]) -> Sequence[asyncpg.Record]:
        verdicts = await self._policies.judge(principal, rows, files=False)
        if any(verdict.visible is None for verdict in verdicts):
            # To leave items out would be to say that there are no such items.
            raise unavailable("What decides on some item does not answer at the moment.", code="PolicyUnavailable")
        return [row for row, verdict in zip(rows, verdicts, strict=True) if verdict.visible]

    async def _one(
        self, statement: Statement, principal: Principal, values: Mapping[str, object]
    ) -> Sequence[asyncpg.Record]:
        if not all(is_storable(value) for value in values.values() if isinstance(value, str)):
            return []
        return await self._fetch(statement, principal, values)

    async def _fetch(
        self, statement: Statement, principal: Principal, values: Mapping[str, object]
    ) -> Sequence[asyncpg.Record]:
        columns = ([value] for value in caller_columns(principal))
        others = (values[name] for name in statement.parameters)
        try:
            async with asyncio.timeout(self._database.timeout):
                await self._turns.acquire()
        except TimeoutError as error:
            raise no_answer() from error
        try:
            return await self._database.fetch(statement.text, *columns, *others)
        finally:
            self._turns.release()

    def _forbidden(self, what: str, missing: GatewayError) -> GatewayError:
        if self._settings.hide_forbidden:
            return missing
        return GatewayError(HTTPStatus.FORBIDDEN, f"You have no right to this {what}.")


@contextlib.asynccontextmanager
async def searching(
    database: Database,
    policies: Policies,
    settings: Rights,
    *,
    bounds: Bounds = Bounds(),
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Searching]:
    """Searches the catalogue in ``database``; ``clock`` gives seconds.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    (row,) = await database.fetch(PAGE_SECRET)
    with matching() as threads:
        tokens = Tokens(row["secret"])
        yield Searching(database, policies, settings, tokens, threads, bounds=bounds, clock=clock)


def _too_wide() -> GatewayError:
    return unavailable("Nothing was found in the time that a search may take; ask for less.", code="SearchTooWide")


def _read(rows: Sequence[asyncpg.Record], most: int) -> tuple[Sequence[asyncpg.Record], Place | None]:
    """The items among ``rows``, and where to go on after them; None if there are no more."""
    end = next((number for number, row in enumerate(rows) if row["mark"] is not None), len(rows))
    if end >= most:
        return rows[:most], _place(rows[most - 1])
    return rows[:end], _place(rows[end]) if end < len(rows) else None


def _place(row: asyncpg.Record) -> Place:
    return Place(row["start_datetime"] or OLDEST, row["product_id"])


def _collection(row: asyncpg.Record) -> CollectionRow:
    return CollectionRow(
        row["collection_id"], row["urn"], row["title"], row["body"], row["licence_url"], row["updated_at"]
    )


def _item(row: asyncpg.Record) -> ItemRow:
    box = row["west"], row["south"], row["east"], row["north"]
    return ItemRow(
        product_id=row["product_id"],
        collection_id=row["collection_id"],
        item_id=row["provider_id"],
        urn=row["urn"],
        properties=row["properties"],
        geometry=row["geometry"],
        bbox=None if None in box else box,
        body=row["body"],
        start=row["start_datetime"],
        end=row["end_datetime"],
        created=row["created_at"],
        updated=row["updated_at"],
        files=tuple(_file(columns) for columns in json.loads(row["files"] or "[]")),
    )


def _characters(row: asyncpg.Record) -> int:
    return sum(len(row[name] or "") for name in ("body", "properties", "geometry", "files"))


def _file(columns: Sequence[Any]) -> FileRow:
    # In the order of the fields, but for what JSON has as lists.
    states, restore, needs_login = columns[-3:]
    members: Sequence[Any] = (
        *columns[:-3],
        tuple(states),
        None if restore is None else _restore(*restore),
        needs_login,
    )
    return FileRow(*members)


def _restore(state: RestoreState, expires: str | None) -> LastRestore:
    return LastRestore(state, None if expires is None else datetime.datetime.fromisoformat(expires))
