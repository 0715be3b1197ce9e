"""Records: the letters and digests that entries and requests have in common.

The compiler and the matcher must agree on every byte here, which is why both call it and neither
spells any of it out. An entry is two things: its *letters*, a prefix of the haystack of every
request that it matches, and its *text*, whose keyed digest proves the match.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from urlward.engine.digest import HOST_END, HOST_START, NAME_START, NETWORK_START, Key
from urlward.engine.entry import Kind
from urlward.engine.url import is_address


class Flag:
    """Yes-or-no attributes of a record, as bits (plain numbers: an IntFlag costs 0.5 µs an operation)."""

    ALLOW = 1
    NOCASE = 2
    SUBDOMAINS = 4
    SEVERAL_PARAMS = 8
    DATA = 16
    """Of a page that an application asks for in place of the entry's, which is a record of its own."""


DAY = 86_400

MARKER = 0
"""Kind of the record that says: entries on this domain have the attribute ``subdomains``."""


class PatternSet(IntEnum):
    """The two sets of automata: entries with a fixed beginning, and path sequences without."""

    ANCHORED = 0
    FLOATING = 1


class Shape(NamedTuple):
    """Attributes that many entries share: everything but text and id.

    Attributes:
        kind: a `Kind`, or `MARKER`.
        flags: bits of `Flag`.
        category: index into the artifact's categories; 0 is none.
        expires: last day in force, days since 1970-01-01; 0 for none.
        port: 0 for any.
    """

    kind: int
    flags: int
    category: int
    expires: int
    port: int

    @property
    def allow(self) -> bool:
        """True for an ``@@`` entry."""
        return bool(self.flags & Flag.ALLOW)

    @property
    def is_entry(self) -> bool:
        """Whether its records are entries, and not what is kept beside one."""
        return self.kind != MARKER and not self.flags & Flag.DATA

    def is_over(self, now: float) -> bool:
        """Whether it has expired, at a number of seconds since 1970-01-01 UTC."""
        return bool(self.expires) and now >= (self.expires + 1) * DAY

    def is_for(self, ports: Sequence[int], now: float) -> bool:
        """Whether it has not expired, and has no port or one of these; none stand for unknown."""
        return (not self.port or not ports or self.port in ports) and not self.is_over(now)


_ADDRESS_ENDS = "0123456789]"


def labels_of(host: str) -> list[str]:
    """A canonical host's labels from the right; an address is one label."""
    if host[-1] in _ADDRESS_ENDS and is_address(host):
        return [host]
    labels = host.split(".")
    labels.reverse()
    return labels


def domain_letters(key: Key, labels: Iterable[str]) -> str:
    """Letters of a domain: matches where the request's host has these labels at its right."""
    return HOST_START + "".join(map(key.labels.__getitem__, labels))


def host_letters(key: Key, labels: Iterable[str]) -> str:
    """Letters of a whole host."""
    return domain_letters(key, labels) + HOST_END


def prefix_letters(key: Key, path: str) -> str:
    """Letters of the segments before a canonical path's last slash."""
    return "".join(map(key.segments.__getitem__, path[1:-1].split("/"))) if len(path) > 1 else ""


def name_letters(key: Key, labels: Iterable[str]) -> str:
    """Letters of the labels in front of a public suffix."""
    return NAME_START + "".join(map(key.names.__getitem__, labels))


def network_letters(key: Key, network: str) -> str:
    """Letters of a network in CIDR form."""
    return NETWORK_START + key.names[network]


def domain_text(labels_from_left: str) -> str:
    """Text of a domain entry."""
    return f"d{labels_from_left}"


def host_text(host: str) -> str:
    """Text of an exact-host entry."""
    return f"h{host}"


def marker_text(domain: str) -> str:
    """Text of a `MARKER` record."""
    return f"m{domain}"


def below_text(host: str) -> str:
    """Text whose digest, cut to 4 bytes, identifies the host of a page, prefix or parameter entry."""
    return f"b{host}"


def below_digest(key: Key, host: str) -> bytes:
    """First 4 bytes of the digest of `below_text`."""
    return key.digest(below_text(host))[:4]


def below_number(key: Key, host: str) -> int:
    """`below_digest` as the number that a table stores."""
    return int.from_bytes(below_digest(key, host), "little")


def page_text(host: str, path: str) -> str:
    """Text of a page entry."""
    return f"p{host}{path}"


def prefix_text(host: str, path: str) -> str:
    """Text of a prefix entry; `path` ends with its slash."""
    return f"x{host}{path}"


def param_text(host: str, path: str, param: str) -> str:
    """Text of one parameter on a page."""
    return f"q{host}{path}?{param}"


def name_text(labels_from_left: str) -> str:
    """Text of a name under any public suffix."""
    return f"n{labels_from_left}"


def path_text(path: str) -> str:
    """Text of a path sequence; `path` begins and ends with a slash."""
    return f"f{path}"


def network_text(network: str) -> str:
    """Text of an address or network in CIDR form."""
    return f"a{network}"


def file_text(algorithm: str, digest: str) -> str:
    """Text of a file entry; `digest` is in lower-case hexadecimal."""
    return f"s{algorithm}:{digest}"


BEGINNINGS: Mapping[Kind, str] = {
    Kind.NETWORK: network_text(""),
    Kind.ADDRESS: network_text(""),
    Kind.NAME: name_text(""),
    Kind.PATH: path_text(""),
    Kind.DOMAIN: domain_text(""),
    Kind.HOST: host_text(""),
    Kind.PREFIX: prefix_text("", ""),
    Kind.PAGE: page_text("", ""),
    Kind.PARAMS: param_text("", "", "")[:1],
}
"""What the texts of kinds begin with that go on with an entry's host and path, of which one may be empty."""
