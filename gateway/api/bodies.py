"""JSON that comes in and goes out, strictly: RFC 8259, UTF-8, no name twice, no member that nobody knows."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.catalog.ingest.jsonstream import too_deep
from gateway.errors import GatewayError
from gateway.quotas.limits import MOST, MOST_NAME, UNLIMITED
from gateway.text import is_storable

MOST_BYTES = 64 * 1024
"""Of the body of a request; a longer one is 413."""
_SECONDS = 10
"""That a body may take to come."""
_MOST_FIELDS = 100
"""Of a form."""


def bad(detail: str) -> GatewayError:
    """400."""
    return GatewayError(HTTPStatus.BAD_REQUEST, detail)


async def read_long_json(request: web.Request, *, most: int, seconds: float) -> Any:
    """The body of ``request``, of ``most`` bytes at most, which comes in so many ``seconds``; as `read_json`.

    What is long is read in a thread.

    Raises:
        GatewayError: 400 it is no JSON, or not encoded as its fields say; 408 it did not come in time.
        web.HTTPRequestEntityTooLarge: it is too long.
    """
    body = await read_long_body(request, most=most, seconds=seconds)
    return await asyncio.to_thread(_parsed, body) if len(body) > MOST_BYTES else _parsed(body)


async def read_long_body(request: web.Request, *, most: int, seconds: float) -> bytearray:
    """The body of ``request``, whatever it is, of ``most`` bytes at most, which comes in so many ``seconds``.

    Raises:
        GatewayError: 400 it is not encoded as its fields say; 408 it did not come in time.
        web.HTTPRequestEntityTooLarge: it is too long.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > most:
                    raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=len(body))
    except TimeoutError as error:
        raise GatewayError(HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time.") from error
    except web.RequestPayloadError as error:
        raise _unreadable() from error
    return body


async def read_json(request: web.Request) -> Any:
    """The body of ``request``.

    Raises:
        GatewayError: 400 it is no JSON; 408 it did not come in time.
        web.HTTPRequestEntityTooLarge: it is too long.
    """
    return _parsed(await read_body(request))


def _unreadable() -> GatewayError:
    """400; and the connection ends, as nothing more can be read from it."""
    detail = "The body is not encoded as its fields say."
    return GatewayError(HTTPStatus.BAD_REQUEST, detail, headers={"Connection": "close"})


def _parsed(body: bytes | bytearray) -> Any:
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite_number
        )
        if too_deep(value):
            raise ValueError("it is too deep")
    except (ValueError, RecursionError) as error:
        raise bad(f"The body is no JSON that can be read: {_reason(error)}.") from error
    return value


async def read_form(request: web.Request) -> dict[str, str]:
    """The fields of an HTML form (``application/x-www-form-urlencoded``); of several of a name the first.

    Raises:
        GatewayError: 400 it is none; 408 it did not come in time.
        web.HTTPRequestEntityTooLarge: it is too long.
    """
    body = await read_body(request)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise bad("The body is no form that can be read.") from error
    return dict(reversed(pairs))


def members(value: Any, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """The members of a JSON object.

    Raises:
        GatewayError: 400 it is none, one is missing, or one is unknown.
    """
    if not isinstance(value, dict):
        raise bad("The body must be a JSON object" + (f" with {', '.join(required)}." if required else "."))
    for name in required:
        if name not in value:
            raise bad(f"The body lacks {name!r}.")
    unknown = sorted(set(value) - {*required, *optional})
    if unknown:
        raise bad(f"The body has {unknown[0]!r}, which nobody knows here.")
    return value


def limit_value(value: Any, name: str) -> int:
    """A limit: -1 (unlimited), 0 (forbidden) or more.

    Raises:
        GatewayError: 400.
    """
    number = integer(value, name)
    if not UNLIMITED <= number <= MOST:
        raise bad(f"{name!r} is {number}; it must be -1 (unlimited), 0 (forbidden) or a number up to {MOST}.")
    return number


def integer(value: Any, name: str) -> int:
    """A whole number; 1.0 and true are none.

    Raises:
        GatewayError: 400.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad(f"{name!r} must be a whole number.")
    return value


def text(value: Any, name: str) -> str:
    """Text.

    Raises:
        GatewayError: 400.
    """
    if not isinstance(value, str):
        raise bad(f"{name!r} must be text.")
    return value


def instant(value: str) -> datetime.datetime | None:
    """A time with its offset (RFC 3339), in years that PostgreSQL and both ends of the day line can tell; else None."""
    try:
        found = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None and 1 < found.year < 9999 else None


def email(value: Any) -> str:
    """What may be the e-mail address of a user.

    Raises:
        GatewayError: 400.
    """
    if not isinstance(value, str) or not is_storable(value) or not 0 < len(value.encode()) <= MOST_NAME:
        raise bad(f"An e-mail address is text of 1 to {MOST_NAME} bytes, without NUL.")
    return value


def answer(value: object, *, status: int = HTTPStatus.OK) -> web.Response:
    """JSON without spaces, which nobody may keep."""
    body = json.dumps(value, separators=(",", ":")).encode("ascii")
    headers = {"Cache-Control": "no-store", "Vary": "Authorization"}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def read_body(request: web.Request) -> bytes:
    """The body of ``request``, whatever it is.

    Raises:
        GatewayError: 400 it is not encoded as its fields say; 408 it did not come in time.
        web.HTTPRequestEntityTooLarge: it is too long.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise GatewayError(HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time.") from error
    except web.RequestPayloadError as error:
        raise _unreadable() from error


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number in it is too large")
    return number


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is too deep"
    return str(error)
