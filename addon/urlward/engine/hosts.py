"""Host lookup: the rules of all lists for a host or address, computed once and cached.

Most requests go to hosts that no entry is on; the sieve finds that out, and it is cached. A host with an
entry is searched in the automaton, as are the names under a public suffix and the networks that an
address is in. For those who see only a host's name (DNS, TLS before requests) `level_of` says how much of it
is listed.

Public suffixes are looked up offline (https://publicsuffix.org, both its sections). Only entries of the form
``name.*`` depend on the suffix list, so that two machines with suffix lists of different dates agree on
everything else.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import chain
from typing import Literal, NamedTuple

from publicsuffixlist import PublicSuffixList

from urlward.engine.digest import Key
from urlward.engine.entry import Entry, Kind, canonical_network, strip_www
from urlward.engine.loaded import Digests, LoadedList, PageGroup
from urlward.engine.nat64 import NO_NAT64, Nat64
from urlward.engine.record import (
    MARKER,
    Flag,
    Shape,
    below_number,
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
from urlward.engine.sieve import MOST_RECENT, Sieves
from urlward.engine.url import host_readings, is_address, is_plain_host
from urlward.engine.verdict import Verdict


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


@cache
def _wildcards(rules: frozenset[str]) -> frozenset[str]:
    """Suffixes below which each name is one as well."""
    return frozenset(rule[2:] for rule in rules if rule.startswith("*."))


def labels_before_suffix(host: str) -> tuple[str, ...]:
    """The labels of a canonical host in front of its public suffix, rightmost first.

    ``a.example.co.uk`` gives ``("example", "a")``; a host that is itself a suffix gives ``()``. A
    top-level domain the list does not know counts as a suffix (the list's own default rule).
    """
    suffix = _suffixes().publicsuffix(host)
    if suffix is None or len(suffix) >= len(host):
        return ()
    return tuple(reversed(host[: -len(suffix) - 1].split(".")))


def is_suffix(host: str) -> bool:
    """Whether a canonical name has nothing in front of its public suffix: asked of each of a million names,
    where `labels_before_suffix` would take seconds."""
    rules = _suffixes()._publicsuffix
    wildcards = _wildcards(rules)
    return (
        "." not in host
        or host in rules
        or host in wildcards
        or (host.partition(".")[2] in wildcards and f"!{host}" not in rules)
    )


def public_suffixes() -> frozenset[str]:
    """The suffixes of the list; of rules with ``*`` those that they are below."""
    rules: frozenset[str] = _suffixes()._publicsuffix
    return frozenset(rule.lstrip("!*.") for rule in rules)


_ADDRESSES = 1 << 15
"""Addresses whose rules are kept, and domains whose pages are; each are forgotten when there are more."""

WIDEST = {4: 8, 6: 16}
"""Shortest prefix of a network that a guarded list can name, by version: what registries give out (IPv4), and
wider than anybody has (IPv6)."""

_LONG = 256
"""Characters from which a host is not remembered."""


class Rule(NamedTuple):
    """Listed row that matches a host, whatever the path."""

    list: LoadedList
    row: int
    shape: Shape
    verdict: Verdict


Spared = Literal["", "root", "all"]
"""Rows of a place that do not block: none, the prefix that is all of its host, or all."""


@dataclass(slots=True, eq=False)
class ListedHost:
    """Host with pages, prefixes or parameters in a list, as its rows know it.

    Attributes:
        list: the list.
        keyed: number of the list's key, among those of the lists.
        host: the host that the rows' texts name: without ``www.``, or a parent domain.
        below: the number that its rows have (`RowTable.below`).
        groups: those that have all of its entries; None where these are so many that the path decides.
        subdomains: only rows with that attribute count.
        spared: which rows that block do not.
        nocase: whether letters of either case may be the same in any.
    """

    list: LoadedList
    keyed: int
    host: str
    below: int
    groups: tuple[PageGroup, ...] | None
    subdomains: bool
    spared: Spared
    nocase: bool = field(init=False)

    def __post_init__(self) -> None:
        self.nocase = self.list.nocase and (
            self.groups is None or any(forms.nocase for _, _, forms in self.groups)
        )

    def letters(self) -> str:
        """Letters of the host; a path's letters follow."""
        return host_letters(self.list.key, labels_of(self.host))


@dataclass(slots=True, eq=False)
class HostState:
    """Cached result of a host lookup: all that the lists say of it without looking at a path."""

    rules: tuple[Rule, ...]
    places: tuple[ListedHost, ...]
    said: tuple[Verdict, ...] = ()
    """The verdicts of the rules that hold for each port and at any time."""
    whole: bool = False
    """Whether these are all that is listed on the host."""

    def is_of(self, host: str) -> bool:
        """Whether all pages here are pages on a host as well."""
        return all(
            f".{host}".endswith(f".{place.host}") if place.subdomains else strip_www(host) == place.host
            for place in self.places
        )


QUIET = HostState((), ())
ALL_QUIET: tuple[HostState, ...] = (QUIET,)
"""States of a name that nothing is listed on."""


class Hosts:
    """Lookup of hosts and addresses in a set of lists, with a cache.

    Args:
        lists: in any order, under any keys.
        size: listed hosts, and addresses, whose state is kept.
        protected: lists that name, by entries of any kind but pages, hosts and addresses that guarded lists
            cannot block whole.
        nat64: prefixes of the network, under which addresses are judged as IPv4 as well; the well-known one
            always counts as such.

    Attributes:
        recent: states of names seen lately, as requests spell them; `ALL_QUIET` where nothing is listed.
        keys: of the lists, each once.
    """

    def __init__(
        self,
        lists: Sequence[LoadedList],
        size: int,
        protected: Sequence[LoadedList] = (),
        nat64: Nat64 = NO_NAT64,
    ) -> None:
        self._nat64 = nat64
        self.recent: dict[str, tuple[HostState, ...]] = {}
        self._lists = tuple(lists)
        by_id = {li.key.id: li.key for li in self._lists}
        self.keys = tuple(by_id.values())
        self._by_key = [(key, [li for li in self._lists if li.key.id == key.id]) for key in self.keys]
        self._protected = Hosts(protected, size, nat64=nat64) if protected else None
        self._guards = any(li.guarded for li in self._lists)
        self._listed = OrderedDict[str, HostState]()
        self._size = size
        self._addresses: dict[str, tuple[Rule, ...]] = {}
        self._domains: dict[tuple[LoadedList, str], tuple[int, tuple[PageGroup, ...] | None]] = {}
        self.are_quiet = Sieves((li.sieve for li in self._lists), self.recent, ALL_QUIET).are_quiet
        self._has_names = any(li.has_names for li in self._lists)
        if self._has_names or self._guards:
            labels_before_suffix("example.test")  # reads the suffix list now, not during a request

    def address_rules(self, address: str) -> tuple[Rule, ...]:
        """The rules for a destination address; none for what is not an address."""
        rules = self._addresses.get(address)
        if rules is None:
            try:
                forms = self._forms(address.partition("%")[0])
                rules = tuple(chain.from_iterable(map(self._network_rules, forms)))
            except ValueError:
                return ()
            if self._guards and rules and self.protects_address(address):
                rules = tuple(filter(_may_decide, rules))
            if len(self._addresses) >= _ADDRESSES:
                self._addresses.clear()
            self._addresses[address] = rules
        return rules

    def states(self, host: str) -> tuple[HostState, ...]:
        """The lists' state of a name as sent, cached for the next request.

        Returns:
            A state for each host that the name could mean (`host_readings`), to be judged one by one: an
            exception on one of them excuses no other.

        Raises:
            UrlError: a name that cannot be judged.
        """
        states = self.recent.get(host)
        if states is None:
            # Such costs less to work out than to look after in a cache that keeps order.
            states = ALL_QUIET if self.are_quiet(host) else self.loud_states(host)
        return states

    def loud_states(self, host: str) -> tuple[HostState, ...]:
        """`states` of a name that is not in `recent`, nor quiet."""
        plain = is_plain_host(host)
        states = (self._listed_state(host),) if plain else tuple(map(self._state, self._readings(host)))
        if states.count(QUIET) == len(states):
            states = ALL_QUIET
        if len(host) <= _LONG:
            recent = self.recent
            if len(recent) >= MOST_RECENT:
                recent.clear()
            recent[host] = states
        return states

    def _readings(self, host: str) -> Iterator[str]:
        """Readings of a name, and the IPv4 addresses inside those that are under a NAT64 prefix."""
        for reading in host_readings(host):
            yield reading
            if reading[0] == "[":
                yield from self._forms(reading[1:-1])[1:]

    def _forms(self, address: str) -> tuple[str, ...]:
        """An address, and the IPv4 address inside it where it is under a NAT64 prefix."""
        inner = self._nat64.inner(IPv6Address(address)) if ":" in address else None
        return (address,) if inner is None else (address, str(inner))

    def _state(self, host: str) -> HostState:
        """The lists' state of a canonical host."""
        return QUIET if self.are_quiet(host) else self._listed_state(host)

    def _listed_state(self, host: str) -> HostState:
        """`_state` of a host that something may be listed on."""
        listed = self._listed
        state = listed.get(host)
        if state is not None:
            listed.move_to_end(host)
            return state
        state = self._search(host)
        if len(host) <= _LONG:
            listed[host] = state
            if len(listed) > self._size:
                listed.popitem(last=False)
        return state

    def protects(self, host: str) -> bool:
        """Whether a name, as sent or canonical, is protected from being blocked whole."""
        return self._protected is not None and any(state.rules for state in self._protected.states(host))

    def protects_address(self, address: str) -> bool:
        """Whether a destination address is protected from being blocked whole."""
        return self._protected is not None and bool(self._protected.address_rules(address))

    def _search(self, host: str) -> HostState:
        rules: list[Rule] = []
        places: list[ListedHost] = []
        for number, (key, lists) in enumerate(self._by_key):
            self._search_under(key, number, lists, host, rules, places)
        if is_address(host):
            rules.extend(self._network_rules(host.strip("[]")))
        if self._guards and rules:
            rules = self._without_guarded(host, rules)
        if not rules and not places:
            return QUIET
        said = [verdict for _, _, shape, verdict in rules if not shape.port and not shape.expires]
        return HostState(tuple(rules), tuple(places), tuple(said), not places and len(said) == len(rules))

    def _without_guarded(self, host: str, rules: list[Rule]) -> list[Rule]:
        """The rules without those by which guarded lists block what is protected, or all under a suffix."""
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
            or rule.list.table.lengths[rule.row] > suffix
        ]

    def _search_under(
        self,
        key: Key,
        number: int,
        lists: Sequence[LoadedList],
        host: str,
        rules: list[Rule],
        places: list[ListedHost],
    ) -> None:
        """Add what the lists under one key say of a host."""
        numeric = is_address(host)
        labels = labels_of(host)
        whole = host_letters(key, labels)
        page_host = host if numeric else strip_www(host)
        page_letters = whole if page_host == host else host_letters(key, labels_of(page_host))
        below = -1
        names: tuple[str, ...] | None = None
        digests = HostDigests(key, host, labels)
        for li in lists:
            domains: list[str] = []
            if li.has_pages and below < 0:
                below = below_number(key, page_host)
            found, groups = li.look(li.groups(whole), digests, below if page_letters is whole else -1)
            for row in found:
                shape, verdict = li.say(row)
                if shape.kind == MARKER:
                    domains.append(_last_labels(labels, li.table.lengths[row]))
                else:
                    rules.append(Rule(li, row, shape, verdict))
            if li.has_pages:
                if page_letters is not whole:
                    groups = li.page_groups(page_letters, below)
                goes_on = li.goes_on(page_letters)
                if groups if not goes_on else li.lists_below(page_letters, below):
                    spared = self._spared(host) if li.guarded else ""
                    known = None if goes_on else groups
                    places.append(ListedHost(li, number, page_host, below, known, False, spared))
            for domain in dict.fromkeys(domains):
                if domain != page_host:
                    of_domain, known = self._domains.get((li, domain)) or self._domain(li, domain)
                    spared = self._spared(host, domain) if li.guarded else ""
                    places.append(ListedHost(li, number, domain, of_domain, known, True, spared))
            if li.has_names and not numeric and li.sieve.may_list_name(host):
                if names is None:
                    names = labels_before_suffix(host)
                if names:
                    rules.extend(
                        _rules(li, li.groups(name_letters(key, names)), HostDigests(key, host, names))
                    )

    def _domain(self, li: LoadedList, domain: str) -> tuple[int, tuple[PageGroup, ...] | None]:
        """The number of a domain with pages for its subdomains, and the groups that have them: one object for
        all of those, of which a client may name any number."""
        letters, below = host_letters(li.key, labels_of(domain)), below_number(li.key, domain)
        found = below, None if li.goes_on(letters) else li.page_groups(letters, below)
        if len(self._domains) >= _ADDRESSES:
            self._domains.clear()
        self._domains[li, domain] = found
        return found

    def _spared(self, host: str, domain: str = "") -> Spared:
        """Part of a host that a guarded list's pages and prefixes cannot block: none, the root, or all."""
        if domain and not labels_before_suffix(domain):
            return "all"
        return "root" if self.protects(host) else ""

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
                digest = (li.key.digest(network_text(cidr)),)
                digests = defaultdict[tuple[int, int], Collection[bytes]](tuple)
                digests[Kind.ADDRESS, length] = digests[Kind.NETWORK, length] = digest
                yield from _rules(li, li.groups(network_letters(li.key, cidr)), digests)


