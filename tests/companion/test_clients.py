"""A client of STAC walks a catalogue through a gateway that stands in front of it: here another gateway's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pystac_client
import pytest
import stac_asset

from gateway.quotas.limits import Rule
from tests.harness import config_for, running_gateway
from tests.stac.conftest import Archive, archive, archive_for, cog

__all__ = ["archive", "archive_for"]

FRONT = "front"

pytestmark = pytest.mark.filterwarnings("ignore")


async def test_clients_walk_search_and_download_through_it(
    archive: Archive, database: str, redis_url: str, tmp_path: Path
) -> None:
    upstream = archive.gateway.url
    storage = {
        "name": "upstream",
        "plugin": "http",
        "tenants": [FRONT],
        "hosts": [upstream.removeprefix("http://")],
        "schemes": ["http"],
        "networks": ["127.0.0.0/8"],
    }
    config = config_for(
        database,
        redis_url,
        tmp_path,
        storage=[storage],
        api={"default_tenant": FRONT},
        companion={"upstream": upstream, "tenant": FRONT},
    )
    async with running_gateway(config, tmp_path) as gateway:
        made = gateway.catalogue
        await made.dataset("scenes", tenant=FRONT)
        await made.connection.execute(
            "INSERT INTO access_rights (dataset_id, group_id, metadata_level, file_level) "
            "SELECT dataset_id, $1, 'FULL_ACCESS', 'INHERITED_ACCESS' FROM datasets JOIN tenants USING (tenant_id) "
            "WHERE name = $2",
            await made.group("everyone", public=True, tenant=FRONT),
            FRONT,
        )
        await made.rule(Rule("anonymous", "", True, "downloads", "total", 100), tenant=FRONT)

        def walk() -> Any:
            client = pystac_client.Client.open(f"{gateway.url}/")
            assert {"scenes"} <= {one.id for one in client.get_collections()}
            (found,) = client.search(ids=["near"], method="GET").items()
            (again,) = client.search(ids=["near"], method="POST").items()
            assert found.to_dict() == again.to_dict()
            return found

        found = await asyncio.to_thread(walk)
        asset = found.assets["visual"]
        assert asset.href == f"{gateway.url}/collections/scenes/items/near/download/visual"
        assert asset.extra_fields["alternate"]["origin"]["href"].startswith(upstream)
        await stac_asset.download_item(found, tmp_path / "near", config=stac_asset.Config(warn=False))
        assert (tmp_path / "near" / "visual").read_bytes() == cog()
        rows = await made.connection.fetch(
            "SELECT provider_id FROM products JOIN tenants USING (tenant_id) WHERE name = $1", FRONT
        )
        assert [row["provider_id"] for row in rows] == ["near"]
