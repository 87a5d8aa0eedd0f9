"""Orders for download managers: ``/user/orders/{orderId}/metalink/download``, and the same by an order token."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncGenerator, Callable, Sequence

from aiohttp import web

from gateway.api.admin_records import PIECE_SECONDS, STREAM_SECONDS
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.api.orders import ORDERING, order_id_of, owner, scope_of
from gateway.archive.names import Names
from gateway.errors import GatewayError, unauthorized, unavailable
from gateway.http.accept import prefers
from gateway.http.disposition import content_disposition
from gateway.links import ORDER_TOKEN, base_url
from gateway.metalink import Entry, Metalink3, Metalink4, Mirror, Writer
from gateway.orders import contents, reading
from gateway.orders.archives import EXPIRED
from gateway.orders.contents import Ordered
from gateway.orders.lifecycle import FileState, Status
from gateway.orders.reading import Scope, no_order
from gateway.orders.service import Ordering

_WITHOUT = frozenset({Status.PENDING, Status.FAILED, Status.EXPIRED, Status.DELETED})
"""Orders in these have none, as in REGARDS."""
_AT_A_TIME = 100
"""Files that are written before others have their turn."""


async def get_metalink(request: web.Request) -> web.StreamResponse:
    """``GET /user/orders/{orderId}/metalink/download``: all files, by links that need no credential.

    Such links are the owner's to give; where there are no tokens, and for administrators, they are those that ask for
    the caller's own credential.
    """
    principal, ordering, database = await owner(request), request.app[ORDERING], request.app[DATABASE]
    order = await reading.one(database, scope_of(principal), order_id_of(request))
    if order.status in _WITHOUT:
        raise no_order(order.order_id)
    token = None
    if ordering.tokens is not None and order.owner == principal.email:
        mine = Scope(principal.tenant, principal.email)
        generation, _, _ = await reading.generation(database, mine, order.order_id)
        token = ordering.tokens.make(order.order_id, generation)
    return await _stream(request, order.order_id, order.created, token)


async def get_public_metalink(request: web.Request) -> web.StreamResponse:
    """``GET /user/orders/metalink/download?orderToken=``: for whoever has the token."""
    ordering, shown = request.app[ORDERING], request.query.getall(ORDER_TOKEN, [])
    read = ordering.tokens.read(shown[0]) if ordering.tokens is not None and len(shown) == 1 else None
    if read is None:
        raise _invalid()
    order = await contents.opened(request.app[DATABASE], read.order_id)
    if order is None or order.status in _WITHOUT:
        raise no_order(read.order_id)
    if order.generation != read.generation or not order.lasts:
        raise _invalid()
    return await _stream(request, read.order_id, order.created, shown[0])


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``: they stand before those that take any text for the id of an order."""
    base = f"{prefix}/user/orders"
    return [
        web.get(f"{base}/{part}metalink/download{extension}", handler, allow_head=False)
        for part, handler in (("", get_public_metalink), ("{orderId}/", get_metalink))
        for extension in ("", Metalink3.extension, Metalink4.extension)
    ]


def _invalid() -> GatewayError:
    return unauthorized("the order token is not valid", error="invalid_token")


def _writer(request: web.Request) -> Writer:
    """Of the version that is asked for: by the extension of the path, else by Accept; version 3 as documented."""
    if request.path.endswith(Metalink4.extension):
        return Metalink4()
    if request.path.endswith(Metalink3.extension):
        return Metalink3()
    return Metalink4() if prefers(request.headers, Metalink4.media_type, Metalink3.media_type) else Metalink3()


async def _stream(
    request: web.Request, order_id: int, created: datetime.datetime, token: str | None
) -> web.StreamResponse:
    """All files as they are read. What goes wrong before the first is an error; later the answer is cut."""
    writer, now = _writer(request), request.app[DOWNLOADS].clock()
    response = web.StreamResponse(
        headers={
            "Content-Type": writer.media_type,
            "Content-Disposition": content_disposition(f"order_{created:%Y-%m-%dT%H-%M-%SZ}{writer.extension}"),
            # It holds what opens the files.
            "Cache-Control": "no-store",
            **EXPIRED,
            "Vary": "Authorization, Accept",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
    )
    pieces = _pieces(request, order_id, writer, _urls(request, token))
    try:
        async with contextlib.aclosing(pieces), asyncio.timeout(STREAM_SECONDS):
            first = await anext(pieces, None)
            if first is None:
                # A document without any file is none (RFC 5854 §4.1.2).
                raise no_order(order_id)
            await response.prepare(request)
            await _write(response, writer.head(now) + first)
            async for piece in pieces:
                await _write(response, piece)
            await _write(response, writer.tail())
    except TimeoutError as error:
        raise unavailable("The client takes the files too slowly.") from error
    except ConnectionError:
        response.force_close()
    return response


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    async with asyncio.timeout(PIECE_SECONDS):
        await response.write(piece)


def _urls(request: web.Request, token: str | None) -> Callable[[int], str]:
    ordering = request.app[ORDERING]
    base = f"{base_url(request, ordering.public_url)}{ordering.prefix}/orders"
    if token is None:
        return lambda number: f"{base}/files/{number}"
    return lambda number: f"{base}/public/files/{number}?{ORDER_TOKEN}={token}"


async def _pieces(
    request: web.Request, order_id: int, writer: Writer, url: Callable[[int], str]
) -> AsyncGenerator[bytes, None]:
    """The files that there are, or will be: those that are not ready yet are 202 when they are asked for."""
    ordering, names = request.app[ORDERING], Names()
    async with contextlib.aclosing(contents.pages(request.app[DATABASE], order_id)) as pages:
        async for page in pages:
            for first in range(0, len(page), _AT_A_TIME):
                entries = _entries(page[first : first + _AT_A_TIME], names, ordering, url)
                piece = b"".join(map(writer.file, entries))
                if piece:
                    yield piece
                await asyncio.sleep(0)


def _entries(page: Sequence[Ordered], names: Names, ordering: Ordering, url: Callable[[int], str]) -> list[Entry]:
    found = []
    for one in page:
        if one.state is FileState.ERROR or one.asset is None or one.name is None:
            continue
        folder = one.asset.item if ordering.settings.product_folders else ""
        digests = {one.checksum_algorithm: one.checksum} if one.checksum and one.checksum_algorithm else {}
        found.append(
            Entry(
                names.place(one.name, folder),
                [Mirror(url(one.order_file_id))],
                one.size,
                digests,
                one.name,
                one.mime_type,
            )
        )
    return found
