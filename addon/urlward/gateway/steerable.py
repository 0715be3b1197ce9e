"""Steerable addresses: those that must never be steered, whatever a list or a response says.

A name on a list belongs to whoever runs it: by answering with somebody else's address its owner could
draw that address's traffic into the filter. What a network lives on stays out of reach.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from time import monotonic

from urlward.config import GatewayTable
from urlward.engine.nat64 import Nat64
from urlward.gateway.system import own_addresses
from urlward.records.privacy import plain_address

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

NEVER_STEERED = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network (RFC 1122 sec. 3.2.1.3)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # shared, behind a provider's NAT (RFC 6598)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local (RFC 3927)
        "172.16.0.0/12",  # private
        "192.168.0.0/16",  # private
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
        "::/127",  # unspecified and loopback
        "fc00::/7",  # unique local (RFC 4193)
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local (RFC 3879)
        "ff00::/8",  # multicast
    )
)

PUBLIC_RESOLVERS = frozenset(
    ip_address(address)
    for address in (
        *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),  # Cloudflare
        *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),  # Google
        *("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),  # Quad9
        *("208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"),  # OpenDNS
    )
)
"""Resolvers that whole networks depend on; by an answer with one of these a listed site could break them."""

_OWN_FOR = 60.0
"""Seconds that this machine's addresses are taken to stay."""


class Steerable:
    """Check of which addresses may be steered.

    Args:
        gateway: `never` and `dns.page_addresses` of it.
        own: gives this machine's addresses.
    """

    def __init__(self, gateway: GatewayTable, own: Callable[[], frozenset[Address]] = own_addresses) -> None:
        self._nat64 = Nat64(gateway.nat64)
        self._configured = with_forms(map(ip_network, gateway.never), self._nat64)
        never = (*unsteered(self._nat64), *self._configured)
        self._never = {version: _Ranges(version, never) for version in (4, 6)}
        self._pages = frozenset(map(ip_address, gateway.dns.page_addresses))
        self._read_own = own
        self._own: frozenset[Address] = frozenset()
        self._own_until = 0.0

    def __call__(self, address: Address) -> bool:
        """Whether an address, as `plain` gives it, may be steered."""
        if address in self._pages:
            return not is_within(address, self._configured)
        if int(address) in self._never[address.version]:
            return False
        own = self._own_addresses()
        return address not in own and not (address.version == 6 and self._nat64.inner(address) in own)

    def _own_addresses(self) -> frozenset[Address]:
        now = monotonic()
        if now >= self._own_until:
            # Of a machine that has none the kernel has said nothing, such as where no descriptor was left.
            self._own, self._own_until = self._read_own() or self._own, now + _OWN_FOR
        return self._own


class _Ranges:
    """Networks of one version, by the numbers of their addresses: where a node joins others, hundreds of
    thousands of addresses are looked for."""

    def __init__(self, version: int, networks: Iterable[Network]) -> None:
        merged = sorted(collapse_addresses(one for one in networks if one.version == version))  # type: ignore[type-var]
        self._firsts = [int(one.network_address) for one in merged]
        self._lasts = [int(one.broadcast_address) for one in merged]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]


def plain(address: str) -> Address | None:
    """An address as in packets: IPv4-mapped ones as IPv4, without a zone; None where it is none."""
    try:
        return plain_address(address)
    except ValueError:
        return None


def with_forms(networks: Iterable[Network], nat64: Nat64) -> tuple[Network, ...]:
    """Networks, and what those of IPv4 are under NAT64 prefixes."""
    given = tuple(networks)
    return (*given, *(form for one in given if one.version == 4 for form in nat64.forms(one)))


def unsteered(nat64: Nat64) -> tuple[Network, ...]:
    """What is never steered, under NAT64 prefixes too; the prefixes themselves may be private."""
    networks: list[Network] = [*NEVER_STEERED, *(ip_network(one) for one in PUBLIC_RESOLVERS)]
    for prefix in nat64.prefixes:
        networks = [part for one in networks for part in _without(one, prefix)]
    return with_forms(networks, nat64)


def _without(network: Network, hole: IPv6Network) -> Iterable[Network]:
    if network.version == 4 or not hole.subnet_of(network):
        return (network,)
    return network.address_exclude(hole)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks."""
    return any(address.version == network.version and address in network for network in networks)
