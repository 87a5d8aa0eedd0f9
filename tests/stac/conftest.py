"""An archive as the STAC API shows it: on a disk, in an object store, of STAC and of REGARDS, open and not."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_bounds

from gateway.catalog.ingest import Event, Progress, ingest
from gateway.identity.principal import Principal
from gateway.locations import Location, storage_locations
from tests.api.conftest import doors, every_way
from tests.harness import SCIENCE, TENANT, RunningGateway, config_for, running_gateway
from tests.s3.account import Account
from tests.s3.strict import StrictS3
from tests.stac.offline import go_offline

__all__ = ["doors", "every_way"]

Json = dict[str, Any]
BUCKET = "archive"
DATASET = f"URN:AIP:DATASET:{TENANT}:50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd:V1"
PRODUCT = f"URN:FEATURE:DATA:{TENANT}:50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd:V1"
WIDTH = 512


@functools.cache
def cog() -> bytes:
    """A small Cloud-Optimized GeoTIFF with overviews."""
    pixels = np.arange(WIDTH * WIDTH, dtype="uint16").reshape(1, WIDTH, WIDTH)
    profile = {"driver": "COG", "width": WIDTH, "height": WIDTH, "count": 1, "dtype": "uint16", "crs": "EPSG:4326"}
    with warnings.catch_warnings(), rasterio.MemoryFile() as memory:
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # rasterio's use of affine
        place = from_bounds(10, 40, 11, 41, WIDTH, WIDTH)
        with memory.open(**profile, transform=place, blocksize=128, compress="deflate") as image:
            image.write(pixels)
        return bytes(memory.read())


def collection(name: str, **more: object) -> Json:
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": name,
        "description": f"All {name}.",
        "license": "CC-BY-4.0",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]},
        },
        "links": [{"rel": "self", "href": "./collection.json"}],
        **more,
    }


def item(name: str, of: str, assets: Mapping[str, Json], *, west: float = 10, day: int = 1, **more: object) -> Json:
    ring = [[west, 40], [west + 1, 40], [west + 1, 41], [west, 41], [west, 40]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "collection": of,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, 40, west + 1, 41],
        "properties": {"datetime": f"2024-05-{day:02}T10:00:00Z", "platform": "sentinel-2a"},
        "links": [{"rel": "self", "href": f"./{name}.json"}, {"rel": "collection", "href": "./collection.json"}],
        "assets": assets,
        **more,
    }


def feature(name: str = "DATA-06", urn: str = PRODUCT, **more: object) -> Json:
    """As REGARDS' search gives it."""
    file = {
        "dataType": "RAWDATA",
        "reference": False,
        "uri": "./raw.dat",
        "mimeType": "application/octet-stream",
        "online": True,
        "filesize": 6,
        "filename": "raw.dat",
        "types": [],
    }
    return {
        "id": urn,
        "providerId": name,
        "entityType": "DATA",
        "tags": [DATASET],
        "groups": ["secret-group"],
        "model": "scenes",
        "properties": {"datetime": "2024-05-20T00:00:00Z", "instruments": "MSI", "cloud": {"cover": 3}},
        "geometry": {"type": "Point", "coordinates": [2.0, 43.0]},
        "files": {"RAWDATA": [file]},
        **more,
    }


