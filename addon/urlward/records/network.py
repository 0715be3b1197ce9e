"""Whom an address stands for, where clients are counted."""

from ipaddress import IPv6Address, IPv6Network, ip_address


def network_of(address: str) -> str:
    """Whom an address stands for: itself, or with IPv6 the network of 64 bits, all of which one client may
    have (RFC 4291, section 2.5.4). What is no address stands for itself."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Network((int(found), 64), strict=False))
