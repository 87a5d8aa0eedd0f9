"""What is to be said of the STAC API Transaction extension."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.api.openapi_operation import GONE, Operation

_ITEM = ("application/geo+json",)
_COLLECTION = ("application/json",)
_MATCHED = ("If-Match", "tenant")
_REFUSALS = (400, 404, 409, 503)
_MATCHING = (400, 404, 409, 412, 503)
_HREFS = "Each `href` must lie in a storage of the tenant, below a prefix of its own where others share it."

TRANSACTIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/collections"): Operation(
        "Make a Collection",
        "administrator",
        query=("tenant",),
        body="CollectionIn",
        types=_COLLECTION,
        statuses=(201,),
        refusals=_REFUSALS,
        text="Nobody has a right to it yet.",
    ),
    ("PUT", "/collections/{collectionId}"): Operation(
        "Replace a Collection",
        "administrator",
        query=_MATCHED,
        body="CollectionIn",
        types=_COLLECTION,
        refusals=(400, 404, 412, 503),
        text="Its items, rights and licence stay.",
    ),
    ("DELETE", "/collections/{collectionId}"): Operation(
        "Delete a Collection",
        "administrator",
        query=_MATCHED,
        statuses=GONE,
        refusals=_MATCHING,
        text="409 while it has items. Rights of groups to it are deleted with it; acceptances of its licence stay.",
    ),
    ("POST", "/collections/{collectionId}/items"): Operation(
        "Make an Item, or all Items of an ItemCollection",
        "administrator",
        query=("tenant",),
        body="ItemsIn",
        types=_ITEM,
        statuses=(201,),
        refusals=_REFUSALS,
        text=f"All or none: 409 if one of them is there. {_HREFS}",
    ),
    ("PUT", "/collections/{collectionId}/items/{itemId}"): Operation(
        "Replace an Item",
        "administrator",
        query=_MATCHED,
        body="ItemIn",
        types=_ITEM,
        refusals=_MATCHING,
        text=_HREFS,
    ),
    ("PATCH", "/collections/{collectionId}/items/{itemId}"): Operation(
        "Change parts of an Item",
        "administrator",
        query=_MATCHED,
        body="ItemPatch",
        types=_ITEM,
        refusals=_MATCHING,
        text="A JSON merge patch (RFC 7396). Assets that stay as they are keep what is known of their files.",
    ),
    ("DELETE", "/collections/{collectionId}/items/{itemId}"): Operation(
        "Delete an Item",
        "administrator",
        query=_MATCHED,
        statuses=GONE,
        refusals=(400, 404, 412, 503),
        text="Its files stay where they are.",
    ),
}