@dataclasses.dataclass(frozen=True)
class Archive:
    """A gateway, and what lies behind it."""

    gateway: RunningGateway
    root: Path
    locations: Mapping[str, Location]

    async def ingest(
        self, *entries: object, tenant: str = TENANT, default_collection: str | None = None
    ) -> list[Event]:
        """Take ``entries``, whose relative hrefs start from the root of the disk; what was odd about them."""
        path = self.root / f"{len(list(self.root.iterdir()))}.json"
        path.write_text("\n".join(json.dumps(entry) for entry in entries))
        return await self.ingest_files(path, tenant=tenant, default_collection=default_collection)

    async def ingest_files(
        self, *paths: Path, tenant: str = TENANT, default_collection: str | None = None
    ) -> list[Event]:
        events: list[Event] = []
        connection = await asyncpg.connect(self.gateway.config.database.dsn.get_secret_value())
        try:
            await ingest(
                connection,
                tenant=tenant,
                paths=paths,
                locations=list(self.locations.values()),
                default_collection=default_collection,
                compute_checksums=True,
                on_event=events.append,
            )
        finally:
            await connection.close()
        return [event for event in events if not isinstance(event, Progress)]

    async def json(self, path: str, who: Principal | None = None, **headers: str) -> Json:
        """The document at ``path``, or URL of the gateway."""
        response, body = await self.gateway.get(path.removeprefix(self.gateway.url), who, **headers)
        assert response.status == 200, (path, response.status, body)
        found: Json = json.loads(body)
        return found

    async def refused(self, path: str, who: Principal | None = None, **headers: str) -> tuple[int, Json]:
        """Status and error of a refusal at ``path``."""
        response, body = await self.gateway.get(path.removeprefix(self.gateway.url), who, **headers)
        assert response.headers["Content-Type"].startswith("application/json"), body
        return response.status, json.loads(body)


ArchiveFactory = Callable[..., contextlib.AbstractAsyncContextManager[Archive]]


@pytest.fixture
def archive_for(database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArchiveFactory:
    """Makes an archive whose store is an S3 server; options are those of ``[api]``."""
    go_offline(monkeypatch)

    @contextlib.asynccontextmanager
    async def make(account: Account, bucket: str = BUCKET, **api: object) -> AsyncIterator[Archive]:
        root = tmp_path / "disk"
        root.mkdir()
        store = {
            "name": "store",
            "plugin": "s3",
            "tenants": ["*"],
            "delivery": "redirect",
            "region": account.region,
            "buckets": [bucket],
            "endpoint": account.endpoint,
            "access_key_id": account.access_key_id,
            "secret_access_key": account.secret_access_key,
        }
        config = config_for(
            database,
            redis_url,
            root,
            api={"default_tenant": TENANT, **api},
            storage=[{"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root)}, store],
            redis={"url": redis_url, "timeout": 20},
        )
        async with running_gateway(config, root) as running, storage_locations(config.storage) as locations:
            catalogue = running.catalogue
            await catalogue.limit("anonymous")
            for name, group, public in (("restricted", SCIENCE, False), ("scenes", "everyone", True)):
                await catalogue.grant(name, await catalogue.group(group, public=public))
            yield Archive(running, root, locations)

    return make


@pytest.fixture
async def archive(archive_for: ArchiveFactory, strict: StrictS3) -> AsyncIterator[Archive]:
    """An archive with a scene on the disk (``near``), one in the store (``far``), one for the group ``science`` alone
    (``secret``), and one that REGARDS described (``DATA-06``).
    """
    strict.store.put(BUCKET, "far.tif", cog())
    async with archive_for(strict.account) as made:
        await fill(made)
        yield made


IMAGE = "image/tiff; application=geotiff; profile=cloud-optimized"


async def fill(made: Archive, bucket: str = BUCKET) -> None:
    """Take in what `archive` has; the object ``far.tif`` is in ``bucket``."""
    image = cog()
    for name, content in {"near.tif": image, "secret.tif": b"secret", "raw.dat": b"123456", "near.png": b"png"}.items():
        (made.root / name).write_bytes(content)
    near = {
        "visual": {"href": "./near.tif", "type": IMAGE, "roles": ["data"]},
        "thumbnail": {"href": "./near.png", "type": "image/png", "roles": ["thumbnail"]},
    }
    far = {"visual": {"href": f"s3://{bucket}/far.tif", "type": IMAGE, "roles": ["data"]}}
    secret = {"visual": {"href": "./secret.tif", "type": IMAGE, "roles": ["data"]}}
    told = await made.ingest(
        collection("scenes"),
        collection("restricted"),
        item("near", "scenes", near, day=1),
        item("far", "scenes", far, day=2, west=11),
        item("secret", "restricted", secret, day=3),
        item("secret too", "restricted", secret, day=4),
        feature(),
    )
    assert told == []
    catalogue = made.gateway.catalogue
    await catalogue.grant(DATASET, await catalogue.group("everyone", public=True))
