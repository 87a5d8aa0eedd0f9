"""Networks: what anonymous callers are told apart by."""

from __future__ import annotations

import functools
import ipaddress

from gateway.http.forwarded import parse_address
from gateway.identity.principal import UNKNOWN_NETWORK


class Networks:
    """The networks of addresses, by the lengths of their prefixes in bits."""

    def __init__(self, ipv4_prefix: int, ipv6_prefix: int) -> None:
        self._prefixes = {4: ipv4_prefix, 6: ipv6_prefix}
        self.of = functools.lru_cache(maxsize=4096)(self._of)
        """The network of an IP address, like ``192.0.2.7/32``; one mapped into IPv6 is looked at as IPv4."""

    def _of(self, address: str) -> str:
        ip = parse_address(address)
        if ip is None:
            return UNKNOWN_NETWORK
        return str(ipaddress.ip_network((ip, self._prefixes[ip.version]), strict=False))
