"""``gateway verify``."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.shared import CONFIG, check_storage_names, plain_errors
from gateway.config import Config, load
from gateway.text import one_line, shown

if TYPE_CHECKING:
    from gateway.fixity import Outcome, Seen, Selection

PROGRESS_SECONDS = 2.0
"""Least time between two lines of progress."""
_NAMED = 3
"""Copies that the summary names of each kind that was passed over."""
_LOOK_UP_SECONDS = 60.0
"""That the catalogue may take for a page of copies: there is no index by storage."""
_INTERRUPTED = 130


@click.command()
@CONFIG
@click.option("--storage", required=True, help="Name of the [[storage]] whose copies are read.")
@click.option("--tenant", help="Read only the copies of this tenant.")
@click.option("--all", "everything", is_flag=True, help="Read also what was verified before.")
@click.option("--jobs", default=4, show_default=True, type=click.IntRange(1, 256), help="Copies read at once.")
@click.option("--limit", type=click.IntRange(1), help="Read no more copies than this.")
def verify(
    *, config_file: Path | None, storage: str, tenant: str | None, everything: bool, jobs: int, limit: int | None
) -> None:
    """Read the copies of a storage, and hold them against the checksums of the catalogue.

    By default those that nobody has read since they were ingested. What is found is written down copy by copy: a broken
    copy is not served any more, one that holds again is. Ctrl-C ends it and loses only what is half read. Ends with
    status 1 if a copy is broken, missing, changed or unreadable.
    """
    from gateway.errors import GatewayError  # noqa: PLC0415 - each command loads only what it needs
    from gateway.fixity import FAILURES, Selection  # noqa: PLC0415

    with plain_errors():
        config = load(config_file)
    check_storage_names(config, (storage,))
    report = Report(storage, time.monotonic)
    interrupted = False
    with plain_errors():
        try:
            asyncio.run(_check(config, Selection(storage, tenant, everything, limit), jobs, report.hear))
        except KeyboardInterrupt:
            interrupted = True
        except GatewayError as error:
            report.end()
            raise click.ClickException(f"given up: {error.detail}") from error
    report.end()
    if interrupted:
        click.echo("interrupted: the rest was not read", err=True)
        sys.exit(_INTERRUPTED)
    if any(report.counts[outcome] for outcome in FAILURES):
        sys.exit(1)


async def _check(config: Config, selection: Selection, jobs: int, hear: Callable[[Seen], None]) -> None:
    import gateway.db  # noqa: PLC0415 - as above
    from gateway.fixity import FixityCheck  # noqa: PLC0415
    from gateway.hashing import Hashers  # noqa: PLC0415
    from gateway.locations import storage_locations  # noqa: PLC0415
    from gateway.verification import Verifier  # noqa: PLC0415

    settings = config.database.model_copy(update={"pool_size": 2, "timeout": _LOOK_UP_SECONDS})
    chosen = [setting for setting in config.storage if setting.name == selection.storage]
    async with storage_locations(chosen) as locations, gateway.db.connect(settings, ()) as database:
        if selection.tenant is not None and not await database.fetch_row(
            "SELECT FROM tenants WHERE name = $1", selection.tenant
        ):
            raise click.BadParameter(f"the catalogue has no tenant {selection.tenant!r}", param_hint="--tenant")
        with contextlib.closing(Hashers(jobs)) as hashers:
            verifier = Verifier(database, hashers, storage_timeout=config.delivery.storage_timeout)
            await FixityCheck(database, verifier, locations[selection.storage], hear).run(selection, jobs=jobs)


class Report:
    """Writes a line for each copy that is not as it should be, progress in between, and the sums at the end."""

    def __init__(self, storage: str, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._clock = clock
        self._start = self._told = clock()
        self._bytes = 0
        self._names: dict[Outcome, list[str]] = collections.defaultdict(list)
        self.counts: collections.Counter[Outcome] = collections.Counter()
        """Copies by what became of them."""

    def hear(self, seen: Seen) -> None:
        """Take what became of a copy."""
        from gateway.fixity import PASSED  # noqa: PLC0415 - as above

        self.counts[seen.outcome] += 1
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
        from gateway.fixity import FAILURES, PASSED  # noqa: PLC0415 - as above

        click.echo(f"verified: {self.counts['verified']}")
        for outcome in FAILURES:
            click.echo(f"{outcome}: {self.counts[outcome]}")
        for outcome in PASSED:
            if count := self.counts[outcome]:
                names = ", ".join(self._names[outcome]) + (", …" if count > _NAMED else "")
                click.echo(f"{outcome}, so not read: {count} ({names})")
        click.echo(f"bytes: {self._bytes}")
        click.echo(f"seconds: {self._clock() - self._start:.1f}")

    def _progress(self) -> None:
        from gateway.fixity import FAILURES  # noqa: PLC0415 - as above

        now = self._clock()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            failed = sum(self.counts[outcome] for outcome in FAILURES)
            rate = self._bytes / max(now - self._start, 0.001) / 2**20
            click.echo(f"{self.counts.total()} copies, {failed} failed, {rate:.0f} MiB a second", err=True)
