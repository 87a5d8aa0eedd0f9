"""From pushed documents to rows of the catalogue: what is asked of them beyond what an ingest asks. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gateway.administration.changes import Actor
from gateway.administration.work import unacceptable
from gateway.catalog.ingest import jsonstream, stac
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import Place, RefusedError
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import Dataset, JsonObject, Product
from gateway.errors import GatewayError
from gateway.locations import Location

MOST_ITEMS = 5_000
"""Of an ItemCollection."""
_REQUIRED = ("description", "license", "extent")
"""Of a Collection, beside type and id."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pusher:
    """Who pushes, and into which tenant's part of the catalogue."""

    tenant: str
    actor: Actor
    everywhere: bool = False
    """Whether hrefs may lead into storages that tenants share: for administrators of all of them."""


def items(body: Any, collection: str) -> tuple[list[JsonObject], bool]:
    """The Items of a body that is an Item or an ItemCollection, with ``collection`` as theirs; and whether it is one.

    Raises:
        GatewayError: 400.
    """
    if isinstance(body, dict) and body.get("type") == "FeatureCollection":
        features = body.get("features")
        if not isinstance(features, list) or not features:
            raise unacceptable("'features' must be an array of at least one Item.")
        if len(features) > MOST_ITEMS:
            raise unacceptable(f"An ItemCollection has at most {MOST_ITEMS} Items here; this one has {len(features)}.")
        found = [_item(value, collection, f"features[{index}]") for index, value in enumerate(features)]
        ids = {value["id"] for value in found if isinstance(value["id"], str)}
        if len(ids) < len(found):
            raise unacceptable("Two Items have the same id.")
        return found, False
    return [_item(body, collection, "The Item")], True


def item(body: Any, collection: str, identifier: str) -> JsonObject:
    """The Item of a body, with the id and collection of the path.

    Raises:
        GatewayError: 400 it is none, or says that it is another one.
    """
    if isinstance(body, dict):
        body.setdefault("id", identifier)
    found = _item(body, collection, "The Item")
    if found["id"] != identifier:
        raise unacceptable(f"The Item has the id {short(found['id'])}, but the path has {short(identifier)}.")
    return found


def collection(body: Any, identifier: str | None = None) -> JsonObject:
    """The Collection of a body, with the id of the path where that has one.

    Raises:
        GatewayError: 400 it is none, or says that it is another one.
    """
    if not isinstance(body, dict) or body.get("type") != "Collection":
        raise unacceptable("The body must be a STAC Collection (type 'Collection').")
    found: JsonObject = body
    if identifier is not None and found.setdefault("id", identifier) != identifier:
        raise unacceptable(f"The Collection has the id {short(found['id'])}, but the path has {short(identifier)}.")
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        raise unacceptable(f"The Collection lacks {', '.join(missing)}.")
    return found


def dataset(value: JsonObject, tenant: str) -> Dataset:
    """The row of a Collection.

    Raises:
        GatewayError: 400.
    """
    try:
        _check_depth(value)
        return stac.dataset(value, Place(""), Context(tenant, (), False, "", None, _ignore))
    except RefusedError as error:
        raise unacceptable(f"The Collection {error}.") from error


def products(values: Sequence[JsonObject], pusher: Pusher, locations: Sequence[Location]) -> list[Product]:
    """The rows of Items.

    Raises:
        GatewayError: 400; of several it names the first that is refused.
    """
    context = Context(pusher.tenant, locations, False, "", None, _ignore, own_only=not pusher.everywhere)
    found = []
    for value in values:
        identifier = value.get("id")
        try:
            _check_depth(value)
            found.append(
                stac.product(value, Place("", id=identifier if isinstance(identifier, str) else None), context)
            )
        except RefusedError as error:
            raise refused(identifier, str(error)) from error
    return found


def refused(identifier: object, reason: str) -> GatewayError:
    """400: an Item is not taken."""
    named = f"The Item {short(identifier)}" if isinstance(identifier, str) else "The Item"
    return unacceptable(f"{named} is not taken: {reason}.")


def _item(value: Any, collection: str, what: str) -> JsonObject:
    if not isinstance(value, dict) or value.get("type") != "Feature" or "entityType" in value:
        raise unacceptable(f"{what} is no STAC Item (type 'Feature').")
    found: JsonObject = value
    if found.get("collection") is None:
        found["collection"] = collection
    if found["collection"] != collection:
        raise unacceptable(
            f"{what} is of the collection {short(found['collection'])}, but the path has {short(collection)}."
        )
    if not isinstance(found.get("id"), str):
        raise unacceptable(f"{what} has no id that is text.")
    found.setdefault("assets", {})
    return found


def _check_depth(value: JsonObject) -> None:
    if jsonstream.too_deep(value):
        raise RefusedError(f"nests deeper than {jsonstream.MAX_DEPTH} arrays and objects")


def _ignore(_: str) -> None:
    """What is odd but harmless is the pusher's business."""
