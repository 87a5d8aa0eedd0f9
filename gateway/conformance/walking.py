"""From the root of a STAC API to an asset that can be downloaded."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypeGuard
from urllib.parse import quote

from gateway.conformance.asking import Answer, Asking, NoAnswerError, joined
from gateway.text import is_storable

_MOST_COLLECTIONS = 10
_MOST_CANDIDATES = 20
Document = Mapping[str, Any]


class NoSubjectError(Exception):
    """There is nothing to test with; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What the user named."""

    collection: str | None = None
    item: str | None = None
    asset: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """The asset that is tested with."""

    root: str
    """Of the STAC API, without a slash at its end."""
    collection: str
    item: str
    asset: str
    described: Document
    """The asset as its item has it; empty if that does not tell."""

    @property
    def url(self) -> str:
        """Of its download."""
        return self.at()

    def at(self, *, collection: str | None = None, item: str | None = None, asset: str | None = None) -> str:
        """URL of the download of this asset, or of another one."""
        parts = (collection or self.collection, item or self.item, asset or self.asset)
        return "{}/collections/{}/items/{}/download/{}".format(self.root, *(quote(part, safe="") for part in parts))

    @property
    def is_linked(self) -> bool:
        """Whether the asset leads to its download: by ``href``, or by one of its alternates."""
        return self.url in _hrefs(self.described, self.root)


async def find(asking: Asking, root: str, wanted: Wanted) -> Subject:
    """The asset that was named, else the first that is given out; else the first there is.

    Raises:
        NoSubjectError: there is none.
        NoAnswerError: the server does not answer.
    """
    if wanted.collection is not None and wanted.item is not None and wanted.asset is not None:
        url = f"{root}/collections/{quote(wanted.collection, safe='')}/items/{quote(wanted.item, safe='')}"
        assets = _mapping(_mapping((await asking.ask("GET", url)).json()).get("assets"))
        described = _mapping(assets.get(wanted.asset))
        return Subject(root, wanted.collection, wanted.item, wanted.asset, described)
    first, tried = None, 0
    async for subject in _subjects(asking, root, wanted):
        first = first or subject
        answer = await asking.ask("GET", subject.url, read=False)
        if answer.status < 400:
            return subject
        tried += 1
        if tried == _MOST_CANDIDATES:
            break
    if first is None:
        raise NoSubjectError(f"no collection of {root} has an item with an asset that can be seen")
    return first


async def _subjects(asking: Asking, root: str, wanted: Wanted) -> AsyncIterator[Subject]:
    async for collection in _collections(asking, root, wanted):
        items = f"{root}/collections/{quote(collection, safe='')}/items"
        if wanted.item is None:
            page = await _document(asking, f"{items}?limit=10")
            features = [_mapping(one) for one in _list(page.get("features"))]
        else:
            features = [await _document(asking, f"{items}/{quote(wanted.item, safe='')}")]
        found = [subject for item in features for subject in _of_item(root, collection, item, wanted)]
        # Those that say so themselves come first.
        for subject in sorted(found, key=lambda one: not one.is_linked):
            yield subject


async def _collections(asking: Asking, root: str, wanted: Wanted) -> AsyncIterator[str]:
    if wanted.collection is not None:
        yield wanted.collection
        return
    told = await _document(asking, f"{root}/collections")
    for one in _list(told.get("collections"))[:_MOST_COLLECTIONS]:
        identifier = _mapping(one).get("id")
        if _is_name(identifier):
            yield identifier


def _of_item(root: str, collection: str, item: Document, wanted: Wanted) -> Iterator[Subject]:
    identifier = item.get("id")
    if not _is_name(identifier):
        return
    for key, described in _mapping(item.get("assets")).items():
        if _is_name(key) and wanted.asset in (None, key):
            yield Subject(root, collection, identifier, key, _mapping(described))


async def _document(asking: Asking, url: str) -> Document:
    """A JSON object; an empty one where there is none."""
    answer: Answer = await asking.ask("GET", url, {"Accept": "application/geo+json, application/json"})
    return _mapping(answer.json()) if answer.status == 200 else {}


def _hrefs(described: Document, root: str) -> set[str]:
    alternates = (_mapping(one) for one in _mapping(described.get("alternate")).values())
    found = (one.get("href") for one in (described, *alternates))
    absolute = set()
    for href in found:
        if isinstance(href, str):
            with contextlib.suppress(NoAnswerError):
                absolute.add(joined(f"{root}/", href).partition("?")[0])
    return absolute


def _is_name(value: object) -> TypeGuard[str]:
    """Whether a URL can hold it."""
    return isinstance(value, str) and value != "" and is_storable(value)


def _mapping(value: object) -> Document:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
