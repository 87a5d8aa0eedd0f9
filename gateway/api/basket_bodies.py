"""Baskets as REGARDS tells of them, and what it is asked to put into them.

Two forms of a selection are understood: the documented one (``selectAllOpenSearchRequest``, ``ipIds``) and that of
REGARDS today (``engineType``, ``searchParameters``, …). Both become one query.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web

from gateway.api.bodies import bad, members, read_long_body, read_long_json
from gateway.api.forms import part_of
from gateway.api.orders import data_types, stored
from gateway.errors import GatewayError
from gateway.links import base_url
from gateway.orders.basket_page import BasketPage, DatasetPage, ItemsPage
from gateway.orders.counting import Amount
from gateway.orders.model import ORDERABLE, FileFilters
from gateway.orders.service import Ordering
from gateway.quotas.outlook import Outlook
from gateway.quotas.standing import described
from gateway.search.composition import listed, selection, within
from gateway.search.query import QueryError
from gateway.search.reading import parse

MOST_IDS = 1000
"""Products that a selection names, and lines of a file of them; REGARDS' limit."""
_MOST_ID = 255
"""Characters."""
_MOST_BYTES = 512 * 1024
"""Of a body: more than a query of so many ids may have."""
_SECONDS = 20
"""That it may take to come."""
_EMPTY = "If opensearch request is null, at least on IP_ID must be provided"
_TOO_LONG = f"Input file exceed max lines limit ({MOST_IDS})"
_LATER = ("datasetUrn", "searchParameters", "entityIdsToInclude", "entityIdsToExclude", "selectionDate")
_IGNORED = frozenset(("sort", "page", "size"))
"""What a search is asked for besides, which says nothing of what it finds."""
_QUICKLOOKS = frozenset(kind for kind in ORDERABLE if kind != "RAWDATA")

Json = dict[str, Any]


async def read_selection(request: web.Request) -> str:
    """The query that the body asks for.

    Raises:
        GatewayError: 400, 408; 417 it names nothing; 422 its query cannot be understood.
        web.HTTPRequestEntityTooLarge: it is too long.
    """
    body = await read_long_json(request, most=_MOST_BYTES, seconds=_SECONDS)
    if isinstance(body, dict) and "engineType" in body:
        return await _of_today(members(body, ("engineType",), _LATER))
    body = members(body, (), ("selectAllOpenSearchRequest", "ipIds"))
    query, ids = body.get("selectAllOpenSearchRequest"), _ids(body.get("ipIds"), "ipIds")
    if query is not None:
        query = await _sound(_plain(stored(query, "selectAllOpenSearchRequest")))
    found = selection(query, ids)
    if found is None:
        raise GatewayError(HTTPStatus.EXPECTATION_FAILED, _EMPTY)
    return found


async def read_upload(request: web.Request) -> str:
    """The query of a file with an id of a product (providerId) on each line, the part ``file`` of a form.

    Raises:
        GatewayError: 400, 408; 413 it has too many lines; 415 it is no such form; 422 it has no line.
        web.HTTPRequestEntityTooLarge: it is too long.
    """
    if request.content_type != "multipart/form-data":
        raise GatewayError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be a form: multipart/form-data.")
    body = await read_long_body(request, most=_MOST_BYTES, seconds=_SECONDS)
    content = part_of(request.headers["Content-Type"], bytes(body), "file")
    if content is None:
        raise bad("The form has no part 'file'.")
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise bad("The file is not UTF-8.") from error
    lines = [line for line in lines if line]
    if len(lines) > MOST_IDS:
        raise GatewayError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LONG)
    if not lines:
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, "The file has no id of a product.")
    return listed("providerId", list(dict.fromkeys(_id(line, "file") for line in lines)))


async def read_filters(request: web.Request) -> FileFilters:
    """Which files of a dataset are wanted: the body; all of them where there is none, or null.

    Raises:
        GatewayError: 400, 408.
    """
    body = await read_long_json(request, most=_MOST_BYTES, seconds=_SECONDS) if request.can_read_body else None
    if body is None:
        return FileFilters()
    body = members(body, (), ("fileTypes", "fileNamePattern"))
    pattern = body.get("fileNamePattern")
    types = data_types(body.get("fileTypes"), "fileTypes")
    return FileFilters(types, None if pattern is None else stored(pattern, "fileNamePattern"))


