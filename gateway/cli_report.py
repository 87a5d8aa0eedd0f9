"""What ``gateway ingest`` tells on the terminal."""

from __future__ import annotations

from collections.abc import Callable

import click

from gateway.catalog.ingest.events import Event, Progress, Rejection, Summary
from gateway.text import one_line


class Report:
    """Writes rejections and remarks as they come, progress in between, and the sums at the end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()

    def hear(self, event: Event) -> None:
        """Take an event of the ingest."""
        if isinstance(event, Progress):
            rate = event.entries / max(self._clock() - self._start, 0.001)
            click.echo(f"{event.entries} entries, {event.rejected} rejected, {rate:.0f} a second", err=True)
        elif isinstance(event, Rejection):
            click.echo(one_line(f"rejected: {event.place}: {event.reason}"), err=True)
        else:
            click.echo(one_line(f"remark: {event.place}: {event.text}"), err=True)

    def end(self, summary: Summary) -> None:
        """Say what the ingest did."""
        for kind, count in (("collections", summary.collections), ("items", summary.items)):
            click.echo(f"{kind}: {count.accepted} accepted, {count.updated} updated")
        click.echo(f"files: {summary.files}")
        click.echo(f"rejected: {summary.rejected}")
        click.echo(f"remarks: {summary.remarks}")
        if summary.undescribed:
            click.echo(one_line(f"collections without a description yet: {', '.join(summary.undescribed)}"))
        click.echo(f"seconds: {self._clock() - self._start:.1f}")
