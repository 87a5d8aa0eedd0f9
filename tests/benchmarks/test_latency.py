"""Latencies: what is filled in, percentiles, and the small requests beside the large ones."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latency import INTERVAL, Latencies, watch
from benchmarks.load import Job, LoadError
from tests.benchmarks.serving import serving

HEAD = "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"live"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + BODY


def test_who_would_have_come_during_a_wait_is_filled_in() -> None:
    assert Latencies.of([0.001, 0.05, 0.002], 0.02).known == pytest.approx([0.001, 0.002, 0.01, 0.03, 0.05])
    assert Latencies.of([0.02], 0.02).known == [0.02]


@given(st.lists(st.floats(1e-6, 0.5), min_size=1, max_size=50), st.floats(0.001, 0.1))
def test_what_is_filled_in_is_less_than_the_wait_and_more_than_nothing(measured: list[float], interval: float) -> None:
    known = Latencies.of(measured, interval).known
    assert known == sorted(known)
    assert known[-1] == max(measured)
    rounding = 1e-9
    assert known[0] > -rounding
    assert len(known) >= max(len(measured), sum(measured) / interval - rounding)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (99.1, 100), (100, 100)]
)
def test_percentiles_are_those_of_the_nearest_rank(percent: float, expected: float) -> None:
    assert Latencies([float(number) for number in range(1, 101)]).percentile(percent) == expected


def test_a_stall_is_seen_in_full_even_if_the_time_is_over_meanwhile() -> None:
    answers = iter(range(1000))

    def answer(connection: socket.socket) -> None:
        if next(answers) == 3:
            time.sleep(0.2)
        connection.sendall(SMALL)

    with serving(answer) as port:
        (measured,) = watch([Job(port, HEAD, len(BODY))], [], clients=0, seconds=0.1).measured
    # The first answer is not measured; on a busy machine there is time for one more at the end.
    assert len(measured) >= 3
    assert measured[2] >= 0.2
    assert max(measured[:2]) < 0.2


def test_small_requests_keep_their_beat() -> None:
    with serving(lambda connection: connection.sendall(SMALL)) as port:
        job = Job(port, HEAD, len(BODY))
        one, other = watch([job, job], [], clients=0, seconds=0.3).measured
    assert 1 <= len(one) <= 0.3 / INTERVAL + 1
    assert 1 <= len(other) <= 0.3 / INTERVAL + 1


def test_as_many_downloads_as_asked_for_run_until_there_are_no_more() -> None:
    length, running, seen, lock = 1_000_000, [0], [], threading.Lock()

    def download(connection: socket.socket) -> None:
        with lock:
            running[0] += 1
            seen.append(running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + bytes(length))

    with serving(lambda connection: connection.sendall(SMALL)) as small, serving(download) as large:
        started = time.perf_counter()
        jobs = [Job(large, HEAD, length) for _ in range(7)]
        watched = watch([Job(small, HEAD, len(BODY))], jobs, clients=2, seconds=30)
    assert time.perf_counter() - started < 10
    assert max(seen) == 2
    assert 6 <= len(seen) <= 7
    assert 0 < watched.octets <= 7 * length
    assert watched.octets >= 5 * length  # two at most were cut


def test_too_few_downloads_are_refused() -> None:
    with serving(lambda connection: connection.sendall(SMALL)) as port, pytest.raises(LoadError, match="fewer"):
        watch([], [Job(port, HEAD, len(BODY))], clients=2, seconds=1)


def test_a_wrong_answer_is_no_measurement() -> None:
    with serving(lambda connection: connection.sendall(SMALL)) as port, pytest.raises(LoadError, match="status 200"):
        watch([Job(port, HEAD, len(BODY), status=404)], [], clients=0, seconds=1)
