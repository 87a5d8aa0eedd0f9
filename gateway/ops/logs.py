"""Logs as JSON lines, written by a thread of their own so that a slow terminal or disk stalls no request."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from gateway.downloads import PRINCIPAL, TRANSFER
from gateway.links import CLIENT
from gateway.ops.request_context import REQUEST_ID

MOST_WAITING = 100_000
"""Lines that may wait for the writer; beyond it lines are dropped, since a log must not exhaust the memory."""

access_log = logging.getLogger("gateway.access")


class AccessLogger(AbstractAccessLogger):
    """One JSON line a request. The query is left out: it may hold a token."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write the line of a request that ended ``time`` seconds after it came."""
        client, principal, transfer = request.get(CLIENT), request.get(PRINCIPAL), request.get(TRANSFER)
        line: dict[str, object] = {
            "request_id": request.get(REQUEST_ID),
            "remote": client.address if client is not None else request.remote,
            "method": request.method,
            "path": request.rel_url.raw_path,
            "status": response.status,
            "duration_ms": round(time * 1000, 1),
        }
        if principal is not None:
            line["tenant"] = principal.tenant
            line["user"] = principal.subject
        if transfer is not None:
            line["promised"] = transfer.promised
            line["sent"] = transfer.sent
            line["outcome"] = transfer.handed_over or ("whole" if transfer.finished else "cut")
        access_log.info("request", extra={"fields": line})


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Note the request that is being served here: the writer's thread cannot know it."""
        fields = {**structlog.contextvars.get_contextvars(), **getattr(record, "fields", {})}
        prepared: logging.LogRecord = super().prepare(record)
        prepared.fields = fields
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


def _add_fields(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    fields = getattr(event.get("_record"), "fields", None)
    return {**event, **fields} if fields else event


@contextlib.contextmanager
def json_logs(level: str = "INFO") -> Iterator[None]:
    """Write all logs of the process to standard error as JSON lines, until the block ends."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_fields,
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(serializer=json.dumps),
        ],
    )
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(formatter)
    lines: queue.Queue[logging.LogRecord] = queue.Queue(MOST_WAITING)
    entrance = _BoundedQueueHandler(lines)
    writer = logging.handlers.QueueListener(lines, output)
    root = logging.getLogger()
    before = root.level
    root.addHandler(entrance)
    root.setLevel(level)
    writer.start()
    try:
        yield
    finally:
        root.removeHandler(entrance)
        root.setLevel(before)
        writer.stop()
