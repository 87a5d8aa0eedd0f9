"""The documents of the STAC API, made from rows: rules without I/O.

What came in is kept: ids, ``stac_version``, ``stac_extensions``, members that nobody knows here. Links through the
catalogue and assets are ours, and what a document lacks to be valid is added.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence

from gateway.stac import regards
from gateway.stac.assets import (
    AUTHENTICATION,
    ORDERABLE,
    SCHEMES,
    Showing,
    Shown,
    asset,
    is_told,
    without_untold,
)
from gateway.stac.links import GEOJSON, Json, JsonObject, Urls, download, kept, link, time_of
from gateway.stac.model import CollectionName, CollectionRow, ItemRow

STAC_VERSION = "1.1.0"
"""Of what names no version of its own."""

CONFORMANCE = (
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/download",
    "https://api.stacspec.org/v1.0.0/ogcapi-features/extensions/transaction",
    "https://api.stacspec.org/v1.0.0/collections/extensions/transaction",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
)
"""Classes that the gateway conforms to. OGC's of OpenAPI is that of 3.0; ours is 3.1."""

MOST_CHILDREN = 1000
"""Links to collections on the landing page, which everybody reads first."""

_REPLACED = frozenset(
    (
        "type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "properties", "links",
        "assets",
    )
)  # fmt: skip
"""Members of an item that are not taken as they came."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_EVERYWHERE: Json = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """What the landing page says of the API."""

    tenant: str
    api: str
    """URL of its description."""
    api_type: str
    """Media type of that."""


def item(row: ItemRow, urls: Urls, showing: Showing) -> str:
    """A STAC Item, as JSON."""
    came: JsonObject = json.loads(row.body)
    if _is_of_regards(came):
        # Members with a name of STAC's are something else there; groups are nothing for those who are in none of them.
        came = {name: value for name, value in came.items() if name not in _REPLACED and name != "groups"}
    url = urls.item(row.collection_id, row.item_id)
    shown = {file.asset_key: asset(file, download(url, file.asset_key), showing) for file in row.files}
    is_placed = row.geometry is not None and row.bbox is not None
    box = (_box(came.get("bbox")) or list(row.bbox or ())) if is_placed else None
    members = {
        "type": _text("Feature"),
        "stac_version": _text(_version(came)),
        "stac_extensions": _text(_extensions(came, shown.values())),
        "id": _text(row.item_id),
        "collection": _text(row.collection_id),
        "geometry": row.geometry if is_placed and row.geometry is not None else "null",
        **({"bbox": _text(box)} if box else {}),
        "properties": _properties(row, came, shown.values()),
        "links": _text(_links_of_item(row, url, came, urls, showing)),
        "assets": _text({key: one.document for key, one in shown.items()}),
        **{name: _text(value) for name, value in came.items() if name not in _REPLACED},
    }
    return _object(members)


def item_collection(
    rows: Sequence[ItemRow], urls: Urls, showing: Showing, *, links: Sequence[JsonObject], now: datetime.datetime
) -> str:
    """A page of items, as JSON."""
    members = {
        "type": _text("FeatureCollection"),
        "features": f"[{','.join(item(row, urls, showing) for row in rows)}]",
        # In ASCII: the body of a link is what a caller sent, who may write half of a surrogate pair.
        "links": json.dumps(links, separators=(",", ":")),
        "numberReturned": str(len(rows)),
        "timeStamp": _text(time_of(now)),
    }
    return _object(members)


def collection(row: CollectionRow, urls: Urls, showing: Showing, items: Sequence[str] = ()) -> JsonObject:
    """A STAC Collection. Of those of ``items`` it links to each one."""
    came: JsonObject = json.loads(row.body)
    title = row.title or row.collection_id
    document: JsonObject = {
        **came,
        "type": "Collection",
        "stac_version": _version(came),
        "id": row.collection_id,
        "title": title,
        "description": came.get("description") or title,
        "license": came.get("license") or "other",
        "extent": came.get("extent") or _EVERYWHERE,
        "links": _links_of_collection(row, came, urls, showing, items),
    }
    assets = came.get("assets")
    if isinstance(assets, dict):
        document["assets"] = _told_assets(assets, showing)
    return document


def collections(
    rows: Iterable[CollectionRow], urls: Urls, showing: Showing, paging: Sequence[JsonObject] = ()
) -> JsonObject:
    """A page of collections; ``paging`` are its links to itself and to the next one, or it has all."""
    links: list[Json] = [*(paging or [link("self", urls.collections)])]
    links += [link("root", urls.landing), link("parent", urls.landing)]
    return {"collections": [collection(row, urls, showing) for row in rows], "links": links}


def conformance() -> JsonObject:
    """The conformance classes (OGC API - Features §7.4)."""
    return {"conformsTo": list(CONFORMANCE)}


def landing(service: Service, rows: Sequence[CollectionName], urls: Urls) -> JsonObject:
    """The landing page, which is a STAC Catalog. ``rows`` are its children, each with a link unless they are many."""
    links = [
        link("self", urls.landing),
        link("root", urls.landing),
        link("service-desc", service.api, service.api_type, title="Description of this API"),
        link("service-doc", f"{service.api}.html", "text/html", title="Description of this API, to be read"),
        link("conformance", urls.conformance, title="Conformance classes"),
        link("data", urls.collections, title="Collections"),
        link("search", urls.search, GEOJSON, method="GET", title="Search"),
        link("search", urls.search, GEOJSON, method="POST", title="Search"),
    ]
    if len(rows) <= MOST_CHILDREN:
        links += [
            link("child", urls.collection(row.collection_id), title=row.title or row.collection_id) for row in rows
        ]
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": service.tenant,
        "title": f"Catalogue of {service.tenant}",
        "description": f"What {service.tenant} has for its callers, to be searched and downloaded.",
        "conformsTo": list(CONFORMANCE),
        "links": list(links),
    }


def to_text(document: JsonObject) -> str:
    """``document`` as JSON."""
    return _text(document)


def _version(came: JsonObject) -> str:
    version = came.get("stac_version")
    return version if isinstance(version, str) and version else STAC_VERSION


def _extensions(came: JsonObject, shown: Iterable[Shown]) -> list[Json]:
    """Those that the item came with, and those of what the gateway wrote, unless it has another version of them."""
    listed = came.get("stac_extensions")
    found: list[Json] = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    known = {_extension(one) for one in found}
    ours = sorted({schema for one in shown for schema in one.extensions})
    return [*found, *(schema for schema in ours if _extension(schema) not in known)]


def _is_of_regards(came: JsonObject) -> bool:
    return "entityType" in came


def _extension(schema: Json) -> str:
    """The address of a schema without its version."""
    return str(schema).rpartition("/v")[0] or str(schema)


def _properties(row: ItemRow, came: JsonObject, shown: Iterable[Shown]) -> str:
    """The properties, as JSON; to the letter as they came, where nothing is missing."""
    shown = list(shown)
    has_schemes = any(AUTHENTICATION in one.extensions for one in shown)
    status = _status_of_all({one.order_status for one in shown} - {None})
    properties: JsonObject = json.loads(row.properties)
    of_regards = _is_of_regards(came)
    if not (of_regards or has_schemes or status is not None) and "datetime" in properties:
        return row.properties
    if of_regards:
        properties = {"title": row.item_id, **regards.properties(properties), "regards:urn": row.urn}
    if "datetime" not in properties:
        properties |= _dates(row)
    if has_schemes:
        others = properties.get("auth:schemes")
        properties["auth:schemes"] = {**(others if isinstance(others, dict) else {}), **SCHEMES}
    if status is not None:
        properties["order:status"] = status
    return _text(properties)


def _status_of_all(statuses: set[str | None]) -> str | None:
    """``order:status`` of an item: what is the farthest from done of its files that lie on slow storages."""
    order = (ORDERABLE, "failed", "pending", "ordered", "succeeded")
    return next((status for status in order if status in statuses), None)


def _dates(row: ItemRow) -> JsonObject:
    """When the item is from; where nobody knows that, when it came into the catalogue: STAC has none without."""
    if row.start is None or row.end is None:
        return {"datetime": time_of(row.start or row.created)}
    if row.start == row.end:
        return {"datetime": time_of(row.start)}
    return {"datetime": None, "start_datetime": time_of(row.start), "end_datetime": time_of(row.end)}


def _box(value: Json) -> list[Json] | None:
    """A ``bbox`` that an item came with, whose heights the row has not."""
    return value if isinstance(value, list) and len(value) in (4, 6) else None


def _links_of_item(row: ItemRow, url: str, came: JsonObject, urls: Urls, showing: Showing) -> list[Json]:
    of_collection = urls.collection(row.collection_id)
    return [
        link("self", url, GEOJSON),
        link("root", urls.landing),
        link("parent", of_collection),
        link("collection", of_collection),
        *kept(came.get("links"), showing.tells),
    ]


def _links_of_collection(
    row: CollectionRow, came: JsonObject, urls: Urls, showing: Showing, items: Sequence[str]
) -> list[Json]:
    licence = [] if row.licence_url is None else [link("license", row.licence_url, None, title="Licence")]
    return [
        link("self", urls.collection(row.collection_id)),
        link("root", urls.landing),
        link("parent", urls.landing),
        link("items", urls.items(row.collection_id), GEOJSON),
        *licence,
        *kept(came.get("links"), showing.tells, instead=("license",) if licence else ()),
        *(link("item", urls.item(row.collection_id, one), GEOJSON) for one in items),
    ]


def _told_assets(assets: Mapping[str, Json], showing: Showing) -> JsonObject:
    """Assets of a collection, which the gateway does not serve itself: those that lead somewhere."""
    return {
        key: without_untold(one, showing)
        for key, one in assets.items()
        if isinstance(one, dict) and is_told(one, showing)
    }


def _object(members: Mapping[str, str]) -> str:
    """A JSON object of members that are JSON already."""
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members.items()) + "}"


def _text(value: Json | Sequence[JsonObject]) -> str:
    return _ENCODER.encode(value)
