"""A gateway before a strict S3 that breaks on demand, on the loop of the test."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from gateway.storage import Stat
from tests.harness import SCIENCE, Entry, RunningGateway, config_for, running_gateway
from tests.s3.strict import StrictS3, strict_s3

MEBIBYTE = 1024 * 1024
BUCKET = "archive"
STORAGE_TIMEOUT = 0.5
"""Seconds; what stalls is seen to after this time."""


def storage(
    strict: StrictS3, name: str = "store", options: Mapping[str, object] = MappingProxyType({})
) -> dict[str, object]:
    """A ``[[storage]]`` table for the strict server."""
    account = strict.account
    return {
        "name": name,
        "plugin": "s3",
        "tenants": ["*"],
        "region": account.region,
        "buckets": [BUCKET],
        "endpoint": account.endpoint,
        "access_key_id": account.access_key_id,
        "secret_access_key": account.secret_access_key,
        **({"ca_file": str(account.ca_file)} if account.ca_file else {}),
        **options,
    }


@dataclasses.dataclass(frozen=True)
class Stand:
    """The gateway and its stores."""

    gateway: RunningGateway
    strict: StrictS3
    root: Path

    async def object(
        self,
        content: bytes,
        *,
        key: str | None = None,
        storage: str = "store",
        verified: bool = True,
        recorded: bool = True,
        **described: Any,
    ) -> Entry:
        """Put an object, and the rows of its file and copy."""
        key = key or f"key-{random.randbytes(6).hex()}"
        described.setdefault("item", f"item-{hashlib.sha256(key.encode()).hexdigest()[:20]}")
        entry = await self.gateway.catalogue.described(content, **described)
        await self.copy(entry, content, key=key, storage=storage, verified=verified, recorded=recorded)
        return entry

    async def copy(
        self,
        entry: Entry,
        content: bytes,
        *,
        key: str | None = None,
        storage: str = "store",
        verified: bool = True,
        recorded: bool = True,
    ) -> str:
        """Put an object as a further copy of ``entry``; gives its key."""
        key = key or f"key-{random.randbytes(6).hex()}"
        stored = self.strict.store.put(BUCKET, key, content)
        stat = Stat(len(content), stored.modified, stored.etag.strip('"')) if recorded else None
        await self.gateway.catalogue.copy(entry, storage, f"{BUCKET}/{key}", stat, verified=verified)
        return key


StandFactory = Callable[..., contextlib.AbstractAsyncContextManager[Stand]]


@pytest.fixture
def stand_for(database: str, redis_url: str, tmp_path: Path) -> StandFactory:
    """Makes a stand: options are those of the S3 storage; ``storages`` makes further ones."""

    @contextlib.asynccontextmanager
    async def make(
        *,
        tls: bool = False,
        storages: Callable[[StrictS3], list[dict[str, object]]] = lambda _: [],
        storage_timeout: float = STORAGE_TIMEOUT,
        **options: object,
    ) -> AsyncIterator[Stand]:
        root = tmp_path / "disk"
        root.mkdir(exist_ok=True)
        async with strict_s3(tls=tls) as strict:
            disk = {"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root), "priority": 9}
            config = config_for(
                database,
                redis_url,
                root,
                storage=[storage(strict, options={"delivery": "stream", **options}), disk, *storages(strict)],
                delivery={"storage_timeout": storage_timeout},
                # Store, gateway and clients share a loop: Redis is not given up on for its sake.
                redis={"url": redis_url, "timeout": 20},
            )
            async with running_gateway(config, root) as running:
                await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
                yield Stand(running, strict, root)

    return make


@pytest.fixture
async def stand(stand_for: StandFactory) -> AsyncIterator[Stand]:
    """A gateway that streams from the strict server."""
    async with stand_for() as made:
        yield made
