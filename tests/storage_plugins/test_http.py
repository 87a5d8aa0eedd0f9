"""Files of listed servers and no others, whatever a URL or a name leads to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tomllib
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from gateway.errors import ConfigurationError
from gateway.storage import (
    CanSign,
    CanStage,
    CanStat,
    CanStream,
    CopyChangedError,
    CopyNotFoundError,
    CopyUnavailableError,
    OnDisk,
    SignedUrl,
    Stat,
)
from storage_plugins.http.plugin import HttpStorage, PublicHttpStorage, read_options
from tests.storage_plugins.support import CONTENT, until
from tests.storage_plugins.test_http_message import paths, queries
from tests.storage_plugins.web import Authority, WebServer, answer, head, holding, saying, serving

Tls = ssl.SSLContext | None
HERE = {"hosts": ["data.example.org"]}
TAG = 'ETag: "abc"'


@contextlib.asynccontextmanager
async def storage_of(web: WebServer, authority: Authority, **options: object) -> AsyncIterator[HttpStorage]:
    """A storage that may read from the test's server."""
    all_of_them = {
        "hosts": [f"127.0.0.1:{web.port}", f"localhost:{web.port}"],
        "schemes": ["http", "https"],
        "networks": ["127.0.0.0/8", "::1/128"],
        "ca_file": str(authority.ca_file),
        **options,
    }
    storage = HttpStorage.from_options("mirror", all_of_them)
    yield storage
    await storage.close()


