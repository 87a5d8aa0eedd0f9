"""A store of Google's kind at a real socket: tokens, bytes, failures on the way, signatures judged independently."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import aiohttp
import pytest
import yarl
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.storage import (
    CanSign,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    StorageError,
)
from storage_plugins.obstore.google_v4 import ServiceAccount
from storage_plugins.obstore.plugin import PIECE_BYTES, ObstoreStorage, SigningObstoreStorage
from storage_plugins.obstore.signing import LONGEST_LIFETIME
from tests.storage_plugins.object_server import MODIFIED, ObjectServer, object_server, service_account_key
from tests.storage_plugins.support import CONTENT, until

ODD_NAMES = [
    "plain/name.tif",
    "a b/é/北京",
    "100%/%20/%2e%2e/%2F",
    "what?#now&then=x;y",
    "!*'()[]@$,:+~|^`{}<>\"",
    "...",
]


@pytest.fixture
async def server() -> AsyncIterator[ObjectServer]:
    async with object_server() as server:
        yield server


@pytest.fixture
async def storage(server: ObjectServer) -> AsyncIterator[ObstoreStorage]:
    server.objects["/bucket/pre/object"] = CONTENT
    storage = make(server)
    yield storage
    await storage.close()


def make(server: ObjectServer, timeout: float = 20, **options: object) -> ObstoreStorage:
    settings = options or {"service_account_key": service_account_key()}
    return ObstoreStorage.from_options(
        "google",
        {
            "url": "gs://bucket/pre",
            "options": {"base_url": server.url, **settings},
            "client_options": {"allow_http": True},
            "timeout": timeout,
        },
    )


async def version_of(storage: ObstoreStorage) -> str:
    return (await storage.stat("object")).version


async def read_all(
    storage: ObstoreStorage, start: int = 0, stop: int = len(CONTENT), version: str | None = None
) -> bytes:
    with contextlib.closing(await storage.stream("object", start, stop, version)) as stream:
        pieces = []
        while piece := await stream.read():
            pieces.append(piece)
        return b"".join(pieces)


class TestBytes:
    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_every_name_is_asked_for_as_it_is(
        self, server: ObjectServer, storage: ObstoreStorage, name: str
    ) -> None:
        server.objects[f"/bucket/pre/{name}"] = name.encode()
        found = await storage.stat(name)
        assert (found.size, found.modified) == (len(name.encode()), MODIFIED)
        with contextlib.closing(await storage.stream(name, 1, found.size, found.version)) as stream:
            assert await stream.read() == name.encode()[1:]
            assert stream.stat == found

    async def test_the_condition_goes_along_and_packed_objects_are_not_unpacked(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        version = await version_of(storage)
        assert await read_all(storage, 5, 10, version) == CONTENT[5:10]
        head, get = server.requests
        assert (head.method, head.headers["Accept-Encoding"]) == ("HEAD", "gzip")
        fields = [get.headers[name] for name in ("Range", "If-Match", "Accept-Encoding")]
        assert fields == ["bytes=5-9", f'"{version}"', "gzip"]

    async def test_an_object_that_was_changed_is_not_given(self, server: ObjectServer, storage: ObstoreStorage) -> None:
        version = await version_of(storage)
        server.objects["/bucket/pre/object"] = CONTENT[::-1]
        with pytest.raises(CopyChangedError, match="object: has another version"):
            await read_all(storage, version=version)

    async def test_a_store_that_minds_no_conditions_is_seen_through(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        version = await version_of(storage)
        fields = {"ETag": '"new"', "Content-Range": "bytes 0-0/5", "Last-Modified": "Sat, 28 Feb 2026 23:59:58 GMT"}
        server.refuse(206, "x", fields)
        with pytest.raises(CopyChangedError, match="has the version 'new' instead of"):
            await read_all(storage, 0, 1, version)

    async def test_a_store_with_weak_entity_tags_is_taken_at_its_date_and_size(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        server.etag = lambda _: 'W/"weak"'
        version = await version_of(storage)
        assert version.startswith("W/")
        assert await read_all(storage, version=version) == CONTENT
        assert "If-Match" not in server.requests[-1].headers
        server.objects["/bucket/pre/object"] = CONTENT + b"x"
        with pytest.raises(CopyChangedError):
            await read_all(storage, version=version)

    async def test_an_object_that_ends_early_was_changed(self, storage: ObstoreStorage) -> None:
        for start in (0, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 1):
            with pytest.raises(CopyChangedError):
                await read_all(storage, start, len(CONTENT) + 2)

    @pytest.mark.parametrize("given", ["bytes 1-2/5", "bytes 0-3/9"])
    async def test_other_bytes_than_asked_for_are_not_given(
        self, server: ObjectServer, storage: ObstoreStorage, given: str
    ) -> None:
        server.refuse(
            206,
            "x" * (3 if "0-3" in given else 2),
            {"Content-Range": given, "Last-Modified": "Sat, 28 Feb 2026 23:59:58 GMT", "ETag": '"x"'},
        )
        with pytest.raises(CopyUnavailableError, match="object: "):
            await read_all(storage, 0, 3)

    async def test_a_store_that_gives_all_though_a_part_was_asked_for_is_not_believed(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        server.refuse(200, "whole", {"Last-Modified": "Sat, 28 Feb 2026 23:59:58 GMT"})
        with pytest.raises(CopyUnavailableError):
            await read_all(storage, 1, 3)

    async def test_what_is_not_there_is_told(self, server: ObjectServer, storage: ObstoreStorage) -> None:
        with pytest.raises(CopyNotFoundError, match="absent: there is no such object"):
            await storage.stat("absent")
        with pytest.raises(CopyNotFoundError, match="absent: there is no such object"):
            await storage.stream("absent", 0, 1, None)


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "text"),
        [
            (400, "", CopyUnavailableError, "the store answers 400"),
            (401, "", CopyUnavailableError, "the store answers 401"),
            (403, "<Code>AccessDenied</Code>", CopyUnavailableError, "the store answers 403 AccessDenied"),
            (404, "<Code>NoSuchBucket</Code>", CopyUnavailableError, "no such bucket or container"),
            (404, "", CopyNotFoundError, "no such object"),
            (409, "<Code>BlobArchived</Code>", CopyOfflineError, "must be restored first"),
            (412, "", CopyChangedError, "another version"),
            (416, "", CopyChangedError, "ends before"),
            (302, "", CopyUnavailableError, "asking the store failed"),
        ],
    )
    async def test_a_refusal_has_its_meaning_and_the_body_is_not_repeated(
        self,
        server: ObjectServer,
        storage: ObstoreStorage,
        status: int,
        body: str,
        kind: type[StorageError],
        text: str,
    ) -> None:
        server.refuse(status, body + "SECRET")
        with pytest.raises(kind, match=text) as caught:
            await storage.stream("object", 0, 1, None)
        assert "SECRET" not in "".join(traceback.format_exception(caught.value))

    async def test_a_server_error_that_passes_is_not_seen(self, server: ObjectServer, storage: ObstoreStorage) -> None:
        server.refuse(503, "<Code>SlowDown</Code>", times=2)
        assert await read_all(storage) == CONTENT
        server.refuse(500, "<Code>InternalError</Code>", times=10)
        with pytest.raises(CopyUnavailableError, match="the store answers 500 InternalError"):
            await read_all(storage)

    async def test_a_connection_that_breaks_is_replaced_where_it_ended(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        version = await version_of(storage)
        server.give_half(times=2)
        assert await read_all(storage, 3, version=version) == CONTENT[3:]
        first, *others = [(it.headers["Range"], it.headers["If-Match"]) for it in server.requests[1:]]
        assert first == (f"bytes=3-{len(CONTENT) - 1}", f'"{version}"')
        assert len(others) == 2
        assert {condition for _, condition in others} == {f'"{version}"'}

    async def test_an_object_that_changes_meanwhile_is_not_spliced(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        for version in (None, await version_of(storage)):
            server.objects["/bucket/pre/object"] = CONTENT
            server.give_half(lambda: server.objects.update({"/bucket/pre/object": CONTENT[::-1]}))
            received = []
            stream = await storage.stream("object", 0, len(CONTENT), version)
            with contextlib.suppress(CopyUnavailableError):
                while piece := await stream.read():
                    received.append(piece)
            stream.close()
            assert 0 < len(b"".join(received)) < len(CONTENT)
            assert CONTENT.startswith(b"".join(received))

    async def test_bytes_that_end_early_again_and_again_are_told(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        server.give_half(times=10)
        with pytest.raises(CopyUnavailableError, match="object: asking the store failed"):
            await read_all(storage)

    async def test_nobody_listens(self, server: ObjectServer) -> None:
        with contextlib.closing(__import__("socket").create_server(("127.0.0.1", 0))) as free:
            server.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        storage = make(server, skip_signature=True)
        with pytest.raises(CopyUnavailableError, match="object: asking the store failed: GenericError"):
            await storage.stat("object")
        await storage.close()

    async def test_a_wrong_key_is_told_without_it(self, server: ObjectServer) -> None:
        other = json.loads(service_account_key())
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        key = rsa.generate_private_key(65537, 2048).private_bytes(encoding, form, serialization.NoEncryption()).decode()
        storage = make(server, service_account_key=json.dumps(other | {"private_key": key}))
        with pytest.raises(CopyUnavailableError, match="the store answers 403") as caught:
            await storage.stream("object", 0, 1, None)
        shown = "".join(traceback.format_exception(caught.value)) + repr(storage)
        assert not any(line in shown for line in key.splitlines()[1:-1])
        await storage.close()


class TestDeadlines:
    @pytest.mark.parametrize("call", ["stat", "stream"])
    async def test_a_store_that_does_not_answer_is_given_up_on_and_its_connections_closed(
        self, server: ObjectServer, call: Literal["stat", "stream"]
    ) -> None:
        storage = make(server, timeout=0.3, skip_signature=True)
        server.hang(times=10)
        began = time.monotonic()
        with pytest.raises(CopyUnavailableError, match=r"object: did not answer within 0\.3 s"):
            await (storage.stat("object") if call == "stat" else storage.stream("object", 0, 1, None))
        assert time.monotonic() - began < 10
        await until(lambda: not server.server.connections)
        await storage.close()

    async def test_a_store_that_stalls_amid_the_bytes_is_given_up_on(self, server: ObjectServer) -> None:
        server.is_open = True
        server.objects["/bucket/pre/object"] = CONTENT
        storage = make(server, timeout=0.3, skip_signature=True)
        server.stall(times=10)
        with pytest.raises(CopyUnavailableError, match="object: "):
            await read_all(storage)
        await until(lambda: not server.server.connections)
        await storage.close()

    async def test_a_connection_that_stalls_is_replaced(self, server: ObjectServer) -> None:
        server.is_open = True
        server.objects["/bucket/pre/object"] = CONTENT
        storage = make(server, timeout=2, skip_signature=True)
        server.stall()
        assert await read_all(storage) == CONTENT
        await storage.close()


class TestLettingGo:
    async def test_a_stream_that_is_closed_takes_no_more_bytes(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        server.objects["/bucket/pre/object"] = bytes(64 * PIECE_BYTES)
        stream = await storage.stream("object", 0, 64 * PIECE_BYTES, None)
        assert len(await stream.read()) >= PIECE_BYTES
        assert len(server.server.connections) == 1
        stream.close()
        await until(lambda: not server.server.connections)

    async def test_a_stream_that_was_never_read_is_closed(self, server: ObjectServer, storage: ObstoreStorage) -> None:
        server.objects["/bucket/pre/object"] = bytes(64 * PIECE_BYTES)
        (await storage.stream("object", 0, 64 * PIECE_BYTES, None)).close()
        await until(lambda: not server.server.connections)

    @pytest.mark.parametrize("way", ["hang", "stall"])
    async def test_a_read_that_is_cancelled_closes_its_connection(
        self, server: ObjectServer, storage: ObstoreStorage, way: Literal["hang", "stall"]
    ) -> None:
        (server.hang if way == "hang" else server.stall)()
        task = asyncio.create_task(read_all(storage))
        await until(lambda: bool(server.requests))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not server.server.connections)
        assert await read_all(storage) == CONTENT

    async def test_a_storage_that_is_closed_leaves_no_connection(
        self, server: ObjectServer, storage: ObstoreStorage
    ) -> None:
        await asyncio.gather(*[read_all(storage) for _ in range(5)])
        assert server.server.connections
        await storage.close()
        await until(lambda: not server.server.connections)


class TestSign:
    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_a_signed_url_gives_that_object_for_that_method_only(
        self, server: ObjectServer, storage: ObstoreStorage, name: str
    ) -> None:
        assert isinstance(storage, CanSign)
        server.objects[f"/bucket/pre/{name}"] = name.encode()
        wishes = {"content_type": 'image/tiff; x="é"', "disposition": "attachment; filename*=UTF-8''%C3%A9%20b.tif"}
        for given in ({}, wishes):
            get = await storage.sign(name, method="GET", lifetime=60, **given)
            head = await storage.sign(name, method="HEAD", lifetime=60, **given)
            assert get.lifetime == head.lifetime == 60
            assert await fetch("GET", get.url) == (200, name.encode())
            assert await fetch("HEAD", head.url) == (200, b"")
            for method, url in (("HEAD", get.url), ("DELETE", get.url), ("GET", head.url), ("DELETE", head.url)):
                assert (await fetch(method, url))[0] == 403
        asked = server.requests[-6].query
        assert asked["response-content-type"] == wishes["content_type"]
        assert asked["response-content-disposition"] == wishes["disposition"]

    async def test_a_signed_url_is_for_one_object(self, server: ObjectServer, storage: ObstoreStorage) -> None:
        assert isinstance(storage, CanSign)
        server.objects["/bucket/pre/other"] = b"not for you"
        signed = (await storage.sign("object", method="GET", lifetime=60, disposition="inline")).url
        assert await fetch("GET", signed) == (200, CONTENT)
        for changed in (
            signed.replace("/object?", "/other?"),
            signed.replace("X-Goog-Expires=60", "X-Goog-Expires=600"),
            signed.replace("=inline", "=attachment"),
            signed + "&response-content-type=text%2Fhtml",
            signed.partition("?")[0],
        ):
            assert changed != signed
            assert (await fetch("GET", changed))[0] == 403

    async def test_by_default_it_leads_to_google(self, server: ObjectServer) -> None:
        options = {"url": "gs://bucket/pre", "options": {"service_account_key": service_account_key()}}
        storage = ObstoreStorage.from_options("google", options)
        assert isinstance(storage, SigningObstoreStorage)
        server.objects["/bucket/pre/object"] = CONTENT
        signed = await storage.sign("object", method="GET", lifetime=60)
        assert signed.url.startswith("https://storage.googleapis.com/bucket/pre/object?")
        asked = signed.url.replace("https://storage.googleapis.com", server.url)
        assert await fetch("GET", asked, "storage.googleapis.com") == (200, CONTENT)
        assert (await fetch("GET", asked))[0] == 403
        await storage.close()

    @pytest.mark.parametrize(("lifetime", "seconds"), [(1, 1), (59.9, 59), (LONGEST_LIFETIME + 1, LONGEST_LIFETIME)])
    async def test_it_works_no_longer_than_it_says(
        self, storage: ObstoreStorage, lifetime: float, seconds: int
    ) -> None:
        assert isinstance(storage, CanSign)
        signed = await storage.sign("object", method="GET", lifetime=lifetime)
        assert signed.lifetime == seconds
        assert f"X-Goog-Expires={seconds}&" in signed.url

    async def test_names_that_mean_another_one_are_refused(self, storage: ObstoreStorage) -> None:
        assert isinstance(storage, CanSign)
        with pytest.raises(ValueError, match="segment"):
            await storage.sign("a/../object", method="GET", lifetime=60)
        for name in ("object/", "/object", "", "a//b", "a\nb", "a\\b"):
            with pytest.raises(CopyNotFoundError):
                await storage.sign(name, method="GET", lifetime=60)

    async def test_the_key_may_lie_in_a_file_and_say_where_the_service_is(
        self, server: ObjectServer, tmp_path: Path
    ) -> None:
        file = tmp_path / "key.json"
        file.write_text(json.dumps(json.loads(service_account_key()) | {"gcs_base_url": server.url}))
        for option in ("service_account", "application_credentials"):
            options = {"url": "gs://bucket/pre", "options": {option: str(file)}, "client_options": {"allow_http": True}}
            storage = ObstoreStorage.from_options("google", options)
            assert isinstance(storage, SigningObstoreStorage)
            server.objects["/bucket/pre/object"] = CONTENT
            assert await fetch("GET", (await storage.sign("object", method="GET", lifetime=60)).url) == (200, CONTENT)
            assert "PRIVATE" not in repr(vars(storage)) + repr(vars(storage).get("_signer"))
            await storage.close()

    @pytest.mark.parametrize("change", [{"private_key": "x"}, {"private_key": 5}, {"client_email": ""}, []])
    def test_a_key_that_cannot_sign_signs_nothing(self, change: dict[str, object] | list[object]) -> None:
        text = json.dumps(json.loads(service_account_key()) | change if isinstance(change, dict) else change)
        assert ServiceAccount.load(text, base=None, bucket="bucket") is None


async def fetch(method: str, url: str, host: str | None = None) -> tuple[int, bytes]:
    headers = {"Host": host} if host else {}
    asked = yarl.URL(url, encoded=True)
    async with aiohttp.ClientSession() as session, session.request(method, asked, headers=headers) as answer:
        return answer.status, await answer.read()
