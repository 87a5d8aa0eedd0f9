"""nginx, as it is, is a storage: by plain HTTP and by TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.storage import ByteStream, CopyChangedError, CopyNotFoundError, CopyUnavailableError, OnSocket
from storage_plugins.http.plugin import HttpStorage
from tests.conformance.nginx import free_ports, make_certificate, running, static, substituted
from tests.storage_plugins.support import CONTENT


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def servers(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The base URL for each scheme, and the file with the certificate."""
    directory = tmp_path_factory.mktemp("nginx")
    make_certificate(directory)
    plain, secure = free_ports(2)
    listen = f"listen 127.0.0.1:{plain};"
    tls = f"listen 127.0.0.1:{secure} ssl; ssl_certificate gateway.crt; ssl_certificate_key gateway.key;"
    count = "add_header X-Requests $connection_requests always;"
    configuration = substituted(static(directory, port=plain, root=root), {listen: f"{listen} {tls} {count}"})
    with running(directory, configuration, plain):
        yield {
            "http": f"http://127.0.0.1:{plain}",
            "https": f"https://127.0.0.1:{secure}",
            "ca_file": str(directory / "gateway.crt"),
        }


@pytest.fixture(params=["http", "https"])
def base(servers: dict[str, str], root: Path, request: pytest.FixtureRequest) -> str:
    (root / "file+%").write_bytes(CONTENT)
    return servers[request.param]


@pytest.fixture
async def storage(servers: dict[str, str], base: str) -> AsyncIterator[HttpStorage]:
    options: dict[str, object] = {
        "hosts": [base.partition("://")[2]],
        "schemes": ["http", "https"],
        "networks": ["127.0.0.0/8"],
        "ca_file": servers["ca_file"],
    }
    storage = HttpStorage.from_options("mirror", options)
    yield storage
    await storage.close()


async def body_of(stream: ByteStream) -> bytes:
    body = b""
    while piece := await stream.read():
        body += piece
    stream.close()
    return body


async def test_a_file_is_described_and_its_ranges_come(storage: HttpStorage, base: str, root: Path) -> None:
    location = storage.locate(f"{base}/file%2b%25")
    assert location == f"{base}/file%2b%25"
    found = await storage.stat(location)
    assert found.size == len(CONTENT)
    assert found.modified is not None
    assert found.modified.timestamp() == int((root / "file+%").stat().st_mtime)
    assert not found.version.startswith("W/")
    for start, stop in ((0, len(CONTENT)), (0, 1), (5, 2_000_000), (len(CONTENT) - 1, len(CONTENT))):
        stream = await storage.stream(location, start, stop, found.version)
        assert stream.stat == found
        assert isinstance(stream, OnSocket) == base.startswith("http:")
        assert await body_of(stream) == CONTENT[start:stop]


async def test_one_connection_serves_all(storage: HttpStorage, base: str) -> None:
    for turn in range(1, 6):
        answer = await storage._client.request("GET", f"{base}/file%2b%25", {"Range": "bytes=0-99999"})
        assert answer.headers["x-requests"] == str(turn)
        while await answer.read():
            pass
        answer.close()


async def test_a_file_that_was_replaced_has_changed(storage: HttpStorage, base: str, root: Path) -> None:
    location = f"{base}/file%2b%25"
    found = await storage.stat(location)
    (root / "new").write_bytes(CONTENT[:1000])
    (root / "new").replace(root / "file+%")
    for version in (found.version, None):
        with pytest.raises(CopyChangedError):
            await storage.stream(location, 2000, 3000, version)
    with pytest.raises(CopyChangedError):
        await storage.stream(location, 0, 1000, found.version)


async def test_what_is_not_there_is_told(storage: HttpStorage, base: str, root: Path) -> None:
    with pytest.raises(CopyNotFoundError):
        await storage.stat(f"{base}/absent")
    with pytest.raises(CopyNotFoundError):
        await storage.stream(f"{base}/absent", 0, 1, None)
    (root / "directory").mkdir(exist_ok=True)
    with pytest.raises(CopyUnavailableError, match="redirects are not followed"):
        await storage.stat(f"{base}/directory")
