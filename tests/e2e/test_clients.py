"""Real clients against the demo as a user starts it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Demo, start_demo

Client = Callable[..., subprocess.CompletedProcess[bytes]]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def status(client: Client, url: str, *options: str) -> int:
    """What curl is answered; the body goes to the file ``body`` of the test's directory."""
    done = client("curl", "-sS", "-o", "body", "-w", "%{http_code}", *options, url)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_demo_has_what_it_promises(demo: Demo) -> None:
    assert demo.listing["tenant"] == "demo"
    assert set(demo.listing["tokens"]) == {"scientist", "outsider", "unlicensed", "limited", "admin"}
    assert {file["collection"] for file in demo.files} == {"open", "restricted", "licensed"}
    assert len({file["sha256"] for file in demo.data("open", "restricted")}) >= 10
    assert {"THUMBNAIL", "RAWDATA"} <= {file["data_type"] for file in demo.files}
    assert {0, 64 * 1024 * 1024} <= {file["size"] for file in demo.files}
    assert any(not file["name"].isascii() for file in demo.files)
    for file in demo.files:
        path = Path(file["path"])
        assert (path.stat().st_size, sha256(path)) == (file["size"], file["sha256"])


def test_curl_fetches_every_file_of_both_doors_byte_identical(demo: Demo, client: Client, tmp_path: Path) -> None:
    assert demo.files
    for file in demo.files:
        for door in ("regards_url", "stac_url"):
            target = tmp_path / "target"
            done = client("curl", "-fsS", "-H", demo.bearer("scientist"), "-o", str(target), file[door])
            assert done.returncode == 0, (file, done.stderr)
            assert sha256(target) == file["sha256"], file


def test_curl_saves_under_the_name_of_the_catalogue(demo: Demo, client: Client, tmp_path: Path) -> None:
    file = next(file for file in demo.data("restricted") if file["name"].isascii())
    done = client("curl", "-fsSOJ", "-H", demo.bearer("scientist"), file["regards_url"])
    assert done.returncode == 0, done.stderr
    assert sha256(tmp_path / file["name"]) == file["sha256"]


@pytest.mark.parametrize("door", ["regards_url", "stac_url"])
def test_refusals(demo: Demo, client: Client, door: str, tmp_path: Path) -> None:
    restricted, licensed, free = demo.data("restricted")[0], demo.data("licensed")[0], demo.data("open")[0]
    unknown = restricted[door].rsplit("/", 1)[0] + "/0000"
    tenant = f"?scope={demo.listing['tenant']}"
    bad = "Authorization: Bearer " + demo.token("scientist")[:-4] + "AAAA"
    for url, options, expected in [
        (restricted[door], ["-H", demo.bearer("outsider")], 403),
        (restricted[door] + tenant, [], 403),
        (licensed[door], ["-H", demo.bearer("unlicensed")], 423),
        (licensed[door], ["-H", demo.bearer("outsider")], 403),
        (unknown, ["-H", demo.bearer("scientist")], 404),
        (restricted[door], [], 401),
        (restricted[door], ["-H", bad], 401),
        (free[door], ["-H", demo.bearer("outsider")], 200),
        (free[door] + tenant, [], 200),
        (restricted[door], ["-H", demo.bearer("admin")], 200),
    ]:
        got = status(client, url, *options)
        assert got == expected, (url, options)
        if expected >= 400:
            body = json.loads((tmp_path / "body").read_text())
            assert set(body) >= (
                {"code", "description"} if door == "stac_url" else ({"license"} if got == 423 else {"messages"})
            )


def test_a_checksum_under_another_product_is_404(demo: Demo, client: Client) -> None:
    one, other = demo.data("open")[0], demo.data("restricted")[0]
    url = one["regards_url"].replace(one["checksum"], other["checksum"])
    assert status(client, url, "-H", demo.bearer("scientist")) == 404
    assert status(client, url, "-H", demo.bearer("admin")) == 404


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("curl", ["-fsS", "-C", "-", "-o", "{target}"]),
        ("wget", ["-q", "-c", "-O", "{target}"]),
    ],
)
def test_a_broken_download_is_resumed(
    demo: Demo, client: Client, tmp_path: Path, program: str, options: list[str]
) -> None:
    file = max(demo.data("open"), key=lambda file: int(file["size"]))
    content = Path(file["path"]).read_bytes()
    target = tmp_path / "target"
    header = "--header" if program == "wget" else "-H"
    for cut in random.Random(5).sample(range(1, len(content)), 3):
        target.write_bytes(content[:cut])
        arguments = [option.format(target=target) for option in options]
        done = client(program, *arguments, header, demo.bearer("scientist"), file["regards_url"])
        assert done.returncode == 0, done.stderr
        assert sha256(target) == file["sha256"]


def test_aria2_in_four_segments_verifies_our_digest(demo: Demo, client: Client, tmp_path: Path) -> None:
    file = max(demo.data("open"), key=lambda file: int(file["size"]))
    done = client(
        "aria2c", "-q", "-x4", "-s4", "-k1M", "--header", demo.bearer("scientist"),
        "-d", str(tmp_path), "-o", "target", file["stac_url"],
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert sha256(tmp_path / "target") == file["sha256"]


def test_the_fourth_download_of_the_limited_account_is_429(tmp_path: Path, client: Client) -> None:
    with start_demo(tmp_path) as demo:
        files = demo.data("open", "restricted")
        bearer = ["-H", demo.bearer("limited")]
        assert [status(client, file["regards_url"], *bearer) for file in files[:4]] == [200, 200, 200, 429]
        text = json.loads((tmp_path / "body").read_text())["messages"][0]
        assert text.startswith("Download quota of 3 exceeded (by 0) for user limited@")
        assert "lifetime" in text


async def test_fifty_racing_requests_over_ten_files_admit_exactly_three(tmp_path: Path) -> None:
    with start_demo(tmp_path) as demo:
        files = [file for file in demo.data("open", "restricted") if file["size"] < 1024 * 1024][:10]
        assert len(files) == 10
        headers = {"Authorization": f"Bearer {demo.token('limited')}"}
        async with aiohttp.ClientSession(headers=headers) as session:

            async def fetch(file: dict[str, Any]) -> tuple[int, str]:
                async with session.get(file["stac_url"]) as response:
                    return response.status, hashlib.sha256(await response.read()).hexdigest()

            asked = [files[number % 10] for number in range(50)]
            answers = await asyncio.gather(*(fetch(file) for file in asked))
        admitted = [file["sha256"] for file, answer in zip(asked, answers, strict=True) if answer[0] == 200]
        assert all(answer[1] in admitted for answer in answers if answer[0] == 200)
        assert len(set(admitted)) == 3
        assert {answer[0] for answer in answers} == {200, 429}
