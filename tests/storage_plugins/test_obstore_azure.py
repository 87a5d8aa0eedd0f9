"""Azure Blob Storage through obstore: its signatures held against the service's rules, and a real emulator."""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from urllib.parse import unquote, urlsplit

import aiohttp
import obstore
import pytest
import yarl
from obstore.store import AzureStore

from gateway.storage import (
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
)
from storage_plugins.obstore.plugin import ObstoreStorage, SigningObstoreStorage
from tests.storage_plugins.azurite import ACCOUNT, Azurite, check_service_sas, run_azurite
from tests.storage_plugins.support import CONTENT

KEY = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA=="
NAMES = [
    "object",
    "a/b.SAFE/c-d_e~f.tif",
    "!$&'()*+,;=:@",
    'a^b|[c]<d>{e}`f"',
    "a b/é/北京",
    "100%/%20",
    "what?#",
]


def make(container: str, endpoint: str | None = None, key: str = KEY, account: str = ACCOUNT) -> SigningObstoreStorage:
    storage = ObstoreStorage.from_options(
        "azure",
        {
            "url": f"az://{container}/pre",
            "options": {"account_name": account, "account_key": key} | ({"endpoint": endpoint} if endpoint else {}),
            "client_options": {"allow_http": True},
        },
    )
    assert isinstance(storage, SigningObstoreStorage)
    return storage


WISHES = {"content_type": "image/tiff", "disposition": "attachment; filename*=UTF-8''%C3%A9%20b.tif"}


