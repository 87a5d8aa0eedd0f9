"""Download clients that resume: each runs once, as a user would start it again after a broken transfer."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import requests

RUN_SECONDS = 40
REQUIRE_CLIENTS = "GATEWAY_TEST_REQUIRE_CLIENTS"
"""Set where a missing client is a failure: in continuous integration."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One file to fetch into a directory that holds nothing else, or what an earlier run left there."""

    url: str
    directory: Path
    headers: dict[str, str]

    @property
    def path(self) -> Path:
        """Where clients put it: the last segment of the URL is its name."""
        return self.directory / self.url.rpartition("/")[2]


Client = Callable[[Job], Awaitable[bool]]
"""Runs once; whether the client says that the file is whole."""


def _command(program: str, *options: str) -> Client:
    async def run(job: Job) -> bool:
        found = shutil.which(program)
        if found is None:
            if os.environ.get(REQUIRE_CLIENTS):
                pytest.fail(f"{program} is missing, and this run must have it")
            pytest.skip(f"{program} is not installed")
        fields = [f"--header={name}: {value}" for name, value in job.headers.items()]
        if program == "curl":
            fields = [part for name, value in job.headers.items() for part in ("--header", f"{name}: {value}")]
        process = await asyncio.create_subprocess_exec(
            found,
            *(option.format(name=job.path.name) for option in options),
            *fields,
            job.url,
            cwd=job.directory,
            env={"PATH": os.environ["PATH"], "HOME": str(job.directory), "LC_ALL": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            return await asyncio.wait_for(process.wait(), RUN_SECONDS) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return run


curl = _command("curl", "--disable", "--silent", "--fail", "--continue-at", "-", "--remote-name")
wget = _command("wget", "--no-config", "--quiet", "--tries=1", "--continue")
aria2c = _command(
    "aria2c",
    "--no-conf",
    "--quiet",
    "--continue=true",
    "--max-connection-per-server=4",
    "--split=4",
    "--min-split-size=1M",
    "--max-tries=1",
    "--file-allocation=none",
    "--out={name}",
)


async def requests_loop(job: Job) -> bool:
    """The loop that people write with Python requests: Range from what is there, If-Range with the tag it came with."""
    return await asyncio.to_thread(_fetch, job)


def _fetch(job: Job) -> bool:
    tag = job.path.with_name(f"{job.path.name}.etag")
    have = job.path.stat().st_size if job.path.exists() and tag.exists() else 0
    headers = {**job.headers, "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    with requests.Session() as session, contextlib.suppress(requests.RequestException):
        session.trust_env = False
        with session.get(job.url, headers=headers, stream=True, timeout=RUN_SECONDS) as response:
            if response.status_code not in (200, 206) or "Content-Length" not in response.headers:
                return False  # http.client takes a header that was cut for a whole one
            if response.status_code == 200:
                tag.write_text(response.headers["ETag"])
            with job.path.open("ab" if response.status_code == 206 else "wb") as file:
                for piece in response.iter_content(64 * 1024):
                    file.write(piece)
        return True
    return False


CLIENTS: dict[str, Client] = {"curl": curl, "wget": wget, "aria2c": aria2c, "requests": requests_loop}