def _rules(li: LoadedList, groups: Iterable[range], digests: Digests) -> Iterator[Rule]:
    """The rows of these groups, with markers, that one of the digests confirms."""
    for row in li.look(groups, digests)[0]:
        shape, verdict = li.say(row)
        yield Rule(li, row, shape, verdict)


class HostDigests(dict[tuple[int, int], Collection[bytes]]):
    """The digests that confirm an entry that has no path, or a marker, by kind and length.

    Args:
        key: of the list.
        host: canonical.
        labels: of the host, from the right; for names, those before its suffix.
    """

    __slots__ = ("_host", "_key", "_labels")

    def __init__(self, key: Key, host: str, labels: Sequence[str]) -> None:
        self._key, self._host, self._labels = key, host, labels

    def __missing__(self, form: tuple[int, int]) -> Collection[bytes]:
        kind, length = form
        found: Collection[bytes] = ()
        beginning = _BEGINNINGS.get(kind)
        if beginning is not None and length <= len(self._labels):
            name = _last_labels(self._labels, length) if kind != _HOST else self._host
            found = (self._key.digest(beginning + name),)
        self[form] = found
        return found


_HOST = int(Kind.HOST)
_BEGINNINGS = {
    MARKER: marker_text(""),
    _HOST: host_text(""),
    int(Kind.DOMAIN): domain_text(""),
    int(Kind.NAME): name_text(""),
}


