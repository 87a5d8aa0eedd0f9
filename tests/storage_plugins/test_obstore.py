"""Object stores through obstore: options, names, and the rules that hold for every kind of store."""

from __future__ import annotations

import contextlib
import datetime
import functools
import subprocess
import sys
import tomllib
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, MemoryStore

from gateway.errors import ConfigurationError
from gateway.locations import load_plugin
from gateway.storage import (
    CanSign,
    CanStage,
    CanStat,
    CanStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    OnDisk,
    Storage,
    StorageError,
)
from storage_plugins.obstore.errors import failure
from storage_plugins.obstore.options import is_askable
from storage_plugins.obstore.plugin import PIECE_BYTES, ObstoreStorage, SigningObstoreStorage, describe
from tests.storage_plugins.object_server import service_account_key
from tests.storage_plugins.support import CONTENT

SECRET = "c2VjcmV0IHNlY3JldA=="
AZURE: dict[str, object] = {"account_name": "account", "account_key": SECRET}
ANYBODY: dict[str, object] = {"skip_signature": True}
ROOT = Path(__file__).parents[2]


def make(url: str, options: dict[str, object] | None = None, **others: object) -> ObstoreStorage:
    storage = ObstoreStorage.from_options("objects", {"url": url, "options": options or {}, **others})
    assert isinstance(storage, ObstoreStorage)
    return storage


