"""What a host means for the lists, worked out once.

Most requests go to hosts that no entry is on; that is told by the sieve, and remembered. A host with an
entry is searched in the automaton, as are the names under a public suffix and the networks that an
address is in.
"""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Literal, NamedTuple

import ahocorasick
from cachetools import LRUCache

from urlward.engine.digest import Key
from urlward.engine.entry import Kind, canonical_network, strip_www
from urlward.engine.loaded import LoadedList
from urlward.engine.record import (
    MARKER,
    Shape,
    below_text,
    domain_text,
    host_letters,
    host_text,
    labels_of,
    marker_text,
    name_letters,
    name_text,
    network_letters,
    network_text,
)
from urlward.engine.suffix import labels_before_suffix
from urlward.engine.url import canonical_host, is_address

_RECENT = 1 << 15
"""Hosts in the dictionary before the cache; it is emptied when full."""

WIDEST = {4: 8, 6: 16}
"""Shortest prefix of a network that a guarded list can name, by version: what registries give out (IPv4), and
wider than anybody has (IPv6)."""

_LONG = 256
"""Characters from which a host is not remembered."""


class Rule(NamedTuple):
    """A row that matches a host, whatever the path."""

    list: LoadedList
    row: int
    shape: Shape


Spared = Literal["", "root", "all"]
"""Rows of a place that do not block: none, the prefix that is all of its host, or all."""


class Place(NamedTuple):
    """A host that a list has pages, prefixes or parameters on, as its rows know it.

    Attributes:
        list: the list.
        keyed: number of the list's key, among those of the lists.
        letters: of the host; a path's letters follow.
        host: the host that the rows' texts name: without ``www.``, or a parent domain.
        shard: the automaton to search, or None where the path decides which.
        subdomains: only rows with that attribute count.
        spared: which rows that block do not.
    """

    list: LoadedList
    keyed: int
    letters: str
    host: str
    shard: ahocorasick.Automaton | None
    subdomains: bool
    spared: Spared


class HostState(NamedTuple):
    """All that the lists say of a host without looking at a path."""

    rules: tuple[Rule, ...]
    places: tuple[Place, ...]


QUIET = HostState((), ())