def _last_labels(labels: Sequence[str], count: int) -> str:
    """The name of so many labels, which come from the right."""
    return ".".join(labels[count - 1 :: -1]) if count else ""


def is_too_wide(network: str) -> bool:
    """Whether a guarded list cannot name a network, in CIDR form; it can name each address."""
    _, _, length = network.partition("/")
    return bool(length) and int(length) < WIDEST[6 if ":" in network else 4]


def too_much(entry: Entry) -> str:
    """Reason, in words, why a guarded list cannot block what an entry says; empty for most."""
    if entry.allow:
        return ""
    if entry.kind is Kind.DOMAIN and is_suffix(entry.host):
        return "it blocks a public suffix, with all names under it"
    if entry.subdomains and is_suffix(entry.host):
        return "it blocks pages of a public suffix (`www.` counts as absent), with all names under it"
    if entry.kind is Kind.NETWORK and is_too_wide(entry.host):
        return "it blocks a network that is wider than anybody's"
    return ""


def _may_decide(rule: Rule) -> bool:
    """Whether a rule counts on what is protected."""
    return rule.shape.allow or not rule.list.guarded


def is_excused(state: HostState, now: float) -> bool:
    """Whether an exception in force is on all of a host, so that nothing on it is blocked.

    Args:
        state: of the host.
        now: seconds since 1970-01-01 UTC.
    """
    return any(
        shape.allow and not shape.port and not li.guarded and not shape.is_over(now)
        for li, _, shape, _ in state.rules
    )


