"""Notices as the configuration has them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from gateway.config import Config
from gateway.db import Database
from gateway.notices import letters, webhook
from gateway.notices.mail import MailCarrier
from gateway.notices.model import MAIL, WEBHOOK, Carrier
from gateway.notices.sender import sending
from gateway.notifications import Notifications
from gateway.orders.tokens import OrderTokens


def subscriptions(config: Config) -> str:
    """What the trigger of orders is told: for which channels it writes notices, as `spool.SUBSCRIBE` takes it.

    Empty where nobody is told anything.
    """
    asked: list[Mapping[str, Any]] = []
    if config.mail is not None:
        asked.append({"channel": MAIL, "kinds": sorted(letters.KINDS), "tenants": None})
    asked += [
        {
            "channel": f"{WEBHOOK}{one.name}",
            "kinds": sorted(webhook.KINDS),
            "tenants": None if one.tenants == ["*"] else one.tenants,
        }
        for one in config.webhooks
    ]
    return json.dumps(asked) if asked else ""


@contextlib.asynccontextmanager
async def sending_notices(
    config: Config, database: Database, notifications: Notifications, tokens: OrderTokens | None
) -> AsyncIterator[None]:
    """Send notices while the block runs.

    Raises:
        ConfigurationError: templates or certificates cannot be used.
    """
    carriers: dict[str, Carrier] = {}
    async with contextlib.AsyncExitStack() as stack:
        if config.mail is not None:
            base = f"{config.api.public_url}{config.api.regards_prefix}"
            carriers[MAIL] = MailCarrier(config.mail, letters.letters(config.mail, base, tokens))
        for one in config.webhooks:
            carriers[f"{WEBHOOK}{one.name}"] = await stack.enter_async_context(webhook.webhook_carrier(one))
        hours = config.mail.reminder_hours if config.mail is not None else 0
        await stack.enter_async_context(sending(database, notifications, carriers, reminder_hours=hours))
        yield
