"""Files of orders: lists of them, and their downloads, which go the way of all downloads."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from gateway.api.bodies import answer
from gateway.api.callers import caller
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.api.order_bodies import Json, answer_page, file_told, page_of, ready_told
from gateway.api.orders import ORDERING, order_id_of, owner, path_number, scope_of
from gateway.catalog.model import ByAsset
from gateway.errors import GatewayError, unauthorized
from gateway.identity.principal import Principal
from gateway.links import ORDER_TOKEN
from gateway.orders import reading
from gateway.orders.lifecycle import WITHOUT_FILES, FileState
from gateway.orders.reading import Door, OrderFile
from gateway.request_keys import TRANSFER
from gateway.storage import StorageError

log = logging.getLogger(__name__)

_PART = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_BROKEN = frozenset({"FileMissing", "FileChanged", "FileBroken", "NotOnline"})
"""Codes of refusals that say that the file itself cannot be had; what will be well in a moment is not noted."""
_RETRY_SECONDS = "30"


async def get_task_files(request: web.Request) -> web.Response:
    """``GET /orders/{orderId}/dataset/{datasetTaskId}/files``: all files of a dataset task."""
    principal, number_size = await owner(request), page_of(request)
    database, ordering = request.app[DATABASE], request.app[ORDERING]
    order = await reading.one(database, scope_of(principal), order_id_of(request))
    missing = request.match_info["datasetTaskId"]
    task = path_number(
        request,
        "datasetTaskId",
        GatewayError(HTTPStatus.NOT_FOUND, f"Dataset task with id : {missing} doesn't exist"),
    )
    number, size = number_size
    found, total = await reading.files_of_task(database, order.order_id, task, limit=size, offset=number * size)
    return answer_page(request, ordering, found, total, lambda one: file_told(request, ordering, one))


async def get_ready_files(request: web.Request) -> web.Response:
    """``GET /orders/{orderId}/files/available``."""
    return await _ready(request, None)


async def get_ready_files_of_suborder(request: web.Request) -> web.Response:
    """``GET /orders/{orderId}/filesTask/{filesTaskId}/files/available``: those of one sub-order."""
    missing = request.match_info["filesTaskId"]
    refusal = GatewayError(HTTPStatus.NOT_FOUND, f"Files task with id : {missing} doesn't exist")
    return await _ready(request, lambda: path_number(request, "filesTaskId", refusal))


async def download_file(request: web.Request) -> web.StreamResponse:
    """``GET`` and ``HEAD /orders/files/{dataFileId}``: for whoever may see the order, with his own rights and quota."""
    principal = await caller(request, "download")
    if principal.is_anonymous:
        raise unauthorized("orders belong to users: show a bearer token or an API key")
    door = await reading.door(request.app[DATABASE], _file_id(request))
    scope = scope_of(principal)
    if door is None or door.owner.tenant != scope.tenant or scope.owner not in (None, door.owner.email):
        raise _no_file(request)
    return await _download(request, door, principal)


async def download_public_file(request: web.Request) -> web.StreamResponse:
    """``GET`` and ``HEAD /orders/public/files/{dataFileId}?orderToken=``: for whoever has the token, as the owner."""
    ordering, shown = request.app[ORDERING], request.query.getall(ORDER_TOKEN, [])
    read = ordering.tokens.read(shown[0]) if ordering.tokens is not None and len(shown) == 1 else None
    if read is None or read.generation != await reading.current_generation(request.app[DATABASE], read.order_id):
        raise unauthorized("the order token is not valid", error="invalid_token")
    door = await reading.door(request.app[DATABASE], _file_id(request))
    if door is None or door.order_id != read.order_id:
        raise _no_file(request)
    return await _download(request, door, door.owner)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    base, file, public = f"{prefix}/orders", "files/{dataFileId}", "public/files/{dataFileId}"
    found = [
        web.get(f"{base}/{{orderId}}/dataset/{{datasetTaskId}}/files", get_task_files, allow_head=False),
        web.get(f"{base}/{{orderId}}/files/available", get_ready_files, allow_head=False),
        web.get(
            f"{base}/{{orderId}}/filesTask/{{filesTaskId}}/files/available",
            get_ready_files_of_suborder,
            allow_head=False,
        ),
    ]
    for path, handler in ((file, download_file), (public, download_public_file)):
        found += [web.get(f"{base}/{path}", handler, allow_head=False), web.head(f"{base}/{path}", handler)]
    return found


async def _ready(request: web.Request, suborder: Callable[[], int] | None) -> web.Response:
    principal, (number, size) = await owner(request), page_of(request)
    database, ordering = request.app[DATABASE], request.app[ORDERING]
    order = await reading.one(database, scope_of(principal), order_id_of(request))
    part = None if suborder is None else suborder()
    found, total = await reading.ready(database, order, part, limit=size, offset=number * size)

    def shown(file: OrderFile) -> Json:
        return ready_told(request, ordering, file)

    return answer_page(request, ordering, found, total, shown)


async def _download(request: web.Request, door: Door, principal: Principal) -> web.StreamResponse:
    """Answer for a file that is ready; note what becomes of it."""
    if door.status in WITHOUT_FILES or (door.state is not FileState.PENDING and door.asset is None):
        raise GatewayError(HTTPStatus.GONE, "The order has this file no more.")
    if door.state is FileState.PENDING:
        headers = {"Cache-Control": "no-store", "Retry-After": _RETRY_SECONDS}
        if request.method == "HEAD":
            return web.Response(status=HTTPStatus.ACCEPTED, headers=headers)
        response = answer({"messages": ["The file is being prepared; try again."]}, status=HTTPStatus.ACCEPTED)
        response.headers.update(headers)
        return response
    if door.state is FileState.ERROR:
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, door.error or "The file cannot be had.")
    assert door.asset is not None  # noqa: S101 - looked at above
    try:
        response_of_file = await request.app[DOWNLOADS].answer(
            request, ByAsset(*door.asset), principal, accepts_waiting=True
        )
    except GatewayError as error:
        if request.method == "GET" and error.code in _BROKEN:
            await _mark(request, FileState.DOWNLOAD_ERROR, error.detail)
        raise
    if request.method == "GET":
        await _note(request, response_of_file)
    return response_of_file


async def _note(request: web.Request, response: web.StreamResponse) -> None:
    transfer = request.get(TRANSFER)
    if transfer is None:
        return
    if transfer.finished:
        part = _PART.fullmatch(response.headers.get("Content-Range", ""))
        # Of a download in parts the last one ends it.
        if part is None and response.status == HTTPStatus.PARTIAL_CONTENT:
            return
        if part is None or int(part[2]) + 1 == int(part[3]):
            await _mark(request, FileState.DOWNLOADED, None)
    elif isinstance(transfer.problem, StorageError):
        told = f"Cannot completely retrieve data file from storage, only {transfer.sent}/{transfer.promised} bytes"
        await _mark(request, FileState.DOWNLOAD_ERROR, told)


async def _mark(request: web.Request, state: FileState, error: str | None) -> None:
    """Note it; the download itself is over, and does not fail by this."""
    try:
        await request.app[ORDERING].actions.mark(_file_id(request), state, error)
    except GatewayError as problem:
        log.warning("the download of a file of an order is not noted: %r", problem.__cause__ or problem)


def _file_id(request: web.Request) -> int:
    return path_number(request, "dataFileId", _no_file(request))


def _no_file(request: web.Request) -> GatewayError:
    detail = f"Data file with id: {request.match_info['dataFileId']} doesn't exist."
    return GatewayError(HTTPStatus.NOT_FOUND, detail)