class TestSign:
    @pytest.mark.parametrize("name", NAMES)
    async def test_a_url_is_signed_for_reading_one_blob(self, name: str) -> None:
        storage = make("container")
        signed = await storage.sign(name, method="GET", lifetime=61, **WISHES)
        assert signed.lifetime == 61
        parts = urlsplit(signed.url)
        assert f"{parts.scheme}://{parts.netloc}" == f"https://{ACCOUNT}.blob.core.windows.net"
        assert unquote(parts.path) == f"/container/pre/{name}"
        fields = check_service_sas(KEY, signed.url, f"/blob/{ACCOUNT}/container/pre/{name}")
        assert [fields[it] for it in ("sp", "sr", "spr", "rsct", "rscd")] == ["r", "b", "https", *WISHES.values()]
        ends = datetime.datetime.fromisoformat(fields["se"])
        assert 58 < (ends - datetime.datetime.now(datetime.UTC)).total_seconds() <= 61
        await storage.close()

    async def test_a_url_for_head_would_give_the_bytes_and_is_refused(self) -> None:
        storage = make("container")
        with pytest.raises(CopyUnavailableError, match="object: Azure has no URL for HEAD alone"):
            await storage.sign("object", method="HEAD", lifetime=60)
        await storage.close()

    @pytest.mark.parametrize(
        ("url", "endpoint", "start"),
        [
            ("az://container", None, f"https://{ACCOUNT}.blob.core.windows.net/container/x?"),
            ("abfs://container@devaccount.dfs.core.windows.net", None, "https://devaccount.blob.core.windows.net/con"),
            ("az://$root", "https://account.blob.example/", "https://account.blob.example/%24root/x?"),
        ],
    )
    async def test_it_leads_to_the_endpoint_of_the_account(self, url: str, endpoint: str | None, start: str) -> None:
        settings = {"account_name": ACCOUNT, "account_key": KEY} | ({"endpoint": endpoint} if endpoint else {})
        storage = ObstoreStorage.from_options("azure", {"url": url, "options": settings})
        assert isinstance(storage, SigningObstoreStorage)
        assert (await storage.sign("x", method="GET", lifetime=60)).url.startswith(start)
        assert KEY not in repr(vars(storage))
        await storage.close()

    async def test_what_obstore_signs_is_right_only_for_names_that_need_no_encoding(self) -> None:
        """If this fails, obstore may be trusted with signing, and with credentials other than account keys."""
        store = AzureStore("container", config={"account_name": ACCOUNT, "account_key": KEY})
        for name, right in (("plain", True), ("a b", False), ("é", False)):
            url = await obstore.sign_async(store, "GET", name, datetime.timedelta(seconds=60))
            with contextlib.nullcontext() if right else pytest.raises(AssertionError):
                check_service_sas(KEY, url, f"/blob/{ACCOUNT}/container/{name}")


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is not on PATH")
    with run_azurite(program, tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
async def storage(azurite: Azurite) -> AsyncIterator[SigningObstoreStorage]:
    storage = make(azurite.container, azurite.url, azurite.key)
    yield storage
    await storage.close()


class TestAzurite:
    @pytest.mark.parametrize("name", NAMES)
    async def test_a_blob_of_any_name_is_described_and_given(
        self, azurite: Azurite, storage: SigningObstoreStorage, name: str
    ) -> None:
        azurite.put(f"pre/{name}", CONTENT)
        found = await storage.stat(name)
        assert found.size == len(CONTENT)
        with contextlib.closing(await storage.stream(name, 5, len(CONTENT), found.version)) as stream:
            assert stream.stat == found
            pieces = []
            while piece := await stream.read():
                pieces.append(piece)
        assert b"".join(pieces) == CONTENT[5:]

    async def test_what_was_changed_is_not_given(self, azurite: Azurite, storage: SigningObstoreStorage) -> None:
        azurite.put("pre/changed", b"before")
        version = (await storage.stat("changed")).version
        azurite.put("pre/changed", b"after!")
        with pytest.raises(CopyChangedError, match="another version"):
            await storage.stream("changed", 0, 6, version)
        for start in (0, 6, 7):
            with pytest.raises(CopyChangedError):
                await storage.stream("changed", start, 8, None)

    async def test_what_is_archived_is_offline(self, azurite: Azurite, storage: SigningObstoreStorage) -> None:
        azurite.put("pre/archived", b"cold")
        azurite.send("PUT", f"/{azurite.container}/pre/archived", "comp=tier", {"x-ms-access-tier": "Archive"})
        assert (await storage.stat("archived")).size == 4
        with pytest.raises(CopyOfflineError, match="BlobArchived"):
            await storage.stream("archived", 0, 4, None)

    async def test_what_is_not_there_is_told(self, azurite: Azurite, storage: SigningObstoreStorage) -> None:
        with pytest.raises(CopyNotFoundError):
            await storage.stat("absent")
        with pytest.raises(CopyNotFoundError):
            await storage.stream("absent", 0, 1, None)
        elsewhere = make("elsewhere", azurite.url, azurite.key)
        with pytest.raises(CopyUnavailableError, match="no such bucket or container"):
            await elsewhere.stream("absent", 0, 1, None)
        await elsewhere.close()

    async def test_a_wrong_key_is_refused(self, azurite: Azurite) -> None:
        stranger = make(azurite.container, azurite.url)
        for call in (stranger.stat("object"), stranger.stream("object", 0, 1, None)):
            with pytest.raises(CopyUnavailableError, match="the store answers 403"):
                await call
        await stranger.close()

    @pytest.mark.parametrize("name", NAMES)
    async def test_a_signed_url_reads_one_blob_and_does_nothing_else(
        self, azurite: Azurite, storage: SigningObstoreStorage, name: str
    ) -> None:
        azurite.put(f"pre/{name}", b"content")
        azurite.put("pre/other", b"not for you")
        signed = (await storage.sign(name, method="GET", lifetime=60, **WISHES)).url
        status, headers, body = await fetch("GET", signed)
        assert (status, body) == (200, b"content")
        assert (headers["Content-Type"], headers["Content-Disposition"]) == tuple(WISHES.values())
        plain = (await storage.sign(name, method="GET", lifetime=60)).url
        assert (await fetch("GET", plain))[::2] == (200, b"content")
        path = urlsplit(signed).path
        for method, url in (
            ("DELETE", signed),
            ("GET", signed.replace(path, f"{urlsplit(azurite.url).path}/{azurite.container}/pre/other")),
            ("GET", plain + "&rscd=attachment"),
        ):
            assert (await fetch(method, url))[0] == 403


async def fetch(method: str, url: str) -> tuple[int, Mapping[str, str], bytes]:
    async with aiohttp.ClientSession() as session, session.request(method, yarl.URL(url, encoded=True)) as answer:
        return answer.status, answer.headers, await answer.read()
