"""Searches the catalogue for callers: what they may not see is not found."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg

from gateway.config import Rights
from gateway.db import Database
from gateway.errors import GatewayError, unavailable
from gateway.identity.principal import Principal
from gateway.rights.policies import Policies
from gateway.rights.predicate import caller_columns
from gateway.stac import geometry
from gateway.stac.matching import Matching, matching
from gateway.stac.model import CollectionRow, Direction, FileRow, ItemRow, Page, Search
from gateway.stac.statements import COLLECTION, COLLECTIONS, ITEM, PAGE_SECRET, Shape, Statement, page
from gateway.stac.tokens import OLDEST, Place, Tokens
from gateway.text import is_storable

MOST_ROWS = 500
"""Items that one statement gives: making them takes the loop some milliseconds."""
_NEWEST = datetime.datetime.max.replace(tzinfo=datetime.UTC)


class Searching:
    """Walks and searches the catalogue. Made by `searching`."""

    def __init__(
        self, database: Database, policies: Policies, settings: Rights, tokens: Tokens, matching: Matching
    ) -> None:
        self._database = database
        self._policies = policies
        self._settings = settings
        self._tokens = tokens
        self._matching = matching

    async def collections(self, principal: Principal) -> tuple[CollectionRow, ...]:
        """The collections that ``principal`` may see, by id.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        return tuple(_collection(row) for row in await self._fetch(COLLECTIONS, principal, {}))

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

    async def search(self, principal: Principal, search: Search) -> Page:
        """The page of ``search`` that its token leads to, or the first.

        Raises:
            GatewayError: 400 the token is not one of this search; 503 PostgreSQL, or the policy that decides, does not
                answer.
        """
        from_token = self._tokens.read(principal.tenant, search)
        direction: Direction = from_token[0] if from_token else "next"
        down = search.newest_first == (direction == "next")
        place = from_token[1] if from_token else _outermost(down=down)
        statement, values = _question(search, down=down)
        values["open_types"] = self._settings.open_data_types
        found: list[ItemRow] = []
        ended = not all(map(is_storable, (*(search.ids or ()), *(search.collections or ()))))
        while not ended and len(found) <= search.limit:
            most = min(search.limit + 1 - len(found), MOST_ROWS)
            values |= {"start": None if place.start == OLDEST else place.start, "product": place.product_id}
            rows = await self._fetch(statement, principal, {**values, "most": most})
            found += map(_item, await self._for_caller(principal, search, rows))
            ended = len(rows) < most
            if rows:
                place = _place(rows[-1])
        return self._page(principal, search, direction, found)

    def _page(self, principal: Principal, search: Search, direction: Direction, found: list[ItemRow]) -> Page:
        more = len(found) > search.limit
        items = found[: search.limit]
        if direction == "previous":
            items.reverse()

        def token(to: Direction, item: ItemRow) -> str:
            return self._tokens.make(principal.tenant, search, to, _place_of(item))

        came = search.token is not None
        after, before = (more, came) if direction == "next" else (came, more)
        return Page(
            tuple(items),
            next=token("next", items[-1]) if items and after else None,
            previous=token("previous", items[0]) if items and before else None,
        )

    async def _for_caller(
        self, principal: Principal, search: Search, rows: Sequence[asyncpg.Record]
    ) -> Sequence[asyncpg.Record]:
        """Those of ``rows`` that ``search`` asks for and ``principal`` may see."""
        open_ones = [row for row in rows if row["visible"] or row["questions"] is not None]
        if search.intersects is not None:
            matches = await self._matching.intersecting(search.intersects, [row["geometry"] for row in open_ones])
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
        return await self._database.fetch(statement.text, *columns, *(values[name] for name in statement.parameters))

    def _forbidden(self, what: str, missing: GatewayError) -> GatewayError:
        if self._settings.hide_forbidden:
            return missing
        return GatewayError(HTTPStatus.FORBIDDEN, f"You have no right to this {what}.")


@contextlib.asynccontextmanager
async def searching(database: Database, policies: Policies, settings: Rights) -> AsyncIterator[Searching]:
    """Searches the catalogue in ``database``.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    (row,) = await database.fetch(PAGE_SECRET)
    with matching() as threads:
        yield Searching(database, policies, settings, Tokens(row["secret"]), threads)


def _question(search: Search, *, down: bool) -> tuple[Statement, dict[str, object]]:
    """The statement of ``search``, and its parameters as far as ``search`` says them."""
    box = geometry.bounds(json.loads(search.intersects)) if search.intersects is not None else search.bbox
    values: dict[str, object] = {"collections": search.collections, "ids": search.ids}
    if search.datetime is not None:
        values |= {"since": search.datetime.start, "until": search.datetime.end}
    if box is not None:
        west, south, east, north = box
        crossing = west > east
        values |= {
            "west": west,
            "south": south,
            "east": east + 360 if crossing else east,
            "north": north,
            "wests": [west, -180.0] if crossing else [west],
            "easts": [180.0, east] if crossing else [east],
        }
    shape = Shape(
        down=down,
        collections=search.collections is not None,
        ids=search.ids is not None,
        box=box is not None,
        time=search.datetime is not None,
    )
    return page(shape), values


def _outermost(*, down: bool) -> Place:
    return Place(_NEWEST, 2**63 - 1) if down else Place(OLDEST, 0)


def _place(row: asyncpg.Record) -> Place:
    return Place(row["start_datetime"] or OLDEST, row["product_id"])


def _place_of(item: ItemRow) -> Place:
    return Place(item.start or OLDEST, item.product_id)


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


def _file(columns: Sequence[Any]) -> FileRow:
    # In the order of the fields, but for the states, which JSON has as a list.
    members: Sequence[Any] = (*columns[:-2], tuple(columns[-2]), columns[-1])
    return FileRow(*members)
