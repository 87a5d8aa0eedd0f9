from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import Any

import pytest

from gateway.demo.examples import curl_lines

BASH = shutil.which("bash") or "/bin/bash"
TOKENS = {name: f"token.of.{name}" for name in ("scientist", "outsider", "unlicensed", "limited", "admin")}

RECORD = r"""
curl() { printf '%s\0' "$@"; printf '\n'; }
sha256sum() { printf '%s\0' sha256sum "$@" "$(cat)"; printf '\n'; }
"""
"""In place of the programs: their words, a NUL after each, on one line."""


def file(
    collection: str,
    name: str,
    size: int,
    *,
    data_type: str = "RAWDATA",
    checksum: bool = True,
    nearline: bool = False,
) -> dict[str, Any]:
    return {
        "nearline": nearline,
        "collection": collection,
        "data_type": data_type,
        "size": size,
        "sha256": f"sha256-of-{name}",
        "regards_url": f"http://host:1/downloads/URN:{name}/files/{name}" if checksum else None,
        "stac_url": f"http://host:1/collections/{collection}/items/i/download/{name}",
    }


FILES = [
    file("open", "empty", 0),
    file("open", "thumbnail", 1, data_type="THUMBNAIL"),
    file("open", "small", 10),
    file("open", "big", 1000),
    file("restricted", "r1", 21),
    file("restricted", "r2", 22),
    file("restricted", "r3", 23),
    file("licensed", "l1", 5),
    file("archive", "t1", 9, nearline=True),
]


def run(files: list[dict[str, Any]]) -> list[list[str]]:
    """The words of every curl call that a shell makes of the lines."""
    text = curl_lines({"base_url": "http://host:1", "tenant": "demo", "tokens": TOKENS, "files": files})
    done = subprocess.run([BASH, "-eu", "-c", RECORD + text], capture_output=True, text=True, timeout=10, check=True)
    assert done.stderr == ""
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def bearer(name: str) -> list[str]:
    return ["-H", f"Authorization: Bearer {TOKENS[name]}"]


def test_a_shell_makes_the_calls_that_the_comments_announce() -> None:
    regards = {f: f"http://host:1/downloads/URN:{f}/files/{f}" for f in ("small", "big", "r1", "r2", "r3", "l1", "t1")}
    quiet = ["-sS", "-o", "/dev/null", "-w", "%{http_code}\\n", *bearer("limited")]
    assert run(FILES) == [
        ["-sS", "-OJ", *bearer("scientist"), regards["r1"]],
        ["-sS", "-i", "-w", "\\n", *bearer("outsider"), regards["r1"]],
        ["-sS", "-I", *bearer("admin"), regards["r1"]],
        [
            "-sS",
            "-o",
            "stac.download",
            *bearer("scientist"),
            "http://host:1/collections/restricted/items/i/download/r1",
        ],
        ["sha256sum", "-c", "sha256-of-r1  stac.download"],
        ["-sS", "-i", "-w", "\\n", *bearer("unlicensed"), regards["l1"]],
        ["-sS", "-OJ", regards["small"] + "?scope=demo"],
        ["-sS", "-r", "0-499", "-o", "resumed.download", *bearer("scientist"), regards["big"]],
        ["-sS", "-C", "-", "-o", "resumed.download", *bearer("scientist"), regards["big"]],
        ["sha256sum", "-c", "sha256-of-big  resumed.download"],
        ["-sS", "-i", "-w", "\\n", *bearer("scientist"), regards["t1"]],
        ["-sS", "-f", "--retry", "20", "-o", "archived.download", *bearer("scientist"), regards["t1"]],
        ["sha256sum", "-c", "sha256-of-t1  archived.download"],
        *([*quiet, regards[name]] for name in ("small", "r1", "r2", "r3")),
    ]


def test_quotes_and_dollars_in_a_url_stay_what_they_are() -> None:
    odd = file("restricted", "a'b$(false)`c", 2)
    calls = run([odd])
    assert calls[0][-1] == odd["regards_url"]
    assert ["sha256sum", "-c", f"{odd['sha256']}  stac.download"] in calls


def test_a_file_without_checksum_goes_by_its_stac_address() -> None:
    unknown = file("restricted", "x", 2, checksum=False)
    assert {words[-1] for words in run([unknown]) if words[0] != "sha256sum"} == {unknown["stac_url"]}


@pytest.mark.parametrize("files", [[], [file("open", "empty", 0)], FILES[:2]])
def test_without_data_only_the_tokens_are_left(files: list[dict[str, Any]]) -> None:
    assert run(files) == []
    text = curl_lines({"base_url": "http://host:1", "tenant": "demo", "tokens": TOKENS, "files": files})
    assert shlex.split(text) == [f"{name.upper()}={token}" for name, token in TOKENS.items()]


def test_the_same_content_twice_shows_no_limit() -> None:
    twins = [file("restricted", "same", 4), file("open", "same", 4), *FILES[4:6]]
    assert not [words for words in run(twins) if "%{http_code}\\n" in words]