class TestOptions:
    def test_the_plugin_is_announced_and_has_its_capabilities(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert project["entry-points"]["gateway.storage"]["obstore"] == "storage_plugins.obstore.plugin:ObstoreStorage"
        storage: Storage = make("memory:///")
        assert storage.name == "objects"
        capabilities = (CanStat, CanStream, CanSign, CanStage, OnDisk)
        assert [it for it in capabilities if isinstance(storage, it)] == [CanStat, CanStream]

    @pytest.mark.parametrize(
        ("url", "options", "signs"),
        [
            ("memory:///", {}, False),
            ("gs://bucket", {"service_account_key": "{key}"}, True),
            ("gs://bucket", {"service_account_key": "{key}", "skip_signature": False}, True),
            ("gs://bucket", {"service_account_key": "{key}", "skip_signature": "false"}, True),
            ("gs://bucket", {"service_account_key": "{key}", "google_skip_signature": "1"}, False),
            ("gs://bucket", {"service_account_key": "{key}", "bearer_token": SECRET}, False),
            ("gs://bucket", {"bearer_token": SECRET}, False),
            ("gs://bucket", ANYBODY, False),
            ("az://container", AZURE, True),
            ("abfss://container@account.dfs.core.windows.net", {"account_key": SECRET}, True),
            ("az://container", {"account_name": "account", "AZURE_STORAGE_SAS_TOKEN": "sig=x"}, False),
            ("az://container", {"account_name": "account", "token": SECRET}, False),
            ("az://container", AZURE | {"use_emulator": True}, False),
            ("az://container", AZURE | ANYBODY, False),
            ("s3://bucket", {"access_key_id": "a", "secret_access_key": SECRET}, True),
            ("s3a://bucket", ANYBODY, False),
        ],
    )
    def test_it_signs_where_the_store_and_its_credentials_can(
        self, url: str, options: dict[str, object], signs: bool
    ) -> None:
        given_options = {k: service_account_key() if v == "{key}" else v for k, v in options.items()}
        storage = make(url, given_options)
        assert isinstance(storage, CanSign) == isinstance(storage, SigningObstoreStorage) == signs
        assert isinstance(storage, CanStream)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({}, "url: must be like 'gs://bucket/prefix'"),
            ({"url": 5}, "url: must be like"),
            ({"url": "gs://"}, "url: must be like"),
            ({"url": "gs:///prefix"}, "url: must be like"),
            ({"url": "gs://user:password@bucket"}, "url: must be like"),
            ({"url": "gs://user@bucket"}, "url: must be like"),
            ({"url": "gs://bucket?x"}, "url: must be like"),
            ({"url": "file:///data"}, "url: must be like"),
            ({"url": "https://account.blob.core.windows.net/container"}, "url: must be like"),
            ({"url": "memory://bucket/"}, "url: must be like"),
            ({"url": "gs://bucket/a//b"}, "url: its prefix must have no segment"),
            ({"url": "gs://bucket/a/../b"}, "url: its prefix must have no segment"),
            ({"url": "gs://bucket//"}, "url: its prefix must have no segment"),
            ({"url": "gs://bucket/a\tb"}, "url: its prefix must have no segment"),
            ({"url": "gs://b", "bucket": "b", "token": SECRET}, "bucket, token: no such option of plug-in 'obstore'"),
            ({"url": "gs://b", "options": "x"}, "options: must be a table"),
            ({"url": "gs://b", "options": {"bearer_token": 5}}, "options.bearer_token: must be text, true or false"),
            ({"url": "gs://b", "client_options": {"timeout": 5}}, "client_options.timeout: must be text"),
            (
                {"url": "gs://b", "client_options": {"default_headers": {"x": 5}}},
                "default_headers.x: must be text, true or false",
            ),
            ({"url": "gs://b", "timeout": "5"}, "timeout: must be a number"),
            ({"url": "gs://b", "timeout": True}, "timeout: must be a number"),
            ({"url": "gs://b", "timeout": 0}, "timeout: must be a number"),
            (
                {"url": "gs://b", "options": {"nonsense": "x"}},
                "options, client_options: obstore says: Configuration key",
            ),
            (
                {"url": "gs://b", "client_options": {"nonsense": "x"}},
                "options, client_options: obstore says: Invalid key",
            ),
            (
                {"url": "gs://b", "options": {"skip_signature": SECRET}},
                "obstore says: Generic Config error: failed to pa",
            ),
            ({"url": "gs://b", "options": {"service_account_key": f'"{SECRET}"'}}, "obstore says: Generic GCS error"),
            ({"url": "gs://b", "options": {"service_account": f"/{SECRET}"}}, "obstore says: Generic GCS error"),
            ({"url": "gs://b", "options": ANYBODY | {"bucket": "c"}}, "options: the bucket, container and account are"),
            ({"url": "az://c", "options": AZURE | {"container_name": "d"}}, "options: the bucket, container and"),
            (
                {"url": "abfs://c@other.dfs.core.windows.net", "options": AZURE},
                "options: the bucket, container and account are those of url",
            ),
            (
                {"url": "az://c", "options": {"account_key": SECRET}},
                "obstore says: Generic MicrosoftAzure error: Account",
            ),
            ({"url": "az://c", "options": AZURE | {"account_key": SECRET[1:]}}, "obstore says: Generic MicrosoftAzure"),
            ({"url": "memory:///", "options": AZURE}, "options: a store in memory has none"),
        ],
    )
    def test_what_is_wrong_is_named_and_no_secret_shown(self, options: dict[str, object], complaint: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            ObstoreStorage.from_options("objects", options)
        text = str(caught.value)
        assert complaint in text
        assert text.index(complaint) == 0 or complaint.startswith(("obstore", "default"))
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET[1:] not in shown
        assert "password" not in shown

    def test_no_secret_is_in_a_repr(self) -> None:
        storage = make("az://container", AZURE)
        assert SECRET not in repr(storage) + repr(storage._open_store) + repr(vars(storage))

    def test_without_the_library_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "storage_plugins.obstore.plugin")
        monkeypatch.setitem(sys.modules, "obstore", None)
        point = type("Point", (), {"name": "obstore", "load": lambda _: __import__("storage_plugins.obstore.plugin")})()
        monkeypatch.setattr("gateway.locations.entry_points", lambda *, group: [point])
        with pytest.raises(ConfigurationError, match=r"pip install 'download-gateway\[obstore\]'"):
            load_plugin("obstore")


