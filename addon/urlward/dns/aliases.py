"""Aliases, which a name leads to another by: puts together what is told of the two at different times.

A resolver asks for an alias (CNAME) and for the name that it leads to one after the other, in any order, and
at times that are hours apart, while it has one of the two; so do resolvers in clients, and browsers where an
HTTPS record names another host. So which names lead to which, and the addresses of each that a resolver has,
are kept for as long as somebody may have them: names in clients, for longer than they may.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise

from cachetools import LRUCache

from urlward.dns.resolved import MARGIN, MOST_TTL
from urlward.dns.wire import Scan

_MOST_NAMES = 16
"""Names that lead to one, besides those that are listed: they count only where a list comes to name them."""

_MOST_LISTED = 256
_LOOKED_AT = 32
"""Names that are looked at for some to drop, each time that others come to lead there: to look each one up in
the lists takes its time, where hundreds that are listed share a host."""

_MOST_STEPS = 16


class Aliases:
    """Memory of names, which lead to which, and to what addresses.

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
            self._addresses[host, 4] = until, read.four
        if read.six:
            self._addresses[host, 16] = until, read.six

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
