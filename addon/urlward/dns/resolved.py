"""Cache of names resolved lately and their addresses, to steer them when a list comes to name them.

In memory, bounded, and no longer than a client may keep an answer. Entries are plain tuples of plain
values, which the garbage collector need not look through. Of `cachetools`' caches, `LRUCache` costs least
here: 0.5 µs to renew and 1.5 µs to replace at 100,000 names, where those with a time for each entry cost
two to four times that; so times stand in the entries, and a sweep forgets what is over.
"""

import time
from collections.abc import Callable, Generator, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from cachetools import Cache, LRUCache

from urlward.dns.judge import Found

MARGIN = 900
"""Seconds for which an address may be used beyond the time told; resolvers in clients, and browsers, keep
addresses for longer than they may."""

MOST_TTL = 604_800
"""Seconds that are believed (RFC 8767 section 4)."""

_MOST_HOSTS = 16
_MOST_ADDRESSES = 64
_SOON = 5
"""Seconds by which an entry need not be renewed."""

type _Known = tuple[Found, int, bytes, tuple[tuple[int, bytes], ...]]
"""The lists' finding, the addresses and their expiry; the same of earlier responses."""


class Newly(NamedTuple):
    """Resolved name that lists have come to name.

    Attributes:
        key: of its entry.
        found: what they say now.
        addresses: with the seconds for which they may still be used.
    """

    key: str
    found: Found
    addresses: tuple[tuple[str, int], ...]


class Resolved:
    """Cache of resolved names.

    Args:
        names: how many, of each family of addresses.
        clock: seconds.
    """

    def __init__(self, names: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: LRUCache[str, _Known] = LRUCache(2 * names)
        self._keeps = names > 0
        self._clock = clock

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, hosts: tuple[str, ...], four: bytes, six: bytes, ttl: int, found: Found) -> None:
        """Store a response.

        Args:
            hosts: the name asked for, and those that led to the addresses.
            four: IPv4 addresses, 4 bytes each.
            six: IPv6 addresses, 16 bytes each.
            ttl: seconds told to the client.
            found: what the lists say of the hosts.
        """
        if not self._keeps:
            return
        now = int(self._clock())
        until = now + min(ttl, MOST_TTL) + MARGIN
        names = " ".join(hosts) if len(hosts) <= _MOST_HOSTS else " ".join(hosts[:_MOST_HOSTS])
        if four:
            self._remember("4 " + names, four if len(four) == 4 else _sorted(four, 4), 4, now, until, found)
        if six:
            self._remember("6 " + names, six if len(six) == 16 else _sorted(six, 16), 16, now, until, found)

    def _remember(self, key: str, addresses: bytes, size: int, now: int, until: int, found: Found) -> None:
        known = self._known
        try:
            # What was found before stays, since a sweep has to see that it is no more so.
            found, last, before, earlier = known[key]
        except KeyError:
            known[key] = (found, until, addresses[: size * _MOST_ADDRESSES], ())
            return
        if before == addresses:
            if last < until - _SOON:
                known[key] = (found, until, addresses, earlier)
            return
        left = _MOST_ADDRESSES - len(addresses) // size
        kept = []
        seen = set(_pieces(addresses, size))
        for its, some in ((last, before), *earlier):
            others = [a for a in _pieces(some, size) if a not in seen][: max(left, 0)]
            if its > now and others:
                seen.update(others)
                left -= len(others)
                kept.append((its, b"".join(others)))
        known[key] = (found, max(until, now), addresses[: size * _MOST_ADDRESSES], tuple(kept))

    def changes(self, find: Callable[[tuple[str, ...]], Found]) -> Generator[None, None, list[Newly]]:
        """Look at all names again, a few at each step.

        Args:
            find: what the lists say of hosts.

        Returns:
            Names that they say something of, and did not; those used lately first. `settle` is to follow.
        """
        newly = []
        now = int(self._clock())
        for number, key in enumerate(list(self._known)):
            if not number % 16:
                yield
            known = self._look(key, now)
            if known is None:
                continue
            found = find(tuple(key[2:].split(" ")))
            before = known[0]
            if found and not before:
                newly.append((known[1], Newly(key, found, tuple(_addresses(key, known, now)))))
            elif found != before:
                self.settle(key, found)
        newly.sort(key=lambda one: -one[0])
        return [one for _, one in newly]

    def listed(self) -> Generator[None, None, list[Newly]]:
        """All cached names that are listed, a few at each step."""
        found = []
        now = int(self._clock())
        for number, key in enumerate(list(self._known)):
            if not number % 64:
                yield
            known = self._look(key, now)
            if known is not None and known[0]:
                found.append(Newly(key, known[0], tuple(_addresses(key, known, now))))
        return found

    def settle(self, key: str, found: Found) -> None:
        """Mark a name's change of listing as handled."""
        known = self._look(key, 0)
        if known is not None:
            # Past the order of use, which this is none of.
            Cache.__setitem__(self._known, key, (found, *known[1:]))

    def sweep(self) -> Generator[None, None, None]:
        """Remove expired names, a few at each step."""
        now = int(self._clock())
        for number, key in enumerate(list(self._known)):
            if not number % 64:
                yield
            self._look(key, now)

    def _look(self, key: str, now: int) -> _Known | None:
        try:
            known: _Known = Cache.__getitem__(self._known, key)
        except KeyError:
            return None
        if known[1] <= now and all(until <= now for until, _ in known[3]):
            del self._known[key]
            return None
        return known


def _addresses(key: str, known: _Known, now: int) -> Iterator[tuple[str, int]]:
    size = 4 if key.startswith("4") else 16
    for until, some in ((known[1], known[2]), *known[3]):
        if until > now:
            for address in _pieces(some, size):
                yield str(ip_address(address)), until - now


def _pieces(addresses: bytes, size: int) -> list[bytes]:
    return [addresses[i : i + size] for i in range(0, len(addresses), size)]


def _sorted(addresses: bytes, size: int) -> bytes:
    """Addresses in a fixed order: resolvers rotate them with each response."""
    return b"".join(sorted(set(_pieces(addresses, size))))
