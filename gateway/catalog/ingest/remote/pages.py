"""Entries of the pages that a STAC API gives: what is believed of them, and what else stands on the page. No I/O."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator

from gateway.catalog.ingest import jsonstream
from gateway.catalog.ingest.events import Place, Rejection, Remark, SourceError
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.jsonstream import Rest, Unreadable
from gateway.catalog.ingest.model import JsonObject
from gateway.catalog.ingest.reading import RawEntry
from gateway.catalog.ingest.remote.origin import MOST_URL, is_url
from gateway.catalog.ingest.remote.stac_api import Request, links

Believe = Callable[[JsonObject], str | None]
"""Why an entry is not taken; None for one that is."""
MOST_EMPTY = 100
"""Pages without an entry in a row, before no other one is asked for."""


class PageReader:
    """Reads one page entry by entry; afterwards it tells of the page as a whole."""

    def __init__(self, body: io.BytesIO, url: str, believe: Believe) -> None:
        self._body = body
        self.url = url
        self._believe = believe
        self._ids = hashlib.sha256()
        self.entries = 0
        self.rest: JsonObject | None = None
        """The members of the page beside its entries, once it was read."""

    @property
    def fingerprint(self) -> bytes:
        """Of the ids of its entries, in their order."""
        return self._ids.digest()

    def __iter__(self) -> Iterator[RawEntry | Rejection | Remark]:
        """Its entries.

        Raises:
            SourceError: it is no page, or no JSON.
        """
        for found in jsonstream.page(self._body):
            if isinstance(found, Unreadable):
                raise SourceError(f"{self.url} {found.reason} (line {found.line})")
            if isinstance(found, Rest):
                self.rest = found.members
            elif found.index is None:
                raise SourceError(f"{self.url} is no page of entries, but {short(found.value)}")
            else:
                yield self._entry(found)
        if self.rest is None:
            raise SourceError(f"{self.url} is no page of entries")

    def _entry(self, found: jsonstream.Found) -> RawEntry | Rejection:
        self.entries += 1
        value = found.value
        identifier = value.get("id") if isinstance(value, dict) else None
        identifier = identifier if isinstance(identifier, str) else ""
        self._ids.update(f"{len(identifier)} {identifier}".encode("utf-8", "surrogatepass"))
        place = Place(self.url, found.line, found.index, identifier[:200] or None)
        if not isinstance(value, dict):
            return Rejection(place, "is no JSON object")
        if jsonstream.too_deep(value):
            return Rejection(place, f"nests deeper than {jsonstream.MAX_DEPTH} arrays and objects")
        refusal = self._believe(value)
        return RawEntry(place, own_url(value, self.url), value) if refusal is None else Rejection(place, refusal)


def own_url(entry: JsonObject, otherwise: str) -> str:
    """What an entry's relative hrefs start from: its own link ``self`` where that is a URL."""
    for link in links(entry):
        href = link.get("href")
        if link.get("rel") == "self" and isinstance(href, str) and is_url(href):
            return href
    return otherwise


def item_of(collection: str) -> Believe:
    """Why an entry is no item of ``collection`` and is not taken; None for one that is."""

    def refusal(value: JsonObject) -> str | None:
        if value.get("type") != "Feature" or "entityType" in value:
            return "is no STAC Item"
        named = value.setdefault("collection", collection)
        if named != collection:
            return f"is of the collection {short(named)}, but {short(collection)} was asked for"
        return None

    return refusal


class Collections:
    """Takes collections, and keeps what is needed to ask for their items."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.items: dict[str, JsonObject] = {}
        """By id: the collection's links, and nothing else of it."""

    def believe(self, value: JsonObject) -> str | None:
        """Why an entry is no collection and is not taken; None for one that is."""
        identifier = value.get("id")
        # Old ones have no type.
        if value.setdefault("type", "Collection") != "Collection" or "entityType" in value:
            return "is no STAC Collection"
        if isinstance(identifier, str) and identifier:
            if len(self.items) >= self._most and identifier not in self.items:
                raise SourceError(f"the source has more than {self._most} collections")
            self.items[identifier] = {"links": list(_link_to_items(value))}
        return None


def _link_to_items(collection: JsonObject) -> Iterator[JsonObject]:
    """The first one that can be followed, without what else it says: sources have many collections."""
    for link in links(collection):
        href = link.get("href")
        if link.get("rel") == "items" and isinstance(href, str) and len(href) <= MOST_URL:
            yield {"rel": "items", "href": href}
            return


def of_one(collection: JsonObject) -> io.BytesIO:
    """The page of nothing but ``collection``."""
    return io.BytesIO(json.dumps({"collections": [collection]}).encode("ascii"))


class Circle:
    """Sees when pages lead nowhere. Remembers few, however many there are (Brent's cycle detection).

    A source may give tokens that are always new, so what is on the pages is looked at like how they are asked for.
    """

    def __init__(self) -> None:
        self._marked: Request | None = None
        self._steps, self._power = 0, 1
        self._last = self._seen = b""
        self._is_marking = False
        self._empty = 0

    def ask(self, request: Request) -> None:
        """Another page is about to be asked for.

        Raises:
            SourceError: it was asked for before.
        """
        if request == self._marked:
            raise SourceError(f"the pages of {request.url} lead in a circle")
        self._steps += 1
        self._is_marking = self._steps == self._power
        if self._is_marking:
            self._marked, self._steps, self._power = request, 0, self._power * 2

    def take(self, page: PageReader) -> None:
        """A page was read.

        Raises:
            SourceError: it is the same as one before, or the last of too many empty ones.
        """
        if page.entries and page.fingerprint in (self._last, self._seen):
            raise SourceError(f"{page.url} has the same entries as a page before")
        self._last = page.fingerprint
        if self._is_marking and page.entries:
            self._seen = page.fingerprint
        self._empty = 0 if page.entries else self._empty + 1
        if self._empty >= MOST_EMPTY:
            raise SourceError(f"{page.url} is the last of {MOST_EMPTY} pages without an entry")
