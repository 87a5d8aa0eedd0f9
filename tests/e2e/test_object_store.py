"""An archive in an object store, as its operator and its users meet it: ingest, serve, and real clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.harness import SCIENTIST, SECRET, TENANT, Catalogue, bearer
from tests.s3.swift import Swift

KEYS = ["S2A/2026/scene.tif", "odd/a b+c%2F~é日//x&y=z;#?.tif"]
BYTES = random.Random(37).randbytes(300_000)
LARGE = (5 << 30) if "GATEWAY_TEST_FULL" in os.environ else (512 << 20)
"""Bytes of a file that no memory may hold."""


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def serving(config: Path, directory: Path) -> Iterator[tuple[str, int]]:
    """``gateway serve``: its URL and process id."""
    log = directory / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "gateway", "serve", "--config", config], stderr=output)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search("serving on (http://[^ \n]+)\n", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait(20)
        assert "Traceback" not in log.read_text()
        assert "X-Amz-Signature" not in log.read_text()


def configuration(directory: Path, swift: Swift, bucket: str, database: str, redis_url: str) -> Path:
    config = directory / "gateway.toml"
    config.write_text(f"""
        [server]
        port = 0
        shutdown_timeout = 1
        [database]
        dsn = "{database}"
        [redis]
        url = "{redis_url}"
        [[identity.jwt]]
        algorithms = ["HS256"]
        secret = "{SECRET}"
        [[storage]]
        name = "objects"
        plugin = "s3"
        tenants = ["{TENANT}"]
        region = "{swift.region}"
        endpoint = "{swift.endpoint}"
        buckets = ["{bucket}"]
        access_key_id = "{swift.access_key_id}"
        secret_access_key = "{swift.secret_access_key}"
    """)
    return config


async def catalogue_of(directory: Path, swift: Swift, bucket: str, database: str) -> Path:
    """Put the objects and write an Item about them."""
    for key in KEYS:
        await swift.put(bucket, key, BYTES)
    await swift.put_large(bucket, "large.bin", LARGE, {LARGE - 5: b"the e"})
    assets = {f"asset-{number}": {"href": f"s3://{bucket}/{key}", "roles": ["data"]} for number, key in enumerate(KEYS)}
    assets["large"] = {"href": f"s3://{bucket}/large.bin", "roles": ["data"]}
    item: dict[str, object] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "scene",
        "collection": "s2",
        "geometry": None,
        "properties": {"datetime": "2026-11-01T00:00:00Z"},
        "links": [],
        "assets": assets,
    }
    file = directory / "item.json"
    file.write_text(json.dumps(item))
    return file


async def grant(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        catalogue = Catalogue(connection, Path("/nowhere"))
        await catalogue.grant("s2", await catalogue.group("science"))
    finally:
        await connection.close()


def resident(pid: int) -> int:
    """Most memory that the process ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


async def execute(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, command
    return output.decode()


@pytest.mark.timeout(180)
async def test_an_archive_in_an_object_store_is_ingested_verified_and_fetched(
    swift: Swift, bucket: str, database: str, redis_url: str, tmp_path: Path
) -> None:
    config = configuration(tmp_path, swift, bucket, database, redis_url)
    item = await catalogue_of(tmp_path, swift, bucket, database)
    header = f"Authorization: {bearer(SCIENTIST)['Authorization']}"
    run("ingest", "--config", config, "--tenant", TENANT, item)
    await grant(database)
    with serving(config, tmp_path) as (url, pid):
        download = f"{url}/collections/s2/items/scene/download"
        for asset in ("asset-0", "asset-1"):
            got = tmp_path / asset
            told = await execute(
                "curl", "-fsSL", "-H", header, "-o", str(got), "-w", "%{num_redirects}", f"{download}/{asset}"
            )  # fmt: skip
            assert (told, hashlib.sha256(got.read_bytes()).digest()) == ("1", hashlib.sha256(BYTES).digest())
            told = await execute(
                "curl", "-fsSL", "-A", "other/1.0", "-r", "1000-1999", "-H", header, "-o", str(got), "-w",
                "%{num_redirects} %{http_code}", f"{download}/{asset}",
            )  # fmt: skip
            assert (told, got.read_bytes()) == ("0 206", BYTES[1000:2000])
        before = resident(pid)
        told = await execute(
            "curl", "-fsS", "-A", "other/1.0", "-H", header, "-o", "/dev/null", "-w", "%{size_download}",
            f"{download}/large",
        )  # fmt: skip
        assert int(told) == LARGE
        assert resident(pid) - before < 64 << 20


async def test_an_ingest_with_checksums_reads_the_objects(
    swift: Swift, bucket: str, database: str, redis_url: str, tmp_path: Path
) -> None:
    config = configuration(tmp_path, swift, bucket, database, redis_url)
    await swift.put(bucket, KEYS[0], BYTES)
    item: dict[str, object] = {
        "type": "Feature", "stac_version": "1.0.0", "id": "scene", "collection": "s2", "geometry": None,
        "properties": {"datetime": "2026-11-01T00:00:00Z"}, "links": [],
        "assets": {"data": {"href": f"s3://{bucket}/{KEYS[0]}", "roles": ["data"]}},
    }  # fmt: skip
    (tmp_path / "item.json").write_text(json.dumps(item))
    run("ingest", "--config", config, "--tenant", TENANT, "--checksum", tmp_path / "item.json")
    connection = await asyncpg.connect(database)
    try:
        row = await connection.fetchrow(
            "SELECT checksum, f.size, c.version = c.verified_version AS verified "
            "FROM files f JOIN copies c USING (file_id)"
        )
        assert row is not None
        assert tuple(row) == (hashlib.sha256(BYTES).hexdigest(), len(BYTES), True)
    finally:
        await connection.close()
