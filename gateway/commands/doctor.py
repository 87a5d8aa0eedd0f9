"""``gateway doctor``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from gateway.commands.shared import CONFIG, check_storage_names, plain_errors
from gateway.config import load
from gateway.text import one_line


@click.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object instead of lines.")
@click.option("--storage", "storages", multiple=True, help="Look at this storage only; may be given several times.")
@click.option("--origin", help="Origin of the web pages that fetch files, if not that of public_url of [api].")
@click.option(
    "--timeout", default=20.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Seconds that each neighbour may take.",
)  # fmt: skip
def doctor(
    *, config_file: Path | None, as_json: bool, storages: tuple[str, ...], origin: str | None, timeout: float
) -> None:
    """Look at all that the gateway stands on: database, Redis, keys, storages, signed URLs; say what to change.

    Ends with status 1 if there is a problem, and with 2 if the configuration cannot be used at all. Changes nothing
    but a key in Redis and a file in the cache of restored copies that are gone again at once.
    """
    from gateway.doctor import checks  # noqa: PLC0415 - each command loads only what it needs
    from gateway.doctor.findings import examine  # noqa: PLC0415

    with plain_errors():
        config = load(config_file)
    check_storage_names(config, storages)
    if origin is not None and urlsplit(origin).scheme not in ("http", "https"):
        raise click.BadParameter("must be like https://www.example.org", param_hint="--origin")
    found = []
    for subject, finding in examine(checks(config, storages=storages, origin=origin, seconds=timeout), seconds=timeout):
        found.append({"subject": subject, **dataclasses.asdict(finding)})
        if not as_json:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.level:<8} {subject}: {one_line(finding.text)}{remedy}")
    problems = sum(finding["level"] == "problem" for finding in found)
    if as_json:
        click.echo(json.dumps({"healthy": not problems, "findings": found}, ensure_ascii=False, indent=1))
    if problems:
        sys.exit(1)
