"""Network by which a client's address is counted."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """An address without the interface that it is on, and IPv4 as such.

    Raises:
        ValueError: it is none.
    """
    found = ip_address(text)
    if isinstance(found, IPv6Address):
        return found.ipv4_mapped or IPv6Address(int(found))
    return found


@lru_cache(4096)
def network_of(address: str) -> str:
    """Network that an address is counted by: itself, or with IPv6 the network of 64 bits, all of which one
    client may have (RFC 4291, section 2.5.4). What is no address stands for itself."""
    try:
        found = plain_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found), 64), strict=False))
    return str(found)
