"""Orders without a gateway, and with one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import gateway.orders.service
from gateway.db import Connection
from gateway.identity.principal import Principal
from gateway.orders.baskets import Baskets
from gateway.orders.model import DatasetSelection, Numbering, Translator
from tests.canaries import CANARIES
from tests.harness import SCIENCE, config_for, running_gateway
from tests.orders.market import Market
from tests.orders.support import SECRET, Shop, open_shop, translate


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with open_shop(database, suborder_files=3, suborder_size=2500) as opened:
        yield opened


async def either_language(query: str, in_regards: Translator = gateway.orders.service.translate) -> Numbering:
    """That of the tests, and REGARDS'."""
    return await (translate if query.startswith(("id:", "from:")) else in_regards)(query)


@pytest.fixture
async def market(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Market]:
    CANARIES.hide("secret of orders", SECRET)
    root = tmp_path / "archive"
    root.mkdir()
    made: list[Market] = []

    async def take(_: Baskets, __: Connection, ___: Principal) -> Sequence[DatasetSelection]:
        taken, made[0].basket = made[0].basket, []
        return taken

    monkeypatch.setattr(Baskets, "take", take)
    monkeypatch.setattr(gateway.orders.service, "translate", either_language)
    config = config_for(database, redis_url, root, orders={"secret": SECRET, "suborder_files": 2})
    async with running_gateway(config, root) as running:
        catalogue = running.catalogue
        await catalogue.grant("restricted", await catalogue.group(SCIENCE))
        for number in range(3):
            await catalogue.file(f"content {number}".encode(), item=f"item-{number}")
        made.append(Market(running))
        yield made[0]
