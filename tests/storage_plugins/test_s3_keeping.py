"""The plug-in ``s3`` as a place for the cache of restored copies, with a real Swift."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.storage import CanKeep, CopyNotFoundError, CopyUnavailableError
from storage_plugins.s3 import keeping
from storage_plugins.s3.credentials import StaticCredentials
from storage_plugins.s3.options import Options
from storage_plugins.s3.plugin import S3Storage
from storage_plugins.s3.restore import Restorer
from storage_plugins.s3.sigv4 import Credentials
from tests.s3.swift import Swift
from tests.storage_plugins.test_s3_strict import read_all
from tests.storage_plugins.test_s3_swift import storage_at

CONTENT = random.Random(5).randbytes(1_000_017)


@pytest.fixture
async def storage(swift: Swift, bucket: str, tmp_path: Path) -> AsyncIterator[S3Storage]:
    storage = storage_at(swift, bucket, buckets=[f"{bucket}/cache"], scratch=str(tmp_path))
    yield storage
    await storage.close()


def new(storage: S3Storage, content: bytes) -> Path:
    assert storage.scratch is not None
    file = storage.scratch / "new"
    file.write_bytes(content)
    return file


async def listed(storage: S3Storage, seconds: float = -60) -> list[str]:
    return [location async for page in storage.kept(seconds) for location in page]


@pytest.mark.parametrize("size", [0, 1, 1_000_017])
async def test_what_is_kept_is_what_was_written(storage: S3Storage, size: int) -> None:
    assert isinstance(storage, CanKeep)
    file, location = new(storage, CONTENT[:size]), f"{storage.base}esa/ab/cd/1-1"
    stat = await storage.keep(file, location)
    assert (stat.size, file.exists()) == (size, False)
    assert await storage.stat(location) == stat
    if size:
        assert await read_all(await storage.stream(location, 0, size, stat.version)) == CONTENT[:size]
    assert await listed(storage) == [location]
    assert await listed(storage, 60) == []
    await storage.remove(location)
    await storage.remove(location)
    with pytest.raises(CopyNotFoundError):
        await storage.stat(location)


async def test_a_large_one_goes_in_parts(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SINGLE_BYTES", 1000)
    monkeypatch.setattr(keeping, "_PART_BYTES", 5 * 1024 * 1024)
    content = random.Random(6).randbytes(5 * 1024 * 1024 + 17)
    location = f"{storage.base}esa/ab/cd/1-1"
    stat = await storage.keep(new(storage, content), location)
    assert (stat.size, stat.version[-2:]) == (len(content), "-2")
    assert await read_all(await storage.stream(location, 0, len(content), stat.version)) == content


async def test_nothing_is_written_over(storage: S3Storage) -> None:
    location = f"{storage.base}esa/ab/cd/1-1"
    stat = await storage.keep(new(storage, b"one"), location)
    with pytest.raises(FileExistsError):
        await storage.keep(new(storage, b"other"), location)
    assert await storage.stat(location) == stat


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_what_breaks_off_leaves_nothing(storage: S3Storage, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(keeping, "SINGLE_BYTES", 1000)
    monkeypatch.setattr(keeping, "_PART_BYTES", 5 * 1024 * 1024)
    location, started = f"{storage.base}esa/ab/cd/1-1", asyncio.Event()
    send = keeping.Keeper._send

    async def sent(keeper: keeping.Keeper, method: str, piece: object, named: dict[str, object], *, new: bool) -> str:
        found = await send(keeper, method, piece, named, new=new)  # type: ignore[arg-type]
        started.set()
        if end == "failed":
            raise CopyUnavailableError("broken off")
        await asyncio.Event().wait()
        return found

    monkeypatch.setattr(keeping.Keeper, "_send", sent)
    file = new(storage, random.Random(6).randbytes(5 * 1024 * 1024 + 17))
    going = asyncio.create_task(storage.keep(file, location))
    await started.wait()
    if end == "cancelled":
        going.cancel()
    with pytest.raises((asyncio.CancelledError, CopyUnavailableError)):
        await going
    assert await listed(storage) == []
    restorer = storage._restorer
    assert restorer is not None
    client = await restorer.client()
    uploads = await client.list_multipart_uploads(Bucket=storage.base.partition("/")[0])
    assert uploads.get("Uploads", []) == []


async def test_uploads_of_the_dead_are_given_up(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await storage.remove(f"{storage.base}x")
    restorer, bucket = storage._restorer, storage.base.partition("/")[0]
    assert restorer is not None
    client = await restorer.client()
    await client.create_multipart_upload(Bucket=bucket, Key="cache/esa/ab/cd/1-1")
    await listed(storage)
    assert len((await client.list_multipart_uploads(Bucket=bucket))["Uploads"]) == 1
    monkeypatch.setattr(keeping, "_ABANDONED_SECONDS", -60.0)
    await listed(storage)
    assert (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads", []) == []


async def test_a_server_that_is_away_is_told(swift: Swift, bucket: str, tmp_path: Path) -> None:
    storage = storage_at(swift, bucket, endpoint="http://127.0.0.1:9", scratch=str(tmp_path))
    for call in (storage.keep(new(storage, b"x"), f"{bucket}/a"), storage.remove(f"{bucket}/a"), listed(storage)):
        with pytest.raises(CopyUnavailableError) as caught:
            await call
        assert "Signature" not in str(caught.value)
    await storage.close()


async def test_a_server_that_knows_no_conditions_is_asked_without(tmp_path: Path) -> None:
    asked: list[tuple[bool, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        conditional = "If-None-Match" in request.headers
        asked.append((conditional, await request.read()))
        return web.Response(status=501 if conditional else 200, headers={"ETag": '"1"'})

    app = web.Application()
    app.router.add_put("/{path:.*}", answer)
    async with TestServer(app) as server:
        options = {"endpoint": str(server.make_url("/")).rstrip("/"), "region": "x", "buckets": ["b"]}
        parsed = Options.parse({**options, "access_key_id": "a", "secret_access_key": "b"})
        control = Restorer(parsed, StaticCredentials(Credentials("a", "b")))
        keeper = keeping.Keeper(parsed, control)
        (tmp_path / "new").write_bytes(b"content")
        await keeper.put(tmp_path / "new", "b", "k")
        await keeper.close()
        await control.close()
    assert asked == [(True, b"content"), (False, b"content")]
