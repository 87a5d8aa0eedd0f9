"""What the commands have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from gateway.config import Config
from gateway.errors import ConfigurationError

CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="GATEWAY_CONFIG",
    help="TOML file with the settings; see config.example.toml. [env: GATEWAY_CONFIG]",
)


class UnusableError(click.ClickException):
    """The command cannot even begin. Its status is that of wrong usage: 1 is for what a command finds."""

    exit_code = 2


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Say what is wrong with the configuration in plain lines, without a traceback."""
    try:
        yield
    except ConfigurationError as error:
        raise UnusableError(str(error)) from error


def check_storage_names(config: Config, names: tuple[str, ...]) -> None:
    """See that the configuration has these storages.

    Raises:
        click.BadParameter: it has not.
    """
    known = [setting.name for setting in config.storage]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--storage")
