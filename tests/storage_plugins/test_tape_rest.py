"""The plug-in ``tape_rest`` with a site that is strict about what it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from gateway.errors import ConfigurationError
from gateway.storage import (
    ByteStream,
    CanFetch,
    CanSign,
    CanStage,
    CanStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyOfflineError,
    CopyUnavailableError,
    KnowsTape,
    OnDisk,
    StageState,
    ToStage,
)
from storage_plugins.tape_rest.options import Options
from storage_plugins.tape_rest.plugin import TapeRestStorage
from tests.storage_plugins.support import CONTENT
from tests.storage_plugins.tape_site import TapeFile, TapeSite, tape_site

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
PATH = "/data/esa/a b+é.tif"
NAME = "esa/a b+é.tif"


@pytest.fixture
async def site() -> AsyncIterator[TapeSite]:
    async with tape_site() as running:
        running.files[PATH] = TapeFile(CONTENT)
        yield running


def storage_at(site: TapeSite, **options: object) -> TapeRestStorage:
    given: dict[str, object] = {"url": f"{site.front}/data", "token": site.token, **options}
    return TapeRestStorage(
        "tapes", Options.parse({name: it for name, it in given.items() if it is not None}), lambda: NOW
    )


@pytest.fixture
async def storage(site: TapeSite) -> AsyncIterator[TapeRestStorage]:
    storage = storage_at(site)
    yield storage
    await storage.close()


def copy_of(name: str = NAME, seconds: float = 86400, key: str = "") -> ToStage:
    return ToStage(key or f"7/{name}", name, None, seconds)


async def staged(storage: TapeRestStorage, copy: ToStage) -> StageState:
    return (await storage.staged([copy]))[copy.key]


async def stage(storage: TapeRestStorage, copy: ToStage) -> StageState:
    return (await storage.stage([copy]))[copy.key]


async def read(storage: TapeRestStorage, start: int, stop: int, version: str | None = None, name: str = NAME) -> bytes:
    return await all_of(await storage.stream(name, start, stop, version))


async def all_of(stream: ByteStream) -> bytes:
    pieces = []
    with contextlib.closing(stream):
        while piece := await stream.read():
            pieces.append(piece)
    return b"".join(pieces)


async def refusal(ask: Awaitable[object]) -> str:
    """What a site that is unavailable is told to have said; never the token."""
    with pytest.raises(CopyUnavailableError) as caught:
        await ask
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "to-ken" not in f"{shown}{shown!r}"
        shown = shown.__cause__ or shown.__context__
    return str(caught.value)


class TestRestore:
    async def test_capabilities(self, storage: TapeRestStorage) -> None:
        for capability, has in (
            (CanStage, True),
            (CanStream, True),
            (CanFetch, False),
            (OnDisk, False),
            (CanSign, False),
            (KnowsTape, False),
        ):
            assert isinstance(storage, capability) is has
        assert storage.in_place
        assert storage.stage_batch == 100

    async def test_from_tape_to_disk_and_back(self, site: TapeSite, storage: TapeRestStorage) -> None:
        copy = copy_of()
        assert await staged(storage, copy) == StageState("NEARLINE")
        assert await stage(storage, copy) == StageState("STAGING")
        assert await stage(storage, copy) == StageState("STAGING")
        assert await staged(storage, copy) == StageState("STAGING")
        assert len(site.requests) == 1
        [(name, kept)] = site.files[PATH].pins.items()
        assert kept == datetime.timedelta(hours=25)
        site.arrive(PATH)
        assert await staged(storage, copy) == StageState("ONLINE", NOW + DAY)
        stat = await storage.stat(NAME)
        assert await read(storage, 0, len(CONTENT), stat.version) == CONTENT
        await storage.release([copy])
        assert site.journal[-1] == ("POST", f"release/{name}", {"paths": [PATH]})
        assert await staged(storage, copy) == StageState("NEARLINE")
        asked = [path for _, path, _ in site.journal]
        assert asked.count("/.well-known/wlcg-tape-rest-api") == 1

    async def test_what_is_on_disk_is_kept_there_and_kept_longer(
        self, site: TapeSite, storage: TapeRestStorage
    ) -> None:
        site.arrive(PATH)
        assert await stage(storage, copy_of()) == StageState("ONLINE", NOW + DAY)
        assert await stage(storage, copy_of(seconds=3 * 86400)) == StageState("ONLINE", NOW + 3 * DAY)
        assert await staged(storage, copy_of()) == StageState("ONLINE", NOW + 3 * DAY)
        assert sorted(kept / datetime.timedelta(hours=1) for kept in site.files[PATH].pins.values()) == [25, 73]
        await storage.release([copy_of()])
        assert site.files[PATH].pins == {}

    async def test_what_was_never_on_tape_needs_nothing(self, site: TapeSite, storage: TapeRestStorage) -> None:
        site.files[PATH] = TapeFile(CONTENT, on_disk=True, on_tape=False)
        assert await stage(storage, copy_of()) == await staged(storage, copy_of()) == StageState("ONLINE")
        assert site.requests == {}

    async def test_many_in_one_request(self, site: TapeSite, storage: TapeRestStorage) -> None:
        for number in range(50):
            site.files[f"/data/{number}"] = TapeFile(b"x")
        site.files["/data/lost"] = TapeFile(b"", lost=True)
        site.files["/data/away"] = TapeFile(b"", unavailable=True)
        names = [*map(str, range(50)), "lost", "away", "absent"]
        states = await storage.stage([copy_of(name) for name in names])
        assert [state.state for state in states.values()] == ["STAGING"] * 50 + ["LOST", "FAILED", "FAILED"]
        assert states["7/away"].retry
        assert "does not exist" in (states["7/absent"].error or "")
        assert [len(paths) for paths in site.requests.values()] == [50]
        assert [entry[1] for entry in site.journal] == ["/.well-known/wlcg-tape-rest-api", "archiveinfo", "stage"]
        states = await storage.staged([copy_of(name) for name in names])
        assert [state.state for state in states.values()].count("STAGING") == 50
        assert len(site.journal) == 5

    async def test_one_that_is_refused_keeps_no_other_back(self, site: TapeSite, storage: TapeRestStorage) -> None:
        for number in range(10):
            site.files[f"/data/{number}/x"] = TapeFile(b"x")
        site.forbidden = {"/data/3/x", "/data/7/x"}
        copies = [*(copy_of(f"{number}/x") for number in range(10)), copy_of("../etc")]
        for states in (await storage.stage(copies), await storage.staged(copies)):
            failed = {key: state.error for key, state in states.items() if state.state == "FAILED"}
            assert set(failed) == {"7/3/x", "7/7/x", "7/../etc"}
            assert "403: Forbidden: not all of it is yours" in (failed["7/3/x"] or "")
            assert [state.state for state in states.values()].count("STAGING") == 8
        assert sum(map(len, site.requests.values())) == 8

    async def test_one_that_may_be_asked_after_but_not_for(self, site: TapeSite, storage: TapeRestStorage) -> None:
        site.files["/data/x"] = TapeFile(b"x")
        site.unwanted = {PATH}
        states = await storage.stage([copy_of(), copy_of("x")])
        assert [state.state for state in states.values()] == ["FAILED", "STAGING"]

    async def test_two_restores_of_one_file(self, site: TapeSite, storage: TapeRestStorage) -> None:
        states = await storage.stage([copy_of(key="a"), copy_of(key="b", seconds=60)])
        assert {key: state.state for key, state in states.items()} == {"a": "STAGING", "b": "STAGING"}
        assert list(site.requests.values()) == [[PATH]]

    async def test_a_restart_forgets_requests_but_no_file(self, site: TapeSite, storage: TapeRestStorage) -> None:
        copy = copy_of()
        await storage.stage([copy])
        later = storage_at(site)
        assert await staged(later, copy) == StageState("NEARLINE")
        await later.release([copy])
        assert await stage(later, copy) == StageState("STAGING")
        site.arrive(PATH)
        another = storage_at(site)
        assert await staged(another, copy) == StageState("ONLINE", NOW + DAY)
        await asyncio.gather(later.close(), another.close())

    async def test_a_restore_that_fails_says_why(self, site: TapeSite, storage: TapeRestStorage) -> None:
        copy = copy_of()
        await storage.stage([copy])
        site.files[PATH].problem = "the tape is \x1b[31mtorn"
        assert await staged(storage, copy) == StageState("FAILED", error="the tape is \\x1b[31mtorn")
        site.files[PATH].problem = None
        assert await stage(storage, copy) == StageState("STAGING")
        assert len(site.requests) == 2

    async def test_a_request_that_the_site_forgot(self, site: TapeSite, storage: TapeRestStorage) -> None:
        copy = copy_of()
        await storage.stage([copy])
        site.requests.clear()
        assert await staged(storage, copy) == StageState("NEARLINE")
        await storage.stage([copy])
        site.requests.clear()
        await storage.release([copy])

    async def test_what_is_on_its_way_is_cancelled(self, site: TapeSite, storage: TapeRestStorage) -> None:
        copy = copy_of()
        await storage.stage([copy])
        [name] = site.requests
        await storage.release([copy])
        assert site.journal[-1] == ("POST", f"stage/{name}/cancel", {"paths": [PATH]})
        assert site.files[PATH].pins == {}

    async def test_a_site_that_cannot_answer(self, site: TapeSite, storage: TapeRestStorage) -> None:
        copy = copy_of()
        site.fails = 429
        for ask in (storage.stage([copy]), storage.staged([copy])):
            assert (await refusal(ask)).endswith("/archiveinfo: the site answers 429: Overload: come back later")
        site.fails = None
        await storage.stage([copy])
        site.fails = 500
        assert "the site answers 500" in await refusal(storage.release([copy]))
        site.fails = None
        await storage.release([copy])
        assert site.files[PATH].pins == {}
        nobody = storage_at(site, url="http://127.0.0.1:9/data")
        assert "ClientConnectorError" in await refusal(nobody.stage([copy]))
        await nobody.close()

    async def test_nothing_is_asked_about_nothing(self, site: TapeSite, storage: TapeRestStorage) -> None:
        assert await storage.stage([]) == await storage.staged([]) == {}
        await storage.release([])
        assert site.journal == []


class TestDiscovery:
    async def test_the_api_may_be_told(self, site: TapeSite) -> None:
        storage = storage_at(site, api=f"{site.front}/api/v1/tape/")
        assert await staged(storage, copy_of()) == StageState("NEARLINE")
        assert [path for _, path, _ in site.journal] == ["archiveinfo"]
        await storage.close()

    async def test_a_site_with_another_version_only(self, site: TapeSite, storage: TapeRestStorage) -> None:
        site.versions = ["v0", "v2"]
        assert "the site tells no endpoint of version v1" in await refusal(storage.staged([copy_of()]))
        site.versions = ["v1"]
        assert await staged(storage, copy_of()) == StageState("NEARLINE")

    async def test_the_token_goes_to_nobody_else(self, site: TapeSite, storage: TapeRestStorage) -> None:
        site.api = "http://elsewhere.example.org/api/v1"
        text = await refusal(storage.staged([copy_of()]))
        assert "leads to http://elsewhere.example.org/api/v1, which is at none of the option hosts" in text

    async def test_paths_of_the_api_may_have_another_root(self, site: TapeSite) -> None:
        site.files["/pnfs/site/esa/a"] = TapeFile(CONTENT)
        storage = storage_at(site, path="/pnfs/site/")
        assert await staged(storage, copy_of("esa/a")) == StageState("NEARLINE")
        await storage.close()

    async def test_a_token_in_a_file_is_read_again_when_it_changes(self, site: TapeSite, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("old-one\n")
        storage = storage_at(site, token=None, token_file=str(file))
        assert "the site answers 401" in await refusal(storage.staged([copy_of()]))
        file.write_text("to-ken\n")
        assert await staged(storage, copy_of()) == StageState("NEARLINE")
        assert (await storage.stat(NAME)).size == len(CONTENT)
        file.write_text("two words")
        assert "has no bearer token in it" in await refusal(storage.staged([copy_of()]))
        file.unlink()
        assert "No such file" in await refusal(storage.staged([copy_of()]))
        await storage.close()


class TestRead:
    async def test_a_file_on_tape_is_described_and_offline(self, site: TapeSite, storage: TapeRestStorage) -> None:
        stat = await storage.stat(NAME)
        assert (stat.size, stat.version) == (len(CONTENT), hashlib.md5(CONTENT).hexdigest())
        with pytest.raises(CopyOfflineError, match=r"is on tape: .*503"):
            await storage.stream(NAME, 0, 5, stat.version)

    async def test_ranges_by_the_site_itself(self, site: TapeSite, storage: TapeRestStorage) -> None:
        site.arrive(PATH)
        version = (await storage.stat(NAME)).version
        for start, stop in ((0, len(CONTENT)), (1, 2), (1_000_000, 2_000_000)):
            assert await read(storage, start, stop, version) == CONTENT[start:stop]
        with pytest.raises(CopyChangedError):
            await storage.stream(NAME, 0, 5, "another")
        with pytest.raises(CopyNotFoundError):
            await storage.stream("esa/absent", 0, 5, None)
        with pytest.raises(CopyNotFoundError):
            await storage.stat("esa/absent")

    async def test_ranges_by_another_server_of_the_site(self, site: TapeSite, storage: TapeRestStorage) -> None:
        site.arrive(PATH)
        site.redirects = True
        stat = await storage.stat(NAME)
        for start, stop in ((0, len(CONTENT)), (5, 6)):
            stream = await storage.stream(NAME, start, stop, stat.version)
            assert stream.stat == stat
            assert await all_of(stream) == CONTENT[start:stop]
        with pytest.raises(CopyChangedError):
            await storage.stream(NAME, 0, 5, "another")
        with pytest.raises(CopyChangedError):
            await storage.stream(NAME, 0, len(CONTENT) + 1, None)

    async def test_a_file_that_is_replaced_meanwhile_is_noticed(self, site: TapeSite, storage: TapeRestStorage) -> None:
        site.arrive(PATH)
        site.redirects = True
        tags = iter(["one", "one", "one", "two", "two"])
        site.etag_of = lambda _: next(tags)
        with pytest.raises(CopyChangedError, match="was changed while it was asked for"):
            await storage.stream(NAME, 0, 5, None)

    async def test_redirects_lead_to_the_site_alone(self, site: TapeSite) -> None:
        site.arrive(PATH)
        storage = storage_at(site, hosts=["localhost", "*.site.example"])
        for place in (
            "http://elsewhere.example.org/data?transfer=x",
            "http://site.example/",
            "http://user@localhost/",
            "ftp://localhost/",
        ):
            site.redirect_to = place
            text = await refusal(storage.stream(NAME, 0, 5, None))
            assert "is redirected to" in text
            assert "transfer" not in text
        site.redirect_to = (
            f"{site.pool.replace('127.0.0.1', 'localhost')}/data/esa/a%20b+%C3%A9.tif?transfer=secret-of-the-pool"
        )
        assert await read(storage, 0, 5) == CONTENT[:5]
        site.redirect_to = f"{site.front}/data/esa/a%20b+%C3%A9.tif"
        assert "the server answers 401" in await refusal(storage.stream(NAME, 0, 5, None))
        await storage.close()

    async def test_who_goes_round_in_circles_is_stopped(self, site: TapeSite) -> None:
        site.token = None
        site.arrive(PATH)
        storage = storage_at(site)
        site.redirect_to = f"{site.front}/data/esa/a%20b+%C3%A9.tif"
        assert "is redirected more than 3 times" in await refusal(storage.stream(NAME, 0, 5, None))
        await storage.close()

    def test_no_less_protected(self) -> None:
        options = Options.parse({"url": "https://site.example.org:2880/data", "hosts": ["*.pools.example.org"]})
        from storage_plugins.http.message import parse_url

        for url, trusted in (
            ("https://site.example.org/x", True),
            ("https://site.example.org:20001/x", True),
            ("http://site.example.org:20001/x", False),
            ("https://a.pools.example.org:20001/x", True),
            ("https://pools.example.org/x", False),
            ("https://evilpools.example.org/x", False),
        ):
            assert options.trusts(parse_url(url)) is trusted


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"ulr": "x"}, "ulr: no such option of plug-in 'tape_rest' (url, api, "),
            ({"url": None}, "url: must be where the files are read"),
            ({"url": "ftp://site/"}, "url: is no http or https URL"),
            ({"url": "https://site/?a=b"}, "url: has a query, or dot segments"),
            ({"url": "https://site/a/%2e%2e/b"}, "url: has a query, or dot segments"),
            ({"api": "site"}, "api: is no http or https URL"),
            ({"path": "data"}, "path: must be an absolute path"),
            ({"path": "/a/../b"}, "path: must be an absolute path"),
            ({"hosts": "site"}, "hosts: must be a list of hosts without ports"),
            ({"hosts": ["site:443"]}, "hosts: must be a list of hosts without ports"),
            ({"token": "two words"}, "token: must be a bearer token"),
            ({"token": "a", "token_file": "/etc/passwd"}, "token, token_file: only one of them"),
            ({"token_file": "/absent"}, "token_file: /absent is no file"),
            ({"ca_file": "/absent"}, "ca_file: /absent cannot be read"),
            ({"batch": 0}, "batch: must be a number from 1 to 10000"),
        ],
    )
    def test_what_is_wrong_is_named(self, options: dict[str, object], complaint: str) -> None:
        given = {"url": "https://site.example.org:2880/data", **options}
        with pytest.raises(ConfigurationError) as caught:
            TapeRestStorage.from_options("tapes", {name: it for name, it in given.items() if it is not None})
        assert str(caught.value).startswith(complaint)
        assert "two words" not in str(caught.value)

    def test_the_token_is_not_shown(self) -> None:
        assert "hush" not in repr(Options.parse({"url": "https://site/", "token": "hush"}))

    @pytest.mark.parametrize(
        ("href", "location"),
        [
            ("https://site.example.org:2880/data/esa/a%20b.tif", "esa/a b.tif"),
            ("davs://SITE.example.org:2880/data/a", "a"),
            ("https://site.example.org/data/a", None),
            ("https://site.example.org:2880/database/a", None),
            ("dav://site.example.org:2880/data/a", None),
            ("root://site.example.org:2880/data/a", None),
            ("/data/a", None),
        ],
    )
    async def test_hrefs(self, href: str, location: str | None) -> None:
        storage = TapeRestStorage.from_options("tapes", {"url": "https://site.example.org:2880/data"})
        assert storage.locate(href) == location
        for wrong in ("a?x=y", "../a", "a//b", "%2e%2e/a", ""):
            with pytest.raises(ValueError, match=r"query|segment"):
                storage.locate(f"https://site.example.org:2880/data/{wrong}")
        await storage.close()

    async def test_other_locations_are_not_asked_for(self, site: TapeSite, storage: TapeRestStorage) -> None:
        for ask in (
            storage.stat("../etc/passwd"),
            storage.stream("a//b", 0, 1, None),
        ):
            assert "is no path below url" in await refusal(ask)
        assert site.journal == []
