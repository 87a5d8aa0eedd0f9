"""Shows that the plain application works: one redirect, one file, and no answer for somebody without a right.

``python -m benchmarks.plain_app_check`` starts servers of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import click
from aiohttp.test_utils import TestServer

from benchmarks.plain_app import BUCKET, STORE, Answer, create_app
from benchmarks.setting_up import (
    BenchmarkFile,
    copies_on_disk,
    disk_storage,
    fill_catalogue,
    make_file,
    token,
    write_configuration,
)
from gateway.embedded import run_services


class CheckError(Exception):
    """The plain application does not do what it is compared for."""


def check_answers() -> None:
    """Fetch each kind of answer once, and say what came.

    Raises:
        CheckError: an answer is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, run_services() as services:
        root = Path(name) / "files"
        root.mkdir()
        file = make_file(root, "file.bin", 3_000_000)
        configuration = write_configuration(Path(name), services, disk_storage(root))
        fill_catalogue(configuration, copies_on_disk(root, [file]))
        asyncio.run(_check(tomllib.loads(configuration.read_text()), file))


async def _check(settings: dict[str, Any], file: BenchmarkFile) -> None:
    status, headers, _ = await _get(settings, "redirect", file, token())
    target = urlsplit(headers.get("Location", ""))
    _expect(status == 307, f"status {status} instead of 307")
    _expect(f"{target.scheme}://{target.netloc}" == STORE, f"a redirect to {target.netloc}")
    _expect(target.path == f"/{BUCKET}/{file.name}", f"a redirect to {target.path}")
    _expect(bool({"X-Amz-Signature", "Signature"} & set(parse_qs(target.query))), "the URL is not signed")
    click.echo(f"redirect: 307 to a presigned URL of {target.netloc}{target.path}")

    status, _, body = await _get(settings, "stream", file, token())
    _expect(status == 200, f"status {status} instead of 200")
    _expect(hashlib.sha256(body).hexdigest() == file.sha256, "the bytes are not those of the file")
    click.echo(f"stream: 200 with all {len(body)} bytes")

    status, _, _ = await _get(settings, "auth", file, token())
    _expect(status == 204, f"status {status} instead of 204")
    for bearer in ("", "not.a.token"):
        status, _, _ = await _get(settings, "auth", file, bearer)
        _expect(status == 401, f"status {status} instead of 401 with the token {bearer!r}")
    click.echo("auth: 204 with a token, 401 without")


async def _get(
    settings: dict[str, Any], answer: Answer, file: BenchmarkFile, bearer: str
) -> tuple[int, Mapping[str, str], bytes]:
    async with TestServer(create_app(settings, answer)) as server, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        url = server.make_url(file.gateway_path)
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            return response.status, response.headers, await response.read()


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise CheckError(problem)


if __name__ == "__main__":
    check_answers()
