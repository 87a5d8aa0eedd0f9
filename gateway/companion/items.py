"""Items of the upstream, taken into the catalogue when they are downloaded from."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from urllib.parse import quote

from gateway.catalog.ingest.model import JsonObject
from gateway.companion.upstream import MOST_ITEM_BYTES, Upstream, Wish, too_late, unreachable
from gateway.errors import GatewayError
from gateway.text import is_storable

log = logging.getLogger(__name__)

MOST_REMEMBERED = 50_000
"""Items of which is remembered when they were asked for."""
SECONDS_OF_NOTHING = 5.0
"""That it is remembered that there is no such item."""

AT_A_TIME = 16
"""Items that one request asks for together."""
SECONDS_FOR_MANY = 20.0
"""After which no more of them are waited for."""

Take = Callable[[JsonObject, str], Awaitable[None]]
"""Takes an item, which lies at a URL, into the catalogue; raises GatewayError."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What the upstream said of an item."""

    until: float
    """When it is to be asked again."""
    tag: str | None
    """Its entity-tag of the item."""
    exists: bool = True


class Items:
    """Sees to it that the catalogue knows of an item what the upstream says of it."""

    def __init__(
        self, upstream: Upstream, tenant: str, max_age: float, take: Take, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self.tenant = tenant
        """Whose the items are."""
        self._max_age = max_age
        self._take = take
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def ensure(self, collection: str, item: str) -> GatewayError | None:
        """Have the catalogue know the item as the upstream does; only one question for it is under way at a time.

        Returns:
            None when that is so, else what hindered it: the catalogue may know the item from before.

        Raises:
            GatewayError: 404 the upstream has no such item.
        """
        key = (collection, item)
        if not all(map(is_storable, key)):
            return None
        known = self._known.get(key)
        if known is None or known.until <= self._clock():
            try:
                await asyncio.shield(self._question(key))
            except GatewayError as error:
                return error
            known = self._known.get(key)
        if known is not None and not known.exists:
            detail = f"There is no item {item!r} in collection {collection!r}."
            raise GatewayError(HTTPStatus.NOT_FOUND, detail)
        return None

    async def ensure_all(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], GatewayError]:
        """As `ensure`, of many items, by collection and id: what hindered it, or that the upstream has no such item."""
        found: dict[tuple[str, str], GatewayError] = {}
        waiting = dict.fromkeys(wanted, too_late())
        turns = asyncio.Semaphore(AT_A_TIME)

        async def look(key: tuple[str, str]) -> None:
            async with turns:
                try:
                    hindrance = await self.ensure(*key)
                except GatewayError as missing:
                    hindrance = missing
            del waiting[key]
            if hindrance is not None:
                found[key] = hindrance

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_FOR_MANY), asyncio.TaskGroup() as group:
                for key in tuple(waiting):
                    group.create_task(look(key))
        return found | waiting

    async def close(self) -> None:
        """Give up the questions that are under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _question(self, key: tuple[str, str]) -> asyncio.Task[None]:
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.get_running_loop().create_task(self._ask(key))
            task.add_done_callback(lambda done: self._answered(key, done))
        return task

    def _answered(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # Whoever waits has it; there may be nobody any more.

    async def _ask(self, key: tuple[str, str]) -> None:
        collection, item = (quote(part, safe="") for part in key)
        known = self._known.get(key)
        tag = None if known is None else known.tag
        headers = {} if tag is None else {"If-None-Match": tag}
        path = f"/collections/{collection}/items/{item}"
        async with self._upstream.ask(Wish("GET", path, headers)) as answer:
            if answer.status == HTTPStatus.NOT_MODIFIED:
                self._remember(key, self._max_age, tag)
                return
            if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                self._remember(key, SECONDS_OF_NOTHING, None, exists=False)
                return
            if answer.status != HTTPStatus.OK:
                log.warning("the upstream answers %s when it is asked for an item", answer.status)
                raise unreachable()
            body, fields = await answer.whole(MOST_ITEM_BYTES), answer.headers
        await self._take(await asyncio.to_thread(_item, body, key), self._upstream.root + path)
        self._remember(key, self._max_age, _strong_or_weak(fields))

    def _remember(self, key: tuple[str, str], seconds: float, tag: str | None, *, exists: bool = True) -> None:
        self._known[key] = _Known(self._clock() + seconds, tag, exists)
        self._known.move_to_end(key)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)


def _strong_or_weak(fields: Mapping[str, str]) -> str | None:
    tag = fields.get("ETag", "")
    return tag if tag.isascii() and tag.endswith('"') and len(tag) <= 256 else None


def _item(body: bytes, key: tuple[str, str]) -> JsonObject:
    """The item in ``body``, which must be the one that was asked for.

    Raises:
        GatewayError: 502; it is none, or another one.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise unreachable("The catalogue behind this gateway gave an item that is no JSON.") from error
    if not isinstance(found, dict) or (found.get("collection"), found.get("id")) != key:
        raise unreachable("The catalogue behind this gateway gave another item than it was asked for.")
    return found
