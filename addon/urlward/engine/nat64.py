"""NAT64 prefixes: IPv4 addresses as clients of IPv6-only networks reach them (RFC 6052 section 2.2)."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

WELL_KNOWN = "64:ff9b::/96"
"""The prefix that means the same everywhere (RFC 6052 section 2.1)."""

_LENGTHS = (32, 40, 48, 56, 64, 96)
_IPV4_ONLY = (IPv4Address("192.0.0.170"), IPv4Address("192.0.0.171"))
_BEHIND_U = (1 << 56) - 1
_U = 0xFF << 56
"""Bits 64 to 71 of an address, which are zero, and no part of the IPv4 address."""


def nat64_prefix(text: str) -> IPv6Network:
    """Read a prefix.

    Raises:
        ValueError: it is none; its length is none of RFC 6052's; bits 64 to 71 are not zero.
    """
    prefix = IPv6Network(text)
    if prefix.prefixlen not in _LENGTHS:
        raise ValueError(f"its length is not one of {', '.join(map(str, _LENGTHS))}")
    if int(prefix.network_address) & _U:
        raise ValueError("bits 64 to 71 are not zero")
    return prefix


class Nat64:
    """Prefixes of a network's translators.

    Args:
        prefixes: as `nat64_prefix` takes them.

    Attributes:
        prefixes: each once.

    Raises:
        ValueError: as `nat64_prefix`.
    """

    def __init__(self, prefixes: Iterable[str]) -> None:
        self.prefixes = tuple(dict.fromkeys(map(nat64_prefix, prefixes)))
        self._longest_first = sorted(self.prefixes, key=lambda prefix: -prefix.prefixlen)

    def forms(self, network: IPv4Network) -> Iterator[IPv6Network]:
        """What an IPv4 network is under each prefix, with any suffix behind the IPv4 address."""
        four, length = int(network.network_address), network.prefixlen
        for prefix in self.prefixes:
            base, before = int(prefix.network_address), prefix.prefixlen
            if before == 96:
                yield IPv6Network((base | four, before + length))
                continue
            bits = four << (88 - before)
            value = base | bits >> 56 << 64 | bits & _BEHIND_U
            yield IPv6Network((value, before + length + 8 * (before + length > 64)))

    def addresses(self, address: IPv4Address) -> Iterator[IPv6Address]:
        """What an IPv4 address is under each prefix, with zeros as the suffix."""
        return (form.network_address for form in self.forms(IPv4Network(address)))

    def inner(self, address: IPv6Address) -> IPv4Address | None:
        """The IPv4 address inside an address; None of what is under no prefix."""
        value = int(address)
        for prefix in self._longest_first:
            before = prefix.prefixlen
            if value >> (128 - before) == int(prefix.network_address) >> (128 - before):
                if before < 96:
                    value = (value >> 64 << 56 | value & _BEHIND_U) >> (88 - before)
                return IPv4Address(value & 0xFFFFFFFF)
        return None


def prefixes_in(addresses: Iterable[IPv6Address]) -> set[IPv6Network]:
    """Prefixes under which a resolver gives the addresses of ``ipv4only.arpa`` (RFC 7050 section 3)."""
    return {
        prefix
        for address in addresses
        for length in _LENGTHS
        if not int((prefix := IPv6Network((address, length), strict=False)).network_address) & _U
        and Nat64([str(prefix)]).inner(address) in _IPV4_ONLY
    }


NO_NAT64 = Nat64(())
"""Of a network without prefixes of its own."""

WELL_KNOWN_NAT64 = Nat64((WELL_KNOWN,))
"""Of any network: what is under it is the IPv4 address, wherever it is met."""
