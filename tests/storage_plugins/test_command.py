"""The plug-in ``command`` with real programs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigurationError
from gateway.storage import (
    CanFetch,
    CanStage,
    CanStat,
    CanStream,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    KnowsTape,
    OnDisk,
    StageState,
    TapePosition,
    ToStage,
)
from storage_plugins.command.contract import AnswerError, positions, states
from storage_plugins.command.plugin import CommandStorage, InPlaceCommandStorage
from storage_plugins.command.programs import MOST_BYTES, ProgramError, Programs
from tests.storage_plugins.support import CONTENT, OUTSIDE, descriptors, until

SCRIPT = Path(__file__).with_name("tape_programs.py")
ACTIONS = ("stage", "query", "release", "fetch", "order")
NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
Make = Callable[..., CommandStorage]
TEXT = st.text(max_size=20) | st.sampled_from(
    ["a", "b", "ONLINE", "STAGING", "LOST", "/d/a", "2030-01-31T12:00:00Z", "\0"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
COPY = st.fixed_dictionaries(
    {"key": st.sampled_from(["a", "b", "c"]) | ANYTHING},
    optional={
        **dict.fromkeys(("error", "retry", "tape", "position", "more"), ANYTHING),
        "state": st.sampled_from(["ONLINE", "STAGING", "NEARLINE", "LOST", "FAILED"]) | ANYTHING,
        "until": st.datetimes().map(lambda it: f"{it.isoformat()}+23:59") | ANYTHING,
        "ready": st.floats() | st.integers() | ANYTHING,
        "path": TEXT.map(lambda it: f"/{it}") | ANYTHING,
    },
)


class Library:
    """The directory of `tape_programs`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("tape", "disk", "ordered", "cache"):
            (root / name).mkdir(parents=True)

    def program(self, action: str) -> list[str]:
        return [sys.executable, "-S", str(SCRIPT), action, str(self.root)]

    def put(self, name: str, content: bytes = CONTENT) -> None:
        (self.root / "tape" / name).write_bytes(content)

    def arrive(self, name: str) -> Path:
        """The tape was read."""
        target = self.root / "disk" / name
        target.write_bytes((self.root / "tape" / name).read_bytes())
        return target

    def behave(self, how: str) -> None:
        (self.root / "behave").write_text(how)

    def answer(self, answer: object) -> None:
        (self.root / "answer").write_bytes(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    @property
    def journal(self) -> list[Mapping[str, Any]]:
        file = self.root / "journal"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def asked(self) -> list[Mapping[str, Any]]:
        return [entry for entry in self.journal if "action" in entry]

    def started(self) -> list[int]:
        return [entry["pid"] for entry in self.journal if "pid" in entry]

    def children(self) -> list[int]:
        return [entry["child"] for entry in self.journal if "child" in entry]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


@pytest.fixture
async def make(library: Library) -> AsyncIterator[Make]:
    """Makes storages with all programs; an option that is None is left out."""
    made: list[CommandStorage] = []

    def of(**options: object) -> CommandStorage:
        given = {
            **{action: library.program(action) for action in ACTIONS},
            "staged_root": str(library.root / "disk"),
            **options,
        }
        storage = CommandStorage.from_options("hsm", {name: it for name, it in given.items() if it is not None})
        made.append(storage)
        return storage

    yield of
    for storage in made:
        await storage.close()


def copy_of(name: str, size: int | None = None) -> ToStage:
    return ToStage(f"7/{name}", name, size, 3600)


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a zombie is one."""
    return Path(f"/proc/{pid}").exists()


class TestContract:
    async def test_from_tape_to_disk_and_back(self, library: Library, make: Make) -> None:
        storage = make()
        library.put("a-1")
        copy, gone = copy_of("a-1", len(CONTENT)), copy_of("gone")
        before = datetime.datetime.now(datetime.UTC)
        assert (await storage.staged([copy]))[copy.key] == StageState("NEARLINE")
        found = await storage.stage([copy, gone])
        ready = found[copy.key].ready
        assert ready is not None
        assert 80 < (ready - before).total_seconds() < 120
        assert found == {
            copy.key: StageState("STAGING", ready=ready),
            gone.key: StageState("LOST", error="no such file on any tape"),
        }
        assert library.asked()[-1] == {
            "version": 1,
            "action": "stage",
            "copies": [
                {"key": "7/a-1", "location": "a-1", "size": len(CONTENT), "seconds": 3600},
                {"key": "7/gone", "location": "gone", "size": None, "seconds": 3600},
            ],
        }
        path = library.arrive("a-1")
        online = (await storage.staged([copy]))[copy.key]
        assert online == StageState("ONLINE", until=datetime.datetime(2035, 1, 31, 12, tzinfo=datetime.UTC), path=path)
        target = library.root / "cache" / "new"
        await storage.fetch(copy, online, target)
        assert target.read_bytes() == CONTENT
        await storage.release([copy])
        assert (await storage.staged([copy]))[copy.key] == StageState("NEARLINE")
        assert [asked["action"] for asked in library.asked()] == [
            "query", "stage", "query", "fetch", "release", "query",
        ]  # fmt: skip
        assert not any(map(is_alive, library.started()))

    async def test_positions(self, make: Make) -> None:
        storage = make()
        assert isinstance(storage, KnowsTape)
        found = await storage.positions(["A00001-7", "A00002-3", "nowhere"])
        assert found == {"A00001-7": TapePosition("A00001", 7), "A00002-3": TapePosition("A00002", 3)}
        assert await make(order=None).positions(["A00001-7"]) == {}

    async def test_programs_that_are_not_there(self, library: Library, make: Make) -> None:
        library.put("a")
        copy = copy_of("a")
        alone = make(stage=None, query=None, release=None, order=None, staged_root=None)
        assert await alone.stage([copy]) == await alone.staged([copy]) == {copy.key: StageState("ONLINE")}
        await alone.release([copy])
        target = library.root / "cache" / "new"
        await alone.fetch(copy, StageState("ONLINE"), target)
        assert target.read_bytes() == CONTENT
        assert [asked["action"] for asked in library.asked()] == ["fetch"]
        without_query = make(query=None)
        assert (await without_query.staged([copy]))[copy.key].state == "STAGING"
        assert library.asked()[-1]["action"] == "stage"

    async def test_nothing_is_asked_about_nothing(self, library: Library, make: Make) -> None:
        storage = make()
        assert await storage.stage([]) == await storage.staged([]) == {}
        assert await storage.positions([]) == {}
        await storage.release([])
        assert library.journal == []

    async def test_the_environment_is_a_clean_one(
        self, library: Library, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GATEWAY_DATABASE__DSN", "postgresql://secret")
        await make(environment={"HSM_HOST": "tape1"}).positions(["a-1"])
        seen = library.journal[0]["environment"]
        assert seen.pop("HSM_HOST") == "tape1"
        assert set(seen) <= {"PATH", "LANG", "LC_CTYPE"}  # the last is of Python's own

    async def test_capabilities(self, make: Make, library: Library) -> None:
        fetched = make()
        placed = make(in_place=True, root=str(library.root / "disk"), staged_root=None, fetch=None)
        for capability, of_fetched, of_placed in (
            (CanStage, True, True),
            (CanFetch, True, False),
            (OnDisk, False, True),
            (CanStat, False, True),
            (CanStream, False, False),
            (KnowsTape, True, True),
        ):
            assert isinstance(fetched, capability) is of_fetched
            assert isinstance(placed, capability) is of_placed
        assert not fetched.in_place
        assert isinstance(placed, InPlaceCommandStorage)
        assert placed.in_place
        assert make(batch=7).stage_batch == 7


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            (b"", "the answer is no JSON"),
            (b"\xff{", "the answer is no JSON"),
            (b"[" * 100_000, "the answer is no JSON"),
            (b"[]", "the answer is no JSON object with an array 'copies'"),
            ({"copies": {}}, "the answer is no JSON object with an array 'copies'"),
            ({"version": 2, "copies": []}, "the answer has version 2 instead of 1"),
            ({"copies": ["a"]}, "the answer has a copy that is no object with a text 'key'"),
            ({"copies": [{"key": "a", "state": "ONLINE"}] * 2}, "the answer has the copy 'a' twice"),
            ({"copies": [{"key": "a"}]}, "copy 'a': state is None, none of ONLINE, STAGING"),
            ({"copies": [{"key": "a", "state": "online"}]}, "copy 'a': state is 'online', none of"),
            ({"copies": [{"key": "a", "state": ["ONLINE"]}]}, "copy 'a': state is ['ONLINE'], none of"),
            ({"copies": [{"key": "a", "state": "FAILED", "error": 5}]}, "copy 'a': error must be text"),
            ({"copies": [{"key": "a", "state": "FAILED", "retry": "no"}]}, "copy 'a': retry must be true or false"),
            ({"copies": [{"key": "a", "state": "ONLINE", "until": "2030-01-01T00:00:00"}]}, "copy 'a': until is '2030"),
            ({"copies": [{"key": "a", "state": "STAGING", "ready": True}]}, "copy 'a': ready is True, neither"),
            ({"copies": [{"key": "a", "state": "STAGING", "ready": 1e300}]}, "copy 'a': ready is too far away"),
            ({"copies": [{"key": "a", "state": "STAGING", "ready": 10**400}]}, "copy 'a': ready is too far away"),
            ({"copies": [{"key": "a", "state": "STAGING", "ready": float("nan")}]}, "copy 'a': ready is too far away"),
            ({"copies": [{"key": "a", "state": "ONLINE", "until": "0001-01-01T00:00:00+23:59"}]}, "copy 'a': until is"),
            ({"copies": [{"key": "a", "state": "ONLINE", "path": "disk/a"}]}, "copy 'a': path is 'disk/a', no abs"),
            ({"copies": [{"key": "a", "state": "ONLINE", "path": "/d/../e"}]}, "copy 'a': path '/d/../e' has a seg"),
        ],
    )  # fmt: skip
    def test_what_is_malformed_is_named(self, answer: object, complaint: str) -> None:
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        with pytest.raises(AnswerError) as caught:
            states(raw, {"a"}, NOW)
        assert str(caught.value).startswith(complaint)
        assert isinstance(caught.value, CopyUnavailableError)

    def test_others_do_not_count_and_errors_are_harmless(self) -> None:
        copies = [
            {"key": "a", "state": "FAILED", "error": "\x1b[31m" + "x" * 5000, "retry": False, "more": 1},
            {"key": "other", "state": "what?"},
        ]
        found = states(json.dumps({"copies": copies}).encode(), {"a", "b"}, NOW)["a"]
        assert (found.state, found.retry) == ("FAILED", False)
        assert found.error is not None
        assert found.error.startswith("\\x1b[31mxxx")
        assert len(found.error) == 500

    @given(
        st.one_of(
            st.binary(),
            ANYTHING.map(lambda it: json.dumps(it).encode()),
            st.lists(COPY).map(lambda copies: json.dumps({"copies": copies}).encode()),
        )
    )
    def test_whatever_is_answered_it_is_states_of_these_copies_or_an_error(self, answer: bytes) -> None:
        reads: tuple[Callable[[], Mapping[str, object]], ...] = (
            lambda: states(answer, {"a", "b"}, NOW),
            lambda: positions(answer, {"a", "b"}),
        )
        for read in reads:
            try:
                found = read()
            except AnswerError as error:
                told = str(error)
                found = {}
            else:
                told = ""
            assert told.isprintable()
            assert len(told) < 500
            assert set(found) <= {"a", "b"}
            for state in found.values():
                if isinstance(state, StageState):
                    for moment in (state.until, state.ready):
                        assert moment is None or moment.tzinfo is datetime.UTC
                    assert state.path is None or (state.path.is_absolute() and ".." not in state.path.parts)
                    assert len(state.error or "") <= 500

    def test_moments(self) -> None:
        copies = [
            {"key": "a", "state": "STAGING", "ready": 60.5},
            {"key": "b", "state": "ONLINE", "until": "2030-01-01T02:00:00+02:00"},
        ]
        found = states(json.dumps({"version": 1, "copies": copies}).encode(), {"a", "b"}, NOW)
        assert found["a"].ready == NOW + datetime.timedelta(seconds=60.5)
        assert found["b"].until == NOW

    @pytest.mark.parametrize(
        "copy", [{"tape": 5}, {"tape": "A", "position": "1"}, {"tape": "A", "position": 2**63}, {"tape": "A\0"}]
    )
    def test_positions_that_are_none(self, copy: dict[str, object]) -> None:
        with pytest.raises(AnswerError, match="copy 'a': "):
            positions(json.dumps({"copies": [{"key": "a", **copy}]}).encode(), {"a"})

    async def test_the_error_names_the_program(self, library: Library, make: Make) -> None:
        library.answer(b"Stage of 1 file(s) begun.\n")
        for ask in (make().stage([copy_of("a")]), make().positions(["a"])):
            with pytest.raises(CopyUnavailableError, match=rf"{sys.executable}: the answer is no JSON"):
                await ask

    async def test_a_path_elsewhere_is_a_failure(self, library: Library, make: Make) -> None:
        secret = library.root / "secret"
        secret.write_bytes(OUTSIDE)
        library.answer({"copies": [{"key": "7/a", "state": "ONLINE", "path": str(secret)}]})
        for options in ({}, {"staged_root": None}):
            state = (await make(**options).stage([copy_of("a")]))["7/a"]
            assert (state.state, state.retry, state.path) == ("FAILED", False, None)


class TestPrograms:
    async def test_failures_tell_the_end_of_stderr(self, library: Library, make: Make) -> None:
        storage = make()
        library.behave("fail")
        with pytest.raises(ProgramError) as caught:
            await storage.stage([copy_of("a")])
        text = str(caught.value)
        assert text.startswith(f"{sys.executable}: exit status 3: line one / ")
        assert text.endswith("line one / no drive is free / \\x1b[31mthe last line")
        library.behave("die")
        with pytest.raises(ProgramError, match="ended by SIGKILL"):
            await storage.stage([copy_of("a")])

    async def test_one_that_floods_is_ended(self, library: Library, make: Make) -> None:
        library.behave("flood")
        with pytest.raises(ProgramError, match=f"answers more than {MOST_BYTES} bytes"):
            await make().stage([copy_of("a")])
        await until(lambda: not any(map(is_alive, library.started())))

    async def test_one_that_hangs_is_ended_with_its_children(self, library: Library, make: Make) -> None:
        library.behave("hang with a child")
        storage = make(timeout=1.5)
        storage._commands._programs._grace = 0.1
        with pytest.raises(ProgramError, match=r"did not end within 1.5 s"):
            await storage.stage([copy_of("a")])
        await until(lambda: not any(map(runs, library.children())))
        assert not any(map(is_alive, library.started()))

    async def test_one_that_cannot_be_killed_holds_nobody_up(
        self, library: Library, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library.behave("hang with a child")
        storage = make(timeout=1.5)
        storage._commands._programs._grace = 0.1
        open_before = descriptors()
        with monkeypatch.context() as patched:
            patched.setattr("storage_plugins.command.programs._DYING_SECONDS", 0.1)
            patched.setattr("storage_plugins.command.programs._Run._signal", lambda *_: None)
            with pytest.raises(ProgramError, match=r"did not end within 1.5 s"):
                async with asyncio.timeout(30):
                    await storage.stage([copy_of("a")])
        for process in (*library.started(), *library.children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        await until(lambda: not any(map(is_alive, library.started())) and descriptors() <= open_before)

    async def test_one_that_is_cancelled_is_ended_with_its_children(self, library: Library, make: Make) -> None:
        library.behave("hang with a child")
        storage = make()
        storage._commands._programs._grace = 0.1
        open_before = descriptors()
        task = asyncio.create_task(storage.stage([copy_of("a")]))
        await until(lambda: bool(library.children()))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(map(is_alive, library.started()))
        [child] = library.children()
        await until(lambda: not runs(child))
        await until(lambda: descriptors() == open_before)

    async def test_cancelled_at_any_moment_nothing_is_left(self, library: Library, make: Make) -> None:
        storage = make()
        library.put("a")
        open_before, children_before = descriptors(), children_of_ours()
        for turns in range(0, 24, 2):
            task = asyncio.create_task(storage.stage([copy_of("a")]))
            for _ in range(turns):
                await asyncio.sleep(0.001 if turns > 8 else 0)
            task.cancel()
            await asyncio.wait([task])
        # Neighbours that other tests have started are children, too.
        await until(lambda: children_of_ours() <= children_before)
        await until(lambda: descriptors() == open_before)
        assert (await storage.stage([copy_of("a")]))["7/a"].state == "STAGING"

    async def test_a_child_that_is_left_behind_does_not_keep_the_answer_back(
        self, library: Library, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storage_plugins.command.programs._DRAIN_SECONDS", 0.1)
        library.behave("leave a child")
        library.put("a")
        assert (await make().stage([copy_of("a")]))["7/a"].state == "STAGING"
        [child] = library.children()
        assert is_alive(child)
        os.kill(child, signal.SIGKILL)

    async def test_no_more_than_allowed_run_at_a_time(self, library: Library, make: Make) -> None:
        storage = make(programs=2)
        library.behave("hang")
        tasks = [asyncio.create_task(storage.stage([copy_of(str(number))])) for number in range(5)]
        await until(lambda: len(library.started()) == 2)
        await asyncio.sleep(0.2)
        assert len(library.started()) == 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert not any(map(is_alive, library.started()))

    async def test_closing_ends_what_runs(self, library: Library, make: Make) -> None:
        storage = make()
        library.behave("hang")
        task = asyncio.create_task(storage.stage([copy_of("a")]))
        await until(lambda: len(library.started()) == 1)
        await storage.close()
        with pytest.raises(ProgramError, match="ended by SIGKILL"):
            await task
        assert not any(map(is_alive, library.started()))

    async def test_the_loop_goes_on_meanwhile(self, library: Library, make: Make) -> None:
        storage = make()
        library.behave("hang")
        task = asyncio.create_task(storage.stage([copy_of("a")]))
        await until(lambda: len(library.started()) == 1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    async def test_one_that_reads_nothing_and_one_that_vanished(self, tmp_path: Path) -> None:
        programs = Programs({}, most=1)
        assert await programs.run(["/bin/sh", "-c", "echo hello"], b"x" * 500_000, seconds=10) == b"hello\n"
        with pytest.raises(ProgramError, match=f"{tmp_path}/none: cannot be started: No such file or directory"):
            await programs.run([f"{tmp_path}/none"], b"", seconds=10)
        (tmp_path / "text").write_text("no program")
        (tmp_path / "text").chmod(0o755)
        with pytest.raises(ProgramError, match="cannot be started: Exec format error"):
            await programs.run([f"{tmp_path}/text"], b"", seconds=10)


def runs(pid: int) -> bool:
    """Whether a process of somebody else still does anything: who adopted it may not have looked after it yet."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def children_of_ours() -> set[str]:
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


class TestFetch:
    async def test_restored_files_are_copied_without_a_program(self, library: Library, make: Make) -> None:
        storage = make(fetch=None)
        library.put("a")
        path = library.arrive("a")
        for number, state in enumerate((StageState("ONLINE", path=path), StageState("ONLINE"))):
            target = library.root / "cache" / f"new-{number}"
            await storage.fetch(copy_of("a"), state, target)
            assert target.read_bytes() == CONTENT
            with pytest.raises(FileExistsError):
                await storage.fetch(copy_of("a"), state, target)

    async def test_where_the_kernel_does_not_copy(
        self, library: Library, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> int:
            raise OSError(errno.EXDEV, "other file systems")

        monkeypatch.setattr(os, "copy_file_range", refuse)
        library.put("a")
        target = library.root / "cache" / "new"
        await make(fetch=None).fetch(copy_of("a"), StageState("ONLINE", path=library.arrive("a")), target)
        assert target.read_bytes() == CONTENT

    async def test_links_lead_nowhere(self, library: Library, make: Make) -> None:
        storage = make(fetch=None)
        (library.root / "outside").mkdir()
        (library.root / "outside" / "secret").write_bytes(OUTSIDE)
        (library.root / "disk" / "link").symlink_to(library.root / "outside" / "secret")
        (library.root / "disk" / "folder").symlink_to(library.root / "outside")
        target = library.root / "cache" / "new"
        for name in ("link", "folder/secret", "absent"):
            state = StageState("ONLINE", path=library.root / "disk" / name)
            with pytest.raises(CopyNotFoundError):
                await storage.fetch(copy_of(name), state, target)
        state = StageState("ONLINE", path=library.root / "outside" / "secret")
        with pytest.raises(CopyUnavailableError, match="is not below"):
            await storage.fetch(copy_of("a"), state, target)
        assert not target.exists()

    async def test_a_disk_that_is_full(self, library: Library, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        library.put("a")
        path = library.arrive("a")
        monkeypatch.setattr(os, "copy_file_range", full)
        with pytest.raises(OSError, match="No space left") as caught:
            await make(fetch=None).fetch(copy_of("a"), StageState("ONLINE", path=path), library.root / "cache" / "new")
        assert caught.value.errno == errno.ENOSPC

    async def test_a_program_that_fails_where_the_disk_is_full(self, library: Library, make: Make) -> None:
        library.behave("full")
        target = library.root / "cache" / "new"
        with pytest.raises(OSError, match="No space left") as caught:
            await make().fetch(copy_of("a", size=2**62), StageState("ONLINE"), target)
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(ProgramError, match="exit status 1"):
            await make().fetch(copy_of("a", size=1), StageState("ONLINE"), target)

    async def test_a_program_may_say_that_it_cannot(self, library: Library, make: Make) -> None:
        storage = make()
        target = library.root / "cache" / "new"
        kinds: tuple[tuple[str, type[Exception]], ...] = (
            ("LOST", CopyNotFoundError),
            ("NEARLINE", CopyOfflineError),
            ("STAGING", CopyOfflineError),
            ("FAILED", CopyUnavailableError),
        )
        for state, kind in kinds:
            library.answer({"copies": [{"key": "7/a", "state": state, "error": "eaten"}]})
            with pytest.raises(kind, match="eaten"):
                await storage.fetch(copy_of("a"), StageState("ONLINE"), target)
        library.answer({"copies": []})
        with pytest.raises(CopyUnavailableError, match="wrote no regular file"):
            await storage.fetch(copy_of("a"), StageState("ONLINE"), target)
        target.symlink_to("/etc/hostname")
        with pytest.raises(CopyUnavailableError, match="wrote no regular file"):
            await storage.fetch(copy_of("a"), StageState("ONLINE"), target)

    async def test_a_copy_that_is_cancelled_ends(
        self, library: Library, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storage_plugins.command.copying._STEP_BYTES", 16)
        storage = make(fetch=None)
        library.put("a")
        path = library.arrive("a")
        target = library.root / "cache" / "new"
        task = asyncio.create_task(storage.fetch(copy_of("a"), StageState("ONLINE", path=path), target))
        await until(target.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        size = target.stat().st_size
        assert size < len(CONTENT)
        await asyncio.sleep(0.05)
        assert target.stat().st_size == size

    async def test_fetching_waits_for_no_question(self, library: Library, make: Make) -> None:
        storage = make(programs=1)
        library.behave("hang")
        asking = asyncio.create_task(storage.stage([copy_of("a")]))
        await until(lambda: len(library.started()) == 1)
        library.behave("")
        library.put("a")
        await storage.fetch(copy_of("a"), StageState("ONLINE"), library.root / "cache" / "new")
        asking.cancel()
        await asyncio.wait([asking])


class TestInPlace:
    async def test_files_are_read_where_they_are(self, library: Library, make: Make) -> None:
        disk = library.root / "disk"
        storage = make(in_place=True, root=str(disk), staged_root=None, fetch=None)
        assert isinstance(storage, InPlaceCommandStorage)
        library.put("a")
        library.arrive("a")
        assert storage.locate(f"{disk}/a") == storage.locate(f"file://{disk}/a") == storage.locate("tape://a") == "a"
        assert storage.locate("/elsewhere/a") is None
        state = (await storage.staged([copy_of("a")]))["7/a"]
        assert (state.state, state.path) == ("ONLINE", None)
        assert (await storage.stat("a")).size == len(CONTENT)
        file = await storage.open("a", 0, 5)
        assert (file.head, await storage.read(file, 5, 5)) == (CONTENT[:5], CONTENT[5:10])
        file.close()

    async def test_a_stub_is_offline(self, library: Library, make: Make) -> None:
        disk = library.root / "disk"
        with (disk / "stub").open("wb") as stub:
            stub.truncate(10_000_000)
        (disk / "whole").write_bytes(CONTENT)
        common = {"in_place": True, "root": str(disk), "staged_root": None, "fetch": None}
        storage = make(**common, sparse_is_offline=True)
        assert isinstance(storage, InPlaceCommandStorage)
        assert (await storage.stat("stub")).size == 10_000_000
        before = descriptors()
        with pytest.raises(CopyOfflineError):
            await storage.open("stub", 0, 10)
        assert descriptors() == before
        file = await storage.open("whole", 3, 10)
        assert file.head == CONTENT[3:13]
        file.close()
        other = make(**common)
        assert isinstance(other, InPlaceCommandStorage)
        (await other.open("stub")).close()


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"stgae": ["/bin/true"], "Root": "/"}, "Root, stgae: no such option of plug-in 'command' (stage, query, "),
            ({"stage": "/bin/true"}, 'stage: must be a list with a program and what it is given: ["/opt/hsm/stage"]'),
            ({"stage": []}, "stage: must be a list"),
            ({"stage": [""]}, "stage: must be a list"),
            ({"stage": ["/bin/true", 5]}, "stage: must be a list"),
            ({"stage": ["/bin/true", "a\0"]}, "stage: has a NUL"),
            ({"stage": ["/absent/program"]}, "stage: '/absent/program' is no program, or may not be run"),
            ({"stage": ["bin/true"]}, "stage: 'bin/true' is no program, or may not be run"),
            ({"stage": ["/etc/passwd"]}, "stage: '/etc/passwd' is no program, or may not be run"),
            ({"stage": None, "fetch": None, "query": None, "release": None}, "stage: is missing"),
            ({"stage": None}, "query: is of no use without stage"),
            ({"stage": None, "query": None}, "release: is of no use without stage"),
            ({"staged_root": None, "fetch": None}, "staged_root: must be the directory with restored copies, or fetch"),
            ({"staged_root": "disk"}, "staged_root: must be the absolute path of a directory"),
            ({"staged_root": "/absent"}, "staged_root: /absent is not a directory, or may not be read"),
            ({"root": "/tmp"}, "in_place, root: go together"),
            ({"in_place": True}, "in_place, root: go together"),
            ({"in_place": "yes"}, "in_place: must be true or false"),
            ({"in_place": True, "root": "/tmp"}, "in_place: copies are read where they are, fetch and staged_root"),
            ({"scheme": "TAPE"}, "scheme: must be the scheme of its hrefs in small letters"),
            ({"scheme": "s3"}, "scheme: must be the scheme of its hrefs in small letters"),
            ({"prefix": "archive"}, "prefix: must be text with a slash at its end"),
            ({"timeout": "5"}, "timeout: must be a number of seconds from 0.05 to 3600"),
            ({"programs": 0}, "programs: must be a whole number from 1 to 64"),
            ({"batch": 1.5}, "batch: must be a whole number from 1 to 1000"),
            ({"environment": {"A B": "x"}}, "environment: 'A B' must be the name of a variable, and its value text"),
            ({"environment": {"A": 5}}, "environment: 'A' must be the name of a variable, and its value text"),
            ({"environment": "A=5"}, "environment: must be a table of variables"),
        ],
    )
    async def test_what_is_wrong_is_named(self, make: Make, options: dict[str, object], complaint: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            make(**options)
        assert str(caught.value).startswith(complaint)

    async def test_secrets_of_programs_are_not_shown(self, make: Make) -> None:
        assert "hush" not in repr(make(environment={"PASSWORD": "hush"})._options)

    @pytest.mark.parametrize(
        ("href", "location"),
        [
            ("tape://archive/esa/a b%20é", "esa/a b%20é"),
            ("TAPE://archive/a", "a"),
            ("tape://archive/", None),
            ("tape://other/a", None),
            ("tape:/archive/a", None),
            ("s3://archive/a", None),
            ("/archive/a", None),
            ("tape://archive/a\0b", None),
        ],
    )
    async def test_hrefs(self, make: Make, href: str, location: str | None) -> None:
        assert make(prefix="archive/").locate(href) == location

    async def test_hrefs_with_dot_segments_are_malformed(self, make: Make) -> None:
        with pytest.raises(ValueError, match="segment"):
            make().locate("tape://archive/../etc")
        assert make(scheme="hsm").locate("hsm://archive/a") == "archive/a"
