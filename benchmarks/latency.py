"""How long small requests wait while large downloads run: the client side of both, in one loop.

Every download is taken in small steps, and the small requests are looked after between any two of them: what the
client itself adds to a latency is one such step at most.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import select
import selectors
import time
from collections.abc import Iterable, Sequence

from benchmarks.load import SILENCE, Connection, Job, LoadError

INTERVAL = 0.005
"""Seconds between the beginnings of two requests of a probe."""
STEP_BYTES = 256 * 1024
"""Bytes of a download that are taken at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latencies:
    """Of one probe, in seconds, sorted."""

    known: Sequence[float]

    @classmethod
    def of(cls, measured: Iterable[float], interval: float) -> Latencies:
        """Of what a probe measured that asks every ``interval`` but never before it has its last answer.

        While it waits it does not ask, and what it would have met is missing: one wait of 100 ms would be one figure
        among many good ones, although all who came in these 100 ms had to wait. These are filled in, each for the
        rest of the wait.
        """
        known = []
        for latency in measured:
            known.append(latency)
            known += [latency - missed * interval for missed in range(1, math.ceil(latency / interval))]
        return cls(sorted(known))

    def percentile(self, percent: float) -> float:
        """The least figure that ``percent`` of all do not exceed (nearest rank)."""
        return self.known[max(math.ceil(len(self.known) * percent / 100), 1) - 1]


class Probe:
    """A small request again and again on one connection that is kept."""

    def __init__(self, job: Job) -> None:
        self._connection = Connection(job)
        self.socket = self._connection.socket
        self._buffer = memoryview(bytearray(STEP_BYTES))
        self._asked = self._beat = 0.0
        self.due = 0.0
        """When it has to ask again, or when its answer can no longer be hoped for."""
        self.waits = False
        self.measured: list[float] = []

    def begin(self) -> None:
        """Have the first answer, which is not measured: the wait for being accepted is in it."""
        while not self.measured:
            self.turn()
            select.select([self.socket], [], [], INTERVAL)
        self.measured.clear()

    def start(self, at: float) -> None:
        """Ask next when it is ``at``, and every `INTERVAL` from then on."""
        self._beat = self.due = at

    def turn(self, *, ask: bool = True) -> None:
        """Take the answer if it is there; ask again if it is time and ``ask``.

        Raises:
            LoadError: the answer is not what it must be, or does not come for `SILENCE` seconds.
        """
        now = time.perf_counter()
        if self.waits:
            with contextlib.suppress(BlockingIOError):
                if self._connection.take(self._buffer):
                    self._answered(time.perf_counter())
            if self.waits and now >= self.due:
                raise LoadError(f"no answer to a small request for {SILENCE:g} s")
        elif ask and now >= self.due:
            self._asked, self.due, self.waits = now, now + SILENCE, True
            self._connection.ask()

    def _answered(self, now: float) -> None:
        self.waits = False
        self.measured.append(now - self._asked)
        self._beat += INTERVAL * max(math.ceil((now - self._beat) / INTERVAL), 1)
        self.due = self._beat


@dataclasses.dataclass(frozen=True, slots=True)
class Watched:
    """What came of small requests beside large downloads."""

    measured: Sequence[Sequence[float]]
    """Seconds of each small request, for each probe."""
    octets: int
    """Bytes of the downloads that were taken."""


def watch(small: Sequence[Job], large: Iterable[Job], clients: int, seconds: float) -> Watched:
    """Measure the latencies of each of ``small`` while ``clients`` at a time take one of ``large`` after the other.

    It ends after ``seconds``, or when a client finds nothing more to take: always as many as asked for are at work. The
    downloads on their way are cut then, after the last answer to a small request.

    Raises:
        LoadError: an answer was not what it had to be.
        OSError: a server is gone.
    """
    queue, buffer = iter(large), memoryview(bytearray(STEP_BYTES))
    downloads: list[tuple[Job, Connection]] = []
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        probes = [Probe(job) for job in small]
        for probe in probes:
            stack.enter_context(contextlib.closing(probe.socket))
            selector.register(probe.socket, selectors.EVENT_READ)
            probe.begin()

        def begin() -> bool:
            job = next(queue, None)
            if job is not None:
                connection = Connection(job)
                stack.enter_context(contextlib.closing(connection.socket))
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                downloads.append((job, connection))
                connection.ask()
            return job is not None

        if sum(begin() for _ in range(clients)) < clients:
            raise LoadError(f"there are fewer downloads than {clients} clients")
        now = time.perf_counter()
        for index, probe in enumerate(probes):
            # One after the other: at the same time they would wait for each other.
            probe.start(now + INTERVAL * index / len(probes))
        end, goes_on = now + seconds, True
        while goes_on or any(probe.waits for probe in probes):
            for key, _ in selector.select(_pause(probes)):
                if key.data is not None and key.data.take(buffer):
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
                    goes_on = goes_on and begin()
                _turn(probes, ask=goes_on)
            _turn(probes, ask=goes_on)
            goes_on = goes_on and time.perf_counter() < end
    octets = sum(job.length - connection.left for job, connection in downloads if connection.left >= 0)
    return Watched([probe.measured for probe in probes], octets)


def _pause(probes: Iterable[Probe]) -> float:
    """Seconds until the next small request is due, or until one has to be given up."""
    return max(min(probe.due for probe in probes) - time.perf_counter(), 0)


def _turn(probes: Iterable[Probe], *, ask: bool) -> None:
    os.sched_yield()  # the server's neighbours share this core: who waits for them must not wait for us
    for probe in probes:
        probe.turn(ask=ask)