Level = Literal["", "below", "whole"]
"""``whole``: every request to the host is blocked; ``below``: some may be; empty: none by an entry on it."""

LOOK = 256
"""Rows below a host that are looked at for what they say; beyond, they may say anything."""


def level_of(state: HostState, floating: Iterable[Shape], now: float) -> Level:
    """The level of a host.

    Args:
        state: of the host.
        floating: shapes of the ``@@`` path sequences, which hold on any host.
        now: seconds since 1970-01-01 UTC, for entries that expire.
    """
    if is_excused(state, now):
        return ""
    blocks_all = blocks_some = excuses = False
    for rule in state.rules:
        shape = rule.shape
        if shape.is_over(now):
            continue
        if shape.allow:
            excuses = True
        elif shape.port:
            blocks_some = True
        else:
            blocks_all = True
    for place in state.places:
        if blocks_some and (excuses or not blocks_all):
            break
        blocks, allows = _below(place, now)
        blocks_some, excuses = blocks_some or blocks, excuses or allows
    if not blocks_all:
        return "below" if blocks_some else ""
    return "below" if excuses or not all(shape.is_over(now) for shape in floating) else "whole"


def _below(place: ListedHost, now: float) -> tuple[bool, bool]:
    """Whether any entry in force on a place blocks, and whether any allows."""
    if place.list.pages_only_block:
        return True, False
    blocks = allows = False
    for shape in _shapes(place):
        if shape is None:
            return True, True
        if shape.is_over(now):
            continue
        if shape.allow:
            allows = True
        else:
            blocks = True
        if blocks and allows:
            break
    return blocks, allows


def is_below(place: ListedHost, ports: Sequence[int], now: float, *, excuses: bool) -> bool:
    """Whether any entry on a place is in force for one of these ports (`Shape.is_for`), or may be.

    Dear only where the first of them are not.

    Args:
        place: on a host.
        ports: that a connection to it names.
        now: seconds since 1970-01-01 UTC.
        excuses: whether exceptions count, as they do where something is on all of the host.
    """
    li = place.list
    if not li.pages_end and (excuses or li.pages_only_block):
        return True
    return any(
        shape is None or (shape.is_for(ports, now) and (excuses or not shape.allow))
        for shape in _shapes(place)
    )


def _shapes(place: ListedHost) -> Iterator[Shape | None]:
    """Shapes of the rows on a place; None where they are too many to look at all."""
    for seen, shape in enumerate(place.list.shapes_below(place.letters(), place.below), 1):
        if not place.subdomains or shape.flags & Flag.SUBDOMAINS:
            yield shape
        if seen == LOOK:
            yield None
            return
