"""Sides within one process that are compared by calls: in turn within each round, medians, spreads and ratios."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import click

from benchmarks.harness import NEIGHBOURS, Spread
from benchmarks.processes import cpu_seconds, named, process_tree


class NotDoneError(Exception):
    """A side did not do what is measured."""


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared."""

    name: str
    call: Callable[[int], Awaitable[None]]
    """Does the work with this number."""
    rest: Callable[[], Awaitable[None]]
    """Waits until all is done that a round leaves behind."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What one round of a side took."""

    rate: float
    """Calls per second."""
    median: float
    """Seconds that a call took."""
    p99: float
    client_cpu: float
    """Seconds of this process, for each call."""
    neighbour_cpu: float
    """Seconds of the neighbour, for each call."""


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, and how it is called."""

    calls: str
    """What the calls are, in the plural: ``downloads``."""
    took: str
    """What a call's time is: ``added``, ``took``."""
    neighbour: str
    """One of `NEIGHBOURS`, whose CPU time is shown."""

    async def run(self, sides: Sequence[Side], count: int, rounds: int, at_a_time: Sequence[int]) -> None:
        """Print a table for each number of calls at a time."""
        for tasks in at_a_time:
            samples: list[list[Sample]] = [[] for _ in sides]
            for number in range(rounds + 1):
                for step in range(len(sides)):
                    index = (number + step) % len(sides)
                    sample = await self.measure(sides[index], count, tasks)
                    if number > 0:  # one round more warms up
                        samples[index].append(sample)
                if sys.stderr.isatty():
                    click.echo(f"\r{number + 1}/{rounds + 1} ", err=True, nl=number == rounds)
            click.echo(
                f"\n{tasks} at a time; median (least-most) of {rounds} rounds in turn, {count} {self.calls} each"
            )
            click.echo(self.table([side.name for side in sides], samples))

    async def measure(self, side: Side, count: int, tasks: int) -> Sample:
        """Make so many calls, ``tasks`` at a time."""
        seconds: list[float] = []
        numbers_left = iter(range(count))

        async def one_after_the_other() -> None:
            for number in numbers_left:
                began = time.perf_counter()
                await side.call(number)
                seconds.append(time.perf_counter() - began)

        neighbour = named(process_tree(os.getpid()), NEIGHBOURS[self.neighbour])
        gc.collect()
        client_before, neighbour_before = time.process_time(), {pid: cpu_seconds([pid]) for pid in neighbour}
        began = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(tasks)))
        elapsed = time.perf_counter() - began
        # Until the last of it is where it belongs: its CPU time is part of the costs.
        await side.rest()
        client_cpu = time.process_time() - client_before
        # One that ended meanwhile has none; it was not asked by the calls, whose connections last.
        neighbour_cpu = sum(max(cpu_seconds([pid]) - before, 0) for pid, before in neighbour_before.items())
        if len(seconds) != count:
            raise NotDoneError(f"{side.name} did {len(seconds)} of {count} {self.calls}")
        return Sample(
            rate=count / elapsed,
            median=statistics.median(seconds),
            p99=statistics.quantiles(seconds, n=100)[98],
            client_cpu=client_cpu / count,
            neighbour_cpu=neighbour_cpu / count,
        )

    def table(self, names: Sequence[str], samples: Sequence[Sequence[Sample]]) -> str:
        """A row for each side; the ratio is that of the first one's rate to the side's, round by round."""
        rows: list[tuple[str, ...]] = [
            (
                "",
                f"{self.calls}/s",
                f"{self.took}, median us",
                f"{self.took}, p99 us",
                "client CPU us",
                f"{self.neighbour} CPU us",
                f"{names[0]} is",
            )
        ]
        for name, side in zip(names, samples, strict=True):
            ratio = Spread.of(ours.rate / theirs.rate for ours, theirs in zip(samples[0], side, strict=True))
            columns = [
                Spread.of(sample.rate for sample in side).show(0),
                *(
                    Spread.of(1e6 * getattr(sample, field) for sample in side).show(0)
                    for field in ("median", "p99", "client_cpu", "neighbour_cpu")
                ),
            ]
            rows.append((name, *columns, "" if side is samples[0] else f"{ratio.show(2)} times as fast"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


async def nothing() -> None:
    """Nothing is left behind."""
