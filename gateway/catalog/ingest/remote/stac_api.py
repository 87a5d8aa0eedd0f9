"""What a STAC API is asked, by what it says of itself: the first request for a collection's items, and the next one."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from gateway.catalog.ingest.events import SourceError
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import Json, JsonObject
from gateway.catalog.ingest.remote.origin import Origin

Method = Literal["GET", "POST"]
Since = Literal["updated", "datetime"]
"""What a load since a time goes by: when items were changed, or when they were observed."""

_CLASS = re.compile(r"https?://api\.stacspec\.org/v1\.[^/]+/(?P<name>.+)")
_CQL2 = re.compile(r"https?://www\.opengis\.net/spec/cql2/1\.0/conf/(?P<name>.+)")
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset((
    "authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host",
    "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "x-api-key",
))  # fmt: skip
"""Fields that no link may set: they are the client's own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a source."""

    url: str
    method: Method = "GET"
    body: JsonObject | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Header fields that a link asked for."""

    def to_json(self) -> JsonObject:
        """As it is kept; `request_of` reads it."""
        return {"url": self.url, "method": self.method, "body": self.body, "fields": dict(self.fields)}


def request_of(kept: JsonObject) -> Request:
    """The request that `Request.to_json` wrote."""
    body, fields = kept["body"], kept["fields"]
    return Request(
        str(kept["url"]),
        "POST" if kept["method"] == "POST" else "GET",
        body if isinstance(body, dict) else None,
        {name: str(value) for name, value in fields.items()} if isinstance(fields, dict) else {},
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Api:
    """A STAC API, as its landing page describes it."""

    origin: Origin
    collections: str
    """URL."""
    search_by_get: str | None
    """URL of Item Search, where it has it; likewise the next one."""
    search_by_post: str | None
    filters: frozenset[str]
    """How items can be chosen by a property: ``query`` (extension), ``cql2-json``, ``cql2-text`` (of a search)."""

    def since_goes_by(self) -> Since:
        """What a load since a time can go by."""
        by_post = self.search_by_post and not self.filters.isdisjoint(("query", "cql2-json"))
        by_get = self.search_by_get and "cql2-text" in self.filters
        return "updated" if by_post or by_get else "datetime"


def is_api(document: JsonObject) -> bool:
    """Whether ``document`` is the landing page of an API and not the root of a static catalogue."""
    return "conformsTo" in document or any(
        link.get("rel") in ("conformance", "data", "search") for link in links(document)
    )


def describe(landing: JsonObject, conformance: JsonObject, url: str, origin: Origin) -> Api:
    """Read the landing page at ``url`` and the conformance declaration (which may be the same document).

    Raises:
        SourceError: it is no landing page, or its links lead elsewhere.
    """
    if landing.get("type", "Catalog") != "Catalog" or not is_api(landing):
        raise SourceError(f"{url} is no landing page of a STAC API")
    declared = conformance.get("conformsTo")
    classes = [uri for uri in declared if isinstance(uri, str)] if isinstance(declared, list) else []
    collections: str | None = None
    searches: dict[str, str] = {}
    for link in links(landing):
        href = link.get("href")
        if not isinstance(href, str):
            continue
        if link.get("rel") == "data" and collections is None:
            collections = origin.resolve(href, url)
        elif link.get("rel") == "search":
            method = link.get("method", "GET")
            searches.setdefault(str(method).upper(), origin.resolve(href, url))
    if collections is None:
        collections = origin.resolve("collections", url if url.endswith("/") else f"{url}/")
    return Api(origin, collections, searches.get("GET"), searches.get("POST"), _filters(classes))


def collection_url(api: Api, collection: str) -> str:
    """Where a collection is described."""
    parts = urlsplit(api.collections)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(collection, safe='')}"))


def items_url(api: Api, collection: JsonObject, identifier: str) -> str:
    """Where the items of a collection are listed: its link ``items``, else the path of OGC API - Features.

    Raises:
        SourceError: the link leads elsewhere.
    """
    own = collection_url(api, identifier)
    for link in links(collection):
        href = link.get("href")
        if link.get("rel") == "items" and isinstance(href, str):
            return api.origin.resolve(href, own)
    parts = urlsplit(own)
    return urlunsplit(parts._replace(path=f"{parts.path}/items"))


def first_request(api: Api, collection: str, items: str, *, limit: int, since: datetime.datetime | None) -> Request:
    """What the first page of a collection's items is asked with; ``items`` is their URL."""
    if since is None:
        return Request(with_query(items, {"limit": str(limit)}))
    moment = timestamp(since)
    if api.search_by_post is not None and "query" in api.filters:
        chosen: JsonObject = {"query": {"updated": {"gte": moment}}}
        return Request(api.search_by_post, "POST", {"collections": [collection], "limit": limit, **chosen})
    if api.search_by_post is not None and "cql2-json" in api.filters:
        updated: Json = {"op": ">=", "args": [{"property": "updated"}, {"timestamp": moment}]}
        chosen = {"filter-lang": "cql2-json", "filter": updated}
        return Request(api.search_by_post, "POST", {"collections": [collection], "limit": limit, **chosen})
    if api.search_by_get is not None and "cql2-text" in api.filters:
        text = {"filter-lang": "cql2-text", "filter": f"updated >= TIMESTAMP('{moment}')"}
        return Request(with_query(api.search_by_get, {"collections": collection, "limit": str(limit), **text}))
    return Request(with_query(items, {"limit": str(limit), "datetime": f"{moment}/.."}))


