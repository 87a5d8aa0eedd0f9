"""Swift as the tests use it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.embedded.processes import ROOT, alive, descendants, eventually
from tests.s3.swift import Swift

GIB = 1 << 30


async def test_a_bucket_takes_gives_and_replaces_objects(swift: Swift, bucket: str) -> None:
    for content in (b"one", b"another"):
        etag = await swift.put(bucket, "a dir/Łódź+~&.tif", content, {"Content-Type": "image/tiff"})
        assert etag == f'"{hashlib.md5(content).hexdigest()}"'
        got = await swift.send("GET", swift.presign("GET", swift.url(bucket, "a dir/Łódź+~&.tif")))
        assert (got.status, got.body) == (200, content)
        assert (got.headers["ETag"], got.headers["Content-Type"]) == (etag, "image/tiff")
    await swift.delete(bucket, "a dir/Łódź+~&.tif")
    gone = await swift.send("GET", swift.presign("GET", swift.url(bucket, "a dir/Łódź+~&.tif")))
    assert (gone.status, gone.code) == (404, "NoSuchKey")


async def test_an_object_may_be_larger_than_the_disk(swift: Swift, bucket: str) -> None:
    etag = await swift.put_large(
        bucket, "large", 1024 * GIB, {0: b"first", 6 * GIB: b"middle", 1024 * GIB - 4: b"last"}
    )
    url = swift.url(bucket, "large")
    head = await swift.send("HEAD", swift.presign("HEAD", url))
    assert head.headers["Content-Length"] == str(1024 * GIB)
    assert head.headers["ETag"] == etag
    for chosen, body in (
        ("bytes=0-5", b"first\0"),
        (f"bytes={6 * GIB}-{6 * GIB + 6}", b"middle\0"),
        ("bytes=-5", b"\0last"),
    ):
        got = await swift.send("GET", swift.presign("GET", url), headers={"Range": chosen, "If-Match": etag})
        assert (got.status, got.body) == (206, body)
    other = await swift.send("GET", swift.presign("GET", url), headers={"If-Match": '"other"'})
    assert other.status == 412


async def test_a_multipart_upload_is_one_object(swift: Swift, bucket: str) -> None:
    parts = [b"a" * (5 << 20), b"b"]
    async with swift.client() as client:
        upload = (await client.create_multipart_upload(Bucket=bucket, Key="parts"))["UploadId"]
        names = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
        tags = [
            (await client.upload_part(**names, PartNumber=number, Body=part))["ETag"]
            for number, part in enumerate(parts, 1)
        ]
        listed = [{"ETag": tag, "PartNumber": number} for number, tag in enumerate(tags, 1)]
        await client.complete_multipart_upload(**names, MultipartUpload={"Parts": listed})
        got = await client.get_object(Bucket=bucket, Key="parts")
        assert await got["Body"].read() == b"".join(parts)
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    assert got["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'


def test_this_process_has_none_of_swift(swift: Swift) -> None:
    assert not {"swift", "eventlet"} & set(sys.modules)


def test_no_secret_shows(swift: Swift) -> None:
    assert swift.secret_access_key not in repr(swift)
    assert (swift.directory / "proxy.conf").stat().st_mode & 0o777 == 0o600


PROGRAM = """
import sys
from tests.s3.swift import run_swift
with run_swift() as swift:
    print(swift.directory, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Swift runs on Linux only")
@pytest.mark.parametrize("whom", ["the tests", "the supervisor"])
def test_nothing_is_left_when_a_process_is_killed(whom: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as program:
        assert program.stdout is not None
        directory = Path(program.stdout.readline().decode().strip())
        assert directory.is_dir()
        supervisor, *servers = descendants(program.pid)
        assert len(servers) == 4
        os.kill(program.pid if whom == "the tests" else supervisor.pid, signal.SIGKILL)
        assert eventually(lambda: not alive([supervisor, *servers]))
        program.communicate()
    assert eventually(lambda: not directory.exists())
