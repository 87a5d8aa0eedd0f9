"""Carries notices to a server of the operator's, by HTTP.

As Standard Webhooks has it (https://www.standardwebhooks.com): ``webhook-id`` is the same with each attempt,
``webhook-timestamp`` is that of the attempt, and ``webhook-signature`` an HMAC-SHA-256 over both and the body.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import aiohttp
import yarl

from gateway import __version__
from gateway.config import Webhook
from gateway.errors import ConfigurationError
from gateway.notices.model import Notice, Outcome, RejectedError, UndeliverableError

KINDS = frozenset(
    {
        *("created", "running", "paused", "done", "done_with_warning", "spoilt", "failed"),
        *("expired", "deleted", "removed"),
    }
)
"""Of what webhooks are told: all changes of a status."""
_DATA: Mapping[str, str] = {
    "id": "order_id",
    "owner": "owner",
    "label": "label",
    "correlationId": "correlation_id",
    "status": "status",
    "statusDate": "status_at",
    "creationDate": "created_at",
    "expirationDate": "expires_at",
    "percentCompleted": "percent",
    "waitingForUser": "waiting_for_user",
    "filesCount": "files_count",
    "filesSize": "files_size",
    "availableFilesCount": "files_available",
    "downloadedFilesCount": "files_downloaded",
    "filesInErrorCount": "files_error",
}
"""What is told of an order, and its columns."""


class WebhookCarrier:
    """Calls one server. Made by `webhook_carrier`."""

    def __init__(self, settings: Webhook, session: aiohttp.ClientSession, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._session = session
        self._clock = clock
        self.give_up_seconds = settings.give_up_hours * 3600

    async def carry(self, notices: Sequence[Notice], outcome: Outcome) -> None:
        """As `Carrier`."""
        for notice in notices:
            if not await outcome.begin(notice):
                continue
            try:
                await self._call(notice)
            except (UndeliverableError, RejectedError) as error:
                await outcome.failed(notice, error)
            else:
                await outcome.taken(notice)

    async def _call(self, notice: Notice) -> None:
        body = content(notice)
        fields = {**signed(self._settings.key, f"msg_{notice.message.hex}", int(self._clock()), body)}
        fields["Content-Type"] = "application/json"
        try:
            async with self._session.post(
                yarl.URL(self._settings.url, encoded=True), data=body, headers=fields, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # The messages of others quote the URL.
            raise RejectedError(type(error).__name__) from error
        if status == HTTPStatus.GONE:
            raise UndeliverableError("410: it does not want to be told any more")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise RejectedError(f"it answered {status}")


def content(notice: Notice) -> bytes:
    """The body of a call; with each attempt it is the same."""
    body = notice.body
    kind = str(body["status"]).lower() if notice.kind == "spoilt" else notice.kind
    data: dict[str, Any] = {name: body[column] for name, column in _DATA.items()}
    told = {
        "type": f"order.{kind}",
        "timestamp": notice.created.isoformat(),
        "data": {"tenant": notice.tenant, **data},
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def signed(key: bytes, identifier: str, seconds: int, body: bytes) -> dict[str, str]:
    """The fields that Standard Webhooks asks for; ``seconds`` since the epoch."""
    signature = hmac.digest(key, b".".join((identifier.encode(), str(seconds).encode(), body)), "sha256")
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


@contextlib.asynccontextmanager
async def webhook_carrier(settings: Webhook, clock: Callable[[], float] = time.time) -> AsyncIterator[WebhookCarrier]:
    """A carrier, and the connections that it keeps.

    Raises:
        ConfigurationError: certificates cannot be read.
    """
    try:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"webhooks.ca_file: cannot be read: {error}") from error
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=2, ssl=context),
        timeout=aiohttp.ClientTimeout(total=settings.timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"download-gateway/{__version__}"},
        auto_decompress=False,
    ) as session:
        yield WebhookCarrier(settings, session, clock)