def next_request(page: JsonObject, asked: Request, origin: Origin) -> Request | None:
    """What the page after ``page`` is asked with, by its link ``next`` (STAC API, Item Search, paging); None: the last.

    Raises:
        SourceError: the link leads elsewhere, or cannot be followed.
    """
    link = next((link for link in links(page) if link.get("rel") == "next"), None)
    if link is None:
        return None
    href, method = link.get("href"), str(link.get("method", "GET")).upper()
    if not isinstance(href, str):
        raise SourceError(f"the link to the next page has the href {short(href)}, no string")
    url = origin.resolve(href, asked.url)
    fields = _fields(link.get("headers"))
    merge = link.get("merge") is True
    if merge:
        fields = {**asked.fields, **fields}
    if method == "GET":
        return Request(url, fields=fields)
    if method != "POST":
        raise SourceError(f"the link to the next page has the method {short(method)}; GET and POST can be followed")
    body = link.get("body")
    if body is not None and not isinstance(body, dict):
        raise SourceError(f"the link to the next page has the body {short(body)}, no object")
    return Request(url, "POST", {**((asked.body or {}) if merge else {}), **(body or {})}, fields)


def links(document: JsonObject) -> Iterator[JsonObject]:
    """The links of a document, as far as they are objects."""
    found = document.get("links")
    return (link for link in found if isinstance(link, dict)) if isinstance(found, list) else iter(())


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """``url`` with ``parameters`` in place of those of the same names."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in parameters]
    # Slashes, colons and commas may stand in a query as they are (RFC 3986 §3.4), and some servers want them so.
    return urlunsplit(parts._replace(query=urlencode([*kept, *parameters.items()], safe="/:,", quote_via=quote)))


def timestamp(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC."""
    text = moment.astimezone(datetime.UTC).isoformat(timespec="microseconds" if moment.microsecond else "seconds")
    return text.replace("+00:00", "Z")


def _filters(classes: list[str]) -> frozenset[str]:
    names = {match["name"] for uri in classes if (match := _CLASS.fullmatch(uri))}
    languages = {match["name"] for uri in classes if (match := _CQL2.fullmatch(uri))}
    found = {"query"} if "item-search#query" in names else set()
    # Some name the class as of the part of the API, others by its own address.
    if names & {"item-search#filter", "item-search#filter:cql2-json", "item-search#filter:cql2-text"}:
        found |= languages & {"cql2-json", "cql2-text"}
        found |= {name.rpartition(":")[2] for name in names if name.startswith("item-search#filter:")}
    return frozenset(found)


def _fields(value: Json) -> dict[str, str]:
    """Header fields that a link may ask for; others are left out."""
    if not isinstance(value, dict):
        return {}
    return {
        name: text
        for name, text in value.items()
        if isinstance(text, str) and _FIELD_NAME.fullmatch(name) and name.lower() not in _OURS
        if text.isprintable() and text.isascii()
    }
