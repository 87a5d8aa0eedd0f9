"""Runs the processes, kills them and Redis at random, and starts them again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import asyncpg

from gateway.embedded.processes import dies_with_parent
from tests.redis_servers import RedisServer, free_port
from tests.soak.board import Board
from tests.soak.judge import Kill, Loss, Verdict, judge
from tests.soak.proxy import CuttingProxy, cutting_proxy
from tests.soak.sampler import Sampler
from tests.soak.scenario import TENANTS, Scenario

ROOT = Path(__file__).parents[2]
STEP = 0.01
"""Seconds between looks."""
STOP_SECONDS = 30.0
RECOVERY_SECONDS = 30.0
"""After so long a restart counts as one that nobody recovered from."""

What = Literal["kill", "empty", "kept", "both"]
"""A process is killed; Redis, which comes back empty or with what it kept; both at once, and Redis is empty."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a soak is asked for."""

    reservations: int
    processes: int = 4
    tasks: int = 64
    kills: int = 20
    restarts: int = 6
    cut_chance: float = 0.01
    """Of a reply that goes through the proxy, which half of the processes do."""
    most_seconds: float = 900
    seed: int = 1


@dataclasses.dataclass
class Report:
    """What came of it."""

    options: Options
    seconds: float = 0.0
    """Until the goal was reached."""
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    kills: int = 0
    restarts: dict[str, int] = dataclasses.field(default_factory=dict)
    cut: int = 0
    recoveries: list[float] = dataclasses.field(default_factory=list)
    """Seconds from the death of Redis until every process grants again."""
    samples: int = 0
    at_limit: int = 0
    verdict: Verdict = dataclasses.field(default_factory=Verdict)

    @property
    def violations(self) -> list[str]:
        return self.verdict.violations

    def show(self) -> str:
        counts, verdict = self.counts, self.verdict
        done = counts["granted"] + counts["refused"]
        recovery = "none"
        if self.recoveries:
            recovery = f"{statistics.median(self.recoveries):.2f} s (median), {max(self.recoveries):.2f} s (most)"
        lines = [
            f"reservations  {done:,} in {self.seconds:.1f} s: {done / self.seconds:,.0f}/s",
            (
                f"of them       {counts['granted']:,} granted, {counts['refused']:,} refused; besides"
                f" {counts['unavailable']:,} of which nobody knew (503)"
            ),
            f"killed        {self.kills} processes; Redis {sum(self.restarts.values())} times {self.restarts}",
            f"lost replies  {self.cut}",
            f"recovery      {recovery}",
            f"samples       {self.samples:,}, in which {self.at_limit:,} accounts stood exactly at a limit",
            (
                f"ledger        {verdict.events:,} events; {verdict.told:,} that processes remember;"
                f" {verdict.accounts} accounts compared"
            ),
            (
                f"lost          {verdict.lost} events of processes killed together with Redis,"
                f" the oldest {verdict.oldest_lost:.2f} s old"
            ),
            f"violations    {len(self.violations)}",
            *(f"  {violation}" for violation in self.violations[:40]),
        ]
        return "\n".join(lines)


