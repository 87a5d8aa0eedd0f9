"""Real clients fetch, with their token in a header, through a storage that can redirect to a store as strict as S3."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest
import requests

from tests.harness import SCIENTIST, bearer
from tests.upstream.conftest import MEBIBYTE, Stand, StandFactory

BYTES = random.Random(23).randbytes(5 * MEBIBYTE)
REQUIRED = "GATEWAY_TEST_REQUIRE_CLIENTS" in os.environ


def by_requests(url: str, token: str, target: Path) -> None:
    answer = requests.get(url, headers={"Authorization": token}, timeout=20)
    answer.raise_for_status()
    target.write_bytes(answer.content)


def by_httpx(url: str, token: str, target: Path) -> None:
    with httpx.Client(follow_redirects=True, trust_env=False) as client:
        answer = client.get(url, headers={"Authorization": token})
        answer.raise_for_status()
        target.write_bytes(answer.content)


def by_urllib(url: str, token: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"Authorization": token})
    with urllib.request.urlopen(request, timeout=20) as answer:
        target.write_bytes(answer.read())


LIBRARIES = {"requests": by_requests, "httpx": by_httpx, "urllib": by_urllib}


def command(client: str, url: str, token: str, target: Path) -> list[str]:
    header = f"Authorization: {token}"
    return {
        "curl": ["curl", "-fsSL", "-H", header, "-o", str(target), url],
        "wget": ["wget", "-q", f"--header={header}", "-O", str(target), url],
        "aria2c": ["aria2c", "-q", "-x4", "-s4", "-k1M", "--no-conf", f"--header={header}", f"--dir={target.parent}",
                   f"--out={target.name}", url],
    }[client]  # fmt: skip


async def fetch(client: str, stand: Stand, path: str, target: Path) -> None:
    url, token = f"{stand.gateway.url}{path}", bearer(SCIENTIST)["Authorization"]
    if client in LIBRARIES:
        await asyncio.to_thread(LIBRARIES[client], url, token, target)
        return
    if shutil.which(client) is None and not REQUIRED:
        pytest.skip(f"{client} is not installed")
    process = await asyncio.create_subprocess_exec(*command(client, url, token, target), stderr=sys.stderr)
    assert await asyncio.wait_for(process.wait(), 30) == 0


@pytest.mark.parametrize(
    ("client", "redirected"),
    [("curl", True), ("requests", True), ("httpx", True), ("wget", False), ("aria2c", False), ("urllib", False)],
)
async def test_every_client_gets_the_file(
    stand_for: StandFactory, tmp_path: Path, client: str, redirected: bool
) -> None:
    """Those that would send their token to the store, which refuses it beside a signature, are streamed to."""
    async with stand_for(delivery="auto") as stand:
        entry = await stand.object(BYTES)
        target = tmp_path / "got"
        await fetch(client, stand, entry.stac, target)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == entry.checksum
        statuses = {request.status for request in stand.strict.requests}
        assert statuses <= {200, 206}
        from_the_client = [request for request in stand.strict.requests if "response-content-type" in request.target]
        assert bool(from_the_client) == redirected
        assert not any(request.field("Authorization") for request in stand.strict.requests)


@pytest.mark.parametrize("client", ["wget", "aria2c", "urllib"])
async def test_these_clients_would_send_their_token_on(stand_for: StandFactory, tmp_path: Path, client: str) -> None:
    """Why they are not redirected; one that no longer does so can go to the list of those that keep it."""
    async with stand_for(delivery="redirect") as stand:
        entry = await stand.object(BYTES)
        with pytest.raises((AssertionError, urllib.error.HTTPError)):
            await fetch(client, stand, entry.stac, tmp_path / "got")
        assert {request.status for request in stand.strict.requests} == {400}
        assert all(request.field("Authorization") for request in stand.strict.requests)
