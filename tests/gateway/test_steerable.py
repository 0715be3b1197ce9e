from ipaddress import IPv4Address, ip_address

import pytest

from rows import each_row
from urlward.config import DnsTable, GatewayTable
from urlward.engine.nat64 import Nat64
from urlward.gateway.steerable import PUBLIC_RESOLVERS, Address, Steerable, plain

OWN = frozenset(map(ip_address, ("192.0.2.254", "2001:db8::fe")))
GATEWAY = GatewayTable(
    never=("198.51.100.0/24", "2001:db8:5::/48"),
    dns=DnsTable(page_addresses=("192.0.2.253", "10.0.0.1", "198.51.100.1")),
)


def parsed(text: str) -> Address:
    address = plain(text)
    assert address is not None
    return address


@each_row(
    "address",
    [
        "192.0.2.1",
        "203.0.113.1",
        "2001:db8::1",
        "::ffff:203.0.113.1",
        "64:ff9b::203.0.113.1",
        "192.0.2.253",
        "10.0.0.1",
        "100.63.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "223.255.255.255",
    ],
)
def test_steered(address: str) -> None:
    assert Steerable(GATEWAY, lambda: OWN)(parsed(address))


@each_row(
    "address",
    [
        "0.0.0.0",
        "127.0.0.1",
        "127.255.0.1",
        "10.0.0.2",
        "100.64.0.1",
        "169.254.1.1",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fdff::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::10.0.0.2",
        "64:ff9b::192.0.2.254",
        "192.0.2.254",
        "2001:db8::fe",
        "198.51.100.7",
        "198.51.100.1",
        "2001:db8:5::1",
        "1.1.1.1",
    ]
    + [str(address) for address in sorted(PUBLIC_RESOLVERS, key=str)],
)
def test_never_steered(address: str) -> None:
    assert not Steerable(GATEWAY, lambda: OWN)(parsed(address))


def test_this_machines_addresses_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("urlward.gateway.steerable.monotonic", lambda: now)
    own: set[Address] = set()
    steerable = Steerable(GATEWAY, lambda: frozenset(own))
    address = ip_address("203.0.113.1")
    assert steerable(address)
    own.add(address)
    assert steerable(address)
    now += 61
    assert not steerable(address)
    own.clear()
    now += 61
    assert not steerable(address), "nothing is known, as a machine without any does not exist"


def test_plain() -> None:
    assert str(plain("fe80::1%eth0")) == "fe80::1"
    assert str(plain("::ffff:192.0.2.1")) == "192.0.2.1"
    assert plain("example.test") is plain("") is None


@each_row("prefix", ["2001:db8:64::/96", "fd64:0:0:0::/64", "2001:4860::/32"])
def test_own_nat64_prefixes(prefix: str) -> None:
    gateway = GatewayTable(never=("198.51.100.0/24",), nat64=(prefix,))
    steerable = Steerable(gateway, lambda: OWN)

    def form(address: str) -> Address:
        return next(Nat64([prefix]).addresses(IPv4Address(address)))

    assert steerable(form("203.0.113.1"))
    for never in ("10.0.0.1", "198.51.100.7", "1.1.1.1", "192.0.2.254"):
        assert not steerable(form(never)), never
    assert not steerable(parsed("fd65::1"))
    assert not steerable(parsed("2001:4860:4860::8888"))
    assert steerable(parsed("64:ff9b::10.0.0.2")), "no prefix of this network"
