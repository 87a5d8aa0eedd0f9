"""A crowd of slow clients."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from benchmarks.load import Job, LoadError
from benchmarks.slow_readers import INTERVAL, SIP_BYTES, Crowd
from tests.benchmarks.serving import serving

HEAD = "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n"


def download(length: int, connection: socket.socket) -> None:
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + bytes(length))


@contextlib.contextmanager
def crowd_of(clients: int, length: int) -> Iterator[Crowd]:
    with (
        serving(lambda connection: download(length, connection)) as port,
        contextlib.closing(Crowd(Job(port, HEAD, length), clients)) as crowd,
    ):
        yield crowd


def test_everybody_takes_a_little_at_a_time() -> None:
    seconds = 0.5
    with crowd_of(20, 10_000_000) as crowd:
        crowd.begin()
        before, started = crowd.left(), time.perf_counter()
        crowd.sip(seconds)
        took, after = time.perf_counter() - started, crowd.left()
    assert took >= seconds - INTERVAL
    for left, still in zip(before, after, strict=True):
        assert 0 < left - still <= (seconds / INTERVAL + 1) * SIP_BYTES


def test_a_download_that_ends_is_not_slow() -> None:
    with crowd_of(1, 5 * SIP_BYTES) as crowd:
        crowd.begin()
        with pytest.raises(LoadError, match="larger file"):
            crowd.sip(2.0)
