"""URLs of Redis, which may list several hosts."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379

_ENCODE = "(a '/', '#', '?', ',' or '@' in a password is written %2F, %23, %3F, %2C, %40)"


def each_host(url: str) -> list[str]:
    """One URL for each host of ``redis://user:password@host:port,host:port/db``; others are given back as they are.

    Raises:
        ValueError: it is no such URL. The message says why and quotes nothing, as the URL may hold a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"is no URL {_ENCODE}") from None
    if parts.scheme == "unix":
        return [url]
    credentials, at, hosts = parts.netloc.rpartition("@")
    urls = []
    for host in hosts.split(","):
        _check_host(host)
        urls.append(parts._replace(netloc=f"{credentials}{at}{host}").geturl())
    if not re.fullmatch(r"(/[0-9]*)?", parts.path):
        raise ValueError("must end with the number of a database, like /0, or with nothing")
    return urls


def _check_host(host: str) -> None:
    try:
        one = urlsplit(f"//{host}")
        usable = bool(one.hostname) and one.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"must name hosts, each with a port from 1 to 65535 or none, like host:6379 {_ENCODE}")


def address(url: str) -> str:
    """``host:port``, or the path of a socket: what may be shown of a URL with one host."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    return _pair(parts.hostname or "", parts.port or DEFAULT_PORT)


def with_host(url: str, host: str, port: int) -> str:
    """``url`` with another host in place of its own."""
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}{_pair(host, port)}").geturl()


def without_credentials(url: str, default_port: int) -> str:
    """``url`` of one host without user, password and database."""
    parts = urlsplit(url)
    return parts._replace(netloc=_pair(parts.hostname or "", parts.port or default_port), path="").geturl()


def _pair(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
