"""A gateway whose orders are downloaded whole: files on a disk and in an object store, ordered in one call."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from gateway.identity.principal import Principal
from gateway.quotas.limits import own_account
from tests.canaries import CANARIES
from tests.harness import SCIENCE, SCIENTIST, Entry, RunningGateway, bearer, config_for, running_gateway
from tests.orders.support import SECRET
from tests.s3.strict import StrictS3
from tests.storage_plugins.test_s3_strict import storage_at


@dataclasses.dataclass(frozen=True)
class Received:
    """An answer, as far as it came."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    promised: int
    ended: bool = True
    """Whether it came to an end, for those without a length."""

    @property
    def is_whole(self) -> bool:
        return len(self.body) == self.promised

    def told(self) -> Any:
        return json.loads(self.body)


class Depot:
    """Files, orders of all of them, and their archives."""

    def __init__(self, gateway: RunningGateway, cloud: StrictS3) -> None:
        self.gateway = gateway
        self.cloud = cloud
        self._number = 0

    @property
    def connection(self) -> Any:
        return self.gateway.catalogue.connection

    async def put(self, content: bytes, *, name: str | None = None, in_cloud: bool = False, **about: Any) -> Entry:
        """A file of a new product."""
        self._number += 1
        item = about.pop("item", f"item-{self._number:03}")
        if not in_cloud:
            return await self.gateway.catalogue.file(content, item=item, name=name, **about)
        key = f"object-{self._number}"
        self.cloud.store.put("bucket", key, content)
        entry = await self.gateway.catalogue.described(content, item=item, name=name, **about)
        await self.copy_in_cloud(entry, key)
        return entry

    async def copy_in_cloud(self, entry: Entry, key: str) -> None:
        """The row of a copy in the object store."""
        storage = storage_at(self.cloud)
        try:
            stat = await storage.stat(f"bucket/{key}")
        finally:
            await storage.close()
        await self.gateway.catalogue.copy(entry, "cloud", f"bucket/{key}", stat)

    async def order(self, who: Principal = SCIENTIST, *, done: bool = True) -> int:
        """Order all files that there are; gives the id once they are ready."""
        status, told = await self.ask("POST", "/user/orders/apply", who, {"queries": [""]})
        assert status == 200, told
        order_id: int = told["orderId"]
        async with asyncio.timeout(60):
            while done:
                _, told = await self.ask("GET", f"/user/orders/{order_id}", who)
                if told["content"]["status"] not in ("PENDING", "RUNNING"):
                    break
                await asyncio.sleep(0.02)
        return order_id

    async def ask(self, method: str, path: str, who: Principal = SCIENTIST, body: Any = None) -> tuple[int, Any]:
        async with self.gateway.session.request(
            method, f"{self.gateway.url}{path}", headers=bearer(who), data=None if body is None else json.dumps(body)
        ) as response:
            received = await response.read()
            return response.status, json.loads(received) if received and "json" in response.content_type else received

    async def fetch(
        self, order_id: int, who: Principal = SCIENTIST, method: str = "GET", *, most: int | None = None, **fields: str
    ) -> Received:
        """The archive, or ``most`` bytes of it."""
        return await self.receive(f"/user/orders/{order_id}/download", who, method, most=most, **fields)

    async def rest(self, order_id: int, start: int, tag: str = "", *, most: int | None = None) -> Received:
        """The archive from byte ``start`` on; ``tag`` says of which one."""
        part = f"bytes={start}-"
        if not tag:
            return await self.fetch(order_id, most=most, Range=part)
        return await self.fetch(order_id, most=most, Range=part, If_Range=tag)

    async def receive(
        self,
        path: str,
        who: Principal | None = SCIENTIST,
        method: str = "GET",
        *,
        most: int | None = None,
        **fields: str,
    ) -> Received:
        headers = {name.replace("_", "-"): value for name, value in fields.items()} | (bearer(who) if who else {})
        received, ended = bytearray(), False
        async with self.gateway.session.request(method, f"{self.gateway.url}{path}", headers=headers) as response:
            with contextlib.suppress(aiohttp.ClientPayloadError):
                while most is None or len(received) < most:
                    piece = await response.content.readany()
                    if not piece:
                        ended = True
                        break
                    received += piece
            if most is not None:
                response.close()
            promised = int(response.headers.get("Content-Length", len(received)))
            return Received(response.status, response.headers, bytes(received), promised, ended)

    async def states(self, order_id: int) -> list[str]:
        rows = await self.connection.fetch(
            "SELECT state FROM order_files WHERE order_file_id >> 24 = $1 ORDER BY order_file_id", order_id
        )
        return [row["state"] for row in rows]

    async def become(self, order_id: int, *expected: str) -> None:
        """It is noted after the last byte has left."""
        async with asyncio.timeout(10):
            while await self.states(order_id) != list(expected):
                await asyncio.sleep(0.01)

    async def idle(self, who: Principal = SCIENTIST) -> tuple[int, int]:
        """What is charged once nothing runs any more."""
        account = own_account(who)
        async with asyncio.timeout(10):
            while True:
                used = (await self.gateway.quotas.usage(who.tenant, [account]))[account]
                if not used.running:
                    return used.downloads, used.octets
                await asyncio.sleep(0.01)


def unpacked(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {info.filename: opened.read(info) for info in opened.infolist()}


def content_of(size: int, seed: int = 0) -> bytes:
    block = hashlib.sha512(f"{seed}".encode()).digest()
    return (block * (size // len(block) + 1))[:size]


@contextlib.asynccontextmanager
async def running_depot(
    database: str, redis_url: str, root: Path, cloud: StrictS3, **orders: Any
) -> AsyncIterator[Depot]:
    CANARIES.hide("secret of orders", SECRET)
    root.mkdir(exist_ok=True)
    account = cloud.account
    storages = [
        {"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root)},
        {
            "name": "cloud",
            "plugin": "s3",
            "tenants": ["*"],
            "delivery": "stream",
            "priority": 1,
            "endpoint": account.endpoint,
            "region": account.region,
            "buckets": ["bucket"],
            "access_key_id": account.access_key_id,
            "secret_access_key": account.secret_access_key,
        },
    ]
    config = config_for(
        database,
        redis_url,
        root,
        storage=storages,
        orders={"secret": SECRET, **orders},
        rights={"open_data_types": []},
    )
    async with running_gateway(config, root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield Depot(running, cloud)
