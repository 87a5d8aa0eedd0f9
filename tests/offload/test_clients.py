"""Real clients fetch and resume what the proxy sends."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from pathlib import Path

from tests.harness import SCIENTIST, bearer
from tests.offload.conftest import Pair
from tests.offload.proxies import find

CONTENT = random.Random(11).randbytes(5_000_011)
"""More than nginx sends at a time (sendfile_max_chunk)."""


async def run(directory: Path, *command: str) -> int:
    """Run a client with nothing of the user's configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "LC_ALL": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        find(command[0]), *command[1:], cwd=directory, env=environment, stdout=subprocess.DEVNULL
    )
    return await asyncio.wait_for(process.wait(), 20)


async def test_a_resumed_or_segmented_download_is_byte_identical(offloading: Pair, tmp_path: Path) -> None:
    entry = await offloading.gateway.catalogue.file(CONTENT)
    authorization = f"Authorization: {bearer(SCIENTIST)['Authorization']}"
    got, charged = tmp_path / "got", []
    for command in (
        ("curl", "-fsS", "-C", "-", "-o", "got", "-H"),
        ("wget", "-q", "-c", "-O", "got", "--header"),
    ):
        for held in (0, 2_345_678, len(CONTENT) - 1):
            got.write_bytes(CONTENT[:held])
            assert await run(tmp_path, *command, authorization, f"{offloading.proxy_url}{entry.stac}") == 0
            assert got.read_bytes() == CONTENT, (command, held)
            charged.append(await offloading.gateway.usage(SCIENTIST))
    size, rest = len(CONTENT), len(CONTENT) - 2_345_678
    # The whole file is handed over, and charged once; the gateway sends ranges. Past twice the file it is another.
    assert charged == [
        (1, size),
        (1, size + rest),
        (1, size + rest + 1),
        (1, size + rest + 1),
        (2, size + 2 * rest + 1),
        (2, size + 2 * rest + 2),
    ]

    got.unlink()
    # It fetches four segments at a time, and verifies Digest.
    status = await run(
        tmp_path, "aria2c", "-q", "--no-conf", "-x4", "-s4", "-k1M", "-o", "got", "--header",
        authorization, f"{offloading.proxy_url}{entry.stac}",
    )  # fmt: skip
    assert status == 0
    assert got.read_bytes() == CONTENT
