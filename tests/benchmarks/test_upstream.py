"""What stands in for a store, and the relays that are compared: all of them give the very bytes."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import os
import shutil
import ssl
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import Job, fetch
from benchmarks.relay import PROXIES, directives
from benchmarks.setting_up import (
    BenchmarkFile,
    find_nginx,
    make_file,
    make_sparse_file,
    request_head,
    running_app,
    running_nginx,
)
from benchmarks.starlette_app import CLIENTS
from benchmarks.upstream import BUCKET, SCHEMES, Upstream, copies_over_each, over, running_upstream, s3_storage
from gateway.config import StorageLocation
from storage_plugins.s3.plugin import S3Storage
from tests.e2e.conftest import REQUIRE_CLIENTS

SIZE = 300_000
CORE = min(os.sched_getaffinity(0))

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None and REQUIRE_CLIENTS not in os.environ,
    reason="nginx is not installed",
)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, Path, BenchmarkFile]]:
    directory = tmp_path_factory.mktemp("store")
    (directory / "files" / BUCKET).mkdir(parents=True)
    file = make_file(directory / "files" / BUCKET, "file.bin", SIZE)
    with running_upstream(find_nginx(), directory, CORE) as running:
        yield running, directory / "files", file


def connect(upstream: Upstream, scheme: str) -> http.client.HTTPConnection:
    port = upstream.ports[scheme]
    if scheme == "http":
        return http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    trust = ssl.create_default_context(cafile=upstream.certificate)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trust)


@needs_nginx
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_version_of_a_copy_is_the_entity_tag_that_it_is_served_with(
    upstream: tuple[Upstream, Path, BenchmarkFile], scheme: str
) -> None:
    running, root, file = upstream
    copy = copies_over_each(root, [file])[over(scheme, file)]
    with contextlib.closing(connect(running, scheme)) as connection:
        connection.request(
            "GET",
            f"/{copy.location}?X-Amz-Signature=0",
            headers={"If-Match": f'"{copy.version}"', "Range": "bytes=0-9"},
        )
        answer = connection.getresponse()
        assert answer.status == 206
        assert answer.getheader("ETag") == f'"{copy.version}"'
        assert answer.read() == (root / copy.location).read_bytes()[:10]
        connection.request("GET", f"/{copy.location}", headers={"If-Match": '"another"'})
        assert connection.getresponse().status == 412


@needs_nginx
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_peer_relays_the_very_bytes_in_each_of_its_ways(
    upstream: tuple[Upstream, Path, BenchmarkFile], scheme: str, tmp_path: Path
) -> None:
    running, _, file = upstream
    (tmp_path / "files").mkdir()
    with (
        running_nginx(find_nginx(), tmp_path, CORE, **directives(running, scheme)) as proxy,
        running_app(
            tmp_path, CORE, "starlette_app", f"--upstream={running.url(scheme)}", f"--ca-file={running.certificate}"
        ) as app,
    ):
        for server, ways in ((proxy, tuple(PROXIES)), (app, CLIENTS)):
            for way in ways:
                head = request_head(f"/{way}/{BUCKET}/{file.name}")
                job = Job(server.port, head, file.size, clients=2, requests=4, hashed=True)
                assert fetch(job, polls=False).sha256 == file.sha256, way
    assert scheme == "http" or len(running.ciphers()) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_file_has_a_name_of_its_own_for_each_scheme_but_one_location(scheme: str, tmp_path: Path) -> None:
    (tmp_path / BUCKET).mkdir()
    file = make_file(tmp_path / BUCKET, "file.bin", 10)
    copies = copies_over_each(tmp_path, [file])
    assert {copy.location for copy in copies.values()} == {f"{BUCKET}/file.bin"}
    copy = copies[over(scheme, file)]
    assert copy.storage == scheme
    assert over(scheme, file).name == f"{scheme}-file.bin"
    assert copy.modified == datetime.datetime.fromtimestamp(
        int((tmp_path / copy.location).stat().st_mtime), datetime.UTC
    )


async def test_the_table_of_a_store_is_one_that_the_plug_in_takes() -> None:
    (table,) = tomllib.loads(s3_storage("store", "http://127.0.0.1:9000", delivery="redirect"))["storage"]
    settings = StorageLocation.model_validate(table)
    assert settings.delivery == "redirect"
    storage = S3Storage.from_options(settings.name, settings.options)
    signed = await storage.sign(f"{BUCKET}/file.bin", method="GET", lifetime=60)
    await storage.close()
    assert signed.url.startswith(f"http://127.0.0.1:9000/{BUCKET}/file.bin?")


@pytest.mark.parametrize("size", [1, 2**20, 2**20 + 1])
def test_a_sparse_file_is_of_zeros(size: int, tmp_path: Path) -> None:
    file = make_sparse_file(tmp_path, "sparse", size)
    content = (tmp_path / "sparse").read_bytes()
    assert content == bytes(size)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
