"""Who really asks, behind proxies: Forwarded (RFC 7239) and its elders X-Forwarded-For, -Proto and -Host.

These fields are text that anybody can send. They are believed only as far as they were written by proxies that the
configuration lists: from the right, each entry tells whom the proxy to its right was talking to, so the first address
that is no listed proxy is the client, and what lies to its left is hearsay.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence

from multidict import MultiMapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_HOPS = 32
"""Entries that are looked at, the last ones."""
_LONGEST = 4096
"""Characters of Forwarded that are looked at: proxies may add to what clients send, and it is read one by one."""

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_NODE = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]+)?|([0-9.]{7,15})(?::[0-9]+)?|([0-9A-Fa-f:.]{2,45})")
_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",;]*)\s*')


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from, and how it was addressed."""

    address: str
    """IP address, as far as the listed proxies vouch for it; empty if there is none (a unix socket), or if they do not
    tell it."""
    scheme: str
    """``http`` or ``https``, as the client used it."""
    host: str
    """Host and port, as the client used them; a valid one."""
    by_proxy: bool
    """Whether the connection itself comes from a listed proxy."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Hop:
    address: str | None = None
    """None: nothing is said of it. Empty: it is hidden, or nonsense. It is not that of the proxy then."""
    scheme: str | None = None
    host: str | None = None


def is_host(text: str) -> bool:
    """Whether ``text`` is a host, perhaps with a port (RFC 9110 §7.2): no user, no path, no list."""
    return _HOST.fullmatch(text) is not None


def is_listed(address: str, networks: Sequence[Network]) -> bool:
    """Whether ``address`` lies in one of ``networks``; an IPv4 address mapped into IPv6 is looked at as IPv4."""
    ip = parse_address(address) if networks else None
    return ip is not None and any(ip in network for network in networks)


def find_client(peer: str, scheme: str, host: str, headers: MultiMapping[str], proxies: Sequence[Network]) -> Client:
    """The client behind the connection from ``peer``.

    Args:
        peer: address of the connection's other end, empty for a unix socket.
        scheme: of the connection itself.
        host: the Host field, already found valid.
        headers: of the request.
        proxies: the listed ones.

    Raises:
        ValueError: Forwarded and X-Forwarded-* are both there and tell of different clients: a proxy writes one of them
            and passes the other on, which anybody can send.
    """
    if not is_listed(peer, proxies):
        return Client(peer, scheme, host, by_proxy=False)
    direct = Client(peer, scheme, host, by_proxy=True)
    told = {_follow(direct, hops, proxies) for hops in (_forwarded_hops(headers), _x_forwarded_hops(headers)) if hops}
    if len(told) > 1:
        raise ValueError(
            "Forwarded and X-Forwarded-* tell of different clients: a proxy must set or remove each of them."
        )
    return told.pop() if told else direct


def _follow(client: Client, hops: Sequence[_Hop], proxies: Sequence[Network]) -> Client:
    for hop in reversed(hops):
        client = Client(
            address=client.address if hop.address is None else hop.address,
            scheme=hop.scheme or client.scheme,
            host=hop.host or client.host,
            by_proxy=True,
        )
        if not is_listed(hop.address or "", proxies):
            break
    return client


def _forwarded_hops(headers: MultiMapping[str]) -> list[_Hop]:
    """The entries of Forwarded from left to right."""
    text = ",".join(headers.getall("Forwarded", ()))
    if len(text) > _LONGEST:
        return [_Hop("")]
    return [_forwarded_hop(element) for element in _split(text, ",")[-MOST_HOPS:]]


def _x_forwarded_hops(headers: MultiMapping[str]) -> list[_Hop]:
    """The entries of X-Forwarded-* side by side, from left to right."""
    addresses = _list(headers, "X-Forwarded-For")
    schemes, hosts = _list(headers, "X-Forwarded-Proto"), _list(headers, "X-Forwarded-Host")
    if not addresses:
        return [_Hop(None, _scheme(schemes[-1:]), _host(hosts[-1:]))] if schemes or hosts else []
    hops = [_Hop(_address(address)) for address in addresses]
    # Most proxies set these anew instead of adding to them: the last one is that of the nearest proxy.
    nearest = hops[-1]
    hops[-1] = dataclasses.replace(nearest, scheme=_scheme(schemes[-1:]), host=_host(hosts[-1:]))
    return hops


def _forwarded_hop(element: str) -> _Hop:
    pairs = {}
    for pair in _split(element, ";"):
        match = _PAIR.fullmatch(pair)
        if match is None:
            return _Hop("")
        value = match[2]
        pairs[match[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    address = _address(pairs["for"]) if "for" in pairs else None
    return _Hop(address, _scheme([pairs.get("proto", "")]), _host([pairs.get("host", "")]))


def _split(text: str, separator: str) -> list[str]:
    """Split outside of quotes; one pass over the text."""
    pieces, start, quoted, escaped = [], 0, False, False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            pieces.append(text[start:position])
            start = position + 1
    pieces.append(text[start:])
    return [piece for piece in pieces if piece.strip()]


def _list(headers: MultiMapping[str], name: str) -> list[str]:
    entries = ",".join(headers.getall(name, ())).rsplit(",", MOST_HOPS)[-MOST_HOPS:]
    return [entry.strip() for entry in entries if entry.strip()]


def _scheme(found: Sequence[str]) -> str | None:
    return found[0].lower() if found and found[0].lower() in ("http", "https") else None


def _host(found: Sequence[str]) -> str | None:
    return found[0] if found and is_host(found[0]) else None


def _address(text: str) -> str:
    """The address in ``for=``, without its port; empty for ``unknown``, an obfuscated name, or nonsense."""
    match = _NODE.fullmatch(text)
    ip = parse_address(next(group for group in match.groups() if group)) if match else None
    return "" if ip is None else str(ip)


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address in ``text``, its zone dropped, one mapped into IPv6 as IPv4; None if there is none."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip
