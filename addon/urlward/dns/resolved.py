"""Names resolved lately and their addresses, to steer them when a list comes to name them; and aliases, by
which one name leads to another.

In memory, bounded, and no longer than a client may keep an answer. Entries are plain tuples of plain
values, which the garbage collector need not look through. Of `cachetools`' caches, `LRUCache` costs least
here: 0.5 µs to renew and 1.5 µs to replace at 100,000 names, where those with a time for each entry cost
two to four times that; so times stand in the entries, and a sweep forgets what is over.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from ipaddress import ip_address
from itertools import islice, pairwise
from typing import NamedTuple

from cachetools import Cache, LRUCache

from urlward.dns.judge import Found
from urlward.dns.wire import Scan

MARGIN = 900
"""Seconds for which an address may be used beyond the time told; resolvers in clients, and browsers, keep
addresses for longer than they may."""

MOST_TTL = 604_800
"""Seconds that are believed (RFC 8767 section 4)."""

_MOST_HOSTS = 16
_MOST_KEY = 1_000
"""Bytes of their names together."""
_MOST_ADDRESSES = 64
_LOOKED_AT_FIRST = 16 * _MOST_ADDRESSES
"""Addresses of which those are: to sort thousands takes milliseconds."""
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
        names = " ".join(hosts[:_MOST_HOSTS])
        if len(names) > _MOST_KEY:
            names = names[:_MOST_KEY].rpartition(" ")[0]
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
            known[key] = (found, until, addresses, ())
            return
        if before == addresses:
            if last < until - _SOON:
                known[key] = (found, until, addresses, earlier)
            return
        left = _MOST_ADDRESSES - len(addresses) // size
        kept = []
        seen = set(_pieces(addresses, size))
        for its, some in ((last, before), *earlier):
            others = [a for a in _pieces(some, size) if a not in seen][:left]
            if its > now and others:
                seen.update(others)
                left -= len(others)
                kept.append((its, b"".join(others)))
        known[key] = (found, max(until, now), addresses, tuple(kept))

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
    """Addresses in a fixed order, as many as are kept: resolvers rotate them with each response."""
    some = set(_pieces(addresses[: size * _LOOKED_AT_FIRST], size))
    return b"".join(sorted(some)[:_MOST_ADDRESSES])


_MOST_NAMES = 16
"""Names that lead to one, besides those that are listed: they count only where a list comes to name them."""

_MOST_LISTED = 256
_MOST_TOLD = 128
"""Addresses of a name that are kept, of each family: an answer may have thousands."""

_LOOKED_AT = 32
"""Names that are looked at for some to drop, each time that others come to lead there: to look each one up in
the lists takes its time, where hundreds that are listed share a host."""

_MOST_STEPS = 16


class Aliases:
    """Memory of names, which lead to which, and to what addresses: of what is told at different times.

    A resolver asks for an alias (CNAME) and for the name that it leads to one after the other, in any order,
    and at times that are hours apart, while it has one of the two; so do resolvers in clients, and browsers
    where an HTTPS record names another host. So which names lead to which, and the addresses of each that a
    resolver has, are kept for as long as somebody may have them: names in clients, for longer than they may.

    Args:
        names: how many.
        is_listed: whether the lists say anything of a host.
        clock: seconds.
    """

    def __init__(
        self, names: int, is_listed: Callable[[str], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        names = max(names, 1)
        self._is_listed = is_listed
        self._clock = clock
        self._addresses: LRUCache[tuple[str, int], tuple[float, bytes]] = LRUCache(2 * names)
        """Until when a name has addresses, by the name and their size."""
        self._targets: LRUCache[str, tuple[float, str]] = LRUCache(names)
        """Until when a name leads to another."""
        self._sources: LRUCache[str, dict[str, float]] = LRUCache(names)
        """Until when which names lead to one, directly or by others."""

    def told(self, read: Scan) -> Scan:
        """Take note of a response to a client; returns it with the names that have led the client to it."""
        if len(read.chain) == 1 and not read.service and read.chain[0] not in self._sources:
            return read  # as nearly all
        now = self._clock()
        sources = self._note(read, read.chain[:_MOST_STEPS], now)
        return read._replace(hosts=_once(*read.hosts, *sources))

    def take(self, read: Scan, zone: str) -> list[Scan]:
        """Take note of a response to a resolver; returns what clients may get by it.

        Args:
            read: what it says.
            zone: of the server that sent it, whose word on names that are not below does not count.
        """
        if not _is_of(read.hosts[0], zone):
            return []  # the question, too, is as the server says: resolvers tell of it before they compare it
        now = self._clock()
        if read.service:
            self._note(read, read.chain[:1], now)
        read = _in_zone(read, zone)
        chain = read.chain[:_MOST_STEPS]
        for name, target in pairwise(chain):
            self._targets[name] = now + min(read.leads, MOST_TTL), target
        is_whole = bool(read.four or read.six or len(chain) == 1)
        whole = chain if is_whole else self._followed(chain, now)
        sources = self._note(read._replace(service=False), whole, now)
        if is_whole:
            for host in chain:
                self._keep(host, read, now + min(read.ttl, MOST_TTL))
            return [read._replace(hosts=_once(*sources, *read.hosts))]
        named = read._replace(hosts=_once(*sources, *whole))
        return [told for host in whole[len(chain) - 1 :] for told in self._with_addresses(named, host, now)]

    def _note(self, read: Scan, chain: Sequence[str], now: float) -> list[str]:
        """Note which names of a response lead to which; returns those that lead to the first."""
        until = now + min(read.leads, MOST_TTL) + MARGIN
        sources = [name for name, ends in self._sources.get(chain[0], {}).items() if ends > now]
        for n in range(1, len(chain)):
            self._lead((*sources, *chain[:n]), chain[n], until, now)
        if read.service:
            for target in [host for host in read.targets if host and host not in chain][:_MOST_STEPS]:
                self._lead((*sources, *chain), target, until, now)
        return sources

    def _followed(self, chain: Sequence[str], now: float) -> Sequence[str]:
        """A chain, and what its last name leads to as far as is known."""
        whole = list(chain)
        while len(whole) < _MOST_STEPS:
            ends, target = self._targets.get(whole[-1], (0.0, ""))
            if ends <= now or target in whole:
                break
            whole.append(target)
        return whole

    def _keep(self, host: str, read: Scan, until: float) -> None:
        if read.four:
            self._addresses[host, 4] = until, read.four[: 4 * _MOST_TOLD]
        if read.six:
            self._addresses[host, 16] = until, read.six[: 16 * _MOST_TOLD]

    def _with_addresses(self, read: Scan, host: str, now: float) -> Iterator[Scan]:
        """An answer with the addresses of a name that it leads to, of each family."""
        until, addresses = self._addresses.get((host, 4), (0.0, b""))
        if until > now:
            yield read._replace(four=addresses, ttl=int(until - now))
        until, addresses = self._addresses.get((host, 16), (0.0, b""))
        if until > now:
            yield read._replace(six=addresses, ttl=int(until - now))

    def _lead(self, names: tuple[str, ...], target: str, until: float, now: float) -> None:
        known = self._sources.get(target)
        if known is None:
            known = self._sources[target] = {}
        for name in names:
            # The one told last is the last to go.
            known[name] = max(until, known.pop(name, 0.0))
        for name in list(islice(known, _LOOKED_AT)):
            if len(known) <= _MOST_NAMES:
                return
            ends = known.pop(name)
            if ends > now and self._is_listed(name):
                known[name] = ends  # the last to be looked at again
        while len(known) > _MOST_LISTED:
            del known[next(iter(known))]


def _in_zone(read: Scan, zone: str) -> Scan:
    """A response without what its server has no say on, and what clients get from nobody."""
    read = read._replace(beside=(), hosts=tuple(host for host in read.hosts if _is_of(host, zone)))
    end = next((n for n, host in enumerate(read.chain) if not _is_of(host, zone)), None)
    if end is None:
        return read
    # The resolver asks for what the first name outside leads to, even where that leads back here.
    return read._replace(chain=read.chain[: end + 1], four=b"", six=b"")


def _is_of(host: str, zone: str) -> bool:
    return not zone or host == zone or host.endswith(f".{zone}")


def _once(*hosts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hosts))
