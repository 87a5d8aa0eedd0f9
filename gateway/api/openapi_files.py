"""Shapes of bodies that speak of products and files: links to many at once, transactions, search."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.api.openapi_shapes import (
    TEXT,
    TEXT_OR_NULL,
    TIME,
    TIME_OR_NULL,
    TRUTH,
    WHOLE,
    WHOLE_OR_NULL,
    Json,
    list_of,
    object_of,
    one_of,
    ref,
)
from gateway.api.stac_batch import MOST_FILES

_BY_ASSET = {"collection": TEXT, "item": TEXT, "asset": TEXT}
_BY_CHECKSUM = {"product": TEXT, "checksum": TEXT}
_FILES: Json = {
    "type": "array",
    "items": {"oneOf": [object_of(_BY_ASSET), object_of(_BY_CHECKSUM)]},
    "minItems": 1,
    "maxItems": MOST_FILES,
}
_GIVEN: dict[str, Json] = {
    "href": {**TEXT, "format": "uri", "description": "Where it is downloaded; with an end it needs no credential."},
    "expires": {**TIME_OR_NULL, "description": "When `href` ends; null for the address of the file itself."},
    "name": {**TEXT, "description": "Of the file."},
    "type": {**TEXT_OR_NULL, "description": "Media type."},
    "size": {**WHOLE_OR_NULL, "description": "Bytes."},
    "digests": {
        "type": "object",
        "additionalProperties": TEXT,
        "description": "Hexadecimal, by name: md5, sha-1, sha-256, sha-384, sha-512.",
    },
    "error": {
        **object_of({"status": WHOLE, "code": TEXT, "description": TEXT}, {"links": list_of({"type": "object"})}),
        "description": "Instead of all else: why there is none.",
    },
}

_STAC_ITEM: Mapping[str, Json] = {
    "type": {"const": "Feature"},
    "properties": {"type": "object"},
    "assets": {"type": "object", "additionalProperties": {"type": "object"}},
}

_FOUND_FILE = {
    "dataType": TEXT,
    "reference": {**TRUTH, "description": "Whether somebody else has it: its `uri` takes no credential of this API."},
    "uri": {**TEXT, "description": "Where it is downloaded."},
    "mimeType": TEXT_OR_NULL,
    "online": {**TRUTH, "description": "Whether it can be had at once."},
    "checksum": TEXT_OR_NULL,
    "digestAlgorithm": TEXT_OR_NULL,
    "filesize": {**WHOLE_OR_NULL, "description": "Bytes."},
    "filename": TEXT,
    "types": list_of(TEXT),
}
_PRODUCT = object_of(
    {
        "id": {**TEXT, "description": "URN."},
        "providerId": TEXT,
        "entityType": one_of("DATA"),
        "type": one_of("Feature"),
        "label": TEXT,
        "tags": {**list_of(TEXT), "description": "The URN of its dataset, and what else it is tagged with."},
        "creationDate": TIME,
        "lastUpdate": TIME,
        "properties": {"type": "object"},
        "files": {
            "type": "object",
            "additionalProperties": list_of(object_of(_FOUND_FILE)),
            "description": "By data type: those that the caller may download.",
        },
    },
    {
        "model": TEXT,
        "geometry": {"type": "object"},
        "bbox": {**list_of({"type": "number"}), "minItems": 4, "maxItems": 4},
    },
)

FILES: Json = {
    "FilesIn": {"oneOf": [_FILES, object_of({"files": _FILES}, {"expires": TIME_OR_NULL, "network": TEXT_OR_NULL})]},
    "Files": object_of({"files": list_of({"oneOf": [object_of(_BY_ASSET, _GIVEN), object_of(_BY_CHECKSUM, _GIVEN)]})}),
    "CollectionIn": object_of(
        {"type": {"const": "Collection"}, "description": TEXT, "license": TEXT, "extent": {"type": "object"}},
        {"id": TEXT},
        open_=True,
    ),
    "ItemIn": object_of(_STAC_ITEM, {"id": TEXT, "collection": TEXT}, open_=True),
    "ItemsIn": {
        "oneOf": [
            ref("ItemIn"),
            object_of(
                {
                    "type": {"const": "FeatureCollection"},
                    "features": {"type": "array", "items": ref("ItemIn"), "minItems": 1, "maxItems": 5000},
                },
                open_=True,
            ),
        ]
    },
    "ItemPatch": {"type": "object", "description": "Members of a STAC Item; null takes one away."},
    "RegardsProduct": object_of({"content": _PRODUCT, "links": list_of({"type": "object"})}),
    "RegardsProducts": object_of(
        {
            "metadata": object_of({"size": WHOLE, "totalElements": WHOLE, "totalPages": WHOLE, "number": WHOLE}),
            "content": list_of(ref("RegardsProduct")),
            "links": list_of(object_of({"rel": one_of("self", "prev", "next"), "href": TEXT})),
        }
    ),
}