NAMES = st.from_regex(r"[^/\\\x00-\x1f\x7f\ud800-\udfff]+(/[^/\\\x00-\x1f\x7f\ud800-\udfff]+)*", fullmatch=True).filter(
    lambda name: {".", ".."}.isdisjoint(name.split("/"))
)
STORES: dict[str, tuple[str, dict[str, object]]] = {
    "gs://bucket/pre/fix": ("https://storage.googleapis.com/bucket/pre/fix/", ANYBODY),
    "gs://bucket/pre/fix/": ("https://bucket.storage.googleapis.com/pre/fix/", ANYBODY),
    "gs://bucket": ("https://storage.googleapis.com/bucket/", ANYBODY),
    "gs://bucket/a b%20é?#": ("https://storage.googleapis.com/bucket/a%20b%2520%C3%A9%3F%23/", ANYBODY),
    "az://container/pre": ("https://account.blob.core.windows.net/container/pre/", AZURE),
    "abfss://container@account.dfs.core.windows.net/pre": (
        "https://account.blob.core.windows.net/container/pre/",
        {"account_key": SECRET},
    ),
    "az://china": (
        "https://account.blob.core.chinacloudapi.cn/china/",
        AZURE | {"endpoint": "https://account.blob.core.chinacloudapi.cn/"},
    ),
}


@functools.cache
def made(url: str) -> ObstoreStorage:
    """A storage takes longer to make than many names take to find."""
    return make(url, STORES[url][1])


