"""What is to be said of the routes of the STAC API, and the shapes of what they take and give."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gateway.api.openapi_operation import CHANGED, SEEN, Operation
from gateway.stac.links import GEOJSON

Json = dict[str, Any]

ITEMS = ("collections", "bbox", "datetime", "intersects", "ids", "limit", "sortby", "token")
"""Parameters by which items are chosen; of a collection, too: some clients name it twice."""

_LANDING = Operation("Landing page: a STAC Catalog", scope="download", answer="StacLanding", refusals=SEEN)
_ITEMS = Operation(
    "Items of a collection, the newest first",
    scope="download",
    query=ITEMS,
    answer="StacItems",
    types=(GEOJSON,),
    refusals=CHANGED,
    identifier="getFeatures",
)
_SEARCH = Operation(
    "Search for items",
    scope="download",
    query=ITEMS,
    answer="StacItems",
    types=(GEOJSON,),
    refusals=(400, 503),
    identifier="getItemSearch",
    text="What the caller may not see is not found.",
)

CATALOGUE: Mapping[tuple[str, str], Operation] = {
    ("GET", "/"): dataclasses.replace(_LANDING, identifier="getLandingPage"),
    ("GET", "/conformance"): Operation(
        "Conformance classes", scope="download", answer="StacConformance", identifier="getConformanceDeclaration"
    ),
    ("GET", "/collections"): Operation(
        "Collections that the caller may see, by id",
        scope="download",
        query=("limit", "token"),
        answer="StacCollections",
        refusals=CHANGED,
        identifier="getCollections",
    ),
    ("GET", "/collections/{collectionId}"): Operation(
        "A collection", scope="download", answer="StacCollection", refusals=SEEN, identifier="describeCollection"
    ),
    ("GET", "/collections/{collectionId}/items"): _ITEMS,
    ("GET", "/collections/{collectionId}/items/{itemId}"): Operation(
        "An item, with the links by which its assets are downloaded",
        scope="download",
        answer="StacItem",
        types=(GEOJSON,),
        refusals=SEEN,
        identifier="getFeature",
    ),
    ("GET", "/search"): _SEARCH,
    ("POST", "/search"): dataclasses.replace(_SEARCH, query=(), body="StacSearch", identifier="postItemSearch"),
}
WITHOUT_SLASH: Mapping[tuple[str, str], Operation] = {("GET", ""): _LANDING}
"""Where a root has a path of its own."""

_TEXT: Json = {"type": "string"}
_TEXTS: Json = {"type": "array", "items": _TEXT}
_LINK: Json = {
    "type": "object",
    "properties": {"rel": _TEXT, "href": {"type": "string", "format": "uri"}},
    "required": ["rel", "href"],
}
_LINKS: Json = {"type": "array", "items": _LINK}
_NUMBERS: Json = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 6}


def _open(**required: Json) -> Json:
    return {"type": "object", "properties": required, "required": list(required)}


STAC_SCHEMAS: Json = {
    "StacLanding": _open(
        type={"const": "Catalog"},
        stac_version=_TEXT,
        id=_TEXT,
        title=_TEXT,
        description=_TEXT,
        conformsTo=_TEXTS,
        links=_LINKS,
    ),
    "StacConformance": _open(conformsTo=_TEXTS),
    "StacCollection": _open(
        type={"const": "Collection"},
        stac_version=_TEXT,
        id=_TEXT,
        description=_TEXT,
        license=_TEXT,
        extent={"type": "object"},
        links=_LINKS,
    ),
    "StacCollections": _open(
        collections={"type": "array", "items": {"$ref": "#/components/schemas/StacCollection"}}, links=_LINKS
    ),
    "StacItem": _open(
        type={"const": "Feature"},
        stac_version=_TEXT,
        id=_TEXT,
        collection=_TEXT,
        geometry={"type": ["object", "null"]},
        properties={"type": "object"},
        links=_LINKS,
        assets={
            "type": "object",
            "additionalProperties": _open(href={"type": "string", "format": "uri"}),
        },
    ),
    "StacItems": _open(
        type={"const": "FeatureCollection"},
        features={"type": "array", "items": {"$ref": "#/components/schemas/StacItem"}},
        links=_LINKS,
        numberReturned={"type": "integer"},
    ),
    "StacSearch": {
        "type": "object",
        "properties": {
            "collections": _TEXTS,
            "ids": _TEXTS,
            "bbox": _NUMBERS,
            "datetime": _TEXT,
            "intersects": {"type": "object", "description": "A GeoJSON geometry."},
            "limit": {"type": "integer", "minimum": 1},
            "sortby": {"type": "array", "items": _open(field=_TEXT, direction={"enum": ["asc", "desc"]})},
            "token": _TEXT,
        },
    },
}


def _query(name: str, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": _TEXT}


STAC_PARAMETERS: Json = {
    "collections": _query("collections", "Ids of collections, with commas between them."),
    "ids": _query("ids", "Ids of items, with commas between them."),
    "bbox": _query("bbox", "West, south, east, north, with commas between them; or with heights, 6 numbers."),
    "datetime": _query("datetime", "A date-time of RFC 3339, or two with a slash, of which one may be `..`."),
    "intersects": _query("intersects", "A GeoJSON geometry."),
    "sortby": _query("sortby", "`+datetime` or `-datetime`."),
    "token": _query("token", "Of another page of the same list or search, as its link has it."),
}
