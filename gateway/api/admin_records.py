"""What was downloaded and refused, and what administrators changed: ``/admin/downloads``, ``/admin/changes``.

JSON by pages; with ``Accept: text/csv`` or ``application/x-ndjson`` all that fits the filters, streamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from aiohttp import web

from gateway.administration.records import CHANGES, DOWNLOADS, Kind, Place, Record, Wanted, page, pages
from gateway.api.admin import LISTING, acting, cursor_of, cursor_text, cursor_time, limit_of
from gateway.api.bodies import answer, bad, instant
from gateway.errors import unavailable

CSV, NDJSON = "text/csv", "application/x-ndjson"
MOST_STREAMED = 100_000_000
"""Greatest ``?limit=`` of a stream."""
STREAM_SECONDS = 3600.0
"""That a stream may take in all; then it is cut."""
PIECE_SECONDS = 30.0
"""That a client may take for one piece of a stream."""

_BEGINS = r"=+\-@\uff1d\uff0b\uff0d\uff20"
_FORMULA = re.compile(rf'\A(?=[{_BEGINS}\t\r\n])|(?<=[,;\t\r\n"])(?=[{_BEGINS}])')
"""Before what begins a cell that a spreadsheet would run (OWASP, CSV injection): in its locale a cell may begin behind
another separator than ours, quoted or not."""
_SPECIAL = re.compile(r'[";\r\n]')


class _ClientGoneError(Exception):
    """Nobody is there to send to."""


async def get_downloads(request: web.Request) -> web.StreamResponse:
    """``GET /admin/downloads``: downloads and refusals, the newest first."""
    return await _answer(request, DOWNLOADS)


async def get_changes(request: web.Request) -> web.StreamResponse:
    """``GET /admin/changes``: what administrators changed, the newest first."""
    return await _answer(request, CHANGES)


def routes() -> list[web.RouteDef]:
    """The routes."""
    return [
        web.get("/admin/downloads", get_downloads, allow_head=False),
        web.get("/admin/changes", get_changes, allow_head=False),
    ]


async def _answer(request: web.Request, kind: Kind) -> web.StreamResponse:
    work, parameters = await acting(request, (*kind.filters, "from", "to", *LISTING)), request.query
    wanted = Wanted(
        kind,
        work.tenant,
        _time(parameters, "from"),
        _time(parameters, "to"),
        {name: _value(name, parameters[name]) for name in kind.filters if name in parameters},
    )
    media_type = _preferred(request.headers.getall("Accept", []))
    if media_type is None:
        before, limit = _place(parameters), limit_of(parameters)
        found, last = await page(work.database, wanted, before=before, limit=limit)
        following = None if last is None else cursor_text([last.at.isoformat(), last.number])
        return answer({kind.name: found, "next": following})
    if "cursor" in parameters:
        raise bad("'cursor' goes with JSON only: a stream has all records, or as many as 'limit' says.")
    most = limit_of(parameters, MOST_STREAMED) if "limit" in parameters else None
    return await _stream(request, kind, media_type, pages(work.database, wanted, limit=most))


async def _stream(
    request: web.Request, kind: Kind, media_type: str, found: AsyncGenerator[list[Record], None]
) -> web.StreamResponse:
    """Send records as they are read. What goes wrong before the first is an error; later the answer is cut."""
    headers = {
        "Content-Type": f"{media_type}; charset=utf-8",
        "Content-Disposition": f'attachment; filename="{kind.name}.{"csv" if media_type == CSV else "ndjson"}"',
        "Cache-Control": "no-store",
        "Vary": "Authorization, Accept",
        "X-Content-Type-Options": "nosniff",
    }
    response = web.StreamResponse(headers=headers)
    lines: Callable[[Iterable[Record]], bytes] = _csv if media_type == CSV else _ndjson
    try:
        async with contextlib.aclosing(found), asyncio.timeout(STREAM_SECONDS):
            first = await anext(found)
            await response.prepare(request)
            await _write(response, (_line(kind.columns) if media_type == CSV else b"") + lines(first))
            async for some in found:
                await _write(response, lines(some))
    except TimeoutError as error:
        raise unavailable("The client takes the records too slowly.") from error
    except _ClientGoneError:
        response.force_close()
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    if data:
        async with asyncio.timeout(PIECE_SECONDS):
            try:
                await response.write(data)
            except ConnectionError as error:
                raise _ClientGoneError from error


def _ndjson(records: Iterable[Record]) -> bytes:
    return "".join(f"{json.dumps(record, separators=(',', ':'))}\n" for record in records).encode("ascii")


def _csv(records: Iterable[Record]) -> bytes:
    return b"".join(_line(record.values()) for record in records)


def _line(values: Iterable[object]) -> bytes:
    return (";".join(map(cell, values)) + "\r\n").encode("utf-8", "replace")


def cell(value: object) -> str:
    """A cell of CSV that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value)
    text = _FORMULA.sub("'", text)
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _preferred(accept: Iterable[str]) -> str | None:
    """The media type of a stream that is accepted by its name; else None, for JSON."""
    named = [part.partition(";")[0].strip().lower() for value in accept for part in value.split(",")]
    return next((name for name in named if name in (CSV, NDJSON)), None)


def _time(parameters: Mapping[str, str], name: str) -> datetime.datetime | None:
    if name not in parameters:
        return None
    found = instant(parameters[name])
    if found is None:
        raise bad(f"{name!r} must be a time with its offset, like 2026-11-21T00:00:00Z (RFC 3339).")
    return found


def _value(name: str, text: str) -> str | int:
    if name != "status":
        return text
    if not (text.isascii() and text.isdecimal() and len(text) == len("200")):
        raise bad("'status' must be a status of HTTP, like 200.")
    return int(text)


def _place(parameters: Mapping[str, str]) -> Place | None:
    if "cursor" not in parameters:
        return None
    at, number = cursor_of(parameters["cursor"], str, int)
    if not 0 <= number < 2**63:
        raise bad("'cursor' is none that was given out here.")
    return Place(cursor_time(at), number)