class TestOptions:
    def test_the_plugin_is_announced(self) -> None:
        file = Path(__file__).parents[2] / "pyproject.toml"
        announced = tomllib.loads(file.read_text())["project"]["entry-points"]["gateway.storage"]["http"]
        assert EntryPoint("http", announced, "gateway.storage").load() is HttpStorage

    async def test_what_it_can_do(self) -> None:
        storage = HttpStorage.from_options("mirror", HERE)
        assert isinstance(storage, CanStat)
        assert isinstance(storage, CanStream)
        assert not isinstance(storage, CanSign)
        assert not isinstance(storage, CanStage)
        assert not isinstance(storage, OnDisk)
        assert storage.name == "mirror"
        await storage.close()

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({}, "hosts: must list the hosts"),
            ({"hosts": []}, "hosts: must list the hosts"),
            ({"hosts": "data.example.org"}, "hosts: must be a list of texts"),
            ({"hosts": [5]}, "hosts: must be a list of texts"),
            *(
                ({"hosts": [host]}, f"hosts: {host!r} is not like ")
                for host in (
                    "",
                    "*",
                    "*.",
                    "https://data.example.org",
                    "data.example.org/",
                    "data.example.org:",
                    "data.example.org:0",
                    "data.example.org:65536",
                    "data.example.org:https",
                    "me@data.example.org",
                    "data.*.org",
                    "*data.example.org",
                    "*.[::1]",
                    "[::1",
                    "[1:2]",
                    "::1",
                    "b\xfccher.example",
                    "data.example.org\n",
                )
            ),
            (HERE | {"schemes": []}, "schemes: must be a list of "),
            (HERE | {"schemes": "https"}, "schemes: must be a list of "),
            (HERE | {"schemes": ["https", "ftp"]}, "schemes: must be a list of "),
            (HERE | {"networks": "10.0.0.0/8"}, "networks: must be a list of texts"),
            (HERE | {"networks": ["10.0.0.1/8"]}, "networks: '10.0.0.1/8' is no network"),
            (HERE | {"networks": ["private"]}, "networks: 'private' is no network"),
            (HERE | {"ca_file": "ca.pem"}, "ca_file: must be the absolute path"),
            (HERE | {"ca_file": True}, "ca_file: must be the absolute path"),
            (HERE | {"ca_file": "/absent/ca.pem"}, "ca_file: /absent/ca.pem cannot be read as certificates"),
            (HERE | {"max_size": 0}, "max_size: must be a number of bytes"),
            (HERE | {"max_size": True}, "max_size: must be a number of bytes"),
            (HERE | {"max_size": "1G"}, "max_size: must be a number of bytes"),
            (HERE | {"public": "yes"}, "public: must be true or false"),
            (HERE | {"host": "x", "Hosts": []}, "Hosts, host: no such option of plug-in 'http' (hosts, "),
        ],
    )
    def test_what_is_wrong_is_named(self, options: dict[str, object], complaint: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            HttpStorage.from_options("mirror", options)
        assert str(caught.value).startswith(complaint)


def locating(hosts: list[str], **options: object) -> HttpStorage:
    return HttpStorage("mirror", read_options({"hosts": hosts, **options}))


class TestLocate:
    @pytest.mark.parametrize(
        ("host", "href", "location"),
        [
            ("data.example.org", "https://data.example.org/a/b.tif", "https://data.example.org/a/b.tif"),
            ("data.example.org", "https://data.example.org", "https://data.example.org/"),
            ("data.example.org", "HTTPS://DATA.Example.org:443/A?B#C", "https://data.example.org/A?B"),
            ("DATA.example.org:443", "https://data.example.org/a", "https://data.example.org/a"),
            ("data.example.org:8443", "https://data.example.org:8443/a", "https://data.example.org:8443/a"),
            (
                "data.example.org",
                "https://data.example.org/a//b%2Fc/...?../",
                "https://data.example.org/a//b%2Fc/...?../",
            ),
            ("*.example.org", "https://a.b.example.org/a", "https://a.b.example.org/a"),
            ("*.example.org:81", "https://a.example.org:81/a", "https://a.example.org:81/a"),
            ("[::1]:81", "https://[0::1]:81/a", "https://[::1]:81/a"),
            ("data.example.org", "https://data.example.org:8443/a", None),
            ("data.example.org:8443", "https://data.example.org/a", None),
            ("data.example.org", "http://data.example.org/a", None),
            ("data.example.org", "http://data.example.org:443/a", None),
            ("data.example.org", "https://other.example.org/a", None),
            ("data.example.org", "https://data.example.org.evil.com/a", None),
            ("data.example.org", "https://data.example.org./a", None),
            ("data.example.org", "https://evil-data.example.org/a", None),
            ("data.example.org", "https://dataXexample.org/a", None),
            ("*.example.org", "https://example.org/a", None),
            ("*.example.org", "https://evilexample.org/a", None),
            ("*.example.org", "https://a.example.org.evil.com/a", None),
            ("127.0.0.1", "https://0x7f.1/a", None),
            ("data.example.org", "/data.example.org/a", None),
            ("data.example.org", "//data.example.org/a", None),
            ("data.example.org", "file:///a", None),
            ("data.example.org", "s3://data.example.org/a", None),
            ("data.example.org", "", None),
        ],
    )
    def test_a_url_is_held_by_its_host_and_port(self, host: str, href: str, location: str | None) -> None:
        assert locating([host]).locate(href) == location

    def test_plain_http_must_be_allowed(self) -> None:
        url = "http://data.example.org/a"
        assert locating(["data.example.org"], schemes=["http"]).locate(url) == url
        assert locating(["data.example.org"], schemes=["http", "https"]).locate(url) == url
        assert locating(["data.example.org"], schemes=["http"]).locate("https://data.example.org/a") is None
        assert locating(["data.example.org"], schemes=["http"]).locate("http://data.example.org:80/a") == url

    @given(paths, queries)
    def test_a_location_locates_itself(self, path: str, query: str) -> None:
        storage = PROPERTY_STORAGE
        try:
            location = storage.locate(f"https://data.example.org{path}{query}")
        except ValueError:
            return
        assert location == f"https://data.example.org{path}{query}"
        assert storage.locate(location) == location

    @pytest.mark.parametrize("href", ["https://me@data.example.org/", "https://me:secret@evil.com/"])
    def test_credentials_in_a_url_are_refused(self, href: str) -> None:
        with pytest.raises(ValueError, match=r"^has a user name or password in it$"):
            locating(["data.example.org"]).locate(href)

    @pytest.mark.parametrize(
        "path",
        ["/..", "/a/../b", "/./a", "/a/%2e%2E/b", "/a/.%2e", "/a/..%2fb", "/a/..%5Cb", "/a/..\\b", "/a/..;x/b", "/%2e"],
    )
    def test_dot_segments_are_refused_however_written(self, path: str) -> None:
        with pytest.raises(ValueError, match=r"^has dot segments in its path$"):
            locating(["data.example.org"]).locate(f"https://data.example.org{path}")

    @pytest.mark.parametrize(
        "href", ["https://data.example.org/a b", "https://data.example.org/\xe9", "https://", "http:///a"]
    )
    def test_what_is_no_url_is_refused(self, href: str) -> None:
        with pytest.raises(ValueError, match=r"^is no http or https URL"):
            locating(["data.example.org"]).locate(href)


PROPERTY_STORAGE = locating(["data.example.org"])


class TestReading:
    async def test_a_file_is_described_and_comes(self, authority: Authority, tls: Tls) -> None:
        async with serving(holding(CONTENT, TAG), tls=tls) as web, storage_of(web, authority) as storage:
            assert await storage.stat(web.url("/a%2Fb?c")) == Stat(len(CONTENT), None, "abc")
            stream = await storage.stream(web.url("/a%2Fb?c"), 5, 2_000_000, "abc")
            body = b""
            while piece := await stream.read():
                body += piece
            stream.close()
            assert body == CONTENT[5:2_000_000]
            assert stream.stat == Stat(len(CONTENT), None, "abc")
            assert [asked.target for asked in web.asked] == ["/a%2Fb?c"] * 2

    async def test_failures_are_told_without_the_query(self, authority: Authority, tls: Tls) -> None:
        async with serving(holding(CONTENT, TAG), tls=tls) as web, storage_of(web, authority) as storage:
            url = web.url("/a?token=secret")
            with pytest.raises(CopyChangedError) as caught:
                await storage.stream(url, 0, 5, "abd")
            assert str(caught.value).startswith(f"{web.url('/a')}: ")
            assert "secret" not in str(caught.value)
            web.script = saying(answer("404 Not Found", b""))
            with pytest.raises(CopyNotFoundError, match="404"):
                await storage.stream(url, 0, 5, "abd")
            with pytest.raises(CopyNotFoundError, match="404"):
                await storage.stat(url)

    async def test_redirects_are_not_followed(self, authority: Authority) -> None:
        async with serving(holding(CONTENT)) as other:
            redirect = head("302 Found", f"Location: {other.url()}", "Content-Length: 0")
            async with serving(saying(redirect)) as web:
                hosts = [f"127.0.0.1:{web.port}", f"127.0.0.1:{other.port}"]
                async with storage_of(web, authority, hosts=hosts) as storage:
                    for asking in (storage.stat(web.url()), storage.stream(web.url(), 0, 9, None)):
                        with pytest.raises(CopyUnavailableError, match="redirects are not followed"):
                            await asking
            assert other.connections == 0

    async def test_larger_files_than_allowed_are_refused(self, authority: Authority, tls: Tls) -> None:
        size = len(CONTENT)
        async with serving(holding(CONTENT), tls=tls) as web:
            async with storage_of(web, authority, max_size=size) as storage:
                assert (await storage.stat(web.url())).size == size
            async with storage_of(web, authority, max_size=size - 1) as storage:
                for asking in (storage.stat(web.url()), storage.stream(web.url(), 0, 9, None)):
                    with pytest.raises(CopyUnavailableError, match=f"has {size} bytes, max_size allows {size - 1}"):
                        await asking
            await until(lambda: web.open == 0)

    async def test_a_location_that_is_no_longer_allowed_is_not_asked_for(self, authority: Authority) -> None:
        async with serving(holding(CONTENT)) as web, storage_of(web, authority, schemes=["https"]) as storage:
            for location in (web.url(), "/a", web.url("/../a").replace("http", "https"), "https://me@127.0.0.1/"):
                for asking in (storage.stat(location), storage.stream(location, 0, 9, None)):
                    with pytest.raises(CopyUnavailableError, match=r"^the location "):
                        await asking
            assert web.connections == 0


LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0",
    "0.0.0.0",
    "localhost",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
]


