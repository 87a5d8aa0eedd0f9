"""Walking a static catalogue by its links ``child`` and ``item``: what is read next, and what never. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gateway.catalog.ingest.events import RefusedError
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import JsonObject

MOST_DEPTH = 20
"""Links from the root to a document."""
MOST_DOCUMENTS = 1_000_000
"""Of one catalogue."""
_FOLLOWED = frozenset(("child", "item"))


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A document that is to be read."""

    address: str
    """Path or URL, always the same for the same document."""
    depth: int


class Walk:
    """How far a walk has come. Whatever is linked from several places is read once."""

    def __init__(self, root: str, resolve: Callable[[str, str], str]) -> None:
        """Begin.

        Args:
            root: address of the root.
            resolve: the address of an href in the document at an address; raises RefusedError for one that may not be
                followed.
        """
        self._resolve = resolve
        self._waiting = [Document(root, 0)]
        self._seen = {root}

    def following(self, most: int) -> list[Document]:
        """At most ``most`` documents to be read next; none when the walk is over."""
        found = self._waiting[-most:][::-1]
        del self._waiting[-most:]
        return found

    def read(self, document: Document, value: JsonObject) -> list[str]:
        """``value`` stands in ``document``: its links are followed later, if it is a catalogue or collection.

        Gives why some of them are not.
        """
        links = value.get("links")
        if value.get("type") not in ("Catalog", "Collection") or not isinstance(links, list):
            return []
        refusals: list[str] = []
        new: list[Document] = []
        for link in links:
            if not isinstance(link, dict) or link.get("rel") not in _FOLLOWED:
                continue
            href = link.get("href")
            try:
                if not isinstance(href, str) or not href:
                    raise RefusedError(f"a link has the href {short(href)}")
                address = self._address(href, document)
            except RefusedError as error:
                refusals.append(str(error))
                continue
            if address not in self._seen:
                self._seen.add(address)
                new.append(Document(address, document.depth + 1))
        self._waiting.extend(reversed(new))
        return refusals

    def _address(self, href: str, document: Document) -> str:
        address = self._resolve(href, document.address)
        if address in self._seen:
            return address
        if document.depth >= MOST_DEPTH:
            raise RefusedError(f"the link {short(href)} is more than {MOST_DEPTH} links from the root: not followed")
        if len(self._seen) >= MOST_DOCUMENTS:
            raise RefusedError(f"the link {short(href)} is beyond {MOST_DOCUMENTS} documents: not followed")
        return address
