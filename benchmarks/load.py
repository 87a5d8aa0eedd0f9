"""The load: one process that sends GETs over raw sockets and throws the bodies away as cheaply as the kernel can.

``python -m benchmarks.load`` reads one `Job` a line as JSON and writes one `Result` a line. Bodies are taken with
MSG_TRUNC, which on Linux drops the bytes of a TCP stream in the kernel without copying them (tcp(7)): the load must
never be what is measured. Where it has a core of its own it polls instead of sleeping: else what is measured is how
fast an idle core wakes, which on virtual machines is slow, and the server's core waits for it. Every answer's status,
Content-Length and number of bytes are checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.processes import Cores, on_core, running

DISCARD_BYTES = 8 * 1024 * 1024
"""Most bytes that one call takes: more than a socket holds."""
SILENCE = 60.0
"""Seconds without a byte from any connection after which the server is given up."""
LONGEST_HEADER = 65536


class LoadError(Exception):
    """An answer was not what it had to be; the message says how."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What to fetch, and how often."""

    port: int
    """TCP port on 127.0.0.1."""
    head: str
    """The request, from its request line to the empty line."""
    length: int
    """Bytes that every answer must have."""
    clients: int = 1
    """Connections, each of which has one request on its way at any time."""
    requests: int = 1
    """Requests in all, at least ``clients``."""
    status: int = 200
    """Status that every answer must have."""
    hashed: bool = False
    """Whether to read the bodies and give the SHA-256 of the last one: never while the time counts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What came of a job."""

    seconds: float
    """From the first request to the last byte; connections are open before."""
    octets: int
    """Bytes of bodies in all."""
    median: float
    """Seconds from a request to the last byte of its answer."""
    p99: float
    """Seconds in which 99 of 100 answers were complete."""
    sha256: str = ""


class Connection:
    """One client: sends the job's request, takes the answer, and may ask again."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._head = job.head.encode()
        self._header = b""
        self.left = -1
        """Bytes of this answer's body that are still to come; -1: its header is."""
        self._digest = hashlib.sha256()
        self.digest = ""
        self.asked = 0.0
        """When the request was sent, by `time.perf_counter`."""
        self.socket = socket.create_connection(("127.0.0.1", job.port), timeout=SILENCE)
        self.socket.setblocking(False)

    def ask(self) -> None:
        """Send the next request; it is small, and fits into any socket that has nothing else to send."""
        self._header, self.left, self.asked = b"", -1, time.perf_counter()
        if self.socket.send(self._head) != len(self._head):
            raise LoadError("the request did not fit into the socket")

    def take(self, buffer: memoryview) -> bool:
        """Take what has come; tells whether the answer is complete."""
        if self.left < 0:
            self._take_header()
        elif self._job.hashed:
            count = self.socket.recv_into(buffer, min(self.left, len(buffer)))
            self._digest.update(buffer[:count])
            self._count(count)
        else:
            self._count(self.socket.recv_into(buffer, min(self.left, len(buffer)), socket.MSG_TRUNC))
        if self.left == 0:
            self.digest, self._digest = self._digest.hexdigest(), hashlib.sha256()
        return self.left == 0

    def _count(self, count: int) -> None:
        if count == 0:
            raise LoadError(f"the connection ended {self.left} bytes early")
        self.left -= count

    def _take_header(self) -> None:
        piece = self.socket.recv(LONGEST_HEADER)
        if not piece or len(self._header) > LONGEST_HEADER:
            raise LoadError(f"no answer: {self._header[:200]!r}")
        header, ended, body = (self._header + piece).partition(b"\r\n\r\n")
        if not ended:
            self._header = header
            return
        status = int(header.split(b" ", 2)[1])
        if status != self._job.status:
            raise LoadError(f"status {status} instead of {self._job.status}: {(header + ended + body)[:500]!r}")
        fields = dict(line.lower().split(b":", 1) for line in header.split(b"\r\n")[1:])
        if int(fields.get(b"content-length", b"-1")) != self._job.length or len(body) > self._job.length:
            raise LoadError(f"not the {self._job.length} bytes that were asked for: {header!r}")
        self._digest.update(body)
        self.left = self._job.length - len(body)


def fetch(job: Job, *, polls: bool) -> Result:
    """Do the job; with ``polls`` without ever sleeping.

    Raises:
        LoadError: an answer was not what it had to be, or nothing came for `SILENCE` seconds.
        OSError: the server is gone.
    """
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        connections = [Connection(job) for _ in range(job.clients)]
        for connection in connections:
            stack.enter_context(contextlib.closing(connection.socket))
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        buffer = memoryview(bytearray(DISCARD_BYTES))
        start = time.perf_counter()
        for connection in connections:
            connection.ask()
        asked, heard = job.clients, time.monotonic()
        waits: list[float] = []
        while len(waits) < job.requests:
            ready = selector.select(0 if polls else SILENCE)
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE:
                raise LoadError(f"no byte for {SILENCE:g} s")
            else:
                os.sched_yield()
            for key, _ in ready:
                if key.data.take(buffer):
                    waits.append(time.perf_counter() - key.data.asked)
                    if asked < job.requests:
                        key.data.ask()
                        asked += 1
        seconds = time.perf_counter() - start
        waits.sort()
        return Result(
            seconds,
            job.requests * job.length,
            statistics.median(waits),
            waits[math.ceil(len(waits) * 0.99) - 1],
            connections[-1].digest if job.hashed else "",
        )


class Load:
    """The load's process, seen from the benchmark."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def run(self, job: Job) -> Result:
        """Have the job done.

        Raises:
            LoadError: as `fetch`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the load has ended"}')
        if "error" in answer:
            raise LoadError(answer["error"])
        return Result(**answer)


@contextlib.contextmanager
def load_process(cores: Cores, *, polls: bool = True) -> Iterator[Load]:
    """Run the load on its core; without ``polls`` it sleeps while there is nothing to take."""
    command = [sys.executable, "-m", "benchmarks.load", "polls" if polls and cores.differ else "sleeps"]
    with (
        on_core(cores.load),
        running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        yield Load(process)


def main() -> None:
    """Do jobs until the input ends."""
    polls = sys.argv[1] == "polls"
    for line in sys.stdin:
        try:
            answer = dataclasses.asdict(fetch(Job(**json.loads(line)), polls=polls))
        except (LoadError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
