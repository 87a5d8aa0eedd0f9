"""A directory with files, and a storage that serves it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage_plugins.local import LocalStorage
from tests.storage_plugins.support import CONTENT, OUTSIDE


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
