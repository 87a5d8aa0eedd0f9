"""Whatever is sent to the STAC API, it answers as `/api` says, and never with a fault of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.harness import SCIENTIST, token
from tests.stac.conftest import Archive

EXAMPLES, SECONDS, LEAST = 150, 400, 2500
"""For each operation; in all, so that a busy machine ends, too; and how many requests there must be then."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
PRESENT = """
[parameters]
"path.collectionId" = "scenes"
"path.itemId" = "near"
"path.assetId" = "visual"
"""
"""Settings with which all that is asked for by path is there."""

RUNS = [(PRESENT, "fuzzing"), ("", "coverage,fuzzing")]


async def generated(archive: Archive, directory: Path, settings: str, *options: str) -> int:
    """How many requests were made up and sent, with or without these settings; all answers were as described."""
    directory.mkdir()
    (directory / "settings.toml").write_text(settings, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(directory / "settings.toml"),
        "run", f"{archive.gateway.url}/api", "--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES),
        "--max-time", str(SECONDS),
        "--include-path-regex", "^/(collections|download$|search|conformance|api|$)", "--no-shrink",
        "--continue-on-failure", "--warnings", "off", "--header", f"Authorization: Bearer {token(SCIENTIST)}", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=directory,
    )  # fmt: skip
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text[-6000:]
    counted = re.search(r"([0-9]+) generated, ([0-9]+) passed", text)
    assert counted is not None, text
    assert counted[1] == counted[2], text
    return int(counted[1])


@pytest.mark.skipif("GATEWAY_TEST_FULL" not in os.environ, reason="takes minutes: make test-long")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("settings", "phases"), RUNS)
async def test_answers_are_as_described(archive: Archive, tmp_path: Path, settings: str, phases: str) -> None:
    assert await generated(archive, tmp_path / "run", settings, "--phases", phases) > LEAST