class Supervisor:
    """One soak."""

    def __init__(self, options: Options, scenario: Scenario, proxied: str, proxy: CuttingProxy) -> None:
        self._options = options
        self._scenario = scenario
        self._proxied = dataclasses.replace(scenario, redis_url=proxied)
        self._proxy = proxy
        self._chance = random.Random(options.seed)
        self._board = Board.make(scenario.board)
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._started = 0
        self._kills: list[Kill] = []
        self._losses: list[Loss] = []
        self.report = Report(options)

    async def run(self, servers: dict[bool, RedisServer]) -> None:
        """All of it; ``servers``, which share a port, forget (False) or keep (True) what they have."""
        running = servers[False]
        running.launch()
        await asyncio.to_thread(running.wait)
        sampler = Sampler(self._scenario, running.url)
        sampling = asyncio.create_task(sampler.sample_for_ever())
        try:
            for _ in range(self._options.processes):
                await self._start()
            await self._reach(1)
            began = time.monotonic()
            for at, what in self._plan():
                await self._reach(at)
                running = await self._do(what, running, servers)
            await self._reach(self._options.reservations)
            self.report.seconds = time.monotonic() - began
            await self._stop()
        finally:
            sampling.cancel()
            for worker in self._workers.values():
                worker.kill()
                await worker.wait()
        await asyncio.wait([sampling])
        report = self.report
        report.counts = self._board.total(self._started)
        report.kills, report.cut = len(self._kills), self._proxy.cut
        report.samples, report.at_limit = sampler.samples, sampler.at_limit
        # What nobody holds any more runs out.
        await asyncio.sleep(self._scenario.lease_ttl)
        report.verdict.violations += sampler.violations
        if not sampling.cancelled() and (error := sampling.exception()) is not None:
            report.verdict.violations.append(f"the sampler failed: {error!r}")
        before = report.verdict.violations
        restarts = sum(report.restarts.values())
        report.verdict = await judge(self._scenario, running.url, self._kills, self._losses, restarts)
        report.verdict.violations[:0] = before
        await asyncio.to_thread(self._read_logs)

    def _plan(self) -> list[tuple[int, What]]:
        """What is done after how many reservations."""
        options = self._options
        kinds: list[What] = ["kill"] * options.kills
        in_turn: tuple[What, ...] = ("empty", "kept", "both")
        kinds += [in_turn[number % 3] for number in range(options.restarts)]
        self._chance.shuffle(kinds)
        places = len(kinds) + 1
        return [
            (int(options.reservations * (number + self._chance.uniform(0.6, 1.4)) / places), kind)
            for number, kind in enumerate(kinds)
        ]

    async def _do(self, what: What, running: RedisServer, servers: dict[bool, RedisServer]) -> RedisServer:
        """Gives the server that runs afterwards."""
        if what == "kill":
            await self._kill()
            await self._start()
            return running
        if what == "kept" and running is not servers[True]:
            # It has to keep something first.
            running = await self._restart(running, servers[True], "empty")
            await self._reach(self._done() + self._options.reservations // 50)
        if what == "kept":
            return await self._restart(running, running, what)
        return await self._restart(running, servers[False], what)

    async def _restart(self, running: RedisServer, following: RedisServer, what: What) -> RedisServer:
        before = self._rows()
        began, at = time.monotonic(), time.time()
        running.kill()
        if what != "kept":
            self._losses.append(Loss(at))
            following.forget()
        if what == "both":
            await self._kill()
        following.launch()
        await asyncio.to_thread(following.wait)
        if what == "both":
            await self._start()
        while not all(self._board.row(number)["granted"] > before.get(number, 0) for number in self._workers):
            if time.monotonic() - began > RECOVERY_SECONDS:
                self.report.verdict.violations.append(f"nobody recovered in {RECOVERY_SECONDS} s from {what}")
                break
            await asyncio.sleep(STEP)
        self.report.recoveries.append(time.monotonic() - began)
        self.report.restarts[what] = self.report.restarts.get(what, 0) + 1
        return following

    def _rows(self) -> dict[int, int]:
        return {number: self._board.row(number)["granted"] for number in self._workers}

    def _done(self) -> int:
        total = self._board.total(self._started)
        return total["granted"] + total["refused"]

    async def _reach(self, count: int) -> None:
        """Wait until so many reservations were granted or refused."""
        deadline = time.monotonic() + self._options.most_seconds
        while self._done() < count:
            ended = [number for number, worker in self._workers.items() if worker.returncode is not None]
            if ended or time.monotonic() > deadline:
                raise SoakError(f"only {self._done()} of {count} reservations; ended by themselves: {ended}")
            await asyncio.sleep(STEP)

    async def _start(self) -> None:
        number = self._started
        self._started += 1
        scenario = self._proxied if number % 2 else self._scenario
        with (Path(scenario.directory) / f"worker-{number}.log").open("wb") as log:
            self._workers[number] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.soak.worker", scenario.to_json(), str(number)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                preexec_fn=dies_with_parent(signal.SIGKILL),
            )

    async def _kill(self) -> None:
        number = self._chance.choice(list(self._workers))
        worker = self._workers.pop(number)
        self._kills.append(Kill(number, time.time()))
        worker.kill()
        await worker.wait()

    async def _stop(self) -> None:
        """End all processes in an orderly way."""
        for worker in self._workers.values():
            worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            for number, worker in self._workers.items():
                status = await worker.wait()
                # One that has only just begun does not hear it, and has reserved nothing.
                if status not in (0, -signal.SIGTERM):
                    self.report.verdict.violations.append(f"process {number} ended with status {status}")
        self._workers.clear()

    def _read_logs(self) -> None:
        for number in range(self._started):
            log = (Path(self._scenario.directory) / f"worker-{number}.log").read_text(errors="replace")
            if "Traceback" in log:
                where = log.index("Traceback")
                self.report.verdict.violations.append(f"process {number} failed: {log[where : where + 2000]}")


class SoakError(Exception):
    """The soak itself does not go on."""


async def soak(options: Options, dsn: str, directory: Path) -> Report:
    """Run one against the empty database at ``dsn``, which has the schema; all else is its own.

    Raises:
        SoakError: it came to a halt.
    """
    connection = await asyncpg.connect(dsn)
    await connection.executemany("INSERT INTO tenants (name) VALUES ($1)", [(tenant,) for tenant in TENANTS])
    await connection.close()
    async with _redis(directory) as servers:
        scenario = Scenario(dsn, servers[False].url, str(directory), options.reservations, options.tasks)
        async with cutting_proxy(scenario.redis_url, chance=options.cut_chance, seed=options.seed) as (proxy, proxied):
            supervisor = Supervisor(options, scenario, proxied, proxy)
            await supervisor.run(servers)
            return supervisor.report


@contextlib.asynccontextmanager
async def _redis(directory: Path) -> AsyncIterator[dict[bool, RedisServer]]:
    port = free_port()
    servers = {
        False: RedisServer(directory / "forgets", port=port),
        True: RedisServer(directory / "keeps", "--appendonly", "yes", port=port),
    }
    try:
        yield servers
    finally:
        for server in servers.values():
            server.kill()
