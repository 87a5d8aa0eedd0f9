"""Options of the plug-in ``tape_rest``: what its ``[[storage]]`` table may say."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from gateway.errors import ConfigurationError
from storage_plugins.http.message import Target, parse_url

_KNOWN = ("url", "api", "path", "hosts", "token", "token_file", "ca_file", "batch")
_HOST = re.compile(r"(\*\.)?[a-z0-9._-]+")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""A bearer token (RFC 6750 section 2.1)."""
_DOTS = frozenset({".", ".."})


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Options that were looked through."""

    url: str
    """Where the files are read by HTTP or WebDAV, and the API is looked for; without a slash at its end."""
    target: Target
    """The same, taken apart."""
    api: str | None
    """Base of the API, as ``https://site:3880/api/v1/tape``; None to ask the site for it."""
    path: str
    """What the API calls the directory at ``url``: it begins with a slash, and ends with none."""
    hosts: tuple[str, ...]
    """Other hosts of the site, on any port, where the API may be and redirects may lead: names, or ``*.example.org``.
    None of them but the one of the API is shown the token."""
    token: str | None = dataclasses.field(repr=False)
    token_file: Path | None
    """A file with the token, read again when it changes."""
    ca_file: Path | None
    """Certificates in PEM to trust instead of the system's."""
    batch: int
    """Most files in one request."""

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Options:
        """Look through the options of a table.

        Raises:
            ConfigurationError: one is unknown, missing or wrong. The message names it, and shows no token.
        """
        if unknown := sorted(set(options) - set(_KNOWN)):
            raise ConfigurationError(
                f"{', '.join(unknown)}: no such option of plug-in 'tape_rest' ({', '.join(_KNOWN)})"
            )
        url, target = _url(options, "url")
        if url is None or target is None:
            raise ConfigurationError("url: must be where the files are read, like 'https://site.example.org:2880/data'")
        path = _text(options, "path")
        if path is None:
            path = unquote(target.path)
        if not path.startswith("/") or not _DOTS.isdisjoint(path.split("/")):
            raise ConfigurationError("path: must be an absolute path, as the API names the directory at url")
        token, token_file, ca_file = (_text(options, name) for name in ("token", "token_file", "ca_file"))
        if token is not None and token_file is not None:
            raise ConfigurationError("token, token_file: only one of them")
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigurationError("token: must be a bearer token, without a space or a line break")
        if token_file is not None and not Path(token_file).is_file():
            raise ConfigurationError(f"token_file: {token_file} is no file, or may not be read")
        batch = options.get("batch", 100)
        if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= 10_000:
            raise ConfigurationError("batch: must be a number from 1 to 10000")
        return cls(
            url=url,
            target=target,
            api=_url(options, "api")[0],
            path=path.rstrip("/"),
            hosts=_hosts(options.get("hosts", [])),
            token=token,
            token_file=None if token_file is None else Path(token_file),
            ca_file=None if ca_file is None else Path(ca_file),
            batch=batch,
        )

    def trusts(self, other: Target) -> bool:
        """Whether ``other`` is a place of the site, and no less protected than ``url``."""
        if other.scheme != "https" and self.target.scheme == "https":
            return False
        return other.host == self.target.host or any(
            other.host.endswith(host[1:]) if host.startswith("*.") else other.host == host for host in self.hosts
        )

    def is_same_place(self, other: Target) -> bool:
        """Whether ``other`` is at the host and port of ``url``."""
        return other.origin == self.target.origin


def is_token(text: str) -> bool:
    """Whether ``text`` can be sent as a bearer token."""
    return _TOKEN.fullmatch(text) is not None


def _text(options: Mapping[str, object], name: str) -> str | None:
    value = options.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{name}: must be text, and not empty")
    return value


def _url(options: Mapping[str, object], name: str) -> tuple[str | None, Target | None]:
    text = _text(options, name)
    if text is None:
        return None, None
    try:
        target = parse_url(text)
        if target.query or not _DOTS.isdisjoint(unquote(target.path).split("/")):
            raise ValueError("has a query, or dot segments")
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    return f"{target.scheme}://{target.authority}{target.path}".rstrip("/"), target


def _hosts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(host, str) and _HOST.fullmatch(host) for host in value):
        raise ConfigurationError(
            'hosts: must be a list of hosts without ports like ["pool1.example.org", "*.site.org"]'
        )
    return tuple(value)
