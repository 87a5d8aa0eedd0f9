"""What callers write, and what they hide: neither is obeyed, nor shown, in logs and records."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from urllib.parse import quote

import pytest

from tests.api.recording import streamed
from tests.api.support import PROJECT_ADMIN, USER
from tests.harness import SECRET, RunningGateway, principal, token
from tests.ops.test_audit import records

NASTY = (
    "'; DROP TABLE download_log; --",
    '" OR ""="',
    "\\",
    "$1",
    "%s%n{0}",
    "\x1b[2J\x1b]0;evil\x07",
    "line\r\nX-Injected: 1",
    "\u202egnp.exe",
    "=1+1;\"'",
    "\u0085\u2028",
)


@pytest.mark.usefixtures("soon")
async def test_what_callers_write_is_obeyed_by_nothing(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    entry = await gateway.catalogue.file(b"content")
    expected = 0
    for nasty in NASTY:
        part = quote(nasty, safe="")
        for path in (
            f"/downloads/{part}/files/{part}",
            f"/collections/{part}/items/{part}/download/{part}",
            f"{entry.stac}?scope={part}",
        ):
            response, body = await gateway.get(path, None if "scope" in path else USER)
            assert response.status in (401, 403, 404), body
            assert "X-Injected" not in response.headers
            # Braces are in no path that is routed.
            expected += b"nothing at this path" not in body
        who = principal(nasty, nasty, email=nasty, role=nasty)
        response, _ = await gateway.get(entry.stac, who)
        assert response.status in (200, 401, 403)
        expected += 1
        for method, path in (("GET", f"/admin/groups/{part}"), ("PUT", f"/admin/groups/{part}")):
            response, _ = await gateway.request(method, path, PROJECT_ADMIN)
            assert response.status in (400, 404)
    raw = await shout(
        gateway, f"GET {entry.stac} HTTP/1.1\r\nHost: x\r\nUser-Agent: ü\xff=1+1\r\n\r\n".encode("latin-1")
    )
    assert b" 401 " in raw
    rows = await records(gateway.catalogue.connection, expected + 1)
    texts = [value for row in rows for value in row.values() if isinstance(value, str)]
    assert all(text.isprintable() for text in texts)
    for line in gateway.access_log:
        assert json.loads(line)
        assert line.isascii()
        assert line.isprintable()
    assert not any("\x1b" in record.getMessage() or "\r" in record.getMessage() for record in caplog.records)
    _, body = await streamed(gateway, "", "text/csv")
    for row in csv.reader(io.StringIO(body.decode(), newline=""), delimiter=";", strict=True):
        assert len(row) == 24
        assert not any(one.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for one in row)


async def shout(gateway: RunningGateway, request: bytes) -> bytes:
    """What comes back for bytes that no well-behaved client would send."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n")
    finally:
        writer.close()


@pytest.mark.usefixtures("soon")
async def test_secrets_are_in_no_log_and_no_record(gateway: RunningGateway, caplog: pytest.LogCaptureFixture) -> None:
    entry = await gateway.catalogue.file(b"content")
    canary = "canary-5e1f0c"
    shown = token(USER)
    bodies = []
    for path in (
        f"{entry.stac}?token={canary}",
        f"{entry.stac}?access_token={shown}",
        f"/admin/groups?tenant={canary}",
    ):
        bodies.append((await gateway.get(path, USER))[1])
        bodies.append((await gateway.get(path, None, Authorization=f"Bearer {canary}"))[1])
        bodies.append((await gateway.get(path, None, Authorization=f"Basic {canary}", Cookie=f"session={canary}"))[1])
    bodies.append((await gateway.get("/admin/downloads", PROJECT_ADMIN))[1])
    rows = await records(gateway.catalogue.connection, 6)
    seen = "\n".join(
        [*gateway.access_log, *map(str, rows), *(record.getMessage() for record in caplog.records)]
        + [body.decode("latin-1") for body in bodies]
    )
    password = gateway.config.database.dsn.get_secret_value()
    for secret in (
        canary,
        shown,
        shown.rpartition(".")[2],
        SECRET,
        password,
        gateway.config.redis.url.get_secret_value(),
    ):
        assert secret not in seen