def told(request: web.Request, ordering: Ordering, basket: BasketPage, left: Outlook | None) -> Json:
    """A basket; ``quota`` is how many of its files count in quotas, as in REGARDS today.

    ``remainingQuota`` is what the caller may still download, where that is known.
    """
    base = f"{base_url(request, ordering.public_url)}{ordering.prefix}"
    amount = basket.amount
    content: Json = {
        "id": basket.basket_id,
        "owner": basket.owner,
        "datasetSelections": [_dataset(one) for one in basket.datasets],
        "quota": amount.metered_files,
    }
    if left is not None:
        content["remainingQuota"] = _remaining(left, amount)
    links = [
        {"rel": "self", "href": f"{base}/order/basket"},
        {"rel": "add", "href": f"{base}/order/basket/selection"},
        {"rel": "delete", "href": f"{base}/order/basket"},
    ]
    if amount.files:
        links.append({"rel": "order", "href": f"{base}/user/orders"})
    return {"content": content, "links": links}


def _dataset(selected: DatasetPage) -> Json:
    told: Json = {
        "id": selected.selection_id,
        "datasetIpid": selected.dataset,
        "datasetLabel": selected.label,
        "openSearchRequest": selected.query,
        **_amount(selected.amount),
        "itemsSelections": [_items(one) for one in selected.items],
    }
    if selected.filters != FileFilters():
        types = [kind for kind in selected.filters.data_types if kind not in _QUICKLOOKS]
        others = [kind for kind in selected.filters.data_types if kind in _QUICKLOOKS]
        types += ["QUICKLOOK"] if set(others) == _QUICKLOOKS else others
        told["fileSelectionDescription"] = {"fileTypes": types, "fileNamePattern": selected.filters.name_pattern}
    return told


def _items(selected: ItemsPage) -> Json:
    return {"date": selected.date, "openSearchRequest": selected.query, **_amount(selected.amount)}


def _amount(amount: Amount) -> Json:
    return {
        "objectsCount": amount.objects,
        "filesCount": amount.files,
        "filesSize": amount.size,
        "quota": amount.metered_files,
    }


def _remaining(left: Outlook, amount: Amount) -> Json:
    return {
        "downloads": left.downloads,
        "bytes": left.octets,
        "sufficient": left.suffices(amount.metered_files, amount.metered_size),
        "limits": [described(standing) for standing in left.standings],
    }


async def _of_today(body: Json) -> str:
    if body["engineType"] != "legacy":
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, "There is no engine but 'legacy'.")
    parameters = {} if body.get("searchParameters") is None else body["searchParameters"]
    if not isinstance(parameters, dict):
        raise bad("'searchParameters' must be an object.")
    queries = [] if parameters.get("q") is None else parameters["q"]
    if not isinstance(queries, list) or len(queries) > 1:
        raise bad("'q' of 'searchParameters' must be a list of one query.")
    unknown = sorted(set(parameters) - {"q"} - _IGNORED)
    if unknown:
        detail = f"Selections are made by 'q' alone, not by {unknown[0]!r}: say it in the query."
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    query = await _sound(_plain(stored(queries[0], "q"))) if queries else ""
    dataset = body.get("datasetUrn")
    included, excluded = (_ids(body.get(name), name) for name in ("entityIdsToInclude", "entityIdsToExclude"))
    urn = "" if dataset is None else _id(dataset, "datasetUrn")
    return within(query, dataset=urn, ids=included, without=excluded)


async def _sound(query: str) -> str:
    """``query``, which is one by itself: nothing that is written around it changes what it means.

    Raises:
        GatewayError: 422.
    """
    query = query.strip()
    try:
        await asyncio.to_thread(parse, query)
    except QueryError as error:
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    return query


def _ids(value: Any, name: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad(f"{name!r} must be a list of ids.")
    if len(value) > MOST_IDS:
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name!r} has at most {MOST_IDS} ids.")
    return list(dict.fromkeys(_plain(_id(one, name)) for one in value))


def _id(value: Any, name: str) -> str:
    found = stored(value, name)
    if not 0 < len(found) <= _MOST_ID:
        raise bad(f"An id in {name!r} has 1 to {_MOST_ID} characters.")
    return found


def _plain(text: str) -> str:
    """``text`` as it was before it was encoded for a URL, as some clients of REGARDS do.

    Ids and queries have colons, unless they ask for everything: what has none but encoded ones is encoded.
    """
    return unquote_plus(text) if ":" not in text and "%3a" in text.lower() else text
