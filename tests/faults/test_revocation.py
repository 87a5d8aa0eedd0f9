"""What is revoked in one process is refused by another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.credentials import LINK_SECRET, new_key, new_link, seconds_until, send, shown_key
from tests.faults.process import Tables, serving_process
from tests.harness import SCIENCE, SCIENTIST, SECRET, bearer, config_for, running_gateway
from tests.quotas.holders import until

SOON = 0.1
"""Seconds within which another process knows."""
ATTEMPTS = 5
"""Of which one must be in time: a busy machine may stall any of them."""


@pytest.mark.parametrize("what", ["key", "link", "link key"])
async def test_another_process_refuses_within_100_ms_what_was_revoked(
    database: str, redis_url: str, tmp_path: Path, what: str
) -> None:
    identity = {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}], "links": {"secret": LINK_SECRET}}
    archive = tmp_path / "archive"
    archive.mkdir()
    tables: Tables = {
        "server": {"port": 0, "shutdown_timeout": 1},
        "database": {"dsn": database},
        "redis": {"url": redis_url},
        "identity.jwt": identity["jwt"],  # type: ignore[dict-item]
        "identity.links": {"secret": LINK_SECRET},
        "storage": [{"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(archive)}],
    }
    with serving_process(tmp_path, tables) as other:
        async with running_gateway(config_for(database, redis_url, archive, identity=identity), archive) as gateway:
            await gateway.catalogue.grant("restricted", await gateway.catalogue.group(SCIENCE))
            entry = await gateway.catalogue.file(b"content")

            async def hears() -> bool:
                return bool((await send(gateway, "GET", f"{other.url}/health"))[2]["notifications"]["connected"])

            await until(hears, "the other process hears of changes")
            seconds = []
            for _ in range(ATTEMPTS):
                if what == "key":
                    made = await new_key(gateway, SCIENTIST)
                    shown, url = shown_key(made["key"]), f"{other.url}{entry.stac}"
                    revoke = f"/me/keys/{made['id']}"
                else:
                    made = await new_link(gateway, SCIENTIST, product=entry.product, checksum=entry.checksum)
                    shown, url = {}, made["url"].replace(gateway.url, other.url)
                    revoke = f"/links/{made['id']}"
                for _ in range(2):
                    assert (await send(gateway, "HEAD", url, shown))[0] == 200
                if what == "link key":
                    await gateway.catalogue.connection.execute("UPDATE link_keys SET revoked_at = now()")
                else:
                    assert (await send(gateway, "DELETE", revoke, bearer(SCIENTIST)))[0] == 204
                seconds.append(
                    await seconds_until(401, lambda url=url, shown=shown: send(gateway, "HEAD", url, shown))  # type: ignore[misc]
                )
            assert min(seconds) < SOON, seconds
