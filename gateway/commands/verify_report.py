"""What ``gateway verify`` tells on the terminal."""

from __future__ import annotations

import collections
from collections.abc import Callable

import click

from gateway.fixity import FAILURES, PASSED, Outcome, Seen
from gateway.text import one_line, shown

PROGRESS_SECONDS = 2.0
"""Least time between two lines of progress."""
_NAMED = 3
"""Copies that the summary names of each kind that was passed over."""


class Report:
    """Writes a line for each copy that is not as it should be, progress in between, and the sums at the end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = self._told = clock()
        self._bytes = 0
        self._names: dict[Outcome, list[str]] = collections.defaultdict(list)
        self._counts: collections.Counter[Outcome] = collections.Counter()

    @property
    def failed(self) -> int:
        """Copies that are not as they should be."""
        return sum(self._counts[outcome] for outcome in FAILURES)

    def hear(self, seen: Seen) -> None:
        """Take what became of a copy."""
        self._counts[seen.outcome] += 1
        self._bytes += seen.size
        if seen.outcome in PASSED:
            if len(self._names[seen.outcome]) < _NAMED:
                self._names[seen.outcome].append(shown(seen.location))
        elif seen.outcome != "verified":
            click.echo(f"{seen.outcome}: {shown(seen.location)}: {one_line(seen.reason)}")
        elif seen.healed:
            click.echo(f"holds again: {shown(seen.location)}")
        self._progress()

    def end(self) -> None:
        """Say what was done."""
        click.echo(f"verified: {self._counts['verified']}")
        for outcome in FAILURES:
            click.echo(f"{outcome}: {self._counts[outcome]}")
        for outcome in PASSED:
            if count := self._counts[outcome]:
                names = ", ".join(self._names[outcome]) + (", …" if count > _NAMED else "")
                click.echo(f"{outcome}, so not read: {count} ({names})")
        click.echo(f"bytes: {self._bytes}")
        click.echo(f"seconds: {self._clock() - self._start:.1f}")

    def _progress(self) -> None:
        now = self._clock()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            rate = self._bytes / max(now - self._start, 0.001) / 2**20
            click.echo(f"{self._counts.total()} copies, {self.failed} failed, {rate:.0f} MiB a second", err=True)
