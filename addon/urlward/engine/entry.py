"""Entries: what a list says to block or to allow."""

from collections.abc import Mapping
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple


class Kind(IntEnum):
    """Kinds of entries, the more specific the higher."""

    NETWORK = 1
    ADDRESS = 2
    NAME = 3
    PATH = 4
    DOMAIN = 5
    HOST = 6
    PREFIX = 7
    PAGE = 8
    PARAMS = 9
    FILE = 10

    @property
    def label(self) -> str:
        """The word used in verdicts and reports."""
        return self.name.lower()


LABELS = {int(kind): kind.label for kind in Kind}
"""The word for each kind."""

PDQ = "pdq"
"""The perceptual digest among `ALGORITHMS`: of like pictures it is like, and it is compared by distance."""

ALGORITHMS: Mapping[str, int] = {"sha256": 32, "sha1": 20, "md5": 16, PDQ: 32}
"""Algorithms of the digests that a file is listed by, and their bytes; what says most of a file first."""

DISTANCE = 31
"""Bits by which a picture's PDQ digest may differ from a listed one where the entry does not say."""


class Entry(NamedTuple):
    """List entry: one thing to block, or to allow.

    Attributes:
        kind: which of the fields below count.
        host: canonical host; for NAME the labels before the suffix, for ADDRESS and NETWORK the
            network in CIDR form, for PATH empty, for FILE one of `ALGORITHMS`.
        path: canonical path; for PREFIX and PATH with its last slash, for FILE the digest in hexadecimal.
        params: for PARAMS, the parameters that must be there, in comparable spelling.
        allow: True for an ``@@`` entry.
        id: the list body's own reference, or empty.
        category: or empty.
        expires: last day in force, in days since 1970-01-01 (UTC); 0 for none.
        port: the only port it matches; 0 for any.
        nocase: letters of the path and the parameters compare without regard to case (ASCII).
        subdomains: a page, prefix or parameter entry also matches on every subdomain.
        distance: bits by which a PDQ digest that it blocks may differ from its own.
    """

    kind: Kind
    host: str
    path: str = ""
    params: frozenset[str] = frozenset()
    allow: bool = False
    id: str = ""
    category: str = ""
    expires: int = 0
    port: int = 0
    nocase: bool = False
    subdomains: bool = False
    distance: int = 0


def canonical_network(text: str) -> IPv4Network | IPv6Network:
    """An address or network, IPv4-mapped and NAT64 ones as IPv4.

    Raises:
        ValueError: neither, or host bits set.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        high = int(network.network_address) >> 32
        if high in (0xFFFF, 0x64FF9B << 64):
            return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def strip_www(host: str) -> str:
    """Drop one leading ``www.`` where a name with a dot remains."""
    return host[4:] if host.startswith("www.") and "." in host[4:] else host
