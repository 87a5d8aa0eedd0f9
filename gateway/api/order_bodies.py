"""Orders as REGARDS tells of them: HATEOAS envelopes, links where an action is possible, pages with metadata."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import web

from gateway.api.bodies import answer, bad
from gateway.links import base_url
from gateway.orders.lifecycle import Action, possible
from gateway.orders.reading import Order, OrderFile
from gateway.orders.service import Ordering

PAGE, MOST = 20, 1000
"""Elements of a page, unless ``?size=`` says otherwise, and at most."""
_DIGITS = 9

Json = dict[str, Any]
T = TypeVar("T")

_PATHS: Mapping[Action, str] = {
    Action.DOWNLOAD: "/user/orders/{}/download",
    Action.PAUSE: "/user/orders/pause/{}",
    Action.RESUME: "/user/orders/resume/{}",
    Action.DELETE: "/user/orders/{}",
    Action.REMOVE: "/user/orders/remove/{}",
    Action.RESTART: "/user/orders/{}/restart",
    Action.RETRY: "/user/orders/{}/retry",
}


def time_text(instant: datetime.datetime) -> str:
    """A time as REGARDS writes it: UTC, milliseconds."""
    return instant.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told(request: web.Request, ordering: Ordering, order: Order) -> Json:
    """An order with the links to what can be done with it now."""
    base = f"{base_url(request, ordering.public_url)}{ordering.prefix}"
    links = [
        {"rel": "self", "href": f"{base}/user/orders/{order.order_id}"},
        {"rel": "list", "href": f"{base}/user/orders"},
    ]
    actions = possible(order.status, order.counts, strict_delete=ordering.settings.strict_delete)
    links += [{"rel": one.value, "href": base + _PATHS[one].format(order.order_id)} for one in actions]
    return {"content": _content(order), "links": links}


def _content(order: Order) -> Json:
    return {
        "id": order.order_id,
        "owner": order.owner,
        "label": order.label,
        "creationDate": time_text(order.created),
        "expirationDate": time_text(order.expires),
        "percentCompleted": order.percent,
        "filesInErrorCount": order.counts.errors,
        "availableFilesCount": order.counts.available,
        "status": order.status.value,
        "statusDate": time_text(order.status_at),
        "waitingForUser": order.waiting,
        "datasetTasks": list(order.tasks),
    }


def file_told(request: web.Request, ordering: Ordering, file: OrderFile) -> Json:
    """A file of a dataset task: REGARDS' OrderDataFile."""
    return {
        "content": {
            "id": file.order_file_id,
            "orderId": file.order_file_id >> 24,
            "filesTaskId": file.suborder_id,
            "state": file.state.value,
            "downloadError": file.error,
            "ipId": file.product,
            "productId": file.item,
            "version": version_of(file.product),
            "url": file_url(request, ordering, file),
            "uri": file_url(request, ordering, file),
            "dataType": file.data_type,
            "reference": file.reference,
            "online": file.online,
            "mimeType": file.mime_type,
            "checksum": file.checksum,
            "digestAlgorithm": file.checksum_algorithm,
            "crc32": None if file.crc32 is None else f"{file.crc32:08x}",
            "filesize": file.size,
            "filename": file.name,
        },
        "links": [],
    }


def ready_told(request: web.Request, ordering: Ordering, file: OrderFile) -> Json:
    """An available file: REGARDS' OrderDataFileDTO."""
    return {
        "content": {
            "id": file.order_file_id,
            "productId": file.item,
            "version": version_of(file.product),
            "downloadUrl": file_url(request, ordering, file),
            "mimeType": file.mime_type,
            "checksum": file.checksum,
            "filesize": file.size,
            "filename": file.name,
        },
        "links": [],
    }


def file_url(request: web.Request, ordering: Ordering, file: OrderFile) -> str:
    """Where a file of an order is downloaded, by whoever may see the order."""
    return f"{base_url(request, ordering.public_url)}{ordering.prefix}/orders/files/{file.order_file_id}"


def version_of(urn: str | None) -> int | None:
    """The version that a REGARDS URN ends with."""
    mark, _, number = (urn or "").rpartition(":V")
    return int(number) if mark and number.isascii() and number.isdecimal() and len(number) <= _DIGITS else None


def page_of(request: web.Request) -> tuple[int, int]:
    """``?page=`` (from 0 on) and ``?size=``.

    Raises:
        GatewayError: 400.
    """
    number, size = _whole(request, "page", 0), _whole(request, "size", PAGE)
    if not 1 <= size <= MOST:
        raise bad(f"'size' must be from 1 to {MOST}.")
    return number, size


def answer_page(
    request: web.Request, ordering: Ordering, found: Sequence[T], total: int, shown: Callable[[T], Json]
) -> web.Response:
    """A page, and the way to the others."""
    number, size = page_of(request)
    pages = -(-total // size)
    base = base_url(request, ordering.public_url)

    def link(relation: str, to: int) -> Json:
        return {"rel": relation, "href": f"{base}{request.rel_url.update_query(page=str(to), size=str(size))}"}

    links = [link("self", number)]
    if pages > 1:
        links.insert(0, link("first", 0))
        if 0 < number <= pages:
            links.append(link("prev", number - 1))
        if number + 1 < pages:
            links.append(link("next", number + 1))
        links.append(link("last", pages - 1))
    metadata = {"size": size, "totalElements": total, "totalPages": pages, "number": number}
    return answer({"metadata": metadata, "content": [shown(one) for one in found], "links": links})


def _whole(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise bad(f"{name!r} must be a whole number, from 0 on.")
    return int(text)
