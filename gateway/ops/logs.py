"""Logs as JSON lines, written by a thread of their own so that a slow terminal or disk stalls no request."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

import structlog

MOST_WAITING = 100_000
"""Lines that may wait for the writer; beyond it they are lost, since a log must not exhaust the memory."""
GATHER_SECONDS = 0.05
"""How long the writer lets lines gather: to be woken for each would cost the loop more than the lines do."""

STOP_SECONDS = 5.0
"""That the last lines may take to be written when the process ends."""


class Writer:
    """A thread that writes lines, and log records as lines."""

    def __init__(self, output: TextIO, format_record: Callable[[logging.LogRecord], str]) -> None:
        self._output = output
        self._format = format_record
        self._waiting: queue.SimpleQueue[str | logging.LogRecord | None] = queue.SimpleQueue()
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, item: str | logging.LogRecord) -> None:
        """Have a line or a record written soon. It never waits; how many are lost for that is written later."""
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(item)
        else:
            self._lost += 1

    def stop(self) -> None:
        """Write what waits, and end; give up what an output does not take in time."""
        self._waiting.put(None)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            items = [self._waiting.get()]
            if items[0] is not None:
                time.sleep(GATHER_SECONDS)
            with contextlib.suppress(queue.Empty):
                while items[-1] is not None:
                    items.append(self._waiting.get_nowait())
            ended = items[-1] is None
            lines = [self._line(item) for item in items if item is not None]
            if lost := self._lost:
                self._lost -= lost
                lines.append(self._line(_lost(lost)))
            # Whatever is wrong with the output, there is no other place to say so.
            with contextlib.suppress(OSError, ValueError):
                self._output.write("".join(f"{line}\n" for line in lines))
                self._output.flush()

    def _line(self, item: str | logging.LogRecord) -> str:
        if isinstance(item, str):
            return item
        try:
            return self._format(item)
        except Exception as error:  # noqa: BLE001 - one bad record must not end all logs
            return json.dumps({"event": f"a log record cannot be shown: {error!r}", "logger": item.name})


def _lost(number: int) -> logging.LogRecord:
    text = "%s lines of the log are lost: the output takes them too slowly"
    return logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, (number,), None)


class _Entrance(logging.handlers.QueueHandler):
    def __init__(self, writer: Writer) -> None:
        super().__init__(queue.SimpleQueue())
        self._writer = writer

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Note the request that is being served here: the writer's thread cannot know it."""
        fields = structlog.contextvars.get_contextvars()
        prepared: logging.LogRecord = super().prepare(record)
        prepared.fields = fields
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        self._writer.put(record)


def _add_fields(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    fields = getattr(event.get("_record"), "fields", None)
    return {**event, **fields} if fields else event


@contextlib.contextmanager
def json_logs(level: str = "INFO") -> Iterator[Callable[[str], None]]:
    """Write all logs of the process to standard error as JSON lines, until the block ends.

    Gives what writes lines that are JSON already.
    """
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
    writer = Writer(sys.stderr, formatter.format)
    entrance = _Entrance(writer)
    root = logging.getLogger()
    before = root.level
    root.addHandler(entrance)
    root.setLevel(level)
    writer.start()
    try:
        yield writer.put
    finally:
        root.removeHandler(entrance)
        root.setLevel(before)
        writer.stop()
