"""``gateway verify``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.shared import CONFIG, check_storage_names, plain_errors
from gateway.config import Config, load

if TYPE_CHECKING:
    from gateway.fixity import Seen, Selection

_LOOK_UP_SECONDS = 60.0
"""That the catalogue may take for a page of copies: there is no index by storage."""
_INTERRUPTED = 130
_TENANT = "SELECT 1 FROM tenants WHERE name = $1"


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
    from gateway.commands.verify_report import Report  # noqa: PLC0415 - each command loads only what it needs
    from gateway.errors import GatewayError  # noqa: PLC0415
    from gateway.fixity import Selection  # noqa: PLC0415

    with plain_errors():
        config = load(config_file)
    check_storage_names(config, (storage,))
    report = Report(time.monotonic)
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
    if report.failed:
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
        if selection.tenant is not None and not await database.fetch(_TENANT, selection.tenant):
            raise click.BadParameter(f"the catalogue has no tenant {selection.tenant!r}", param_hint="--tenant")
        with contextlib.closing(Hashers(jobs)) as hashers:
            verifier = Verifier(database, hashers, storage_timeout=config.delivery.storage_timeout)
            await FixityCheck(database, verifier, locations[selection.storage], hear).run(selection, jobs=jobs)
