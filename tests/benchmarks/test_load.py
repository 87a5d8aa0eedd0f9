"""The load takes what it is sent, and refuses what is not what it asked for."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from benchmarks.load import Job, LoadError, fetch
from benchmarks.processes import cpu_seconds, process_tree
from tests.benchmarks.serving import serving

BODY = os.urandom(300_000)
HEAD = "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answer_with(body: bytes, *, length: int | None = None, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def sending(answer: bytes, *, keep: bool) -> Callable[[socket.socket], None]:
    """Gives ``answer`` to each request, or to the first and then ends the connection."""

    def send(connection: socket.socket) -> None:
        connection.sendall(answer)
        if not keep:
            connection.shutdown(socket.SHUT_RDWR)

    return send


@pytest.mark.parametrize("polls", [True, False])
@pytest.mark.parametrize("hashed", [True, False])
def test_every_request_of_every_client_is_counted(polls: bool, hashed: bool) -> None:
    with serving(sending(answer_with(BODY), keep=True)) as port:
        result = fetch(Job(port, HEAD, len(BODY), clients=3, requests=10, hashed=hashed), polls=polls)
    assert result.octets == 10 * len(BODY)
    assert result.sha256 == (hashlib.sha256(BODY).hexdigest() if hashed else "")


@pytest.mark.parametrize("polls", [True, False])
def test_answers_without_a_body_are_counted(polls: bool) -> None:
    redirect = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://store/file?s=1\r\nContent-Length: 0\r\n\r\n"
    with serving(sending(redirect, keep=True)) as port:
        result = fetch(Job(port, HEAD, 0, clients=3, requests=10, status=307), polls=polls)
    assert result.octets == 0
    assert 0 < result.median <= result.p99 <= result.seconds


def test_the_median_is_of_half_of_the_answers_and_p99_of_nearly_all() -> None:
    answers = iter(range(10))

    def answer(connection: socket.socket) -> None:
        if next(answers) == 5:
            time.sleep(0.2)
        connection.sendall(answer_with(BODY))

    with serving(answer) as port:
        result = fetch(Job(port, HEAD, len(BODY), requests=10), polls=False)
    assert result.median < 0.2 <= result.p99


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (answer_with(b"", status="403 Forbidden"), "status 403"),
        (answer_with(BODY[:-1]), "not the 300000 bytes"),
        (answer_with(BODY[:1000], length=len(BODY)), "299000 bytes early"),
        (b"", "no answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, "not the 300000 bytes"),
    ],
)
def test_a_wrong_answer_is_no_measurement(answer: bytes, problem: str) -> None:
    with serving(sending(answer, keep=False)) as port, pytest.raises(LoadError, match=problem):
        fetch(Job(port, HEAD, len(BODY)), polls=False)


def test_cpu_time_of_threads_that_have_ended_counts() -> None:
    def burn() -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    before = cpu_seconds([os.getpid()])
    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
    assert cpu_seconds([os.getpid()]) - before >= 0.05
    assert os.getpid() in process_tree(os.getppid())
