"""What processes and connections take, as the system tells."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import socket
import subprocess
import sys

import pytest

from benchmarks.memory import find_ss, forget_peaks, peak_rss, socket_memory, sum_of_buffers, taken_by
from tests.e2e.conftest import REQUIRE_CLIENTS

MIB = 2**20
SHOWN = (
    "ESTAB 0 2596544 127.0.0.1:40000 127.0.0.1:50000 \t "
    "skmem:(r1,rb131072,t16,tb4194304,f2048,w4096,o8,bl32,d64)\n"
    "ESTAB 0 0 127.0.0.1:40000 127.0.0.1:50001 skmem:(r0,rb131072,t0,tb2626560,f4096,w0,o0,bl0,d0)\n"
)


def test_memory_that_is_used_counts_in_full() -> None:
    before = taken_by([os.getpid()])
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        for start in range(0, len(mapping), mmap.PAGESIZE):
            mapping[start] = 1
        after = taken_by([os.getpid()])
    assert 60 * MIB <= after.rss - before.rss <= 70 * MIB
    assert 60 * MIB <= after.pss - before.pss <= 70 * MIB
    assert 0 < after.pss <= after.rss


def test_the_peak_is_known_after_the_memory_was_given_back_until_it_is_forgotten() -> None:
    before = taken_by([os.getpid()]).rss
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapping:
        for start in range(0, len(mapping), mmap.PAGESIZE):
            mapping[start] = 1
    assert taken_by([os.getpid()]).rss - before < 10 * MIB
    assert peak_rss([os.getpid()]) - before >= 60 * MIB
    forget_peaks([os.getpid()])
    assert peak_rss([os.getpid()]) - before < 10 * MIB


HOLDS_THREADS_AND_SOCKETS = """
import socket, sys, threading
print("empty", flush=True)
sys.stdin.readline()
ended = threading.Event()
threads = [threading.Thread(target=ended.wait) for _ in range(3)]
for thread in threads:
    thread.start()
sockets = [socket.socket() for _ in range(5)]
print("full", flush=True)
sys.stdin.readline()
ended.set()
"""


def test_threads_and_descriptors_are_counted() -> None:
    # A process of its own: threads of other tests may start and end in this one meanwhile.
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THREADS_AND_SOCKETS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "empty\n"
        before = taken_by([process.pid])
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "full\n"
        after = taken_by([process.pid])
        process.communicate("\n", timeout=30)
    assert after.threads - before.threads == 3
    assert after.descriptors - before.descriptors == 5


def test_buffers_of_all_connections_are_added_up() -> None:
    assert sum_of_buffers(SHOWN) == (1 + 2048 + 4096 + 8 + 32) + 4096
    assert sum_of_buffers("") == 0
    with pytest.raises(ValueError, match="no memory"):
        sum_of_buffers("ESTAB 0 0 127.0.0.1:40000 127.0.0.1:50000\n")


@pytest.mark.skipif(
    shutil.which("ss", path="/usr/bin:/usr/sbin:/sbin:/bin") is None and REQUIRE_CLIENTS not in os.environ,
    reason="ss is not installed",
)
def test_what_waits_for_a_client_is_seen() -> None:
    ss = find_ss()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0] as server:
            before = socket_memory(ss, port)
            server.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while sent < 64 * MIB:
                    sent += server.send(bytes(MIB))
            assert socket_memory(ss, port) - before > 500_000
