"""The URLs of a root of the STAC API, and links to them."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias
from urllib.parse import quote, unquote_plus, urlsplit

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]

JSON = "application/json"
GEOJSON = "application/geo+json"

_OWN = frozenset(
    (
        "self", "root", "parent", "collection", "item", "items", "child", "data", "search", "conformance", "next",
        "prev", "previous", "first", "last", "service-desc", "service-doc", "aggregate", "aggregations", "queryables",
        "http://www.opengis.net/def/rel/ogc/1.0/queryables",
    )
)  # fmt: skip
"""Relations that lead through a catalogue: ours lead through this one."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_CREDENTIAL = re.compile(
    r"(?:.*[-_.])?(?:access[-_]?id|[a-z]*access[-_]?key(?:[-_]?id)?|[a-z]*api[-_]?key|auth|authorization|credentials?|"
    r"hdne[as]|hdnts|jwt|link|pass|passwd|password|pwd|sas|secret|sig|[a-z]*signature|subscription[-_]key|[a-z]*token)",
    re.IGNORECASE,
)
"""Names of parameters by which URLs let in whoever has them: of stores, of caches, and of this gateway's own links."""
_LONGEST_NAME = 100
"""Characters of such a name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Urls:
    """The absolute URLs below one root."""

    root: str
    """Without a slash at its end."""

    @property
    def landing(self) -> str:
        """The landing page."""
        return f"{self.root}/"

    @property
    def conformance(self) -> str:
        """The conformance classes."""
        return f"{self.root}/conformance"

    @property
    def collections(self) -> str:
        """All collections."""
        return f"{self.root}/collections"

    @property
    def search(self) -> str:
        """The search over all collections."""
        return f"{self.root}/search"

    def collection(self, collection: str) -> str:
        """A collection."""
        return f"{self.root}/collections/{_segment(collection)}"

    def items(self, collection: str) -> str:
        """The items of a collection."""
        return f"{self.collection(collection)}/items"

    def item(self, collection: str, item: str) -> str:
        """An item."""
        return f"{self.items(collection)}/{_segment(item)}"


def time_of(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC."""
    return moment.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")


def download(item: str, asset: str) -> str:
    """What an asset of the item at the URL ``item`` is downloaded from."""
    return f"{item}/download/{_segment(asset)}"


def link(rel: str, href: str, media_type: str | None = JSON, **more: Json) -> JsonObject:
    """A Link Object; without ``type`` where that is None."""
    return {"rel": rel, "href": href, **({} if media_type is None else {"type": media_type}), **more}


def kept(links: Json, tells: Callable[[str], bool], instead: Iterable[str] = ()) -> list[Json]:
    """Of the links that a document came with those that still lead somewhere, and not through another catalogue.

    ``tells`` says whether everybody may know an href. Relations ``instead`` are left out, too: there are others.
    """
    without = _OWN.union(instead)
    listed = links if isinstance(links, list) else ()
    return [one for one in listed if isinstance(one, dict) and _is_kept(one, tells, without)]


def _is_kept(one: JsonObject, tells: Callable[[str], bool], without: frozenset[str]) -> bool:
    rel, href = one.get("rel"), one.get("href")
    return isinstance(rel, str) and rel not in without and isinstance(href, str) and tells(href)


def is_for_all(href: str) -> bool:
    """Whether everybody may know ``href``: it is no path of this machine, and holds no credential."""
    scheme = _SCHEME.match(href)
    if scheme is None or scheme[1].lower() == "file":
        return False
    try:
        parts = urlsplit(href)
    except ValueError:
        return False
    return "@" not in parts.netloc and not any(map(_lets_in, (parts.query, parts.fragment)))


def _lets_in(parameters: str) -> bool:
    """Whether there is a credential among the ``parameters`` of a URL."""
    named = (unquote_plus(one.partition("=")[0]) for one in re.split("[&;]", parameters) if "=" in one)
    return any(len(name) <= _LONGEST_NAME and _CREDENTIAL.fullmatch(name.strip()) for name in named)


def scheme_of(href: str) -> str:
    """The scheme of ``href`` in small letters; empty if it has none."""
    found = _SCHEME.match(href)
    return found[1].lower() if found else ""


def _segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")
