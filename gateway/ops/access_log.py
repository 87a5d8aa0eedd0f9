"""The access log: one JSON line a request. The query is left out: it may hold a token."""

from __future__ import annotations

import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from gateway.links import CLIENT
from gateway.ops.request_context import REQUEST_ID
from gateway.request_keys import PRINCIPAL, TRANSFER

MOST_PATH = 2048
"""Characters of a path that are written: lines may have to wait in memory."""


def _json(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def access_logger(write: Callable[[str], None], clock: Callable[[], float] = time.time) -> type[AbstractAccessLogger]:
    """What has the framework give a line to ``write`` at the end of each request.

    Args:
        write: must not wait.
        clock: in seconds since the epoch.
    """
    stamp = Timestamps(clock)

    class AccessLogger(AbstractAccessLogger):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            write(access_line(request, response, time, stamp()))

    return AccessLogger


class Timestamps:
    """The time as text (RFC 3339, UTC, microseconds); most of it is the same for a whole second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._text = ""

    def __call__(self) -> str:
        """The time now."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((now - second) * 1_000_000):06d}Z"


def access_line(request: web.BaseRequest, response: web.StreamResponse, seconds: float, timestamp: str) -> str:
    """The line of a request that ended ``seconds`` after it came.

    It is put together here: an encoder of whole objects takes several times as long, and every request pays for it.
    """
    client, principal, transfer = request.get(CLIENT), request.get(PRINCIPAL), request.get(TRANSFER)
    remote = client.address if client is not None else request.remote
    line = (
        f'{{"event": "request", "level": "info", "logger": "gateway.access", "timestamp": "{timestamp}", '
        f'"request_id": {_json(request.get(REQUEST_ID))}, "remote": {_json(remote)}, '
        f'"method": {_json(request.method)}, "path": {_json(request.rel_url.raw_path[:MOST_PATH])}, '
        f'"status": {response.status}, "duration_ms": {seconds * 1000:.1f}'
    )
    if principal is not None:
        line += f', "tenant": {_json(principal.tenant)}, "user": {_json(principal.subject)}'
    if transfer is not None:
        outcome = transfer.handed_over or ("whole" if transfer.finished else "cut")
        line += f', "promised": {transfer.promised}, "sent": {transfer.sent}, "outcome": "{outcome}"'
    return line + "}"
