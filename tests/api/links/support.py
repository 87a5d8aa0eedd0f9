"""Gateways that make signed links, and what tests ask of them."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway.catalog.model import ByChecksum
from gateway.identity.signed_links import Grant, Signer
from tests.credentials import LINK_SECRET, send
from tests.harness import SCIENCE, SECRET, TENANT, Entry, RunningGateway, config_for, running_gateway
from tests.quotas.holders import until

CONTENT = b"0123456789" * 1000
IDENTITY = {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}], "links": {"secret": LINK_SECRET}}


@contextlib.asynccontextmanager
async def linking(database: str, redis_url: str, root: Path, **sections: object) -> AsyncIterator[RunningGateway]:
    """A gateway that makes links; group ``science`` may download the collection ``restricted``."""
    config = config_for(database, redis_url, root, **{"identity": IDENTITY, **sections})
    async with running_gateway(config, root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


def by_checksum(entry: Entry) -> dict[str, object]:
    return {"product": entry.product, "checksum": entry.checksum}


def by_asset(entry: Entry) -> dict[str, object]:
    return {"collection": entry.collection, "item": entry.item, "asset": entry.asset}


def token_of(link: dict[str, Any]) -> str:
    return str(link["url"].partition("?link=")[2])


def in_hours(hours: float) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)).isoformat()


def signed(entry: Entry, **changes: object) -> str:
    """A path with a token that we sign ourselves."""
    values: dict[str, Any] = {
        "link_id": f"{'a' * 12}-{'b' * 12}",
        "tenant": TENANT,
        "subject": "scientist",
        "email": "scientist@example.org",
        "role": "REGISTERED_USER",
        "groups": (SCIENCE,),
        "expires": int(time.time()) + 600,
    }
    address = ByChecksum(entry.product, entry.checksum)
    return f"{entry.regards}?link={Signer(LINK_SECRET.encode()).sign(Grant(**values | changes), address)}"


async def a_key(gateway: RunningGateway, key_id: str = "a" * 12, email: str = "scientist@example.org") -> None:
    await gateway.catalogue.connection.execute(
        "INSERT INTO link_keys (key_id, tenant_id, email) VALUES ($1, $2, $3)",
        key_id,
        await gateway.catalogue.tenant(),
        email,
    )


async def hearing(gateway: RunningGateway) -> None:
    """Return when the gateway hears of what changes."""

    async def heard() -> bool:
        return bool((await send(gateway, "GET", "/health"))[2]["notifications"]["connected"])

    await until(heard, "changes are heard of")
