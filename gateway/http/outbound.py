"""URLs that the gateway itself calls."""

from __future__ import annotations

import dataclasses
import ipaddress
import re

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII,
)
"""A part of RFC 3986 that all parsers read alike: no user, no fragment, nothing outside ASCII, the host in small
letters and without percent signs."""
_PORTS = {"https": 443, "http": 80}


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """An absolute URL that may be called."""

    url: str
    """As it was written."""
    authority: str
    """Host and port, like ``idp.example.org:443``; the port is always there."""
    has_query: bool


def parse_target(text: str, *, insecure_http: bool = False) -> Target:
    """Read a URL that must be https; with ``insecure_http`` also http to a loopback address (``127.0.0.1``, ``[::1]``).

    Raises:
        ValueError: it is something else; the message says what it must be, and quotes nothing.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("must be a URL like 'https://idp.example.org/path', its host in small letters")
    if match["scheme"] != "https" and not (insecure_http and _is_loopback(match["host"])):
        allowed = "https, or http to a loopback address" if insecure_http else "https"
        raise ValueError(f"must be a URL with {allowed}")
    return Target(text, _authority(match), match["query"] is not None)


def parse_authority(text: str) -> str:
    """Read a host with or without a port (443 unless given), as `Target.authority` has it.

    Raises:
        ValueError: it is something else.
    """
    match = _URL.fullmatch(f"https://{text}")
    if match is None or match["path"] is not None or match["query"] is not None:
        raise ValueError("must be a host like 'idp.example.org' or 'idp.example.org:8443', in small letters")
    return _authority(match)


def _authority(match: re.Match[str]) -> str:
    port = int(match["port"] or _PORTS[match["scheme"]])
    if not 0 < port < 2**16:
        raise ValueError("must be a host with a port from 1 to 65535")
    return f"{match['host']}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
