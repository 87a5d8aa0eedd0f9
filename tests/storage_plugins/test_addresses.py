"""Whatever leads to this machine, its neighbours or nobody is not public, in whatever form it is written."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_plugins.http.addresses import is_public, is_within

SPECIAL = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
networks = st.sampled_from(SPECIAL).map(ipaddress.ip_network)
ipv4_addresses = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
ipv6_addresses = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@given(networks, st.data())
def test_no_address_of_a_special_network_is_public(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, data: st.DataObject
) -> None:
    assert not is_public(network[data.draw(st.integers(0, network.num_addresses - 1))])


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "223.255.255.255",
        "2600::1",
        "2001:4860:4860::8888",
        "2a00:1450::1",
        "2003::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_those_of_the_internet_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001:0:808:808::1",
        "fd00:ec2::254",
        "255.255.255.255",
        "fe80::1%1",
    ],
)
def test_those_that_lead_elsewhere_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@given(ipv4_addresses)
def test_an_embedded_address_is_as_public_as_itself(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        embedding = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert is_public(embedding) == is_public(address)


@given(ipv4_addresses | ipv6_addresses)
def test_nothing_is_public_that_python_knows_to_be_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    embeds = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    if is_public(address) and not embeds:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_link_local
        assert not address.is_unspecified


@pytest.mark.parametrize(
    ("address", "within"),
    [
        ("10.1.2.3", True),
        ("10.2.0.0", False),
        ("::ffff:10.1.2.3", True),
        ("64:ff9b::a01:203", False),
        ("fd00::1", True),
        ("fd01::1", False),
    ],
)
def test_a_network_has_the_addresses_of_its_own_however_written(address: str, within: bool) -> None:
    networks = ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/16")
    assert is_within(ipaddress.ip_address(address), networks) == within
