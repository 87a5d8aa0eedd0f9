"""A directory with files and a storage that serves it; a client of HTTP servers, and who vouches for these."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage_plugins.http.client import HttpClient
from storage_plugins.local import LocalStorage
from tests.storage_plugins.support import CONTENT, OUTSIDE
from tests.storage_plugins.web import Authority, make_authority


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``root`` with ``a/b/file`` and ``top``; ``outside`` beside it."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(CONTENT)
    (root / "top").write_bytes(b"top")
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "file").write_bytes(OUTSIDE)
    return root


@pytest.fixture
async def storage(root: Path) -> AsyncIterator[LocalStorage]:
    storage = LocalStorage("disk", root)
    yield storage
    await storage.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A non-blocking sending end and a receiving end."""
    sending, receiving = socket.socketpair()
    sending.setblocking(False)
    with sending, receiving:
        yield sending, receiving


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Vouches for 127.0.0.1 and localhost."""
    return make_authority(tmp_path_factory.mktemp("tls") / "ca", "127.0.0.1", "localhost")


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest, authority: Authority) -> ssl.SSLContext | None:
    """Both ways to serve: what a server needs for TLS, or None."""
    return authority.server if request.param == "https" else None


@pytest.fixture
async def client(authority: Authority) -> AsyncIterator[HttpClient]:
    """One that trusts the authority."""
    client = HttpClient(ca_file=authority.ca_file)
    yield client
    await client.close()
