"""A gateway with orders."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from gateway.identity.principal import Principal
from gateway.orders.model import DatasetSelection
from tests.canaries import CANARIES
from tests.harness import SCIENTIST, RunningGateway, bearer
from tests.orders.support import selection


class Market:
    """A gateway with orders, and a basket that holds what the test puts in."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.basket: list[DatasetSelection] = []

    async def ask(
        self, method: str, path: str, who: Principal | None = SCIENTIST, body: Any = None, **fields: str
    ) -> tuple[aiohttp.ClientResponse, Any]:
        headers = {name.replace("_", "-"): value for name, value in fields.items()} | (bearer(who) if who else {})
        async with self.gateway.session.request(
            method,
            f"{self.gateway.url}{path}",
            headers=headers,
            data=None if body is None else json.dumps(body),
            allow_redirects=False,
        ) as response:
            received = await response.read()
        CANARIES.search_answer(f"{method} {path}", response.headers, received)
        return response, json.loads(received) if received and "json" in response.content_type else received

    async def order(self, *selections: DatasetSelection, who: Principal = SCIENTIST, **body: str) -> Any:
        self.basket = list(selections) or [selection()]
        response, order = await self.ask("POST", "/user/orders", who, body or None)
        assert response.status == 200, order
        return order

    async def done(self, order_id: int, who: Principal = SCIENTIST) -> Any:
        """The order once the gateway's own worker has done with it."""
        async with asyncio.timeout(15):
            while True:
                _, order = await self.ask("GET", f"/user/orders/{order_id}", who)
                if order["content"]["status"] not in ("PENDING", "RUNNING"):
                    return order
                await asyncio.sleep(0.02)

    async def set(self, order_id: int, status: str) -> None:
        await self.gateway.catalogue.connection.execute(
            "UPDATE orders SET status = $2 WHERE order_id = $1", order_id, status
        )
