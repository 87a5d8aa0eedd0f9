"""``gateway conformance``."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from gateway.commands.shared import UnusableError

TOKEN = "GATEWAY_CONFORMANCE_TOKEN"  # noqa: S105 - the name of the variable
"""Environment variable that may hold the bearer token."""


@click.command()
@click.argument("root_url")
@click.option("--collection", help="Id of the Collection to test with; otherwise the first with a download.")
@click.option("--item", help="Id of the Item to test with; needs --collection.")
@click.option("--asset", help="Key of the asset to test with.")
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Bearer token to show. [env, with the token itself: GATEWAY_CONFORMANCE_TOKEN]",
)  # fmt: skip
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write a JUnit report there, too.")
@click.option(
    "--timeout", default=20.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Seconds that each request may take.",
)  # fmt: skip
@click.option(
    "--max-bytes", default=8 * 1024 * 1024, show_default=True, type=click.IntRange(min=1024),
    help="Most bytes of the file that are read at a time.",
)  # fmt: skip
def conformance(
    *,
    root_url: str,
    collection: str | None,
    item: str | None,
    asset: str | None,
    token_file: Path | None,
    junit: Path | None,
    timeout: float,
    max_bytes: int,
) -> None:
    """Test the STAC API at ROOT_URL, whatever server it is, for the class of the Download extension.

    Walks from the root to an asset unless it is named, downloads it about ten times, in part where that will do, and
    says of each rule where it is written. Ends with status 1 if a rule is broken, and with 2 if nothing can be tested.
    """
    from gateway.conformance.asking import NoAnswerError  # noqa: PLC0415
    from gateway.conformance.report import junit as as_junit  # noqa: PLC0415 - each command loads only what it needs
    from gateway.conformance.report import line, summary  # noqa: PLC0415
    from gateway.conformance.session import Settings, conform  # noqa: PLC0415
    from gateway.conformance.suite import Result  # noqa: PLC0415
    from gateway.conformance.walking import NoSubjectError, Wanted  # noqa: PLC0415
    from gateway.text import one_line  # noqa: PLC0415

    if item is not None and collection is None:
        raise click.UsageError("--item needs --collection")
    settings = Settings(_root(root_url), _token(token_file), timeout, max_bytes)

    async def run() -> list[Result]:
        found = []
        async with conform(settings, Wanted(collection, item, asset)) as (subject, results):
            click.echo(f"testing with {subject.url}")
            async for result in results:
                found.append(result)
                click.echo(line(result))
        return found

    try:
        found = asyncio.run(run())
    except (NoAnswerError, NoSubjectError) as error:
        raise UnusableError(one_line(str(error))) from error
    click.echo(summary(found))
    if junit is not None:
        try:
            junit.write_text(as_junit(found, settings.root), encoding="utf-8")
        except OSError as error:
            raise UnusableError(f"{junit}: cannot be written: {error.strerror}") from error
    if any(result.outcome == "fail" for result in found):
        sys.exit(1)


def _root(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or set(url) & set("?#@") or not url.isascii() or not url.isprintable() or " " in url:
        raise click.BadParameter("must be like https://stac.example.org/api", param_hint="ROOT_URL")
    return url.rstrip("/")


def _token(file: Path | None) -> str | None:
    token = os.environ.get(TOKEN)
    if file is not None:
        try:
            token = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableError(f"{file}: holds no token that can be read") from error
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise UnusableError("the token must be one line of printable ASCII without spaces")
    return token
