"""Privacy of clients and URLs: how much of an address is kept, by which network it is counted, and keyed
digests of URLs.

Each use has a key of its own, derived from the state folder's, as in `urlward.engine.digest`.
"""

import re
import time
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from urlward.config.tables import join_address
from urlward.units import DAY_MS


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


Level = Literal["full", "short", "digest", "counts"]
"""``full``: the address. ``short``: its network, /24 or /48. ``digest``: a keyed digest that is another each
day (UTC), so that one day's cannot be told to be another day's. ``counts``: no event of a person is kept."""

SHORT = {4: 24, 6: 48}
"""Bits of a shortened address, by IP version."""

_REMEMBERED = 1 << 14
_DIGEST = re.compile("[0-9a-f]{32}").fullmatch


class Privacy:
    """Privacy level: reduces a client's address to what may be kept of it.

    Args:
        level: how much that is.
        secret: the state folder's key, 32 bytes.
    """

    def __init__(self, level: Level, secret: bytes) -> None:
        self.level = level
        self._secret = _derive(secret, b"urlward client")
        self._day = -1
        self._key = b""
        self._known: dict[str, str] = {}

    @property
    def keeps_persons(self) -> bool:
        """Whether there are events of persons at all."""
        return self.level != "counts"

    @property
    def keeps_ports(self) -> bool:
        """Whether the source port is kept: with a time, it tells clients behind one address apart."""
        return self.level == "full"

    def client(self, address: str, now: int) -> str:
        """Reduce a client's address to what may be kept; text that is no address gives nothing, unless all is
        kept.

        Args:
            address: of the client.
            now: milliseconds since 1970-01-01 UTC.
        """
        if self.level == "full":
            # As a socket for both versions shows an IPv4 client (RFC 4291, section 2.5.5.2).
            whole = address.partition("%")[0]
            return whole[7:] if whole.startswith("::ffff:") and "." in whole else whole
        if (day := now // DAY_MS) != self._day or len(self._known) > _REMEMBERED:
            self._known.clear()
            self._day = day
            self._key = blake2b(b"%d" % day, key=self._secret, digest_size=32).digest()
        if (shown := self._known.get(address)) is None:
            shown = self._known[address] = self._shown(address)
        return shown

    def kept(self, client: str, now: int) -> str:
        """Reduce what another node has kept of a client to what may be kept of it here; its digest tells
        nobody here more than that there was one.

        Args:
            client: an address, a network, a digest, or nothing.
            now: milliseconds since 1970-01-01 UTC.
        """
        if not self.keeps_persons:
            return ""
        return client if _DIGEST(client) else self.client(client, now)

    def in_log(self, address: str, port: int = 0) -> str:
        """Client as a log line names it: by no more than is kept of it, ``-`` for nothing.

        Args:
            address: of the client, or a network of clients.
            port: its source port; 0 where there is none to tell.
        """
        if self.level == "full":
            return name_in_log(address, port)
        return self.client(address, time.time_ns() // 1_000_000) or "-"

    def _shown(self, address: str) -> str:
        try:
            # A network goes by its first address.
            found = plain_address(address.partition("/")[0])
        except ValueError:
            return ""
        if self.level == "short":
            bits, host = SHORT[found.version], found.max_prefixlen - SHORT[found.version]
            return f"{type(found)(int(found) >> host << host)}/{bits}"
        if self.level == "digest":
            return blake2b(found.packed, key=self._key, digest_size=16).hexdigest()
        return ""


def digests_of(address: str, secret: bytes, since: int, until: int) -> tuple[str, ...]:
    """Digests of an address by which the level ``digest`` has it, one a day.

    Args:
        address: of a client.
        secret: the state folder's key, 32 bytes.
        since: milliseconds since 1970-01-01 UTC, as is `until`, which is part of it.
        until: see there.
    """
    privacy = Privacy("digest", secret)
    return tuple(privacy.client(address, day * DAY_MS) for day in range(since // DAY_MS, until // DAY_MS + 1))


def kept_client(text: str) -> str:
    """Normalise a client as events may have it, as typed: an address, a network, or a digest.

    Raises:
        ValueError: none of these, or a network that no event has.
    """
    if _DIGEST(text.lower()):
        return text.lower()
    try:
        if "/" not in text:
            return str(plain_address(text))
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("not an address, a network nor a digest") from None
    if network.prefixlen != (bits := SHORT[network.version]):
        raise ValueError(f'networks that events have, by privacy = "short", are those of /{bits}')
    return str(network)


class UrlDigest:
    """Keyed digests of canonical URLs.

    Args:
        secret: the state folder's key, 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._base = blake2b(key=_derive(secret, b"urlward url"), digest_size=16)

    def __call__(self, url: str) -> str:
        """The digest of a canonical URL, 32 hexadecimal digits."""
        h = self._base.copy()
        h.update(url.encode("utf-8", "surrogatepass"))
        return h.hexdigest()


def name_in_log(address: str, port: int = 0) -> str:
    """A client as a line of the log names it where nothing says how much may be kept."""
    return join_address(address, port) if port else address


def _derive(secret: bytes, use: bytes) -> bytes:
    return blake2b(key=secret, digest_size=32, person=use).digest()
