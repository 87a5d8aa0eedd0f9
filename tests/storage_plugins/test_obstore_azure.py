"""Azure Blob Storage through obstore: its signatures held against the service's rules, and a real emulator."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import aiohttp
import pytest
import yarl

from gateway.storage import (
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
)
from storage_plugins.obstore import LONGEST_LIFETIME, ObstoreStorage, SigningObstoreStorage
from tests.storage_plugins.azurite import ACCOUNT, Azurite, check_service_sas, run_azurite
from tests.storage_plugins.support import CONTENT

KEY = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA=="
PLAIN_NAMES = ["object", "a/b.SAFE/c-d_e~f.tif", "!$&'()*+,;=:@", "a^b|[c]"]
ENCODED_NAMES = ["a b", "é", "100%", "a%20b", "what?", "a#b", "a\\b", 'say"', "<a>", "{a}", "`"]


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


class TestSign:
    @pytest.mark.parametrize("name", PLAIN_NAMES)
    async def test_a_url_is_signed_for_reading_one_blob(self, name: str) -> None:
        storage = make("container")
        signed = await storage.sign(name, method="GET", lifetime=61, content_type="image/tiff", disposition="inline")
        assert signed.url.startswith(f"https://{ACCOUNT}.blob.core.windows.net/container/pre/{name}?")
        fields = check_service_sas(KEY, signed.url, f"/blob/{ACCOUNT}/container/pre/{name}")
        assert (fields["sp"], fields["sr"], signed.lifetime) == ("r", "b", 61)
        assert not {"rscd", "rsct"} & set(fields)
        await storage.close()

    @pytest.mark.parametrize("name", ENCODED_NAMES)
    async def test_a_name_that_obstore_signs_wrongly_is_refused(self, name: str) -> None:
        storage = make("container")
        with pytest.raises(CopyUnavailableError, match="obstore cannot sign such a name"):
            await storage.sign(name, method="GET", lifetime=60)
        await storage.close()

    async def test_a_url_for_head_would_give_the_bytes_and_is_refused(self) -> None:
        storage = make("container")
        with pytest.raises(CopyUnavailableError, match="obstore cannot sign HEAD for this store"):
            await storage.sign("object", method="HEAD", lifetime=60)
        await storage.close()

    async def test_it_lives_no_longer_than_a_lent_key(self) -> None:
        storage = make("container")
        assert (await storage.sign("object", method="GET", lifetime=10**9)).lifetime == LONGEST_LIFETIME
        await storage.close()


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
    @pytest.mark.parametrize("name", PLAIN_NAMES + ENCODED_NAMES)
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

    @pytest.mark.parametrize("name", PLAIN_NAMES)
    async def test_a_signed_url_reads_one_blob_and_does_nothing_else(
        self, azurite: Azurite, storage: SigningObstoreStorage, name: str
    ) -> None:
        azurite.put(f"pre/{name}", b"content")
        azurite.put("pre/other", b"not for you")
        signed = (await storage.sign(name, method="GET", lifetime=60)).url
        assert await fetch("GET", signed) == (200, b"content")
        assert (await fetch("DELETE", signed))[0] == 403
        assert (await fetch("GET", signed.replace(f"/{name}?", "/other?")))[0] == 403
        assert (await fetch("GET", signed + "&rscd=attachment"))[0] == 403


async def fetch(method: Literal["GET", "DELETE"], url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.request(method, yarl.URL(url, encoded=True)) as answer:
        return answer.status, await answer.read()