class TestLocate:
    @pytest.mark.parametrize("url", STORES)
    @given(name=NAMES)
    @settings(max_examples=30)
    def test_a_name_is_found_below_the_url_and_below_its_https_form(self, url: str, name: str) -> None:
        web, storage = STORES[url][0], made(url)
        assert storage.locate(f"{url.rstrip('/')}/{name}") == name
        assert storage.locate(web + quote(name, safe="")) == name
        assert storage.locate(web + quote(name, safe="/~!$&'()*+,;=:@")) == name

    @pytest.mark.parametrize(
        "href",
        [
            "",
            "/pre/fix/a",
            "gs://bucket",
            "gs://bucket/",
            "gs://bucket/pre/fix",
            "gs://bucket/pre/fix/",
            "gs://bucket/pre/fixa",
            "gs://bucket/pre/a",
            "gs://other/pre/fix/a",
            "gs://bucket2/pre/fix/a",
            "s3://bucket/pre/fix/a",
            "http://storage.googleapis.com/bucket/pre/fix/a",
            "https://storage.googleapis.com.example/bucket/pre/fix/a",
            "https://storage.googleapis.com/bucket/pre/fix/a?X-Goog-Signature=x",
            "https://storage.googleapis.com/bucket/pre/fix/a#part",
            "https://storage.googleapis.com/other/pre/fix/a",
            "https://storage.googleapis.com/bucket/pre%2Ffix",
        ],
    )
    def test_what_lies_elsewhere_is_not_its_own(self, href: str) -> None:
        assert made("gs://bucket/pre/fix").locate(href) is None

    @pytest.mark.parametrize(
        "href",
        [
            "gs://bucket/../a",
            "gs://bucket/a/./b",
            "gs://bucket/..",
            "gs://bucket//a",
            "gs://bucket/a/",
            "gs://bucket/a\nb",
            "gs://bucket/..\\a",
            "https://storage.googleapis.com/bucket/a%5C..%5Cb",
            "https://storage.googleapis.com/bucket/a%2F..%2Fb",
            "https://storage.googleapis.com/bucket/%2e%2E/b",
            "https://storage.googleapis.com/bucket/%00",
            "https://storage.googleapis.com/bucket/%ff",
        ],
    )
    def test_what_could_mean_another_object_is_refused(self, href: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            made("gs://bucket").locate(href)

    def test_another_base_has_no_well_known_form(self) -> None:
        storage = make("gs://bucket", ANYBODY | {"base_url": "https://objects.example"})
        assert storage.locate("https://objects.example/bucket/a%20b") == "a b"
        assert storage.locate("https://storage.googleapis.com/bucket/a%20b") is None
        assert storage.locate("https://bucket.storage.googleapis.com/a%20b") is None


@pytest.fixture(params=["memory", "local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | LocalStore:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path)


@pytest.fixture
async def storage(store: MemoryStore | LocalStore) -> AsyncIterator[ObstoreStorage]:
    obstore.put(store, "pre/dir/object", CONTENT)
    obstore.put(store, "outside", b"not for you")
    storage = ObstoreStorage("objects", store, prefix="pre/")
    yield storage
    await storage.close()


async def read_all(storage: CanStream, location: str, start: int, stop: int, version: str | None = None) -> bytes:
    with contextlib.closing(await storage.stream(location, start, stop, version)) as stream:
        pieces = []
        while piece := await stream.read():
            pieces.append(piece)
        assert await stream.read() == b""
        return b"".join(pieces)


class TestAnyStore:
    async def test_it_describes_what_it_gives(self, storage: ObstoreStorage) -> None:
        found = await storage.stat("dir/object")
        assert found.size == len(CONTENT)
        assert found.version
        assert '"' not in found.version
        assert found.modified is not None
        assert found.modified.tzinfo is not None
        with contextlib.closing(await storage.stream("dir/object", 0, 1, found.version)) as stream:
            assert stream.stat == found

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, 1), (0, len(CONTENT)), (7, 7 + PIECE_BYTES), (5, PIECE_BYTES * 3), (len(CONTENT) - 1, len(CONTENT))],
    )
    async def test_it_gives_just_what_was_asked_for(self, storage: ObstoreStorage, start: int, stop: int) -> None:
        version = (await storage.stat("dir/object")).version
        assert await read_all(storage, "dir/object", start, stop, version) == CONTENT[start:stop]
        assert await read_all(storage, "dir/object", start, stop) == CONTENT[start:stop]

    async def test_another_version_is_not_given(self, storage: ObstoreStorage, store: Any) -> None:
        version = (await storage.stat("dir/object")).version
        obstore.put(store, "pre/dir/object", b"x" + CONTENT[1:] + b"y")
        for wrong in (version, "W/" + version, "other"):
            with pytest.raises(CopyChangedError):
                await storage.stream("dir/object", 0, 1, wrong)

    @pytest.mark.parametrize("start", [0, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 5])
    async def test_what_ends_early_was_changed(self, storage: ObstoreStorage, start: int) -> None:
        with pytest.raises(CopyChangedError):
            await storage.stream("dir/object", start, len(CONTENT) + 6, None)

    async def test_what_is_not_there_is_told(self, storage: ObstoreStorage) -> None:
        for absent in (
            "absent",
            "dir",
            "outside",
            "dir/object/",
            "/dir/object",
            "dir//object",
            "dir\\object",
            "",
            "/",
        ):
            with pytest.raises(CopyNotFoundError):
                await storage.stat(absent)
            with pytest.raises(CopyNotFoundError):
                await storage.stream(absent, 0, 1, None)

    @pytest.mark.parametrize("location", ["..", "../outside", "dir/../../outside", "./dir/object", "dir/."])
    async def test_dot_segments_are_refused(self, storage: ObstoreStorage, location: str) -> None:
        with pytest.raises(ValueError, match="segment"):
            await storage.stat(location)
        with pytest.raises(ValueError, match="segment"):
            await storage.stream(location, 0, 1, None)

    async def test_what_is_closed_gives_nothing(self, storage: ObstoreStorage) -> None:
        stream = await storage.stream("dir/object", 0, len(CONTENT), None)
        assert CONTENT.startswith(await stream.read())
        stream.close()
        stream.close()
        with pytest.raises(RuntimeError, match="closed"):
            await stream.read()
        await storage.close()
        await storage.close()
        with pytest.raises(RuntimeError, match="storage 'objects' is closed"):
            await storage.stat("dir/object")

    @given(name=st.text())
    def test_a_name_is_asked_for_as_it_is_or_not_at_all(self, name: str) -> None:
        memory = MemoryStore()
        if is_askable(name) and {".", ".."}.isdisjoint(name.split("/")):
            obstore.put(memory, name, b"x")
            assert obstore.head(memory, name)["path"] == name
        elif name.strip("/") and "\\" not in name:
            with contextlib.suppress(ValueError):
                obstore.put(memory, name, b"x")
                assert obstore.list(memory).collect()[0]["path"] != name


class TestDescribe:
    @pytest.mark.parametrize(
        ("etag", "version"),
        [
            ('"abc"', "abc"),
            ('"0x8DD"', "0x8DD"),
            ('"a-2"', "a-2"),
            ('W/"abc"', "W/W%2F%22abc%22/1793000000.000000/5"),
            ("abc", "W/abc/1793000000.000000/5"),
            ('""', "W/%22%22/1793000000.000000/5"),
            ('"W/x"', "W/%22W%2Fx%22/1793000000.000000/5"),
            (None, "W//1793000000.000000/5"),
        ],
    )
    def test_the_version_is_the_strong_entity_tag(self, etag: str | None, version: str) -> None:
        modified = datetime.datetime.fromtimestamp(1793000000, datetime.UTC)
        found = describe({"path": "x", "size": 5, "last_modified": modified, "e_tag": etag, "version": "7"})
        assert (found.size, found.modified, found.version) == (5, modified, version)