class Hosts:
    """Hosts and addresses, and what a set of lists says of them.

    Args:
        lists: in any order, under any keys.
        size: listed hosts, and addresses, whose state is kept.
        protected: lists that name, by entries of any kind but pages, hosts and addresses that guarded lists
            cannot block whole.

    Attributes:
        recent: states of hosts seen lately, as requests spell them.
        keys: of the lists, each once.
    """

    def __init__(self, lists: Sequence[LoadedList], size: int, protected: Sequence[LoadedList] = ()) -> None:
        self.recent: dict[str, HostState] = {}
        self._lists = tuple(lists)
        by_id = {li.key.id: li.key for li in self._lists}
        self.keys = tuple(by_id.values())
        self._by_key = [(key, [li for li in self._lists if li.key.id == key.id]) for key in self.keys]
        self._protected = Hosts(protected, size) if protected else None
        self._guards = any(li.guarded for li in self._lists)
        self._listed: LRUCache[str, HostState] = LRUCache(size)
        self._addresses: LRUCache[str, tuple[Rule, ...]] = LRUCache(size)
        self._sieve = self._lists[0].sieve if len(self._lists) == 1 else None
        self._has_names = any(li.has_names for li in self._lists)
        if self._has_names or self._guards:
            labels_before_suffix("example.test")  # reads the suffix list now, not during a request

    def address_rules(self, address: str) -> tuple[Rule, ...]:
        """The rules for a destination address; none for what is not an address."""
        rules = self._addresses.get(address)
        if rules is None:
            try:
                rules = tuple(self._network_rules(address.partition("%")[0]))
            except ValueError:
                rules = ()
            if self._guards and rules and self.protects_address(address):
                rules = tuple(filter(_may_decide, rules))
            self._addresses[address] = rules
        return rules

    def state(self, host: str) -> HostState:
        """What the lists say of a host as it was sent, kept for the next request.

        Raises:
            UrlError: not a host.
        """
        state = self.recent.get(host)
        if state is not None:
            return state
        canonical = canonical_host(host)
        if not is_address(canonical) and not self._may_list(canonical):
            # A quiet host costs less to work out than to look after in a cache that keeps order.
            state = QUIET
        else:
            state = self._listed.get(host)
            if state is None:
                state = self._search(canonical)
            if len(host) <= _LONG:
                self._listed[host] = state
        if len(host) <= _LONG:
            if len(self.recent) >= _RECENT:
                self.recent.clear()
            self.recent[host] = state
        return state

    def _may_list(self, host: str) -> bool:
        if self._sieve is not None:
            return self._sieve.may_list_host(host)
        return any(li.sieve.may_list_host(host) for li in self._lists)

    def protects(self, host: str) -> bool:
        """Whether a canonical host is protected from being blocked whole."""
        return self._protected is not None and bool(self._protected.state(host).rules)

    def protects_address(self, address: str) -> bool:
        """Likewise for a destination address."""
        return self._protected is not None and bool(self._protected.address_rules(address))

    def _search(self, host: str) -> HostState:
        rules: list[Rule] = []
        places: list[Place] = []
        for number, (key, lists) in enumerate(self._by_key):
            self._search_under(key, number, lists, host, rules, places)
        if is_address(host):
            rules.extend(self._network_rules(host.strip("[]")))
        if self._guards and rules:
            rules = self._without_guarded(host, rules)
        return HostState(tuple(rules), tuple(places)) if rules or places else QUIET

    def _without_guarded(self, host: str, rules: list[Rule]) -> list[Rule]:
        """The rules but for those by which guarded lists block what is protected, or all under a suffix."""
        if self.protects(host):
            return list(filter(_may_decide, rules))
        if is_address(host):
            return rules
        suffix = host.count(".") + 1 - len(labels_before_suffix(host))
        return [
            rule
            for rule in rules
            if _may_decide(rule)
            or rule.shape.kind != Kind.DOMAIN
            or rule.list.table.length(rule.row) > suffix
        ]

    def _search_under(
        self,
        key: Key,
        number: int,
        lists: Sequence[LoadedList],
        host: str,
        rules: list[Rule],
        places: list[Place],
    ) -> None:
        """Add what the lists under one key say of a host."""
        numeric = is_address(host)
        labels = labels_of(host)
        whole = host_letters(key, labels)
        page_host = host if numeric else strip_www(host)
        page_letters = whole if page_host == host else host_letters(key, labels_of(page_host))
        below = b""
        names = labels_before_suffix(host) if self._has_names and not numeric else ()
        for li in lists:
            domains: list[str] = []
            shard = li.shard(whole)
            if shard is not None:
                for _, row, end in li.groups(shard, whole):
                    for kind, length in li.forms(row, end):
                        if kind == Kind.HOST:
                            rules.extend(self._confirmed(li, row, end, kind, host_text(host)))
                        elif kind in (Kind.DOMAIN, MARKER) and length <= len(labels):
                            domain = ".".join(labels[length - 1 :: -1]) if length else ""
                            text = (domain_text if kind == Kind.DOMAIN else marker_text)(domain)
                            confirmed = self._confirmed(li, row, end, kind, text)
                            if kind == Kind.DOMAIN:
                                rules.extend(confirmed)
                            elif confirmed:
                                domains.append(domain)
            if li.has_pages and not below:
                below = key.digest(below_text(page_host))[:4]
            if li.has_pages and li.lists_below(page_letters, below):
                shard = li.sole_shard(page_letters)
                spared = self._spared(li, host)
                places.append(Place(li, number, page_letters, page_host, shard, False, spared))
            for domain in dict.fromkeys(domains):
                if domain != page_host:
                    letters = host_letters(key, labels_of(domain))
                    spared = self._spared(li, host, domain)
                    places.append(Place(li, number, letters, domain, li.sole_shard(letters), True, spared))
            if names and li.has_names:
                rules.extend(self._name_rules(li, names))

    def _spared(self, li: LoadedList, host: str, domain: str = "") -> Spared:
        """What a list cannot block on a host by pages and prefixes on it, or on a domain that it is in."""
        if not li.guarded:
            return ""
        if domain and not labels_before_suffix(domain):
            return "all"
        return "root" if self.protects(host) else ""

    def _confirmed(self, li: LoadedList, row: int, end: int, kind: int, text: str) -> list[Rule]:
        shape, removed = li.table.shape, li.removed
        return [
            Rule(li, r, shape(r))
            for r in li.table.matching(row, end, li.key.digest(text))
            if shape(r).kind == kind and r not in removed
        ]

    def _name_rules(self, li: LoadedList, labels: tuple[str, ...]) -> Iterator[Rule]:
        letters = name_letters(li.key, labels)
        shard = li.shard(letters)
        if shard is None:
            return
        for _, row, end in li.groups(shard, letters):
            for kind, length in li.forms(row, end):
                if kind == Kind.NAME and length <= len(labels):
                    text = name_text(".".join(labels[length - 1 :: -1]))
                    yield from self._confirmed(li, row, end, kind, text)

    def _network_rules(self, address: str) -> Iterator[Rule]:
        """Rules for an address.

        Raises:
            ValueError: not one.
        """
        network = canonical_network(str(ip_address(address)))
        for li in self._lists:
            for length in li.prefixes4 if network.version == 4 else li.prefixes6:
                if li.guarded and length < WIDEST[network.version]:
                    continue
                cidr = str(ip_network((int(network.network_address), length), strict=False))
                if network.version == 6 and ":" not in cidr:
                    cidr = str(network.supernet(new_prefix=length))
                letters = network_letters(li.key, cidr)
                shard = li.shard(letters)
                if shard is None:
                    continue
                for _, row, end in li.groups(shard, letters):
                    for kind, bits in li.forms(row, end):
                        if kind in (Kind.ADDRESS, Kind.NETWORK) and bits == length:
                            yield from self._confirmed(li, row, end, kind, network_text(cidr))


def is_too_wide(network: str) -> bool:
    """Whether a guarded list cannot name a network, in CIDR form; it can name each address."""
    _, _, length = network.partition("/")
    return bool(length) and int(length) < WIDEST[6 if ":" in network else 4]


def _may_decide(rule: Rule) -> bool:
    """Whether a rule counts on what is protected."""
    return rule.shape.allow or not rule.list.guarded
