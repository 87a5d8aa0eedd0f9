"""Orders as they go on, followed by real clients."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import gateway.api.event_stream
import gateway.api.order_events
from gateway.errors import GatewayError
from gateway.following import Following
from gateway.identity.principal import Principal
from gateway.notifications import Payload
from tests.credentials import new_key, send, shown_key
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, SECRET, RunningGateway, bearer, token
from tests.notices.support import Post, running_post

IDENTITY = {"jwt": [{"algorithms": ["HS256", "HS384", "HS512"], "secret": SECRET}], "leeway": 1}


@pytest.fixture
async def post(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Post]:
    """A gateway whose orders are prepared by nobody but the test."""
    sections = {"orders": {"workers": 0, "streams_per_user": 3}, "identity": IDENTITY}
    async with running_post(database, redis_url, tmp_path, **sections) as running:
        yield running


@dataclasses.dataclass
class Stream:
    """A stream as a client reads it."""

    status: int
    header: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def line(self) -> str | None:
        """A line of the body, None at its end."""
        # Each chunk is of whole lines.
        while True:
            line = (await self.reader.readline()).decode()
            if not line:
                return None
            text = line.rstrip("\r\n")
            if line.endswith("\r\n"):
                if text == "0":
                    return None
                continue
            return text

    async def event(self, seconds: float = 5) -> dict[str, Any] | None:
        """The next event: its fields; None at the end. Comments have the name ``:``."""
        found: dict[str, Any] = {}
        async with asyncio.timeout(seconds):
            while True:
                line = await self.line()
                if line is None:
                    return None
                if line == "" and found:
                    if "data" in found:
                        found["data"] = json.loads(found["data"])
                    return found
                name, _, value = line.partition(":")
                if line:
                    found[name or ":"] = value.strip()


@contextlib.asynccontextmanager
async def following(
    running: RunningGateway, order_id: int, headers: dict[str, str] | None = None, **fields: str
) -> AsyncIterator[Stream]:
    parts = urlsplit(running.url)
    shown = (bearer(SCIENTIST) if headers is None else headers) | {k.replace("_", "-"): v for k, v in fields.items()}
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        lines = [f"GET /user/orders/{order_id}/events HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in shown.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        yield Stream(int(head[0].split()[1]), fields, reader, writer)
    finally:
        writer.close()


async def test_an_order_is_followed_to_its_end(post: Post) -> None:
    order_id = await post.order()
    async with following(post.gateway, order_id) as stream:
        assert stream.status == 200
        assert stream.header["Content-Type"] == "text/event-stream"
        assert stream.header["X-Accel-Buffering"] == "no"
        assert stream.header["Cache-Control"] == "no-store"
        first = await stream.event()
        assert first is not None
        assert 2000 <= int(first["retry"]) <= 6000
        event = await stream.event()
        assert event is not None
        assert event["event"] == "progress"
        data = event["data"]
        assert (data["id"], data["status"], data["percentCompleted"], data["filesCount"]) == (order_id, "RUNNING", 0, 3)
        began = time.monotonic()
        await post.execute("UPDATE order_files SET state = 'AVAILABLE' WHERE order_file_id & 3 = 1")
        event = await stream.event()
        assert event is not None
        assert time.monotonic() - began < 2
        assert (event["data"]["availableFilesCount"], event["data"]["percentCompleted"]) == (1, 33)
        await post.execute("UPDATE order_files SET state = 'AVAILABLE'")
        await post.execute("UPDATE orders SET status = 'DONE'")
        last = event
        while last["event"] != "end":
            found = await stream.event()
            assert found is not None
            last = found
        assert (last["data"]["status"], last["data"]["percentCompleted"]) == ("DONE", 100)
        assert await stream.event() is None
    # Who comes back with the end is told to stay away, who missed it gets it.
    async with following(post.gateway, order_id, Last_Event_ID=last["id"]) as stream:
        assert stream.status == 204
    async with following(post.gateway, order_id, Last_Event_ID=event["id"]) as stream:
        await stream.event()
        assert (await stream.event() or {})["event"] == "end"


async def test_curl_shows_events_as_they_come(post: Post) -> None:
    order_id = await post.order()
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sN", "--max-time", "10", "-H", f"Authorization: Bearer {token(SCIENTIST)}"),
        f"{post.gateway.url}/user/orders/{order_id}/events",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(10):
        while not (await process.stdout.readline()).startswith(b"data: "):
            pass
        await post.execute("UPDATE orders SET status = 'PAUSED'")
        while not (line := await process.stdout.readline()).startswith(b"data: "):
            pass
        assert b'"PAUSED"' in line
        await post.execute("DELETE FROM orders")
        rest = await process.stdout.read()
        assert f'event: end\ndata: {{"id":{order_id},"status":"REMOVED"}}\n\n' in rest.decode()
        assert await process.wait() == 0


async def test_many_changes_are_few_events(post: Post) -> None:
    order_id = await post.order()
    async with following(post.gateway, order_id) as stream:
        await stream.event()
        await stream.event()
        for percent in range(1, 301):
            await post.execute(f"UPDATE orders SET pending_size = files_size * (300 - {percent}) / 300")
        await post.execute("UPDATE orders SET status = 'FAILED'")
        count = 0
        while await stream.event() is not None:
            count += 1
        assert 1 <= count <= 12


async def test_an_order_is_notified_of_seldom_however_many_files_it_has(post: Post) -> None:
    """Percent, and not files: a download of one that is available wakes nobody."""
    order_id = await post.order()
    heard: list[str] = []
    connection = post.gateway.catalogue.connection
    await connection.add_listener("gateway", lambda *told: heard.append(str(told[-1])))
    await post.execute("UPDATE order_files SET state = 'AVAILABLE'")
    await post.execute("UPDATE orders SET status = 'DONE'")
    await asyncio.sleep(0.2)
    about = [one for one in heard if '"orders"' in one and str(order_id) in one]
    heard.clear()
    assert 1 <= len(about) <= 2
    await post.execute("UPDATE order_files SET state = 'DOWNLOADED' WHERE order_file_id & 3 = 1")
    await post.execute("UPDATE order_files SET state = 'DOWNLOADED' WHERE order_file_id & 3 = 2")
    await asyncio.sleep(0.2)
    assert heard == []


@pytest.mark.parametrize(("who", "status"), [(OUTSIDER, 404), (ADMIN, 200), (None, 401)])
async def test_none_but_the_owner_and_administrators_follow_it(post: Post, who: Principal | None, status: int) -> None:
    order_id = await post.order()
    async with following(post.gateway, order_id, bearer(who) if who else {}) as stream:
        assert stream.status == status
    async with following(post.gateway, order_id + 1, bearer(ADMIN)) as stream:
        assert stream.status == 404


async def test_silence_is_filled_with_comments(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.api.event_stream, "BEAT_SECONDS", 0.2)
    order_id = await post.order()
    async with following(post.gateway, order_id) as stream:
        await stream.event()
        await stream.event()
        assert await stream.event() == {":": ""}
        assert await stream.event() == {":": ""}


async def test_a_stream_ends_with_its_credential(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.api.event_stream, "BEAT_SECONDS", 0.2)
    order_id = await post.order()
    key = await new_key(post.gateway, SCIENTIST, scopes=["order"])
    short = {"Authorization": f"Bearer {token(SCIENTIST, lifetime=1)}"}
    async with (
        following(post.gateway, order_id, shown_key(key["key"])) as by_key,
        following(post.gateway, order_id, short) as by_token,
        following(post.gateway, order_id) as other,
    ):
        await send(post.gateway, "DELETE", f"/me/keys/{key['id']}", bearer(SCIENTIST))
        for stream in (by_key, by_token):
            # Clocks may differ by a little before a token is taken for old.
            async with asyncio.timeout(20):
                while await stream.event(20) is not None:
                    pass
        await other.event()
        assert (await other.event() or {})["event"] == "progress"


async def test_streams_of_a_user_and_of_a_process_are_bounded(post: Post) -> None:
    order_id = await post.order()
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(following(post.gateway, order_id)) for _ in range(4)]
        assert [stream.status for stream in streams] == [200, 200, 200, 429]
        assert int(streams[3].header["Retry-After"]) > 0
        async with following(post.gateway, order_id, bearer(ADMIN)) as other:
            assert other.status == 200
    # Who left takes nobody's place.
    for _ in range(3):
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(5):
                while (await stack.enter_async_context(following(post.gateway, order_id))).status != 200:
                    await asyncio.sleep(0.1)
    with pytest.raises(GatewayError) as refused, Following("orders", 0, 5).follow(1, ("esa", "a")):
        pass
    assert refused.value.status == 503


def test_followers_of_other_orders_are_let_be_and_all_are_forgotten() -> None:
    followers = Following("orders", 10, 10)
    with followers.follow(1, ("esa", "a")) as one, followers.follow(2, ("esa", "a")) as two:
        followers.changed("orders", Payload("esa", "1"))
        assert (one._woken.is_set(), two._woken.is_set()) == (True, False)
        followers.missed()
        assert two._woken.is_set()
        assert followers.count == 2
        followers.end()
        assert one.ended
    assert followers.count == 0
    assert followers._followers == {}


async def test_who_takes_nothing_is_cut(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.api.event_stream, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(gateway.api.event_stream, "GAP_SECONDS", 0.0)
    plain = gateway.api.event_stream.event_json
    monkeypatch.setattr(gateway.api.order_events, "event_json", lambda value: plain({**value, "x": "x" * 1_000_000}))
    order_id = await post.order()
    parts = urlsplit(post.gateway.url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (parts.hostname, parts.port))
        fields = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token(SCIENTIST)}\r\n\r\n"
        await loop.sock_sendall(client, f"GET /user/orders/{order_id}/events HTTP/1.1\r\n{fields}".encode())
        async with asyncio.timeout(10):
            for percent in range(1, 90):
                await post.execute(f"UPDATE orders SET pending_size = files_size * (100 - {percent}) / 100")
                await asyncio.sleep(0.02)
            with pytest.raises(ConnectionResetError):
                await read_all(client)


async def read_all(client: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(client, 1 << 20):
        pass


async def test_streams_do_not_keep_the_gateway_from_ending(database: str, redis_url: str, tmp_path: Path) -> None:
    server = {"port": 0, "shutdown_timeout": 30}
    async with contextlib.AsyncExitStack() as outer:
        async with running_post(database, redis_url, tmp_path, orders={"workers": 0}, server=server) as post:
            stream = await outer.enter_async_context(following(post.gateway, await post.order()))
            await stream.event()
            await stream.event()
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert await stream.event() is None
