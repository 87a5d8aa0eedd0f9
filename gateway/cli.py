"""The command ``gateway``."""

from __future__ import annotations

import asyncio
import datetime
import gc
import time
from collections.abc import Callable
from pathlib import Path

import click

from gateway import __version__
from gateway.commands.admin import admin
from gateway.commands.conformance import conformance
from gateway.commands.doctor import doctor
from gateway.commands.explain import explain
from gateway.commands.ingest import ingest_command
from gateway.commands.keys import keys
from gateway.commands.links import links
from gateway.commands.orders import orders
from gateway.commands.quotas import quotas
from gateway.commands.sessions import sessions
from gateway.commands.shared import CONFIG, plain_errors
from gateway.commands.verify import verify
from gateway.commands.worker import worker
from gateway.config import Config, load
from gateway.errors import ConfigurationError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """Async streaming download gateway for archives of Earth-observation and science data."""


@main.command()
@CONFIG
def serve(config_file: Path | None) -> None:
    """Serve downloads until SIGTERM or Ctrl-C."""
    from gateway.app import create_app  # noqa: PLC0415 - each command loads only what it needs
    from gateway.ops.logs import json_logs  # noqa: PLC0415
    from gateway.server import serving, until_stopped  # noqa: PLC0415

    async def run(config: Config, access_log: Callable[[str], None]) -> None:
        async with serving(create_app(config), config.server, access_log) as base_url:
            # What was made until now stays: the garbage collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(100_000, 50, 100)
            click.echo(f"serving on {base_url}", err=True)
            await until_stopped()

    with plain_errors():
        config = load(config_file)
        with json_logs() as write_line:
            asyncio.run(run(config, write_line))


@main.command()
@CONFIG
def migrate(config_file: Path | None) -> None:
    """Bring the database to this gateway's schema; doing it again changes nothing."""
    from gateway.db import SCHEMA_VERSION, apply_schema, one_connection  # noqa: PLC0415

    async def run(config: Config) -> None:
        async with one_connection(config.database) as connection:
            await apply_schema(connection)
        click.echo(f"the database has schema version {SCHEMA_VERSION}")

    with plain_errors():
        asyncio.run(run(load(config_file)))


@main.command()
@CONFIG
@click.option("--tenant", required=True)
@click.option("--email", required=True, help="Who quotas, licences and memberships are bound to.")
@click.option("--subject", help="Login; the e-mail address unless given.")
@click.option("--role", default="REGISTERED_USER", show_default=True, help="A role of REGARDS.")
@click.option("--group", "groups", multiple=True, help="An access group; may be given several times.")
@click.option("--hours", default=12.0, show_default=True, type=click.FloatRange(min=0, min_open=True, max=24 * 366))
def token(
    *,
    config_file: Path | None,
    tenant: str,
    email: str,
    subject: str | None,
    role: str,
    groups: tuple[str, ...],
    hours: float,
) -> None:
    """Sign a token for development, with the first HS key of the configuration."""
    from gateway.identity.jwt import sign  # noqa: PLC0415
    from gateway.identity.principal import Principal  # noqa: PLC0415

    with plain_errors():
        keys = [key for key in load(config_file).identity.jwt if key.secret is not None]
        if not keys or keys[0].secret is None:
            raise ConfigurationError("identity.jwt: no key with a secret: only HS tokens can be signed here")
        principal = Principal(tenant, subject or email, email, role, groups)
        lifetime, now = datetime.timedelta(hours=hours), datetime.datetime.now(datetime.UTC)
        click.echo(
            sign(keys[0].secret.get_secret_value(), keys[0].algorithms[0], principal, now=now, lifetime=lifetime)
        )


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--ready-file", type=click.Path(path_type=Path, dir_okay=False), help="Write what is served there, as JSON."
)
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep the product files there.")
@click.option("--large", metavar="SIZE", help="Add a file of SIZE bytes, like 1GiB.")
@click.option(
    "--catalog",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Serve the STAC files found there, with their local asset files, instead.",
)
def demo(
    *, host: str, port: int, ready_file: Path | None, data_dir: Path | None, large: str | None, catalog: Path | None
) -> None:
    """Serve a small real catalogue, with PostgreSQL and Valkey of its own that are gone afterwards."""
    from gateway.cli_report import Report  # noqa: PLC0415
    from gateway.demo.server import DemoOptions, run_demo  # noqa: PLC0415
    from gateway.demo.sizes import parse_size  # noqa: PLC0415
    from gateway.ops.logs import json_logs  # noqa: PLC0415

    if catalog is not None and (large is not None or data_dir is not None):
        raise click.UsageError("--catalog serves what is there: --large and --data-dir do not go with it")
    try:
        size = None if large is None else parse_size(large)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--large") from error
    options = DemoOptions(host, port, ready_file, data_dir, size, catalog)
    with plain_errors(), json_logs(level="WARNING"):
        asyncio.run(run_demo(options, Report(time.monotonic).hear))


for command in (
    *(admin, conformance, doctor, explain, ingest_command, keys, links),
    *(orders, quotas, sessions, verify, worker),
):
    main.add_command(command)
