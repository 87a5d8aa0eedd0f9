"""S3 through obstore, against a real Swift."""

from __future__ import annotations

import contextlib

import pytest

from gateway.storage import CopyChangedError, CopyNotFoundError, CopyUnavailableError
from storage_plugins.obstore.plugin import PIECE_BYTES, ObstoreStorage, SigningObstoreStorage
from tests.s3.swift import Swift
from tests.storage_plugins import support

CONTENT = support.CONTENT[:900_000]

NAMES = ["object", "a b/é/北京", "100%/%20", "what?#now&then=x;y", "!*'()[]@$,:+~"]
GIB = 1 << 30


def make(swift: Swift, bucket: str, secret: str | None = None) -> SigningObstoreStorage:
    storage = ObstoreStorage.from_options(
        "s3",
        {
            "url": f"s3://{bucket}/pre",
            "options": {
                "endpoint": swift.endpoint,
                "region": swift.region,
                "access_key_id": swift.access_key_id,
                "secret_access_key": secret or swift.secret_access_key,
            },
            "client_options": {"allow_http": True},
        },
    )
    assert isinstance(storage, SigningObstoreStorage)
    return storage


@pytest.mark.parametrize("name", NAMES)
async def test_an_object_of_any_name_is_described_given_and_signed(swift: Swift, bucket: str, name: str) -> None:
    etag = await swift.put(bucket, f"pre/{name}", CONTENT)
    storage = make(swift, bucket)
    found = await storage.stat(name)
    assert (found.size, f'"{found.version}"') == (len(CONTENT), etag)
    with contextlib.closing(await storage.stream(name, 5, len(CONTENT), found.version)) as stream:
        pieces = []
        while piece := await stream.read():
            pieces.append(piece)
        assert b"".join(pieces) == CONTENT[5:]
        assert stream.stat == found
    get = await storage.sign(name, method="GET", lifetime=60)
    head = await storage.sign(name, method="HEAD", lifetime=60)
    got = await swift.send("GET", get.url)
    assert (got.status, got.body) == (200, CONTENT)
    assert (await swift.send("HEAD", head.url)).status == 200
    assert (await swift.send("GET", head.url)).status == 403
    assert (await swift.send("HEAD", get.url)).status == 403
    await storage.close()


async def test_a_part_of_an_object_larger_than_memory(swift: Swift, bucket: str) -> None:
    await swift.put_large(bucket, "pre/large", 1024 * GIB, {1000 * GIB: b"middle"})
    storage = make(swift, bucket)
    version = (await storage.stat("large")).version
    stream = await storage.stream("large", 1000 * GIB, 1024 * GIB, version)
    with contextlib.closing(stream):
        piece = await stream.read()
        assert PIECE_BYTES <= len(piece) < 64 * PIECE_BYTES
        assert piece == b"middle".ljust(len(piece), b"\0")
    await storage.close()


async def test_what_is_not_right_is_told(swift: Swift, bucket: str) -> None:
    await swift.put(bucket, "pre/object", b"before")
    storage, stranger = make(swift, bucket), make(swift, bucket, "wrong")
    version = (await storage.stat("object")).version
    await swift.put(bucket, "pre/object", b"after!")
    with pytest.raises(CopyChangedError):
        await storage.stream("object", 0, 6, version)
    for start in (0, 6, 7):
        with pytest.raises(CopyChangedError):
            await storage.stream("object", start, 8, None)
    with pytest.raises(CopyNotFoundError):
        await storage.stat("absent")
    with pytest.raises(CopyUnavailableError, match="403 SignatureDoesNotMatch"):
        await stranger.stream("object", 0, 1, None)
    await storage.close()
    await stranger.close()
