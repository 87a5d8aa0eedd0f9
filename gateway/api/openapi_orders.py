"""What is to be said of the routes of orders, and the shapes of their bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gateway.api.openapi_operation import GONE, SEEN, Operation
from gateway.orders.lifecycle import FileState, Status
from gateway.orders.model import ORDERABLE

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_WHOLE: Json = {"type": "integer"}
_WHOLE_OR_NULL: Json = {"type": ["integer", "null"]}
_TRUTH_OR_NULL: Json = {"type": ["boolean", "null"]}
_TIME: Json = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}
_STATUS: Json = {"type": "string", "enum": list(Status)}


def _object(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None) -> Json:
    found: Json = {"type": "object", "properties": {**required, **(optional or {})}, "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _page(of: str) -> Json:
    metadata = dict.fromkeys(("size", "totalElements", "totalPages", "number"), _WHOLE)
    return _object({"metadata": _object(metadata), "content": _list(_ref(of)), "links": _LINKS})


def _entity(content: Json) -> Json:
    return _object({"content": content, "links": _LINKS})


_LINKS = _list(_object({"rel": _TEXT, "href": {**_TEXT, "format": "uri"}}))
_LABEL: Json = {"type": ["string", "null"], "maxLength": 50}
_TASK = _object(
    {"id": _WHOLE, "datasetLabel": _TEXT, "objectsCount": _WHOLE, "filesCount": _WHOLE, "filesSize": _WHOLE}
)
_FILE = {
    "id": _WHOLE,
    "productId": _TEXT_OR_NULL,
    "version": _WHOLE_OR_NULL,
    "mimeType": _TEXT_OR_NULL,
    "checksum": _TEXT_OR_NULL,
    "filesize": _WHOLE_OR_NULL,
    "filename": _TEXT_OR_NULL,
}

ORDER_SCHEMAS: Json = {
    "OrderIn": _object({}, {"label": _LABEL, "onSuccessUrl": _TEXT_OR_NULL}),
    "OrderRequest": _object(
        {"queries": {**_list(_TEXT), "minItems": 1, "maxItems": 100}},
        {
            "filters": {
                "oneOf": [
                    _object(
                        {},
                        {
                            "dataTypes": _list({"type": "string", "enum": ["QUICKLOOK", *ORDERABLE]}),
                            "filenameRegExp": _TEXT_OR_NULL,
                        },
                    ),
                    {"type": "null"},
                ]
            },
            "correlationId": {"type": ["string", "null"], "maxLength": 255},
            "sizeLimitInBytes": _WHOLE_OR_NULL,
            "user": _TEXT_OR_NULL,
            "label": _LABEL,
            "onSuccessUrl": _TEXT_OR_NULL,
        },
    ),
    "OrderResponse": _object(
        {"status": {"type": "string", "enum": ["GRANTED", "DENIED"]}, "correlationId": _TEXT_OR_NULL},
        {"orderId": _WHOLE, "errorType": _TEXT, "message": _TEXT},
    ),
    "Order": _entity(
        _object(
            {
                "id": _WHOLE,
                "owner": _TEXT,
                "label": _TEXT,
                "creationDate": _TIME,
                "expirationDate": _TIME,
                "percentCompleted": _WHOLE,
                "filesInErrorCount": _WHOLE,
                "availableFilesCount": _WHOLE,
                "status": _STATUS,
                "statusDate": _TIME,
                "waitingForUser": {"type": "boolean"},
                "datasetTasks": _list(_TASK),
            }
        )
    ),
    "Orders": _page("Order"),
    "OrderSearch": _object(
        {},
        {
            "owner": _TEXT_OR_NULL,
            "statuses": _object(
                {"values": _list(_STATUS)},
                {
                    "mode": {"type": "string", "enum": ["INCLUDE", "EXCLUDE"]},
                    "matchMode": _TEXT_OR_NULL,
                    "ignoreCase": _TRUTH_OR_NULL,
                },
            ),
            "creationDate": _object({}, {"after": _TIME_OR_NULL, "before": _TIME_OR_NULL}),
            "waitingForUser": _TRUTH_OR_NULL,
        },
    ),
    "OrderFile": _entity(
        _object(
            {
                **_FILE,
                "orderId": _WHOLE,
                "filesTaskId": _WHOLE,
                "state": {"type": "string", "enum": list(FileState)},
                "downloadError": _TEXT_OR_NULL,
                "ipId": _TEXT_OR_NULL,
                "url": {**_TEXT, "format": "uri"},
                "uri": {**_TEXT, "format": "uri"},
                "dataType": _TEXT_OR_NULL,
                "reference": _TRUTH_OR_NULL,
                "online": {"type": "boolean"},
                "digestAlgorithm": _TEXT_OR_NULL,
                "crc32": _TEXT_OR_NULL,
            }
        )
    ),
    "OrderFiles": _page("OrderFile"),
    "AvailableFile": _entity(_object({**_FILE, "downloadUrl": {**_TEXT, "format": "uri"}})),
    "AvailableFiles": _page("AvailableFile"),
    "OrderToken": _object({"orderToken": _TEXT, "expirationDate": _TIME}),
}

ORDER_PARAMETERS: Mapping[str, tuple[str, Json]] = {
    "page": ("Number of the page, from 0 on.", {"type": "integer", "minimum": 0}),
    "size": ("Elements of a page.", {"type": "integer", "minimum": 1, "maximum": 1000}),
    "user": ("E-mail address of the owner.", _TEXT),
    "orderToken": ("What opens the files of one order.", _TEXT),
}
"""Of queries: description and schema."""
ORDER_PATH_PARAMETERS = {
    "orderId": "Id of the order.",
    "datasetTaskId": "Id of a dataset task of the order.",
    "filesTaskId": "Id of a sub-order.",
    "dataFileId": "Id of a file of an order.",
}

_PAGED = ("page", "size")
_LISTED = (400, 404, 503)
_FILES = ("Range", "If-Match", "If-None-Match", "isContentInline", "acceptLicense", "dryRun")
_REFUSED = "What is not possible in the status of the order is 401, with REGARDS' message."


def _action(summary: str, text: str = "") -> Operation:
    return Operation(
        summary, "user", scope="order", types=("text/plain",), refusals=SEEN, text=f"{text} {_REFUSED}".strip()
    )


_ORDER = Operation("An order", "user", scope="order", answer="Order", refusals=SEEN)
_CREATED = Operation(
    "Order what is in the basket",
    "user",
    scope="order",
    body="OrderIn",
    answer="Order",
    statuses=(200, 201, 204),
    refusals=(422, 503),
    text="201 by setting. Nothing to order is 204, with the reason in `X-Message`.",
)
_FILE_DOWNLOAD = Operation(
    "Download a file of an order",
    "user",
    scope="download",
    query=_FILES,
    types=("application/octet-stream",),
    statuses=(200, 202, 206, 304, 307),
    refusals=(404, 410, 412, 416, 422, 423, 429, 502, 503),
    text="By the rights and quota of the caller. 202: it is not ready; 422: it cannot be had.",
)
_ARCHIVE = Operation(
    "Download an order as one ZIP",
    "user",
    scope="download",
    query=("Range", "If-Match", "If-None-Match"),
    types=("application/octet-stream",),
    statuses=(200, 206, 304),
    refusals=(404, 409, 412, 416, 423, 429, 502, 503),
    text=(
        "By the rights and quota of the caller; what is not in it, its NOTICE.txt tells. Its length is exact, and it "
        f"can be resumed: 409 where what it was made of has changed. {_REFUSED}"
    ),
)
_METALINK = Operation(
    "Metalink of an order",
    "user",
    scope="order",
    types=("application/metalink+xml", "application/metalink4+xml"),
    refusals=SEEN,
    text="Version 3, or version 4 by Accept or by the extension `.meta4`. Its links need no credential.",
)
_PUBLIC_METALINK = dataclasses.replace(
    _METALINK, access="public", scope=None, query=("orderToken",), refusals=(401, *SEEN)
)
_CSV = Operation("All orders as CSV", "administrator", query=("user",), types=("text/csv",), refusals=(400, 503))
_AVAILABLE = Operation(
    "Files of an order that can be downloaded",
    "user",
    scope="order",
    query=_PAGED,
    answer="AvailableFiles",
    refusals=_LISTED,
)

ORDERS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/user/orders"): _CREATED,
    ("GET", "/user/orders"): dataclasses.replace(
        _ORDER, summary="Orders of the caller, the newest first", query=_PAGED, answer="Orders", refusals=(400, 503)
    ),
    ("POST", "/user/orders/apply"): Operation(
        "Order what queries select, in one call",
        "user",
        scope="order",
        body="OrderRequest",
        answer="OrderResponse",
        statuses=(200, 422),
        text="422 says in the same form why there is no order.",
    ),
    ("GET", "/user/orders/{orderId}"): _ORDER,
    ("DELETE", "/user/orders/{orderId}"): _action(
        "Delete an order", "Its files are forgotten, its user sees it no more."
    ),
    ("PUT", "/user/orders/pause/{orderId}"): _action("Pause an order"),
    ("PUT", "/user/orders/resume/{orderId}"): _action("Resume an order"),
    ("PUT", "/user/orders/{orderId}/retry"): _action("Try again what could not be had"),
    ("DELETE", "/user/orders/remove/{orderId}"): _action("Remove an order", "Nothing is left of it."),
    ("POST", "/user/orders/{orderId}/restart"): dataclasses.replace(
        _CREATED, summary="Order the same again", refusals=(404, 422, 503), text=_REFUSED
    ),
    ("GET", "/user/orders/{orderId}/token"): dataclasses.replace(
        _ORDER, summary="The token that opens the files of an order", answer="OrderToken"
    ),
    ("GET", "/user/orders/{orderId}/events"): Operation(
        "How an order goes on, as server-sent events",
        "user",
        scope="order",
        types=("text/event-stream",),
        statuses=(200, 204),
        refusals=(404, 429, 503),
        text="Events `progress`, each with all of the present state, and at last `end`: nothing of the order is being "
        "prepared any more. 204: with the `Last-Event-ID` of that end.",
    ),
    ("DELETE", "/user/orders/{orderId}/token"): Operation(
        "Revoke all tokens of an order", "user", scope="order", statuses=GONE, refusals=SEEN
    ),
    ("GET", "/user/orders/{orderId}/download"): _ARCHIVE,
    ("HEAD", "/user/orders/{orderId}/download"): dataclasses.replace(
        _ARCHIVE, summary="What the ZIP of an order would be", query=()
    ),
    **{
        ("GET", f"/user/orders/{part}metalink/download{extension}"): operation
        for part, operation in (("{orderId}/", _METALINK), ("", _PUBLIC_METALINK))
        for extension in ("", ".metalink", ".meta4")
    },
    ("GET", "/orders"): Operation(
        "Orders of all users or of one, the newest first",
        "administrator",
        query=(*_PAGED, "user"),
        answer="Orders",
        types=("application/json", "text/csv"),
        refusals=(400, 503),
        text="CSV, also asked for as `test/csv`, has all of them.",
    ),
    ("GET", "/orders/csv"): _CSV,
    ("POST", "/orders/csv"): dataclasses.replace(_CSV, summary="Some orders as CSV", query=(), body="OrderSearch"),
    ("POST", "/orders/search"): Operation(
        "Search orders", "administrator", query=_PAGED, body="OrderSearch", answer="Orders"
    ),
    ("GET", "/orders/{orderId}/dataset/{datasetTaskId}/files"): dataclasses.replace(
        _AVAILABLE, summary="Files of a dataset task", answer="OrderFiles"
    ),
    ("GET", "/orders/{orderId}/files/available"): _AVAILABLE,
    ("GET", "/orders/{orderId}/filesTask/{filesTaskId}/files/available"): dataclasses.replace(
        _AVAILABLE, summary="Files of a sub-order that can be downloaded"
    ),
    ("GET", "/orders/files/{dataFileId}"): _FILE_DOWNLOAD,
    ("HEAD", "/orders/files/{dataFileId}"): dataclasses.replace(
        _FILE_DOWNLOAD, summary="What a download would answer", query=("Prefer",)
    ),
    ("GET", "/orders/public/files/{dataFileId}"): dataclasses.replace(
        _FILE_DOWNLOAD,
        access="public",
        scope=None,
        query=("orderToken", *_FILES),
        refusals=(401, 403, *_FILE_DOWNLOAD.refusals),
        text="By the rights and quota of the owner. 202: it is not ready; 422: it cannot be had.",
    ),
    ("HEAD", "/orders/public/files/{dataFileId}"): dataclasses.replace(
        _FILE_DOWNLOAD,
        summary="What a download would answer",
        access="public",
        scope=None,
        query=("orderToken", "Prefer"),
        refusals=(401, 403, *_FILE_DOWNLOAD.refusals),
    ),
}
"""By method and path below the prefix of REGARDS."""
