"""From an address to the network that anonymous callers are counted by."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.networks import Networks


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("::FFFF:C000:0207", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("2001:DB8:1::", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", "unknown"),
        ("somewhere", "unknown"),
        ("192.0.2.7, 192.0.2.8", "unknown"),
    ],
)
def test_an_address_belongs_to_the_network_of_its_prefix(address: str, network: str) -> None:
    assert Networks(24, 48).of(address) == network


def test_prefixes_reach_from_everyone_to_one_address() -> None:
    assert Networks(0, 0).of("192.0.2.7") == "0.0.0.0/0"
    assert Networks(0, 0).of("2001:db8::7") == "::/0"
    assert Networks(32, 128).of("192.0.2.7") == "192.0.2.7/32"
    assert Networks(32, 128).of("2001:db8::7") == "2001:db8::7/128"


@given(st.ip_addresses(), st.integers(0, 32), st.integers(0, 128))
def test_an_address_lies_in_its_network_and_the_network_in_itself(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, ipv4_prefix: int, ipv6_prefix: int
) -> None:
    networks = Networks(ipv4_prefix, ipv6_prefix)
    network = ipaddress.ip_network(networks.of(str(ip)))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    assert (mapped or ip) in network
    assert network.prefixlen == (ipv4_prefix if network.version == 4 else ipv6_prefix)
    assert networks.of(str(network.network_address)) == str(network)
