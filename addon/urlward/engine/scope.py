"""Scope of an address: from how far away it can be reached. Whoever runs a name decides which addresses that
has, and must not lead the filter from the internet to what is near it."""

from enum import IntEnum
from ipaddress import IPv6Address, ip_address

from urlward.engine.nat64 import WELL_KNOWN_NAT64, Nat64


class Scope(IntEnum):
    """Scope of an address: from how far away it can be reached, nearest first."""

    HOST = 0
    LINK = 1
    PRIVATE = 2
    GLOBAL = 3


def scope(address: str, nat64: Nat64 = WELL_KNOWN_NAT64) -> Scope:
    """The scope of an IP address (RFC 6890), or of the IPv4 address that it stands for.

    Args:
        address: whose.
        nat64: prefixes of the network's translators.

    Raises:
        ValueError: not an address.
    """
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        inner = nat64.inner(ip) or ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return scope(str(inner))
    if ip.is_loopback or ip.is_unspecified:
        return Scope.HOST
    if ip.is_link_local:
        return Scope.LINK
    return Scope.GLOBAL if ip.is_global else Scope.PRIVATE
