"""Workers with the plug-ins that restore: an operator's programs, a strict S3, a site with tapes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.config import Database as DatabaseSettings
from gateway.notifications import listening
from gateway.staging.worker import Workers, working
from gateway.storage import ByteStream, CanStage
from storage_plugins.command.plugin import CommandStorage
from storage_plugins.tape_rest.plugin import TapeRestStorage
from tests.s3.strict import StrictS3
from tests.staging.library import Library, content, open_library
from tests.staging.robot import Robot
from tests.storage_plugins import test_command
from tests.storage_plugins.tape_site import TapeFile, tape_site
from tests.storage_plugins.test_s3_strict import storage_at

SIZE = 1000


@pytest.fixture
async def library(database: str, tmp_path: Path) -> AsyncIterator[Library]:
    async with open_library(database, tmp_path / "cache") as opened:
        yield opened


@contextlib.asynccontextmanager
async def workers(library: Library, *storages: CanStage, cache: bool = True) -> AsyncIterator[Workers]:
    made = library.workers({str(getattr(one, "name")): one for one in storages}, cache=cache)  # noqa: B009
    async with listening(DatabaseSettings(dsn=SecretStr(library.dsn))) as notifications, working(made, notifications):
        yield made


async def files(library: Library, tmp_path: Path, count: int, storage: str, prefix: str = "") -> Mapping[int, str]:
    """Nearline files of ``storage``: their locations by their ids."""
    ids = await library.files(Robot(tmp_path / "unused"), count, size=SIZE)
    await library.pool.execute("UPDATE copies SET storage = $1, location = $2 || file_id::text", storage, prefix)
    return {one: f"{prefix}{one}" for one in ids}


async def restored(library: Library, restores: list[int]) -> None:
    for restore in restores:
        await library.become(restore, "RESTORED")


async def expired(library: Library, restores: list[int]) -> None:
    """Their time is over, and the storage was told so."""
    await library.pool.execute("UPDATE restores SET expires_at = now()")
    await library.pool.execute("UPDATE copies SET restored_until = now() WHERE restored_until IS NOT NULL")
    for restore in restores:
        await library.become(restore, "EXPIRED", clean=True)


async def test_programs_restore_into_the_cache(library: Library, tmp_path: Path) -> None:
    tapes = test_command.Library(tmp_path / "library")
    storage = CommandStorage.from_options(
        "reels",
        {
            **{action: tapes.program(action) for action in ("stage", "query", "release")},
            "staged_root": str(tapes.root / "disk"),
        },
    )
    wanted = await files(library, tmp_path, 3, "reels")
    for one, location in wanted.items():
        tapes.put(location, content(one, SIZE))
    async with workers(library, storage):
        restores = await library.ask(*wanted)
        async with asyncio.timeout(20):
            while len(list((tapes.root / "ordered").iterdir())) < 3:
                await asyncio.sleep(0.02)
        for location in wanted.values():
            tapes.arrive(location)
        await restored(library, restores)
        for one in wanted:
            assert await library.readable(one) == [content(one, SIZE)]
        await expired(library, restores)
        assert list((tapes.root / "disk").iterdir()) == []
    staged = [copy["location"] for asked in tapes.asked() if asked["action"] == "stage" for copy in asked["copies"]]
    assert sorted(staged) == sorted(wanted.values())
    await storage.close()


async def test_a_program_that_fetches_alone(library: Library, tmp_path: Path) -> None:
    tapes = test_command.Library(tmp_path / "library")
    storage = CommandStorage.from_options("reels", {"fetch": tapes.program("fetch")})
    wanted = await files(library, tmp_path, 2, "reels")
    for one, location in wanted.items():
        tapes.put(location, content(one, SIZE))
    tapes.put(wanted[min(wanted)], b"?" * SIZE)
    async with workers(library, storage):
        broken, good = await library.ask(*sorted(wanted))
        await library.become(good, "RESTORED")
        assert await library.readable(max(wanted)) == [content(max(wanted), SIZE)]
        await library.become(broken, "FAILED")
        assert await library.readable(min(wanted)) == []
    await storage.close()


async def test_objects_are_restored_where_they_are(library: Library, tmp_path: Path, strict: StrictS3) -> None:
    storage = storage_at(strict)
    wanted = await files(library, tmp_path, 3, "cloud", "bucket/")
    for one in wanted:
        strict.store.put("bucket", str(one), content(one, SIZE), storage_class="GLACIER")
    async with workers(library, storage, cache=False):
        restores = await library.ask(*wanted, hours=30)
        async with asyncio.timeout(20):
            while len([request for request in strict.requests if request.method == "POST"]) < 3:
                await asyncio.sleep(0.02)
        ready = (await library.row(restores[0]))["ready_at"]
        for one in wanted:
            strict.store.finish_restoration("bucket", str(one))
        await restored(library, restores)
        ends = await library.pool.fetch("SELECT restored_until FROM copies")
        now = datetime.datetime.now(datetime.UTC)
        assert all(29 <= (row["restored_until"] - now).total_seconds() / 3600 <= 30 for row in ends)
        one = next(iter(wanted))
        assert await bytes_of(await storage.stream(wanted[one], 0, SIZE, None)) == content(one, SIZE)
        # Until now, five hours were the best that was known; then it is what it was.
        assert ready is None or 4 < (ready - now).total_seconds() / 3600 <= 5
    assert len([request for request in strict.requests if request.method == "POST"]) == 3
    await storage.close()


async def test_files_of_a_site_are_restored_where_they_are(library: Library, tmp_path: Path) -> None:
    async with tape_site() as site:
        storage = TapeRestStorage.from_options("tapes", {"url": f"{site.front}/data", "token": "to-ken"})
        wanted = await files(library, tmp_path, 3, "tapes", "esa/")
        for one, location in wanted.items():
            site.files[f"/data/{location}"] = TapeFile(content(one, SIZE))
        async with workers(library, storage, cache=False):
            restores = await library.ask(*wanted)
            async with asyncio.timeout(20):
                while sum(map(len, site.requests.values())) < 3:
                    await asyncio.sleep(0.02)
            for path in site.files:
                site.arrive(path)
            await restored(library, restores)
            one = next(iter(wanted))
            assert await bytes_of(await storage.stream(wanted[one], 0, SIZE, None)) == content(one, SIZE)
            await expired(library, restores)
            assert not any(file.on_disk for file in site.files.values())
        assert sum(map(len, site.requests.values())) == 3
        await storage.close()


async def bytes_of(stream: ByteStream) -> bytes:
    pieces = []
    with contextlib.closing(stream):
        while piece := await stream.read():
            pieces.append(piece)
    return b"".join(pieces)
