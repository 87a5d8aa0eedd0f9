"""What workers do with restores: they are asked for once, polled, fetched, kept, given back, and end well or not."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.storage import StageState, TapePosition, ToStage
from tests.proxy import counting_proxy
from tests.staging.library import Library, content, open_library
from tests.staging.robot import DOWN, Glacier, OrderedRobot, Robot

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))


@pytest.fixture
async def library(database: str, tmp_path: Path) -> AsyncIterator[Library]:
    async with open_library(database, tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return Robot(tmp_path / "library")


async def test_a_restore_is_asked_for_polled_fetched_and_kept(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.seconds = 0.3
    async with library.working(robot):
        (restore,) = await library.ask(file, hours=2)
        row = await library.become(restore, "RESTORED")
        assert await library.readable(file) == [content(file, 1000)]
        assert 7000 < (row["expires_at"] - row["restored_at"]).total_seconds() <= 7200
        assert row["ready_at"] is not None
        assert robot.asked_for("stage") == [f"{restore}:{file}"]
        assert len(robot.asked_for("staged")) >= 1
        async with asyncio.timeout(10):
            while not robot.asked_for("release"):  # it lies in the cache: the storage need not keep it
                await asyncio.sleep(0.02)
        (copy,) = await library.pool.fetch("SELECT * FROM copies WHERE entry_id IS NOT NULL")
        assert copy["verified_version"] == copy["version"]
        assert copy["size"] == 1000
        assert copy["restored_until"] == row["expires_at"]


async def test_in_place_a_copy_is_readable_where_it_lies(library: Library, tmp_path: Path) -> None:
    glacier = Glacier(tmp_path / "glacier", seconds=0.2)
    (file,) = await library.files(glacier, 1)
    async with library.working(glacier, cache=False):
        (restore,) = await library.ask(file)
        row = await library.become(restore, "RESTORED")
        (copy,) = await library.pool.fetch("SELECT * FROM copies")
        assert copy["restored_until"] == row["expires_at"]
        assert glacier.asked_for("fetch") == []
        # It ends: the copy is not readable any more, and the storage is told.
        await library.pool.execute("UPDATE copies SET restored_until = now()")
        await library.pool.execute("UPDATE restores SET expires_at = now()")
        await library.become(restore, "EXPIRED", clean=True)
        assert glacier.asked_for("release") == [f"{restore}:{file}"]
        assert await library.pool.fetchval("SELECT restored_until FROM copies") is None


async def test_what_the_storage_takes_back_too_soon_is_asked_for_again_in_time(
    library: Library, tmp_path: Path
) -> None:
    glacier = Glacier(tmp_path / "glacier")
    glacier.lasts = 2
    (file,) = await library.files(glacier, 1)
    async with library.working(glacier, cache=False):
        (restore,) = await library.ask(file)
        first = (await library.become(restore, "RESTORED"))["expires_at"]
        async with asyncio.timeout(20):
            while (await library.row(restore))["expires_at"] <= first:
                await asyncio.sleep(0.05)
        assert (await library.row(restore))["state"] == "RESTORED"


async def test_wanted_longer(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    async with library.working(robot):
        (restore,) = await library.ask(file, hours=1)
        first = (await library.become(restore, "RESTORED"))["expires_at"]
        await library.pool.execute("UPDATE restores SET wanted_until = now() + interval '5 h', due_at = now()")
        async with asyncio.timeout(10):
            while (await library.row(restore))["expires_at"] <= first:
                await asyncio.sleep(0.02)
        row = await library.row(restore)
        assert row["expires_at"] == row["wanted_until"]
        until = await library.pool.fetchval("SELECT restored_until FROM copies WHERE entry_id IS NOT NULL")
        assert until == row["expires_at"]
        assert len(robot.asked_for("stage")) == 1


async def test_an_expired_copy_goes_row_first(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    async with library.working(robot):
        (restore,) = await library.ask(file)
        await library.become(restore, "RESTORED")
        await library.pool.execute("UPDATE restores SET expires_at = now()")
        await library.become(restore, "EXPIRED", clean=True)
        assert await library.pool.fetchval("SELECT count(*) FROM copies WHERE entry_id IS NOT NULL") == 0
        assert list(library.folder.rglob("*-*")) == []
        # And it can be restored again.
        (again,) = await library.ask(file)
        await library.become(again, "RESTORED")


async def test_what_was_called_off_is_given_back_and_a_new_wish_waits_for_that(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.fetch_seconds = 60
    async with library.working(robot, lease=1):
        (restore,) = await library.ask(file)
        async with asyncio.timeout(20):
            while not robot.asked_for("fetch"):
                await asyncio.sleep(0.02)
        await library.cancel(restore)
        robot.fetch_seconds = 0
        (again,) = await library.ask(file)
        await library.become(again, "RESTORED")
    done = [(what, edge, key) for what, edge, key, _, _ in robot.journal() if what in ("fetch", "release", "stage")]
    old, new = f"{restore}:{file}", f"{again}:{file}"
    assert (
        done.index(("fetch", "end", old)) < done.index(("release", "begin", old)) < done.index(("stage", "begin", new))
    )


async def test_failures_are_tried_again_and_end_at_last(library: Library, robot: Robot) -> None:
    well, badly, never = await library.files(robot, 3)
    robot.answers = {
        str(well): StageState("FAILED", error="drive"),
        str(badly): StageState("FAILED", error="drive"),
        str(never): StageState("FAILED", error="no", retry=False),
    }
    async with library.working(robot):
        one, two, three = await library.ask(well, badly, never)
        assert (await library.become(three, "FAILED"))["tries"] == 1
        async with asyncio.timeout(20):
            while (await library.row(one))["tries"] < 1:
                await asyncio.sleep(0.01)
        del robot.answers[str(well)]
        row = await library.become(one, "RESTORED")
        assert (row["tries"], row["error"]) == (0, None)
        row = await library.become(two, "FAILED", clean=True)
        assert (row["tries"], row["error"]) == (3, "drive")
        assert robot.locations("stage").count(str(badly)) == 3


async def test_a_storage_that_does_not_answer_is_no_failure_of_the_copies(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.down = DOWN
    async with library.working(robot):
        (restore,) = await library.ask(file)
        async with asyncio.timeout(30):
            while len(robot.asked_for("stage")) < 5:
                await asyncio.sleep(0.02)
        row = await library.row(restore)
        assert (row["state"], row["tries"]) == ("STAGING", 0)
        assert row["error"] == "the library is closed"
        robot.down = None
        await library.become(restore, "RESTORED")


async def test_a_lost_copy_is_marked_and_another_one_is_restored(
    library: Library, robot: Robot, tmp_path: Path
) -> None:
    other = Robot(tmp_path / "other")
    other.name = "other"
    (file,) = await library.files(robot, 1)
    await library.pool.execute(
        "INSERT INTO copies (file_id, storage, location, state) VALUES ($1, 'other', '7', 'NEARLINE')", file
    )
    other.put("7", content(file, 1000))
    (robot.folder / "tape" / str(file)).unlink()
    async with library.working(robot, other):
        (restore,) = await library.ask(file)
        await library.become(restore, "RESTORED")
        assert await library.readable(file) == [content(file, 1000)]
        states = await library.pool.fetch("SELECT storage, state FROM copies WHERE entry_id IS NULL ORDER BY copy_id")
        assert [tuple(row) for row in states] == [("tape", "LOST"), ("other", "NEARLINE")]


async def test_wrong_bytes_are_never_kept(library: Library, robot: Robot, caplog: pytest.LogCaptureFixture) -> None:
    (file,) = await library.files(robot, 1)
    await library.pool.execute("UPDATE copies SET version = 'v1'")
    robot.put(str(file), content(file + 1, 1000))
    async with library.working(robot) as workers:
        (restore,) = await library.ask(file)
        row = await library.become(restore, "FAILED", clean=True)
        assert row["error"].startswith("broken")
        assert await library.readable(file) == []
        assert await library.pool.fetchval("SELECT broken_version FROM copies") == "v1"
        assert workers.broken == 1
    assert "alarm: a copy is broken" in caplog.text


async def test_what_can_have_no_room_fails_and_what_has_none_yet_waits(library: Library, robot: Robot) -> None:
    unknown, large, *files = await library.files(robot, 6)
    await library.pool.execute("UPDATE files SET size = NULL WHERE file_id = $1", unknown)
    await library.pool.execute("UPDATE files SET size = 5000 WHERE file_id = $1", large)
    library.cache.size = 2000
    async with library.working(robot):
        one, two = await library.ask(unknown, large)
        assert "size is not known" in (await library.become(one, "FAILED"))["error"]
        assert "larger than the cache" in (await library.become(two, "FAILED"))["error"]
        restores = await library.ask(*files)
        await library.pool.execute("UPDATE restore_wishes SET pinned_until = now() + interval '1 h'")
        async with asyncio.timeout(20):
            while (await library.states()).get("RESTORED", 0) + (await library.states()).get("EXPIRED", 0) < 2:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(20):  # who is unpinned goes, and others come
            while (await library.states()).get("QUEUED", 0):
                await library.pool.execute("DELETE FROM restore_wishes")
                await asyncio.sleep(0.05)
        assert len(restores) == 4
        used = await library.pool.fetchval("SELECT used FROM caches")
        assert used <= 2000


async def test_a_full_disk_is_waited_for(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.fetch_error = OSError(errno.ENOSPC, "No space left on device")
    async with library.working(robot):
        (restore,) = await library.ask(file)
        async with asyncio.timeout(20):
            while "No space left" not in ((await library.row(restore))["error"] or ""):
                await asyncio.sleep(0.02)
        assert (await library.row(restore))["tries"] == 0
        robot.fetch_error = None
        await library.pool.execute("UPDATE restores SET due_at = now()")
        await library.become(restore, "RESTORED")


async def test_urgent_ones_first_then_as_they_lie_on_tape(library: Library, tmp_path: Path) -> None:
    robot = OrderedRobot(tmp_path / "library")
    robot.stage_batch = 2
    ids = await library.files(robot, 6)
    places = ["b2", "a9", "?1", "a1", "b1", "a5"]
    for file, place in zip(ids, places, strict=True):
        await library.pool.execute("UPDATE copies SET location = $2 WHERE file_id = $1", file, place)
        robot.put(place, content(file, 1000))
    await library.ask(*ids[:5], priority=5)
    await library.ask(ids[5], priority=1)
    async with library.working(robot, store_files=2):
        await library.all_become("RESTORED")
    assert robot.locations("stage") == ["a5", "?1", "a1", "a9", "b1", "b2"]
    assert robot.asked == 6


async def test_no_more_under_way_than_a_storage_bears(library: Library, robot: Robot) -> None:
    files = await library.files(robot, 9)
    robot.seconds = 0.3
    async with library.working(robot, store_files=3, workers=2) as _:
        await library.ask(*files)
        most = 0
        async with asyncio.timeout(30):
            while (states := await library.states()) != {"RESTORED": 9}:
                most = max(most, states.get("STAGING", 0))
                await asyncio.sleep(0.01)
    assert 1 <= most <= 3
    assert sorted(robot.locations("stage")) == sorted(map(str, files))


async def test_a_worker_that_ends_leaves_all_to_others(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.fetch_seconds = 60
    async with library.working(robot, lease=600):
        (restore,) = await library.ask(file)
        async with asyncio.timeout(20):
            while not robot.asked_for("fetch"):
                await asyncio.sleep(0.02)
    assert not list(library.folder.rglob("*-*"))
    robot.fetch_seconds = 0
    async with library.working(robot, lease=600):
        await library.become(restore, "RESTORED")
    assert robot.asked_for("fetch") == [f"{restore}:{file}"] * 2


async def test_past_restores_are_forgotten(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    async with library.working(robot):
        (restore,) = await library.ask(file)
        await library.become(restore, "RESTORED")
        await library.pool.execute("UPDATE restores SET expires_at = now()")
        await library.become(restore, "EXPIRED", clean=True)
    await library.pool.execute("UPDATE restores SET ended_at = now() - interval '31 days'")
    async with library.working(robot):
        async with asyncio.timeout(10):
            while await library.pool.fetchval("SELECT count(*) FROM restores"):
                await asyncio.sleep(0.02)


async def test_what_lies_where_its_tenant_may_not_have_files_is_never_restored(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    library.prefixes = ("other/",)
    async with library.working(robot):
        (restore,) = await library.ask(file)
        row = await library.become(restore, "FAILED", clean=True)
        assert "may not" in row["error"]
    assert robot.asked_for("stage") == []


async def test_what_is_over_is_not_extended(library: Library, tmp_path: Path) -> None:
    glacier = Glacier(tmp_path / "glacier")
    (file,) = await library.files(glacier, 1)
    async with library.working(glacier, cache=False):
        (restore,) = await library.ask(file)
        await library.become(restore, "RESTORED")
        # As a download does that finds nothing there.
        await library.pool.execute("UPDATE restores SET expires_at = now(), wanted_until = NULL, due_at = now()")
        await library.become(restore, "EXPIRED", clean=True)
    assert glacier.asked_for("stage") == [f"{restore}:{file}"]


async def test_what_an_ingest_took_away_ends(library: Library, tmp_path: Path) -> None:
    glacier = Glacier(tmp_path / "glacier")
    mine, other = await library.files(glacier, 2)
    async with library.working(glacier, cache=False):
        one, two = await library.ask(mine, other)
        await library.become(one, "RESTORED")
        await library.become(two, "RESTORED")
    await library.pool.execute("UPDATE copies SET restored_until = NULL WHERE file_id = $1", mine)
    async with library.working(glacier, cache=False):
        await library.become(one, "EXPIRED", clean=True)
        assert (await library.row(two))["state"] == "RESTORED"
        await library.become((await library.ask(mine))[0], "RESTORED")


async def test_restores_of_a_storage_that_cannot_restore_end(library: Library, robot: Robot) -> None:
    waiting, canceled = await library.files(robot, 2)
    one, two = await library.ask(waiting, canceled)
    await library.pool.execute("UPDATE restores SET storage = 'gone', requested_at = now() - interval '2 h'")
    await library.pool.execute(
        "UPDATE restores SET state = 'CANCELED', ended_at = now() - interval '2 h', asked = true, roomed = true "
        "WHERE restore_id = $1",
        two,
    )
    async with library.working(robot):
        assert (await library.become(one, "FAILED"))["error"] == "its storage restores nothing"
        await library.become(two, "CANCELED", clean=True)


async def test_what_a_plug_in_says_nothing_of_is_asked_again(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.answers = {str(file): None}
    async with library.working(robot):
        (restore,) = await library.ask(file)
        async with asyncio.timeout(20):
            while len(robot.asked_for("stage")) < 3:
                await asyncio.sleep(0.02)
        assert (await library.row(restore))["tries"] == 0
        robot.answers.clear()
        await library.become(restore, "RESTORED")


async def test_a_plug_in_that_fails_does_not_end_the_workers(library: Library, robot: Robot) -> None:
    badly, well = await library.files(robot, 2)
    robot.answers = {str(badly): ZeroDivisionError("a bug")}
    async with library.working(robot):
        (one,) = await library.ask(badly)
        assert (await library.become(one, "FAILED"))["error"] == "the plug-in failed"
        (two,) = await library.ask(well)
        await library.become(two, "RESTORED")


async def test_a_file_that_cannot_be_read_fails_though_its_storage_answers(library: Library, robot: Robot) -> None:
    (file,) = await library.files(robot, 1)
    robot.fetch_error = DOWN
    async with library.working(robot):
        (restore,) = await library.ask(file)
        row = await library.become(restore, "FAILED", clean=True)
        assert (row["tries"], row["error"]) == (3, "the library is closed")


async def test_a_storage_is_told_at_once_that_the_cache_has_it_however_long_that_takes(
    library: Library, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = robot.release

    async def slowly(copies: Sequence[ToStage]) -> None:
        await asyncio.sleep(1)  # signs of life are shown meanwhile
        await released(copies)

    monkeypatch.setattr(robot, "release", slowly)
    (file,) = await library.files(robot, 1)
    async with library.working(robot, lease=1):
        (restore,) = await library.ask(file)
        await untold(library, restore)
    assert robot.asked_for("release") == [f"{restore}:{file}"]


async def test_a_storage_that_could_not_be_told_is_told_later(
    library: Library, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    async def refusing(_: Sequence[ToStage]) -> None:
        nonlocal refused
        refused += 1
        raise DOWN

    (file,) = await library.files(robot, 1)
    async with library.working(robot, retry=0.2):
        with monkeypatch.context() as patched:
            patched.setattr(robot, "release", refusing)
            (restore,) = await library.ask(file)
            async with asyncio.timeout(20):
                while refused < 2:
                    await asyncio.sleep(0.02)
            assert (await library.row(restore))["state"] == "RESTORED"
            assert await library.readable(file) == [content(file, 1000)]
        await untold(library, restore)
        assert (await library.row(restore))["state"] == "RESTORED"
    assert robot.asked_for("release") == robot.asked_for("stage") == [f"{restore}:{file}"]


async def test_a_worker_that_dies_before_the_storage_is_told_leaves_that_to_others(
    library: Library, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hanging(_: Sequence[ToStage]) -> None:
        asked.set()
        await asyncio.Event().wait()

    (file,) = await library.files(robot, 1)
    with monkeypatch.context() as patched:
        patched.setattr(robot, "release", hanging)
        async with library.working(robot, lease=600):
            (restore,) = await library.ask(file)
            async with asyncio.timeout(20):
                await asked.wait()
    async with library.working(robot):
        await untold(library, restore)
    assert robot.asked_for("release") == [f"{restore}:{file}"]


async def untold(library: Library, restore: int) -> None:
    """Wait until the storage has been told."""
    async with asyncio.timeout(20):
        while (row := await library.row(restore))["state"] != "RESTORED" or row["asked"] or row["lease"]:
            await asyncio.sleep(0.02)


async def test_where_copies_lie_need_not_be_told(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = OrderedRobot(tmp_path / "library")

    async def failing(_: Sequence[str]) -> dict[str, TapePosition]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(robot, "positions", failing)
    (file,) = await library.files(robot, 1)
    async with library.working(robot):
        (restore,) = await library.ask(file)
        await library.become(restore, "RESTORED")


async def test_postgresql_goes_away_and_comes_back(library: Library, robot: Robot, tmp_path: Path) -> None:
    files = await library.files(robot, 12 if FULL else 6)
    robot.seconds, robot.fetch_seconds = 0.2, 0.4
    async with (
        counting_proxy(library.dsn) as (proxy, url),
        open_library(url, tmp_path / "cache", fetches=2) as through,
        through.working(robot, fetches=2),
    ):
        restores = await library.ask(*files)
        async with asyncio.timeout(30):
            while len(robot.asked_for("fetch")) < 3:
                await asyncio.sleep(0.02)
        for _ in range(2 if FULL else 1):
            proxy.shut = True
            proxy.cut()
            # All leases end meanwhile, and whoever works on something lets go of it.
            async with asyncio.timeout(30):
                while await library.pool.fetchval("SELECT count(*) FROM restores WHERE lease_until > now()"):
                    await asyncio.sleep(0.05)
            proxy.shut = False
            done = (await library.states()).get("RESTORED", 0)
            async with asyncio.timeout(30):
                while (await library.states()).get("RESTORED", 0) < min(done + 2, len(files)):
                    await asyncio.sleep(0.02)
        for restore in restores:
            row = await library.become(restore, "RESTORED")
            assert row["tries"] == 0
        await asyncio.gather(*(untold(library, restore) for restore in restores))
    for file in files:
        assert await library.readable(file) == [content(file, 1000)]
    assert await library.pool.fetchval("SELECT used FROM caches") == 1000 * len(files)
    assert len(list(library.folder.rglob("*-*"))) == len(files)
    begun = set[str]()
    for what, edge, key, _, _ in robot.journal():
        if what == "fetch":  # never twice at a time
            assert (key in begun) == (edge == "end")
            (begun.add if edge == "begin" else begun.remove)(key)
