"""What the doctor finds of the cache of restored copies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config import load
from gateway.doctor.cache import look_at_cache
from gateway.doctor.findings import Finding
from tests.commands.support import Stand, findings, problems, warnings


def settings(stand: Stand, *storages: dict[str, object], **staging: object) -> Path:
    table: Mapping[str, object] = {"cache": "disk", "cache_size": 1_000_000, **staging}
    return stand.configure(*storages, staging=table)


async def look(config: Path) -> list[Finding]:
    return await findings(look_at_cache(load(config)))


async def test_a_cache_in_order(stand: Stand) -> None:
    found = await look(settings(stand))
    assert [finding.level for finding in found] == ["ok", "ok"]
    assert found[0].text == "files are kept, found and removed"
    assert "cache_size is 0.0 GiB" in found[1].text
    assert [path for path in stand.root.rglob("*") if path.is_file()] == []


async def test_a_cache_larger_than_its_disk(stand: Stand) -> None:
    (text,) = warnings(await look(settings(stand, cache_size=2**60)))
    assert "the disk is full before the cache is" in text


async def test_a_storage_that_cannot_keep(stand: Stand) -> None:
    web: dict[str, object] = {"name": "disk", "plugin": "http", "tenants": ["*"], "hosts": ["data.example.org"]}
    (text,) = problems(await look(settings(stand, web)))
    assert text == "the plug-in of storage 'disk' cannot keep files; take 'local' or 's3'"


async def test_a_bucket_needs_a_folder_for_new_files(stand: Stand) -> None:
    bucket: dict[str, object] = {
        "name": "disk",
        "plugin": "s3",
        "tenants": ["*"],
        "region": "x",
        "buckets": ["b"],
        "profile": "none",
    }
    (text,) = problems(await look(settings(stand, bucket)))
    assert "needs the option 'scratch'" in text


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="needs another file system")
async def test_a_folder_on_another_disk(stand: Stand) -> None:
    scratch = Path("/dev/shm") / f"gateway-test-{os.getpid()}"
    try:
        (text,) = problems(await look(settings(stand, stand.disk(scratch=str(scratch)))))
    finally:
        scratch.rmdir()
    assert "are on different file systems" in text


async def test_tenants_and_prefixes_that_do_not_fit(stand: Stand) -> None:
    (text,) = warnings(await look(settings(stand, stand.disk(tenants=["esa"]), stand.disk(name="x", tenants=["cnes"]))))
    assert "serves no files of tenant 'cnes'" in text
