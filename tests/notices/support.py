"""Orders of which notices are made."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.config import Config, Mail
from gateway.db import Database
from gateway.notices.letters import Letters, letters
from gateway.notices.model import Notice
from gateway.notices.opening import sending_notices
from gateway.notifications import listening
from gateway.orders.service import work_database
from gateway.orders.tokens import OrderTokens
from tests.canaries import CANARIES
from tests.harness import SCIENCE, SCIENTIST, RunningGateway, bearer, config_for, running_gateway
from tests.notices.mailbox import HOST

PUBLIC_URL = "https://data.example.org"
SECRET = "the secret that order tokens in mails are made with, in all tests"
PASSWORD = "the password of the mail server: 9b1"
HOOK_SECRET = "whsec_" + "c2VjcmV0IG9mIGEgd2ViaG9vaywgaW4gYWxsIHRlc3Rz"


def mail_settings(port: int, **options: object) -> dict[str, object]:
    return {"host": HOST, "port": port, "tls": "none", "sender": "downloads@archive.example", **options}


@dataclasses.dataclass(frozen=True)
class Post:
    """A gateway that tells of orders, and the connections over which it changes them."""

    gateway: RunningGateway
    database: Database

    async def order(self, **body: object) -> int:
        """The id of an order of everything, by one call."""
        async with self.gateway.session.post(
            f"{self.gateway.url}/user/orders/apply",
            headers=bearer(SCIENTIST),
            data=json.dumps({"queries": [""], **body}),
        ) as response:
            answer = await response.json()
        assert response.status == 200, answer
        order_id: int = answer["orderId"]
        return order_id

    async def act(self, method: str, path: str) -> None:
        response, body = await self.gateway.request(method, path, SCIENTIST)
        assert response.status in (200, 204), body

    async def execute(self, statement: str) -> None:
        """Change something as the gateway does."""
        await self.database.fetch(statement)

    async def retry_now(self) -> None:
        """Have what failed tried again at once; a sender that reached nobody rests for a second or two yet."""
        await self.database.fetch("UPDATE notices SET due_at = now() WHERE given_up_at IS NULL AND lease IS NULL")
        await self.database.fetch("""SELECT pg_notify('gateway', '{"topic": "notices", "tenant": null, "id": null}')""")

    async def deliver(self) -> None:
        """Return once nothing is in the spool; what fails meanwhile is tried again at once."""
        async with asyncio.timeout(20):
            while await self.left():
                await self.retry_now()
                await asyncio.sleep(0.05)

    async def left(self) -> list[dict[str, Any]]:
        """What is in the spool."""
        return [dict(row) for row in await self.database.fetch("SELECT * FROM notices ORDER BY notice_id")]

    async def empty(self) -> None:
        """Return once nothing is."""
        async with asyncio.timeout(15):
            while await self.left():
                await asyncio.sleep(0.02)


def post_config(database: str, redis_url: str, root: Path, **sections: object) -> Config:
    return config_for(
        database,
        redis_url,
        root,
        **{
            "api": {"public_url": PUBLIC_URL},
            "orders": {"secret": SECRET, "success_urls": ["https://portal.example.org/"]},
            **sections,
        },
    )


@contextlib.asynccontextmanager
async def running_post(database: str, redis_url: str, tmp_path: Path, **sections: object) -> AsyncIterator[Post]:
    CANARIES.hide("secret of orders", SECRET)
    root = tmp_path / "archive"
    root.mkdir(exist_ok=True)
    config = post_config(database, redis_url, root, **sections)
    async with running_gateway(config, root) as gateway, work_database(config) as work:
        catalogue = gateway.catalogue
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        for number in range(3):
            await catalogue.file(f"content {number}".encode(), item=f"item-{number}")
        yield Post(gateway, work)


@contextlib.asynccontextmanager
async def sending_alone(config: Config) -> AsyncIterator[Database]:
    """What a worker does with notices."""
    async with (
        work_database(config) as work,
        listening(config.database) as notifications,
        sending_notices(config, work, notifications, None),
    ):
        yield work


BODY: Mapping[str, Any] = {
    "owner": "scientist@example.org",
    "label": "label",
    "status": "DONE",
    "status_at": "2026-11-21T20:00:00+00:00",
    "created_at": "2026-11-21T20:00:00+00:00",
    "expires_at": "2026-11-24T20:00:00+00:00",
    "percent": 100,
    "waiting_for_user": True,
    "correlation_id": None,
    "on_success_url": "/portal?a=1&b=2",
    "token_generation": 0,
    "files_count": 5,
    "files_size": 1234567,
    "files_available": 3,
    "files_downloaded": 1,
    "files_error": 1,
    "order_id": 7,
}


def notice(kind: str = "done", channel: str = "mail", **body: object) -> Notice:
    return Notice(
        1,
        uuid.UUID(int=7),
        channel,
        "esa",
        7,
        kind,
        {**BODY, **body},
        datetime.datetime(2026, 11, 21, 20, tzinfo=datetime.UTC),
        1,
    )


def writer(templates: Path | None = None, secret: str | None = SECRET) -> Letters:
    name = "Archive; Ünit"
    settings = Mail(host=HOST, tls="none", sender="downloads@archive.example", sender_name=name, templates=templates)
    return letters(settings, f"{PUBLIC_URL}/rs-order", OrderTokens(secret.encode()) if secret else None)


def mail_with(port: int, **options: Any) -> Mail:
    if "password" in options:
        options["password"] = SecretStr(options["password"])
    return Mail(host=HOST, port=port, sender="downloads@archive.example", **options)
