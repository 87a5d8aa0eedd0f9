"""Words on nearline files in the description of the API: availability, restores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from gateway.api.openapi_operation import CHANGED, GONE, SEEN, Operation
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
    ref,
)
from gateway.staging.model import FileState

_STATE = {**one_of(*FileState), "description": "How it stands with the file."}
_DATES = {
    "requestDate": TIME,
    "estimatedDate": {**TIME, "description": "When it is expected to be readable."},
    "restoreDate": TIME,
    "expirationDate": {**TIME, "description": "Until when it can be read, or could be."},
    "endDate": {**TIME, "description": "When it was over."},
}
_PRODUCT_IDS = object_of({"product_ids": {**list_of(TEXT), "description": "URNs."}})

NEARLINE_SCHEMAS: Json = {
    "ProductIds": _PRODUCT_IDS,
    "Checksums": object_of({"checksums": {**list_of(TEXT), "maxItems": 100}}),
    "FileAvailability": object_of(
        {
            "checksum": TEXT_OR_NULL,
            "available": {**TRUTH, "description": "Whether it can be read now."},
            "state": _STATE,
        },
        {
            "expiration_date": {**TIME, "description": "Until when."},
            "estimated_date": {**TIME, "description": "When it is expected to be."},
            "restore": object_of({"id": WHOLE, "href": {**TEXT, "format": "uri"}}),
        },
    ),
    "FileAvailabilities": list_of(ref("FileAvailability")),
    "ProductAvailability": object_of({"id": TEXT, "files": list_of(ref("FileAvailability"))}),
    "ProductAvailabilities": object_of({"products": list_of(ref("ProductAvailability"))}),
    "RestoreIn": object_of({"hours": {"type": "number", "exclusiveMinimum": 0}}),
    "Restore": object_of(
        {
            "id": WHOLE,
            "status": one_of("QUEUED", "STAGING", "RESTORED", "EXPIRED", "CANCELED", "FAILED"),
            "state": _STATE,
            "productId": TEXT_OR_NULL,
            "checksum": TEXT_OR_NULL,
            "filename": TEXT_OR_NULL,
            "filesize": WHOLE_OR_NULL,
            "hours": {"type": "number", "description": "That it can be read, at least, once it is restored."},
            "requestDate": TIME,
            "links": list_of(object_of({"rel": one_of("self", "download"), "href": {**TEXT, "format": "uri"}})),
        },
        {**{name: date for name, date in _DATES.items() if name != "requestDate"}, "error": TEXT},
    ),
    "Restores": object_of(
        {
            "metadata": object_of(dict.fromkeys(("size", "totalElements", "totalPages", "number"), WHOLE)),
            "content": list_of(ref("Restore")),
        }
    ),
}

NEARLINE_PATH_PARAMETERS = {
    "productId": "URN of the product.",
    "product_id": "URN of the product.",
    "restoreId": "Id of the restore.",
}

_AVAILABILITY = Operation(
    "Which files of a product can be read now",
    scope="download",
    answer="ProductAvailability",
    refusals=CHANGED,
    text="By setting only with the role EXPLOIT. Licences are not looked at.",
)
_RESTORE = dataclasses.replace(
    _AVAILABILITY,
    summary="Have the nearline files of a product restored",
    refusals=(*CHANGED, 429),
    text="What is restored stays longer. By setting only with the role EXPLOIT.",
)
_LEFT_OUT = "Products that the caller may not download are left out. By setting only with the role EXPLOIT."
_ONE = Operation(
    "A restore",
    scope="download",
    answer="Restore",
    refusals=SEEN,
    text="Seen by who asked for it, or by an order of his, and by administrators. `Retry-After`: when to ask again.",
)

NEARLINE: Mapping[tuple[str, str], Operation] = {
    ("GET", "/availability/files/{productId}"): _AVAILABILITY,
    ("POST", "/availability/files"): dataclasses.replace(
        _AVAILABILITY,
        summary="Which files of products can be read now",
        body="ProductIds",
        answer="ProductAvailabilities",
        refusals=(503,),
        text=_LEFT_OUT,
    ),
    ("GET", "/restore/{product_id}"): _RESTORE,
    ("POST", "/restore"): dataclasses.replace(
        _RESTORE,
        summary="Have the nearline files of products restored",
        body="ProductIds",
        answer="ProductAvailabilities",
        refusals=(429, 503),
        text=_LEFT_OUT,
    ),
    ("POST", "/files/availability/status"): Operation(
        "Which files of the tenant can be read now",
        "user",
        scope="admin",
        body="Checksums",
        answer="FileAvailabilities",
        refusals=(422, 503),
        text="For services, with the role EXPLOIT. Unknown checksums are left out.",
    ),
    ("GET", "/restores"): Operation(
        "Restores of the caller, the newest first",
        "user",
        scope="download",
        query=("page", "size"),
        answer="Restores",
        refusals=(400, 503),
    ),
    ("GET", "/restores/{restoreId}"): _ONE,
    ("PATCH", "/restores/{restoreId}"): dataclasses.replace(
        _ONE,
        summary="Have what is restored stay longer",
        access="user",
        body="RestoreIn",
        refusals=(404, 409, 503),
        text="So many hours, from now on, or once it is restored.",
    ),
    ("DELETE", "/restores/{restoreId}"): Operation(
        "Do not want a restore any more",
        "user",
        scope="download",
        statuses=GONE,
        refusals=(404, 409, 503),
        text="It is called off if nobody else wants it.",
    ),
    ("GET", "/restores/{restoreId}/events"): dataclasses.replace(
        _ONE,
        summary="How a restore goes on, as server-sent events",
        answer=None,
        types=("text/event-stream",),
        statuses=(200, 204),
        refusals=(404, 429, 503),
        text="Events `progress`, each with all of the present state, and at last `end`. 204: with the `Last-Event-ID` "
        "of that end.",
    ),
}
"""By method and path below the prefix of REGARDS."""