class TestAddresses:
    @pytest.mark.parametrize("host", LOOPBACK)
    async def test_a_private_address_is_not_connected_to_however_it_is_written(
        self, authority: Authority, host: str
    ) -> None:
        async with serving(holding(CONTENT)) as web:
            async with storage_of(web, authority, hosts=[f"{host}:{web.port}"], networks=[]) as storage:
                with pytest.raises(CopyUnavailableError, match=r"in no permitted network$|not known|not supported"):
                    await storage.stat(web.url(host=host))
            assert web.connections == 0

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "localhost"])
    async def test_a_listed_network_is(self, authority: Authority, host: str) -> None:
        async with serving(holding(CONTENT)) as web:
            hosts = [f"{host}:{web.port}"]
            async with storage_of(web, authority, hosts=hosts) as storage:
                assert (await storage.stat(web.url(host=host))).size == len(CONTENT)

    async def test_a_name_that_leads_elsewhere_the_next_time_gains_nothing(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = ["127.0.0.1", "127.0.0.2"]

        def rebinding(host: bytes, port: int, **options: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        async with serving(saying(answer("200 OK", b"", "Connection: close"))) as web:
            hosts = [f"data.example.org:{web.port}"]
            async with storage_of(web, authority, hosts=hosts, networks=["127.0.0.1/32"]) as storage:
                url = web.url(host="data.example.org")
                assert (await storage.stat(url)).size == 0
                with pytest.raises(CopyUnavailableError, match=r"its address 127.0.0.2 is in no permitted network$"):
                    await storage.stat(url)
            assert web.connections == 1


class TestPublic:
    async def test_clients_may_be_sent_to_the_url_itself(self) -> None:
        storage = HttpStorage.from_options("mirror", HERE | {"public": True})
        assert isinstance(storage, PublicHttpStorage)
        assert isinstance(storage, CanSign)
        assert isinstance(storage, CanStream)
        url = "https://data.example.org/a%2Fb?c=%20+"
        for method in ("GET", "HEAD"):
            assert await storage.sign(url, method=method, lifetime=5) == SignedUrl(url, None)
        await storage.close()

    async def test_but_to_no_other(self) -> None:
        storage = HttpStorage.from_options("mirror", HERE | {"public": True})
        assert isinstance(storage, CanSign)
        with pytest.raises(CopyUnavailableError, match="the options hosts and schemes"):
            await storage.sign("https://evil.com/a", method="GET", lifetime=5)
        await storage.close()

    def test_unless_told_so_they_may_not(self) -> None:
        assert type(HttpStorage.from_options("mirror", HERE | {"public": False})) is HttpStorage
