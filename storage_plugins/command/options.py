"""Options of the plug-in ``command``: what its ``[[storage]]`` table may say."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.errors import ConfigurationError

_PROGRAMS = ("stage", "query", "release", "fetch", "order")
_NUMBERS: Mapping[str, tuple[float, float, float]] = {
    "timeout": (50, 0.05, 3600),
    "fetch_timeout": (86400, 0.05, 30 * 86400),
    "programs": (4, 1, 64),
    "fetches": (4, 1, 64),
    "batch": (100, 1, 1000),
    "threads": (16, 1, 1024),
}
"""Default, least and most."""
_KNOWN = (
    *_PROGRAMS, "in_place", "root", "staged_root", "sparse_is_offline", "scheme", "prefix", "environment", *_NUMBERS,
)  # fmt: skip
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN = frozenset({"file", "http", "https", "s3"})


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Options that were looked through. A program is a list: its path, and what it is always given."""

    stage: tuple[str, ...] | None
    """Asks for restores. Without it every copy counts as ONLINE, and ``fetch`` does all the work."""
    query: tuple[str, ...] | None
    """Tells how it stands; without it ``stage`` is asked again."""
    release: tuple[str, ...] | None
    """Is told of copies that are needed no more."""
    fetch: tuple[str, ...] | None
    """Writes the bytes of a copy into a file; without it they are copied from below ``staged_root``."""
    order: tuple[str, ...] | None
    """Tells on which tape copies lie, and where on it."""
    root: Path | None
    """Where copies that are restored in place lie: the option ``in_place`` is set. None: they are fetched."""
    staged_root: Path | None
    """Below which programs may say that the bytes of a copy lie."""
    sparse_is_offline: bool
    """Whether a file below ``root`` with fewer blocks than bytes is a stub, which to read would wait for the tape."""
    scheme: str
    prefix: str
    """Hrefs are ``{scheme}://{prefix}{location}``."""
    environment: Mapping[str, str] = dataclasses.field(repr=False)
    timeout: float
    """Seconds that ``stage``, ``query``, ``release`` and ``order`` may take; less than a worker waits for a storage."""
    fetch_timeout: float
    """Seconds that ``fetch`` may take for a copy."""
    programs: int
    """At the same time, without those that fetch."""
    fetches: int
    batch: int
    """Most copies that a program is asked about at once."""
    threads: int
    """As of the plug-in ``local``."""

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Options:
        """Look through the options of a table.

        Raises:
            ConfigurationError: one is unknown, missing or wrong. The message names it, and no variable's value.
        """
        if unknown := sorted(set(options) - set(_KNOWN)):
            raise ConfigurationError(f"{', '.join(unknown)}: no such option of plug-in 'command' ({', '.join(_KNOWN)})")
        programs: dict[str, Any] = {name: _program(options, name) for name in _PROGRAMS}
        in_place, sparse = (_flag(options, name) for name in ("in_place", "sparse_is_offline"))
        root, staged_root = (_directory(options, name) for name in ("root", "staged_root"))
        _fit(programs, in_place=in_place, root=root, staged_root=staged_root)
        scheme, prefix = options.get("scheme", "tape"), options.get("prefix", "")
        if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme) or scheme in _TAKEN:
            raise ConfigurationError("scheme: must be the scheme of its hrefs in small letters, as in tape://")
        if not isinstance(prefix, str) or (prefix and not prefix.endswith("/")):
            raise ConfigurationError("prefix: must be text with a slash at its end")
        numbers: dict[str, Any] = {name: _number(options, name) for name in _NUMBERS}
        return cls(
            **programs,
            root=root,
            staged_root=staged_root,
            sparse_is_offline=sparse,
            scheme=scheme,
            prefix=prefix,
            environment=_environment(options.get("environment", {})),
            **numbers,
        )


def _fit(programs: Mapping[str, object], *, in_place: bool, root: Path | None, staged_root: Path | None) -> None:
    if programs["stage"] is None and (programs["fetch"] is None or in_place):
        raise ConfigurationError("stage: is missing; a storage needs stage or, where copies are fetched, fetch alone")
    for name in ("query", "release"):
        if programs[name] is not None and programs["stage"] is None:
            raise ConfigurationError(f"{name}: is of no use without stage")
    if in_place != (root is not None):
        raise ConfigurationError("in_place, root: go together; root is the directory that copies are restored in")
    if in_place and (programs["fetch"] is not None or staged_root is not None):
        raise ConfigurationError("in_place: copies are read where they are, fetch and staged_root are of no use")
    if not in_place and programs["fetch"] is None and staged_root is None:
        raise ConfigurationError("staged_root: must be the directory with restored copies, or fetch a program")


def _program(options: Mapping[str, object], name: str) -> tuple[str, ...] | None:
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value) or not value[0]:
        raise ConfigurationError(f'{name}: must be a list with a program and what it is given: ["/opt/hsm/{name}"]')
    if any("\0" in text for text in value):
        raise ConfigurationError(f"{name}: has a NUL")
    found = shutil.which(value[0])
    if found is None or ("/" in value[0] and not value[0].startswith("/")):
        raise ConfigurationError(f"{name}: {value[0]!r} is no program, or may not be run; give its absolute path")
    return (found, *value[1:])


def _flag(options: Mapping[str, object], name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}: must be true or false")
    return value


def _directory(options: Mapping[str, object], name: str) -> Path | None:
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.startswith("/"):
        raise ConfigurationError(f"{name}: must be the absolute path of a directory")
    if not Path(value).is_dir():
        raise ConfigurationError(f"{name}: {value} is not a directory, or may not be read")
    return Path(value)


def _number(options: Mapping[str, object], name: str) -> float:
    default, least, most = _NUMBERS[name]
    value = options.get(name, default)
    whole = not name.endswith("timeout")
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not least <= value <= most:
        kind = "whole number" if whole else "number of seconds"
        raise ConfigurationError(f"{name}: must be a {kind} from {least:g} to {most:g}")
    return value


def _environment(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigurationError("environment: must be a table of variables")
    for name, text in value.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or not isinstance(text, str) or "\0" in text:
            raise ConfigurationError(f"environment: {name!r} must be the name of a variable, and its value text")
    return dict(value)
