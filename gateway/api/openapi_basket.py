"""What is to be said of the routes of baskets, and the shapes of their bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gateway.api.openapi_operation import UPLOAD, Operation
from gateway.api.openapi_shapes import (
    TEXT,
    TEXT_OR_NULL,
    TIME,
    TRUTH,
    WHOLE,
    WHOLE_OR_NULL,
    Json,
    list_of,
    object_of,
    one_of,
)
from gateway.orders.model import ORDERABLE

_IDS: Json = {"type": ["array", "null"], "items": {**TEXT, "minLength": 1, "maxLength": 255}, "maxItems": 1000}
_PATTERN: Json = {"type": ["string", "null"], "maxLength": 200}
_TYPES: Json = {"type": "array", "items": one_of("QUICKLOOK", *ORDERABLE)}


_AMOUNT = dict.fromkeys(("objectsCount", "filesCount", "filesSize", "quota"), WHOLE)
_ITEMS = object_of({"date": TIME, "openSearchRequest": TEXT, **_AMOUNT})
_DATASET = object_of(
    {
        "id": WHOLE,
        "datasetIpid": TEXT,
        "datasetLabel": TEXT,
        "openSearchRequest": TEXT,
        **_AMOUNT,
        "itemsSelections": list_of(_ITEMS),
    },
    {"fileSelectionDescription": object_of({"fileTypes": _TYPES, "fileNamePattern": _PATTERN})},
)
_REMAINING = object_of(
    {
        "downloads": WHOLE_OR_NULL,
        "bytes": WHOLE_OR_NULL,
        "sufficient": TRUTH,
        "limits": list_of({"type": "object"}),
    }
)

BASKET_SCHEMAS: Json = {
    "BasketSelection": {
        "anyOf": [
            object_of({}, {"selectAllOpenSearchRequest": TEXT_OR_NULL, "ipIds": _IDS}),
            object_of(
                {"engineType": one_of("legacy")},
                {
                    "datasetUrn": TEXT_OR_NULL,
                    "searchParameters": {"type": ["object", "null"], "additionalProperties": list_of(TEXT)},
                    "entityIdsToInclude": _IDS,
                    "entityIdsToExclude": _IDS,
                    "selectionDate": {"type": ["string", "null"]},
                },
            ),
        ]
    },
    "BasketUpload": object_of({"file": {**TEXT, "format": "binary"}}),
    "BasketFilters": {
        "oneOf": [
            object_of({}, {"fileTypes": {**_TYPES, "type": ["array", "null"]}, "fileNamePattern": _PATTERN}),
            {"type": "null"},
        ]
    },
    "Basket": object_of(
        {
            "content": object_of(
                {"id": WHOLE, "owner": TEXT, "datasetSelections": list_of(_DATASET), "quota": WHOLE},
                {"remainingQuota": _REMAINING},
            ),
            "links": list_of(object_of({"rel": TEXT, "href": {**TEXT, "format": "uri"}})),
        }
    ),
}

BASKET_PATH_PARAMETERS = {
    "datasetSelectionId": "Id of the selections of a dataset, from the basket.",
    "itemsSelectionDate": "Date of one of them, from the basket.",
}

_NONE = "Without a basket 204."
_SHOWN = Operation(
    "The basket", "user", scope="order", answer="Basket", statuses=(200, 204), refusals=(503,), text=_NONE
)
_ADDED = dataclasses.replace(
    _SHOWN,
    summary="Add a selection to the basket",
    body="BasketSelection",
    refusals=(404, 409, 417, 422, 503),
    text="By a query, by a query without some products, or by products; a basket is made if there is none. No file "
    "that could be ordered is 204, with the reason in `X-Message`; a basket that would be too large 409.",
)
_REMOVED = dataclasses.replace(
    _SHOWN,
    summary="Remove all selections of a dataset",
    refusals=(400, 503),
    text=f"{_NONE} What is not in the basket changes nothing.",
)
_REMOVED_ITEMS = dataclasses.replace(_REMOVED, summary="Remove one selection of a dataset")

BASKET: Mapping[tuple[str, str], Operation] = {
    ("GET", "/order/basket"): _SHOWN,
    ("DELETE", "/order/basket"): Operation("Empty the basket", "user", scope="order", types=("text/plain",)),
    ("POST", "/order/basket/selection"): _ADDED,
    ("POST", "/order/basket/selection/upload"): dataclasses.replace(
        _ADDED,
        summary="Add the products of a file to the basket",
        body="BasketUpload",
        body_type=UPLOAD,
        refusals=(404, 409, 415, 422, 503),
        text="One `providerId` on each line. No file that could be ordered is 204.",
    ),
    ("PUT", "/order/basket/dataset/{datasetSelectionId}/updateFileFilters"): dataclasses.replace(
        _SHOWN,
        summary="Have only some files of a dataset",
        body="BasketFilters",
        refusals=(404, 503),
        text=f"By data type, and by a regular expression for the whole name; null for all files. {_NONE}",
    ),
    ("DELETE", "/order/basket/dataset/{datasetSelectionId}"): _REMOVED,
    ("DELETE", "/order/basket//dataset/{datasetSelectionId}"): _REMOVED,
    ("DELETE", "/order/basket/dataset/{datasetSelectionId}/{itemsSelectionDate}"): _REMOVED_ITEMS,
    ("DELETE", "/order/basket//dataset/{datasetSelectionId}/{itemsSelectionDate}"): _REMOVED_ITEMS,
}
"""By method and path below the prefix of REGARDS."""
