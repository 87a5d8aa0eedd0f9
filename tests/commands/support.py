"""Commands of ``gateway``, run in a thread of the test beside its servers, or as processes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click.testing
import redis

from gateway.cli import main
from gateway.conformance.checks import CHECKS
from gateway.doctor.findings import Finding, Findings
from gateway.embedded.binaries import locate
from tests.faults.process import to_toml
from tests.harness import SECRET, Catalogue
from tests.s3.strict import StrictS3

ROOT = Path(__file__).parents[2]
PUBLIC_URL = "https://data.example.org"
BUCKET = "archive"
_LINE = re.compile(r"(pass|fail|warning|skip) +(.*?)(?:: .*)? \[(.*)\]")


@dataclasses.dataclass(frozen=True)
class Stand:
    """Settings, a catalogue, and a directory with files."""

    directory: Path
    database: str
    redis_url: str
    catalogue: Catalogue

    @property
    def root(self) -> Path:
        return self.catalogue.root

    def disk(self, **options: object) -> dict[str, object]:
        """A ``[[storage]]`` table for the directory."""
        return {"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(self.root), **options}

    def configure(self, *storages: dict[str, object], **sections: Mapping[str, object]) -> Path:
        """Write a configuration; ``disk`` is its storage unless others are given."""
        file = self.directory / "gateway.toml"
        tables: dict[str, Any] = {
            "database": {"dsn": self.database},
            "redis": {"url": self.redis_url},
            "identity.jwt": [{"algorithms": ["HS256"], "secret": SECRET}],
            "api": {"public_url": PUBLIC_URL},
            "storage": list(storages) or [self.disk()],
            **sections,
        }
        file.write_text(to_toml(tables), encoding="utf-8")
        return file


def s3_storage(strict: StrictS3, name: str = "store", **options: object) -> dict[str, object]:
    """A ``[[storage]]`` table for the strict server."""
    account = strict.account
    return {
        "name": name,
        "plugin": "s3",
        "tenants": ["*"],
        "region": account.region,
        "buckets": [BUCKET],
        "endpoint": account.endpoint,
        "access_key_id": account.access_key_id,
        "secret_access_key": account.secret_access_key,
        **({"ca_file": str(account.ca_file)} if account.ca_file else {}),
        **options,
    }


async def run(*arguments: str | Path) -> click.testing.Result:
    """Run a command on a loop of its own."""
    result = await asyncio.to_thread(click.testing.CliRunner().invoke, main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start a command as a process; whoever starts it waits for its end."""
    paths = [str(ROOT), *filter(None, [environment.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")])]
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
    )


async def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Status and outputs of a process that ends by itself."""
    with process:
        try:
            output, errors = await asyncio.to_thread(process.communicate, timeout=30)
        finally:
            process.kill()
    return process.returncode, output, errors


async def findings(looking: Findings) -> list[Finding]:
    """All that a look finds."""
    return [finding async for finding in looking]


def problems(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.level == "problem"]


def warnings(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.level == "warning"]


@contextlib.contextmanager
def valkey(*options: str) -> Iterator[str]:
    """A Valkey of our own that keeps what it has on disk, with more options; its URL."""
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/socket"
        command: list[str | Path] = [
            locate().valkey, "--port", "0", "--unixsocket", socket, "--dir", directory,
            "--save", "", "--appendonly", "yes", *options,
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + 20
                with redis.Redis(unix_socket_path=socket) as client:
                    while True:
                        with contextlib.suppress(redis.RedisError):
                            client.ping()
                            break
                        assert process.poll() is None, "Valkey ended as it started"
                        assert time.monotonic() < deadline, "Valkey does not answer"
                        time.sleep(0.02)
                yield f"unix://{socket}"
            finally:
                process.kill()


def outcomes(done: click.testing.Result) -> dict[str, set[str]]:
    """Names of checks of ``gateway conformance`` by what they found."""
    found: dict[str, set[str]] = {"pass": set(), "fail": set(), "warning": set(), "skip": set()}
    for line in done.output.splitlines():
        if match := _LINE.fullmatch(line):
            found[match[1]].add(next(check.name for check in CHECKS if match[2].startswith(check.name)))
    assert sum(map(len, found.values())) == len(CHECKS), done.output
    return found
