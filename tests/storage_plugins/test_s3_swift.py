"""The plug-in ``s3`` with a real Swift, which verifies each signature: what is read is what lies there."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.storage import (
    ByteStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyUnavailableError,
    OnSocket,
    StageState,
    ToStage,
)
from storage_plugins.http.client import HttpClient
from storage_plugins.s3.credentials import StaticCredentials
from storage_plugins.s3.options import Options
from storage_plugins.s3.plugin import S3Storage
from storage_plugins.s3.sigv4 import Credentials
from tests.s3.swift import Swift
from tests.storage_plugins.support import until

CONTENT = random.Random(7).randbytes(1_000_017)
SECRETS = re.compile(r"Signature|Credential|Token", re.IGNORECASE)

KEYS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("+% ~/&=?#;:@\\\"'<>é/"),
    min_size=1,
    max_size=80,
).filter(lambda key: {".", ".."}.isdisjoint(key.split("/")))


def storage_at(swift: Swift, bucket: str, now: Callable[[], float] = time.time, **options: object) -> S3Storage:
    given: dict[str, object] = {"endpoint": swift.endpoint, "region": swift.region, "buckets": [bucket], **options}
    credentials = Credentials(swift.access_key_id, swift.secret_access_key)
    return S3Storage("cloud", Options.parse(given), StaticCredentials(credentials), now)


@pytest.fixture
async def storage(swift: Swift, bucket: str) -> AsyncIterator[S3Storage]:
    storage = storage_at(swift, bucket)
    yield storage
    await storage.close()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    """One that sends URLs byte for byte."""
    client = HttpClient()
    yield client
    await client.close()


async def read_all(stream: ByteStream) -> bytes:
    with contextlib.closing(stream):
        pieces = []
        while piece := await stream.read():
            pieces.append(piece)
        return b"".join(pieces)


class TestSign:
    async def test_a_client_gets_the_object_as_the_gateway_names_it(
        self, swift: Swift, bucket: str, storage: S3Storage
    ) -> None:
        await swift.put(bucket, "a/b.tif", CONTENT)
        disposition = "attachment; filename=\"a b.tif\"; filename*=UTF-8''%C3%A9.tif"
        signed = await storage.sign(
            f"{bucket}/a/b.tif", method="GET", lifetime=60, content_type="image/tiff; x=y", disposition=disposition
        )
        got = await swift.send("GET", signed.url)
        assert (got.status, got.body) == (200, CONTENT)
        assert got.headers["Content-Type"].startswith("image/tiff; x=y")
        assert got.headers["Content-Disposition"] == disposition
        assert not SECRETS.search(repr(signed))
        assert signed.lifetime is not None
        assert 58 < signed.lifetime <= 60

    async def test_a_url_works_for_its_method_alone(self, swift: Swift, bucket: str, storage: S3Storage) -> None:
        await swift.put(bucket, "key", b"content")
        urls = {
            "GET": (await storage.sign(f"{bucket}/key", method="GET", lifetime=60)).url,
            "HEAD": (await storage.sign(f"{bucket}/key", method="HEAD", lifetime=60)).url,
        }
        answers = {(signed, sent): (await swift.send(sent, urls[signed])).status for signed in urls for sent in urls}
        assert answers == {("GET", "GET"): 200, ("HEAD", "HEAD"): 200, ("GET", "HEAD"): 403, ("HEAD", "GET"): 403}

    async def test_nothing_of_a_url_can_be_changed(self, swift: Swift, bucket: str, storage: S3Storage) -> None:
        await swift.put(bucket, "key", b"content")
        await swift.put(bucket, "kez", b"secret")
        signed = await storage.sign(
            f"{bucket}/key", method="GET", lifetime=60, content_type="text/plain", disposition="inline"
        )
        changes = {
            "/key?": "/kez?",
            "inline": "attachment",
            "text%2Fplain": "text%2Fhtml",
            "X-Amz-Expires=60": "X-Amz-Expires=61",
            "&X-Amz-Signature=": "&response-expires=0&X-Amz-Signature=",
            signed.url[-1]: "0" if signed.url[-1] != "0" else "1",
        }
        assert (await swift.send("GET", signed.url)).status == 200
        for old, new in changes.items():
            head, _, tail = signed.url.rpartition(old)
            changed = await swift.send("GET", f"{head}{new}{tail}")
            assert changed.status == 403, new
            assert changed.code == "SignatureDoesNotMatch"

    async def test_a_url_ends(self, swift: Swift, bucket: str) -> None:
        await swift.put(bucket, "key", b"content")
        ended, lasts = storage_at(swift, bucket, lambda: time.time() - 62), storage_at(swift, bucket)
        url = (await ended.sign(f"{bucket}/key", method="GET", lifetime=60)).url
        answer = await swift.send("GET", url)
        assert (answer.status, answer.code) == (403, "AccessDenied")
        assert (
            await swift.send("GET", (await lasts.sign(f"{bucket}/key", method="GET", lifetime=60)).url)
        ).status == 200
        for storage in (ended, lasts):
            await storage.close()

    @settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(key=KEYS)
    @example(key="//a b+c%2F%25/~é/?x=1&y;z:#//")
    @example(key="\x01\n\r\t\x7f\u2028\ufffe\N{GRINNING FACE}")
    @example(key="北" * 300)
    async def test_any_key_can_be_fetched(
        self, swift: Swift, bucket: str, storage: S3Storage, client: HttpClient, key: str
    ) -> None:
        await swift.put(bucket, key, key.encode())
        location = storage.locate(f"s3://{bucket}/{key}")
        assert location is not None
        signed = await storage.sign(location, method="GET", lifetime=60)
        with contextlib.closing(await client.request("GET", signed.url, {})) as answer:
            assert (answer.status, await answer.read()) == (200, key.encode())
        stat = await storage.stat(location)
        assert stat.size == len(key.encode())
        assert await read_all(await storage.stream(location, 0, stat.size, stat.version)) == key.encode()
        await swift.delete(bucket, key)

    async def test_clients_are_sent_to_the_public_endpoint_with_buckets_in_the_host(
        self, swift: Swift, bucket: str
    ) -> None:
        await swift.put(bucket, "a key", b"content")
        storage = storage_at(swift, bucket, public_endpoint="https://cdn.example.org")
        url = (await storage.sign(f"{bucket}/a key", method="GET", lifetime=60)).url
        assert url.startswith(f"https://cdn.example.org/{bucket}/a%20key?")
        assert (await storage.stat(f"{bucket}/a key")).size == 7
        await storage.close()
        virtual = storage_at(swift, bucket, endpoint=swift.host_endpoint, addressing="virtual")
        url = (await virtual.sign(f"{bucket}/a key", method="GET", lifetime=60)).url
        assert url.startswith(f"{swift.host_url(bucket, 'a key')}?")
        assert (await swift.send("GET", url)).body == b"content"
        await virtual.close()


class TestRead:
    @pytest.mark.parametrize(
        ("start", "stop"), [(0, len(CONTENT)), (0, 1), (len(CONTENT) - 1, len(CONTENT)), (70_000, 900_003)]
    )
    async def test_ranges(self, swift: Swift, bucket: str, storage: S3Storage, start: int, stop: int) -> None:
        etag = await swift.put(bucket, "key", CONTENT)
        stat = await storage.stat(f"{bucket}/key")
        assert (stat.size, stat.version) == (len(CONTENT), etag.strip('"'))
        assert stat.modified is not None
        stream = await storage.stream(f"{bucket}/key", start, stop, stat.version)
        assert isinstance(stream, OnSocket)
        assert stream.stat == stat
        assert await read_all(stream) == CONTENT[start:stop]

    async def test_content_that_was_stored_compressed_comes_as_it_is(
        self, swift: Swift, bucket: str, storage: S3Storage
    ) -> None:
        await swift.put(bucket, "key.gz", b"not really", {"Content-Encoding": "gzip"})
        assert (await storage.stat(f"{bucket}/key.gz")).size == 10
        assert await read_all(await storage.stream(f"{bucket}/key.gz", 0, 10, None)) == b"not really"

    async def test_an_object_that_was_replaced_is_noticed(self, swift: Swift, bucket: str, storage: S3Storage) -> None:
        await swift.put(bucket, "key", b"old content")
        old = await storage.stat(f"{bucket}/key")
        stream = await storage.stream(f"{bucket}/key", 0, 11, old.version)
        await swift.put(bucket, "key", b"new content")
        assert await read_all(stream) == b"old content"
        with pytest.raises(CopyChangedError, match="412"):
            await storage.stream(f"{bucket}/key", 0, 11, old.version)
        new = await storage.stat(f"{bucket}/key")
        assert new.version != old.version
        with pytest.raises(CopyChangedError):
            await storage.stream(f"{bucket}/key", 0, 12, new.version)
        with pytest.raises(CopyChangedError, match="416"):
            await storage.stream(f"{bucket}/key", 11, 12, None)

    async def test_what_is_absent(self, swift: Swift, bucket: str, storage: S3Storage) -> None:
        for ask in (storage.stat(f"{bucket}/absent"), storage.stream(f"{bucket}/absent", 0, 1, None)):
            with pytest.raises(CopyNotFoundError, match=f"s3://{bucket}/absent"):
                await ask
        no_bucket = storage_at(swift, "no-such-bucket")
        with pytest.raises(CopyNotFoundError, match="NoSuchBucket"):
            await no_bucket.stream("no-such-bucket/key", 0, 1, None)
        await no_bucket.close()

    async def test_what_is_on_its_disks_need_not_be_restored(
        self, swift: Swift, bucket: str, storage: S3Storage
    ) -> None:
        await swift.put(bucket, "key", b"content")
        copies = [ToStage(key, f"{bucket}/{key}", None, 60) for key in ("key", "absent")]
        lost = StageState("LOST", error=f"s3://{bucket}/absent: S3 answers NoSuchKey")
        for states in (await storage.stage(copies), await storage.staged(copies)):
            assert states == {"key": StageState("ONLINE"), "absent": lost}
        assert await read_all(await storage.stream(f"{bucket}/key", 0, 7, None)) == b"content"

    @pytest.mark.parametrize(
        "location", ["other-bucket/key", "{bucket}", "{bucket}/", "{bucket}/../x", "{bucket}/\ud800"]
    )
    async def test_what_is_not_in_its_buckets_is_not_asked_for(
        self, bucket: str, storage: S3Storage, location: str
    ) -> None:
        location = location.format(bucket=bucket)
        for ask in (
            storage.stat(location),
            storage.stream(location, 0, 1, None),
            storage.sign(location, method="GET", lifetime=60),
        ):
            with pytest.raises(CopyUnavailableError, match="is in none of the buckets"):
                await ask
        state = (await storage.stage([ToStage("1", location, None, 60)]))["1"]
        assert state.state == "FAILED"
        assert "is in none of the buckets" in (state.error or "")

    async def test_a_bucket_may_lie_in_another(self, swift: Swift, bucket: str) -> None:
        await swift.put(bucket, "mirror/a/key", b"mirrored")
        storage = storage_at(swift, bucket, buckets={"sentinel": f"{bucket}/mirror"})
        location = storage.locate("s3://sentinel/a/key")
        assert location == "sentinel/a/key"
        assert await read_all(await storage.stream(location, 0, 8, None)) == b"mirrored"
        signed = await storage.sign(location, method="GET", lifetime=60)
        assert (await swift.send("GET", signed.url)).body == b"mirrored"
        await storage.close()

    async def test_a_wrong_secret_is_told_by_its_code_and_no_signature_shown(self, swift: Swift, bucket: str) -> None:
        await swift.put(bucket, "key", b"content")
        wrong = dataclasses.replace(swift, secret_access_key="wrong")
        storage = storage_at(wrong, bucket)
        for ask, told in (
            (storage.stat(f"{bucket}/key"), "403"),
            (storage.stream(f"{bucket}/key", 0, 1, None), "SignatureDoesNotMatch"),
        ):
            with pytest.raises(CopyUnavailableError, match=told) as caught:
                await ask
            assert f"s3://{bucket}/key" in str(caught.value)
            assert not SECRETS.search(str(caught.value).replace("SignatureDoesNotMatch", ""))
        await storage.close()

    async def test_a_server_that_is_away(self, swift: Swift, bucket: str) -> None:
        storage = storage_at(swift, bucket, endpoint="http://127.0.0.1:1")
        with pytest.raises(CopyUnavailableError, match="Connection refused") as caught:
            await storage.stat(f"{bucket}/key")
        assert not SECRETS.search(str(caught.value))
        await storage.close()

    async def test_no_connection_is_left_by_streams_that_were_let_go(
        self, swift: Swift, bucket: str, storage: S3Storage
    ) -> None:
        size = 1 << 30
        await swift.put_large(bucket, "key", size)

        async def look_in(read: bool) -> None:
            stream = await storage.stream(f"{bucket}/key", 0, size, None)
            if read:
                assert await stream.read()
            stream.close()

        for first in range(0, 40, 20):
            await asyncio.gather(*(look_in(number % 2 == 0) for number in range(first, first + 20)))
        assert connections_to(swift) == 0
        assert (await storage.stat(f"{bucket}/key")).size == size
        assert connections_to(swift) == 1
        await storage.close()
        await until(lambda: connections_to(swift) == 0)


def connections_to(swift: Swift) -> int:
    """How many sockets of this process are connected to the server."""
    port = f":{int(swift.endpoint.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    inodes = {fields[9] for fields in lines if fields[2].endswith(port)}
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.add(str(entry.readlink()))
    return len(links & {f"socket:[{inode}]" for inode in inodes})
