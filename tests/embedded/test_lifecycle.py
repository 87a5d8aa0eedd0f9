"""Nothing of the services outlives the program that asked for them, whoever runs it and however it ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.processes import (
    PROGRAM,
    ROOT,
    Process,
    alive,
    answer,
    command_line,
    copy_wheels,
    descendants,
    eventually,
    running,
    supervisor_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def test_a_normal_end() -> None:
    with running() as run:
        run.program.communicate(b"\n", timeout=20)
        assert run.program.returncode == 0
        assert run.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_to_the_programs_process_group(number: signal.Signals) -> None:
    with running() as run:
        assert len(run.servers) >= 2
        os.killpg(run.program.pid, number)  # as a terminal does with Ctrl-C
        run.program.wait(timeout=20)
        assert run.program.returncode == -number
        assert eventually(run.nothing_is_left)


@pytest.mark.parametrize("killed", [True, False])
def test_a_forked_process_that_holds_the_pipe_does_not_keep_the_services(killed: bool) -> None:
    with running("fork") as run:
        children = [process for process in descendants(run.program.pid) if process.parent == run.program.pid]
        forked = [process for process in children if process.pid != run.supervisor.pid]
        assert len(forked) == 1
        try:
            if killed:
                run.program.kill()
            else:
                assert run.program.stdin is not None
                run.program.stdin.write(b"\n")
                run.program.stdin.flush()
            run.program.wait(timeout=20)
            assert eventually(run.nothing_is_left)
        finally:
            if alive(forked):
                os.kill(forked[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_a_signal_to_the_supervisor_ends_the_servers(number: signal.Signals) -> None:
    with running() as run:
        assert await answer(run.services)
        os.kill(run.supervisor.pid, number)
        assert eventually(lambda: not alive([run.supervisor, *run.servers]))
        run.program.communicate(b"\n", timeout=20)
        assert run.nothing_is_left()


@pytest.mark.parametrize("stage", ["supervisor", "initdb", "valkey-server"])
def test_killed_while_the_servers_start(stage: str) -> None:
    seen: list[Process] = []

    def stage_is_reached() -> bool:
        seen[:] = descendants(program.pid)
        return any(stage in " ".join(command_line(process)[:5]) for process in seen)

    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as program:
        assert eventually(stage_is_reached)
        supervisor = supervisor_of(program.pid)
        assert supervisor is not None
        directory = Path(command_line(supervisor)[-4])
        assert directory.name.startswith("gateway-")
        program.kill()
        assert eventually(lambda: not alive(seen) and not directory.exists())
        assert program.stdout is not None
        assert program.stdout.read() == b""


@as_root
async def test_as_root_the_servers_run_as_somebody_else() -> None:
    with running() as run:
        owners = {Path(f"/proc/{process.pid}").stat().st_uid for process in alive(run.servers)}
        assert len(owners) == 1
        assert owners != {0}


@pytest.fixture
def readable_site() -> Iterator[Path]:
    """A directory that every user may read, with this package and the wheels."""
    site = Path(tempfile.mkdtemp())
    try:
        site.chmod(0o755)
        copy_wheels(site)
        shutil.copytree(ROOT / "gateway", site / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
        yield site
    finally:
        shutil.rmtree(site)


@as_root
async def test_an_ordinary_user_without_a_home(readable_site: Path) -> None:
    account = pwd.getpwnam("nobody")
    environment = {"HOME": "/nonexistent", "PYTHONPATH": str(readable_site)}
    with running(python=_python_for(account), account=account, environment=environment) as run:
        assert {Path(f"/proc/{process.pid}").stat().st_uid for process in alive(run.servers)} == {account.pw_uid}
        assert run.services.directory.stat().st_uid == account.pw_uid
        assert not (run.services.directory / "embedded_postgres").exists()
        assert await answer(run.services)
        run.program.kill()
        assert eventually(run.nothing_is_left)


def _python_for(account: pwd.struct_passwd) -> str:
    """An interpreter that the account may run; ours may stand in a home of mode 0700."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", "import sys; assert sys.version_info >= (3, 11)"],
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                check=True,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip(f"{account.pw_name} may run no Python 3.11 or later on this machine")


@as_root
async def test_wheels_below_a_directory_that_only_root_may_enter(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    copy_wheels(home)
    before = {path: path.stat() for path in (tmp_path, *tmp_path.rglob("*"))}
    with running(environment={"PYTHONPATH": f"{ROOT}:{home}"}) as run:
        programs = {Path(f"/proc/{process.pid}/exe").readlink() for process in alive(run.servers)}
        assert programs
        assert all(program.is_relative_to(run.services.directory) for program in programs)
        assert await answer(run.services)
        run.program.communicate(b"\n", timeout=20)
        assert run.nothing_is_left()
    after = {path: path.stat() for path in (tmp_path, *tmp_path.rglob("*"))}
    assert {path: (s.st_mode, s.st_uid) for path, s in after.items()} == {
        path: (s.st_mode, s.st_uid) for path, s in before.items()
    }