def said(status: int, body: str = "") -> str:
    """As obstore tells it, with things that must not get out."""
    return (
        f"Generic MicrosoftAzure error: Error performing GET http://host/x?sig={SECRET} in 1ms - "
        f"Server returned non-2xx status code: {status} Some Reason: {body} {SECRET}\n\nDebug source:\n{SECRET}"
    )


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "kind", "text"),
        [
            (FileNotFoundError(said(404, "<Code>NoSuchKey</Code>")), CopyNotFoundError, "there is no such object"),
            (FileNotFoundError(said(404, "<Code>NoSuchBucket</Code>")), CopyUnavailableError, "no such bucket"),
            (FileNotFoundError(said(404, "<Code>ContainerNotFound</Code>")), CopyUnavailableError, "no such bucket"),
            (PreconditionError(said(412)), CopyChangedError, "has another version"),
            (NotModifiedError(said(304)), CopyChangedError, "has another version"),
            (GenericError(said(416)), CopyChangedError, "ends before"),
            (AlreadyExistsError(said(409, "<Code>BlobArchived</Code>")), CopyOfflineError, "(BlobArchived)"),
            (AlreadyExistsError(said(409, "<Code>BlobBeingRehydrated</Code>")), CopyOfflineError, "restored first"),
            (PermissionDeniedError(said(403, "<Code>InvalidObjectState</Code>")), CopyOfflineError, "restored first"),
            (
                AlreadyExistsError(said(409, "<Code>LeaseLost</Code>")),
                CopyUnavailableError,
                "store answers 409 LeaseLost",
            ),
            (PermissionDeniedError(said(403, "<Code>AccessDenied</Code>")), CopyUnavailableError, "403 AccessDenied"),
            (UnauthenticatedError(said(401)), CopyUnavailableError, "the store answers 401"),
            (GenericError(said(503, "<Code>SlowDown</Code>")), CopyUnavailableError, "503 SlowDown"),
            (
                GenericError(f"Error performing token request: {said(403)}"),
                CopyUnavailableError,
                "the source of credentials answers 403",
            ),
            (
                GenericError(f"HTTP error {SECRET} ConnectionRefused"),
                CopyUnavailableError,
                "failed: GenericError (Conn",
            ),
            (GenericError(f"{SECRET} kind: Timeout"), CopyUnavailableError, "GenericError (Timeout)"),
            (
                GenericError(f"Last-Modified Header missing from {SECRET}"),
                CopyUnavailableError,
                "(Last-Modified Header m",
            ),
            (GenericError(SECRET), CopyUnavailableError, "asking the store failed: GenericError"),
        ],
    )
    def test_each_has_its_meaning_and_tells_no_secret(
        self, error: BaseError, kind: type[StorageError], text: str
    ) -> None:
        found = failure("dir/object", error)
        assert type(found) is kind
        assert str(found).startswith("dir/object: ")
        assert text in str(found)
        assert SECRET not in str(found)


ENDING = """
import asyncio, contextlib
from obstore.store import MemoryStore
from storage_plugins.obstore.plugin import ObstoreStorage
async def use():
    store = MemoryStore()
    await __import__("obstore").put_async(store, "object", bytes(1 << 20))
    storage = ObstoreStorage("objects", store)
    async def read():
        with contextlib.closing(await storage.stream("object", 0, 1 << 20, None)) as stream:
            while await stream.read():
                pass
    await asyncio.gather(*[read() for _ in range(8)])
    await storage.close()
asyncio.run(use())
"""


def test_a_process_ends_well_right_after_it_closed_its_storages() -> None:
    for _ in range(5):
        ended = subprocess.run([sys.executable, "-c", ENDING], cwd=ROOT, capture_output=True, timeout=30, check=False)
        assert (ended.returncode, ended.stderr) == (0, b"")
