"""Logs: every line is JSON, says what happened, and holds up nobody."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gateway.delivery.transfer import Transfer
from gateway.http.forwarded import Client
from gateway.identity.principal import Principal
from gateway.links import CLIENT
from gateway.ops import logs
from gateway.ops.access_log import Timestamps, access_line, access_logger
from gateway.ops.logs import json_logs
from gateway.ops.request_context import REQUEST_ID
from gateway.request_keys import PRINCIPAL, TRANSFER
from tests.harness import SCIENTIST, RunningGateway

ODD = 'Île "quoted" \\ \n\t\u2028 😀 \x7f \x00'


def a_request(path: str = "/a?token=secret") -> web.Request:
    request = make_mocked_request("GET", path)
    request[REQUEST_ID] = "id"
    request[CLIENT] = Client("192.0.2.1", "http", "host", by_proxy=False)
    return request


def line_of(request: web.Request, seconds: float = 0.01234) -> dict[str, Any]:
    line = access_line(request, web.Response(status=207), seconds, "2026-01-02T03:04:05.000006Z")
    assert "\n" not in line
    assert line == json.dumps(json.loads(line))
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_tells_the_request_its_caller_and_what_became_of_it() -> None:
    request = a_request("/downloads/a%20b?token=secret")
    expected: dict[str, Any] = {
        "event": "request",
        "level": "info",
        "logger": "gateway.access",
        "timestamp": "2026-01-02T03:04:05.000006Z",
        "request_id": "id",
        "remote": "192.0.2.1",
        "method": "GET",
        "path": "/downloads/a%20b",
        "status": 207,
        "duration_ms": 12.3,
    }
    assert line_of(request) == expected
    request[PRINCIPAL] = Principal(f"tenant {ODD}", f"subject {ODD}", "email", "role")
    expected |= {"tenant": f"tenant {ODD}", "user": f"subject {ODD}"}
    assert line_of(request) == expected
    transfer = request[TRANSFER] = Transfer(100)
    assert line_of(request) == expected | {"promised": 100, "sent": 0, "outcome": "cut"}
    transfer.sent, transfer.finished = 100, True
    assert line_of(request) == expected | {"promised": 100, "sent": 100, "outcome": "whole"}
    transfer.hand_over("redirected")
    assert line_of(request) == expected | {"promised": 100, "sent": 100, "outcome": "redirected"}


def test_a_line_is_of_bounded_length_since_many_may_wait() -> None:
    assert line_of(a_request("/" + "x" * 8000))["path"] == "/" + "x" * 2047


def test_what_is_not_known_is_null() -> None:
    request = make_mocked_request("GET", "/")
    found = line_of(request)
    assert found["request_id"] is None


def test_the_framework_gives_each_line_its_time() -> None:
    lines: list[str] = []
    logger = access_logger(lines.append, clock=lambda: 1_700_000_000.25)(logging.getLogger(), "")
    logger.log(a_request(), web.Response(), 0.5)
    assert json.loads(lines[0])["timestamp"] == "2023-11-14T22:13:20.250000Z"


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000.999999, "2023-11-14T22:13:20.999999Z"),
        (1_700_000_001.0, "2023-11-14T22:13:21.000000Z"),
    ],
)
def test_timestamps(now: float, text: str) -> None:
    stamp = Timestamps(lambda: now)
    assert stamp() == stamp() == text


async def test_a_request_writes_one_line(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    await gateway.get(f"{entry.stac}?token=hidden", SCIENTIST, X_Request_ID="mine")
    await gateway.get("/nowhere")
    first, second = map(json.loads, gateway.access_log)
    assert (first["request_id"], first["status"], first["outcome"], first["user"]) == (
        "mine",
        200,
        "whole",
        "scientist",
    )
    assert (second["path"], second["status"], second["remote"]) == ("/nowhere", 404, "127.0.0.1")
    assert "hidden" not in "".join(gateway.access_log)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_records_and_lines_are_written_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("gateway.test")
    with json_logs() as write, structlog.contextvars.bound_contextvars(request_id="mine"):
        log.warning("first %s", ODD)
        write('{"event": "second"}')
        try:
            raise ValueError("third")
        except ValueError:
            log.exception("failed")
        log.debug("not asked for")
    first, second, third = logged(capsys)
    assert (first["event"], first["level"], first["logger"]) == (f"first {ODD}", "warning", "gateway.test")
    assert first["request_id"] == "mine"
    assert first["timestamp"].endswith("Z")
    assert second == {"event": "second"}
    assert "ValueError: third" in third["event"] + third.get("exception", "")
    log.warning("after the end")
    assert not logged(capsys)


def test_a_record_that_cannot_be_shown_does_not_end_the_logs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError("broken")

    with json_logs() as write:
        monkeypatch.setattr(structlog.contextvars, "get_contextvars", lambda: {"odd": Unshowable()})
        logging.getLogger("gateway.test").warning("lost")
        write('{"event": "kept"}')
    bad, good = logged(capsys)
    assert "cannot be shown" in bad["event"]
    assert good == {"event": "kept"}


def test_a_stuck_output_holds_up_nobody_and_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def __init__(self) -> None:
            self.entered, self.free = threading.Event(), threading.Event()
            self.text = ""

        def write(self, text: str) -> None:
            self.entered.set()
            self.free.wait(10)
            self.text += text

        def flush(self) -> None:
            pass

    monkeypatch.setattr(logs, "MOST_WAITING", 1000)
    output = Stuck()
    monkeypatch.setattr(sys, "stderr", output)
    with json_logs() as write:
        write("first")
        assert output.entered.wait(10)
        began = time.monotonic()
        for number in range(5000):
            write(str(number))
        assert time.monotonic() - began < 5
        output.free.set()
    *lines, last = output.text.splitlines()
    assert lines == ["first", *map(str, range(1000))]
    assert json.loads(last)["event"] == "4000 lines of the log are lost: the output takes them too slowly"


def test_an_output_that_is_gone_is_no_error() -> None:
    program = (
        "import os, sys\n"
        "from gateway.ops.logs import json_logs\n"
        "with json_logs() as write:\n"
        "    write('first')\n"
        "print('ended')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.close()
        assert process.stdout.read() == "ended\n"


def test_an_output_that_nobody_reads_does_not_keep_the_process_from_ending() -> None:
    program = (
        "from gateway.ops import logs\n"
        "logs.STOP_SECONDS = 0.1\n"
        "with logs.json_logs() as write:\n"
        "    for _ in range(10_000):\n"
        "        write('x' * 100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
