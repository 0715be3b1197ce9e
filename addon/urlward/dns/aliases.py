"""Aliases that a resolver follows: puts together the answers that clients get from the responses that it got.

A resolver asks for an alias (CNAME) and for the name that it leads to one after the other, in any order, and
at times that are hours apart, while it has one of the two. So which names lead to which, and the addresses of
each, are kept for as long as the resolver may have them.
"""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

from cachetools import LRUCache

from urlward.dns.resolved import MOST_TTL
from urlward.dns.wire import Scan

_MOST_NAMES = 16
"""Names that lead to one, besides those that are listed: they count only where a list comes to name them."""

_MOST_LISTED = 256
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

    def take(self, read: Scan, zone: str) -> list[Scan]:
        """Take note of a response to a resolver; returns what clients may get by it.

        Args:
            read: what it says.
            zone: of the server that sent it, whose word on names that are not below does not count.
        """
        read = _in_zone(read, zone)
        now = self._clock()
        until = now + min(read.ttl, MOST_TTL)
        chain = read.chain[:_MOST_STEPS]
        sources = [name for name, ends in self._sources.get(chain[0], {}).items() if ends > now]
        for name, target in pairwise(chain):
            self._targets[name] = until, target
        whole = self._followed(chain, now)
        for n in range(1, len(whole)):
            self._lead((*sources, *whole[:n]), whole[n], until, now)
        if read.four or read.six or len(chain) == 1:
            for host in chain:
                self._keep(host, read, until)
            return [read._replace(hosts=_once(*sources, *read.hosts))]
        named = read._replace(hosts=_once(*sources, *whole))
        return [told for host in whole[len(chain) - 1 :] for told in self._with_addresses(named, host, now)]

    def _followed(self, chain: tuple[str, ...], now: float) -> list[str]:
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
        if len(known) > _MOST_NAMES:
            for name in [one for one, ends in known.items() if ends <= now or not self._is_listed(one)]:
                if len(known) <= _MOST_NAMES:
                    break
                del known[name]
            while len(known) > _MOST_LISTED:
                del known[next(iter(known))]


def _in_zone(read: Scan, zone: str) -> Scan:
    """A response without what its server has no say on, and what clients get from nobody."""
    read = read._replace(beside=())
    if not zone:
        return read
    below = f".{zone}"

    def said(host: str) -> bool:
        return host == zone or host.endswith(below)

    if not said(read.hosts[0]):
        return read  # it was asked all the same: this resolver means something else by a zone
    hosts = tuple(filter(said, read.hosts))
    if said(read.chain[-1]):
        return read._replace(hosts=hosts)
    # The resolver asks for what the first name outside leads to.
    end = next(n for n, host in enumerate(read.chain) if not said(host))
    return read._replace(hosts=hosts, chain=read.chain[: end + 1], four=b"", six=b"")


def _once(*hosts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hosts))
