"""Servers that are told of orders."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.harness import SCIENTIST
from tests.notices.support import HOOK_SECRET, Post, running_post
from tests.s3.strict.certificate import server_context


@dataclasses.dataclass
class Hook:
    """A server that keeps what it is told."""

    url: str = ""
    statuses: list[int] = dataclasses.field(default_factory=list)
    """Of its next answers; then 204."""
    calls: list[tuple[Mapping[str, str], bytes]] = dataclasses.field(default_factory=list)
    elsewhere: int = 0

    @property
    def taken(self) -> list[Any]:
        return [json.loads(body) for _, body in self.calls]

    @property
    def identifiers(self) -> list[str]:
        return [fields["webhook-id"] for fields, _ in self.calls]

    async def has(self, count: int) -> None:
        async with asyncio.timeout(15):
            while len(self.calls) < count:
                await asyncio.sleep(0.02)

    async def take(self, request: web.Request) -> web.Response:
        self.calls.append((request.headers.copy(), await request.read()))
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 307 else {})

    async def go_elsewhere(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()

    @contextlib.asynccontextmanager
    async def opened(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Hook]:
        app = web.Application()
        app.add_routes([web.post("/hook", self.take), web.post("/elsewhere", self.go_elsewhere)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/hook"
        try:
            yield self
        finally:
            await runner.cleanup()

    def settings(self, name: str = "portal", **options: object) -> dict[str, object]:
        return {"name": name, "url": self.url, "secret": HOOK_SECRET, "tenants": ["*"], **options}


def check_signature(fields: Mapping[str, str], body: bytes) -> None:
    """As the specification has it."""
    key = base64.b64decode(HOOK_SECRET.removeprefix("whsec_"))
    signed = f"{fields['webhook-id']}.{fields['webhook-timestamp']}.".encode() + body
    version, _, signature = fields["webhook-signature"].partition(",")
    assert version == "v1"
    assert base64.b64decode(signature) == hmac.new(key, signed, hashlib.sha256).digest()
    assert abs(int(fields["webhook-timestamp"]) - time.time()) < 60


async def test_a_server_that_fails_at_first_is_told_all_that_happened(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    hook = Hook(statuses=[500, 307, 404])
    async with hook.opened(), running_post(database, redis_url, tmp_path, webhooks=[hook.settings()]) as post:
        order_id = await post.order(correlationId="mine")
        await hook.has(2)
        await post.deliver()
        assert len(hook.calls) == 5
        assert len(set(hook.identifiers)) == 2
        assert hook.elsewhere == 0
        for fields, body in hook.calls:
            check_signature(fields, body)
            assert fields["Content-Type"] == "application/json"
        told = {one["type"]: one for one in hook.taken}
        assert set(told) == {"order.created", "order.done"}
        data = told["order.done"]["data"]
        assert (data["id"], data["tenant"], data["owner"]) == (order_id, "esa", SCIENTIST.email)
        assert (data["status"], data["availableFilesCount"], data["correlationId"]) == ("DONE", 3, "mine")
        # Nothing else of the order, and nothing secret.
        assert set(data) == {
            *("tenant", "id", "owner", "label", "correlationId", "status", "statusDate", "creationDate"),
            *("expirationDate", "percentCompleted", "waitingForUser", "filesCount", "filesSize"),
            *("availableFilesCount", "downloadedFilesCount", "filesInErrorCount"),
        }


async def test_each_change_of_status_is_told_to_those_who_want_it(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    hook, other = Hook(), Hook()
    async with (
        hook.opened(),
        other.opened(),
        running_post(
            database, redis_url, tmp_path, webhooks=[hook.settings(), other.settings("other", tenants=["other"])]
        ) as post,
    ):
        order_id = await post.order()
        await hook.has(2)
        await post.execute("UPDATE order_files SET state = 'DOWNLOAD_ERROR' WHERE order_file_id & 3 = 1")
        await post.execute("UPDATE orders SET status = 'DONE_WITH_WARNING'")
        await post.act("PUT", f"/user/orders/{order_id}/retry")
        await hook.has(5)
        await post.act("DELETE", f"/user/orders/{order_id}")
        await post.execute("DELETE FROM orders")
        await hook.has(7)
        kinds = sorted(one["type"] for one in hook.taken)
        assert kinds == sorted(
            f"order.{kind}"
            for kind in ("created", "done", "done_with_warning", "running", "done", "deleted", "removed")
        )
        assert other.calls == []


async def test_one_that_is_gone_is_told_no_more_of_this(database: str, redis_url: str, tmp_path: Path) -> None:
    hook = Hook(statuses=[410] * 2)
    async with hook.opened(), running_post(database, redis_url, tmp_path, webhooks=[hook.settings()]) as post:
        await post.order()
        await hook.has(2)
        await given_up(post, 2)


async def test_one_that_does_not_answer_is_not_waited_for(database: str, redis_url: str, tmp_path: Path) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hook = Hook(f"http://127.0.0.1:{port}/secret-path")
    async with running_post(database, redis_url, tmp_path, webhooks=[hook.settings(timeout=0.2)]) as post:
        await post.order()
        async with asyncio.timeout(10):
            while not (errors := [row["error"] for row in await post.left() if row["error"]]):
                await asyncio.sleep(0.02)
        assert "secret-path" not in str(errors)
    server.close()


async def test_only_a_server_that_shows_who_it_is_is_told(database: str, redis_url: str, tmp_path: Path) -> None:
    context, authority = server_context(tmp_path)
    hook = Hook()
    async with hook.opened(context):
        hooks = [
            hook.settings(tenants=["nobody"]),
            hook.settings("trusted", ca_file=str(authority)),
            hook.settings("other"),
        ]
        async with running_post(database, redis_url, tmp_path, webhooks=hooks) as post:
            await post.order()
            await hook.has(2)
            async with asyncio.timeout(10):
                while [row["error"] for row in await post.left()] != ["ClientConnectorCertificateError"] * 2:
                    await asyncio.sleep(0.02)
            assert {row["channel"] for row in await post.left()} == {"webhook:other"}
        assert len(hook.calls) == 2


async def given_up(post: Post, count: int) -> None:
    async with asyncio.timeout(10):
        while [row["given_up_at"] is not None for row in await post.left()] != [True] * count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("field", "wrong"), [("body", b"x"), ("id", b"y"), ("timestamp", b"z")])
def test_the_check_of_signatures_bites(field: str, wrong: bytes) -> None:
    from gateway.notices.webhook import signed

    body = b"body"
    fields = signed(base64.b64decode(HOOK_SECRET.removeprefix("whsec_")), "msg_1", int(time.time()), body)
    check_signature(fields, body)
    if field == "body":
        body = wrong
    else:
        fields[f"webhook-{field}"] = str(int(time.time()) - 1) if field == "timestamp" else wrong.decode()
    with pytest.raises(AssertionError):
        check_signature(fields, body)
