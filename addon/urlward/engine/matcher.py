"""Request to verdict.

What a host means for the lists is worked out once (`urlward.engine.hosts`); the path of a request to a
host without an entry is only looked at for path sequences. Nothing here changes after construction but
caches, and a matcher serves one set of lists: a reload makes a new one.
"""

from collections.abc import Iterable, Sequence
from zlib import crc32

from urlward.engine.digest import PATH_END, SEGMENT_LETTERS, Key
from urlward.engine.entry import Kind
from urlward.engine.hosts import QUIET, Hosts, HostState, Place
from urlward.engine.level import Level, level_of
from urlward.engine.loaded import LoadedList
from urlward.engine.record import PAGE_KINDS, Flag, Shape, page_text, param_text, path_text, prefix_text
from urlward.engine.url import (
    DEFAULT_PORTS,
    canonical_host,
    canonical_path,
    canonical_query,
    query_parameters,
    split_authority,
    split_target,
    split_url,
    target_readings,
)
from urlward.engine.verdict import PASS, Decide, Verdict, decide

HOSTS = 1 << 16
"""Hosts with an entry, and addresses, whose state is kept."""


class Matcher:
    """Checks requests against a set of lists.

    Args:
        lists: under any keys.
        hosts: how many listed hosts' states to keep.
        protected: lists of hosts and addresses that guarded lists cannot block whole.

    Attributes:
        lists: as given.
        identity: tells one matcher from another without keeping it, and its lists, in memory.

    A host, path or query passed in is a byte string as it came off the wire: a ``str`` whose
    characters are bytes. Times are seconds since 1970-01-01 UTC. Where several entries match on a host,
    `decide` makes the verdict; nothing is asked of it where none does.
    """

    def __init__(
        self, lists: Sequence[LoadedList], hosts: int = HOSTS, protected: Sequence[LoadedList] = ()
    ) -> None:
        self.lists = tuple(lists)
        self.identity = object()
        self._hosts = Hosts(self.lists, hosts, protected)
        self._recent = self._hosts.recent
        self._guarded = frozenset(li.name for li in self.lists if li.guarded)
        self._segments = [key.segments.__getitem__ for key in self._hosts.keys]
        numbers = {key.id: number for number, key in enumerate(self._hosts.keys)}
        self._floating = [
            (li, numbers[li.key.id], automaton) for li in self.lists for automaton in li.floating
        ]
        self._floating_nocase = any(li.floating_nocase for li in self.lists)
        floating = [li.sieve.segments for li in self.lists if li.floating]
        # The common case asks one set in one call.
        alone = floating[0] if len(floating) == 1 and not self._floating_nocase else None
        self._none_begins = alone.isdisjoint if alone is not None else None
        self._floating_allows = [
            shape for li in self.lists for shape in li.table.shapes if shape.kind == Kind.PATH and shape.allow
        ]

    def check(
        self,
        host: str,
        target: str,
        ports: Sequence[int] = (),
        now: float = 0.0,
        decide: Decide = decide,
    ) -> Verdict:
        """Decide on one request; `check_request` for a request that names one host."""
        state = self._recent.get(host)
        if state is None:
            state = self._hosts.state(host)
        if state is QUIET:
            # The way of nearly all requests: nothing on this host, and no segment of the path is
            # one that a path sequence begins with.
            if not self._floating:
                return PASS
            path = target.partition("?")[0]
            if "#" in path:
                path = split_target(path)[0]
            if "%" in path or "\\" in path:
                return self.check_request((host,), target, ports, now, decide)
            path = canonical_path(path)
            # A segment follows a path sequence, so the last one, which is dear because it is
            # seldom seen twice, cannot begin one.
            head = path[1 : path.rfind("/")]
            if not head:
                return PASS
            if self._none_begins is None:
                if not self._may_float(head):
                    return PASS
            elif self._none_begins(map(crc32, head.encode().split(b"/"))):
                return PASS
        return self.check_request((host,), target, ports, now, decide)

    def check_request(
        self,
        hosts: Sequence[str],
        target: str,
        ports: Sequence[int] = (),
        now: float = 0.0,
        decide: Decide = decide,
    ) -> Verdict:
        """Decide on one request.

        Args:
            hosts: all hosts that the request names, without port. A block under any of them
                counts, and an ``@@`` entry excuses only the host that it is on.
            target: path and query (and fragment) as sent.
            ports: every port the request names; an entry with a port matches any of them. Empty
                stands for unknown, and matches all.
            now: for entries that expire.
            decide: makes a host's verdict.

        Raises:
            UrlError: one of `hosts` is not a host.
        """
        states = [self._hosts.state(host) for host in hosts]
        quiet = all(state is QUIET for state in states)
        if quiet and not self._floating:
            return PASS
        verdict = self._check_target(states, quiet, target, ports, now, decide)
        for reading in target_readings(target):
            if not verdict.blocked:
                other = self._check_target(states, quiet, reading, ports, now, decide)
                verdict = other if other.blocked or verdict.action != "monitor" else verdict
        return verdict

    def _check_target(
        self,
        states: list[HostState],
        quiet: bool,
        target: str,
        ports: Sequence[int],
        now: float,
        decide: Decide,
    ) -> Verdict:
        path, _, query = target.partition("?")
        if "#" in target:
            path, query = split_target(target)
        path = canonical_path(path)
        if quiet and not self._may_float(path[1 : path.rfind("/")]):
            return PASS
        segments = path[1:].split("/")
        letters = ["".join(map(segment, segments)) for segment in self._segments]
        anywhere: list[Verdict] = []
        for li, keyed, automaton in self._floating:
            for last, value in automaton.iter(letters[keyed]):
                self._floating_candidate(li, last, value, segments, False, ports, now, anywhere)
        if self._floating_nocase:
            self._check_floating_nocase(path, ports, now, anywhere)
        passed = PASS
        for state in states:
            found = anywhere
            if state is not QUIET:
                found = anywhere.copy()
                for rule in state.rules:
                    self._judge(rule.list, rule.row, rule.shape, ports, now, found)
                for place in state.places:
                    self._check_place(place, path, letters[place.keyed] + PATH_END, query, ports, now, found)
            if found:
                verdict = decide(self._excused(found))
                if verdict.blocked:
                    return verdict
                passed = verdict if passed.action != "monitor" else passed
        return passed

    def is_quiet(self, hosts: Sequence[str], address: str) -> bool:
        """Whether nothing is listed on any of these hosts, nor the address, so that `check` of the first
        decides on a request.

        Raises:
            UrlError: one of `hosts` is not a host.
        """
        return all(self._hosts.state(host) is QUIET for host in hosts) and not (
            address and self._hosts.address_rules(address)
        )

    def check_url(self, url: str | bytes, now: float = 0.0, decide: Decide = decide) -> Verdict:
        """Decide on a whole URL.

        Raises:
            UrlError: it has no canonical form.
        """
        scheme, authority, target = split_url(url)
        host, port = split_authority(authority)
        if port is None:
            port = DEFAULT_PORTS.get(scheme)
        return self.check(host, target, () if port is None else (port,), now, decide)

    def check_host(
        self, host: str, ports: Sequence[int] = (), now: float = 0.0, decide: Decide = decide
    ) -> Verdict:
        """Decide on a host alone: CONNECT, or a TLS connection by its SNI.

        Raises:
            UrlError: `host` is not one.
        """
        found: list[Verdict] = []
        for rule in self._hosts.state(host).rules:
            self._judge(rule.list, rule.row, rule.shape, ports, now, found)
        return decide(self._excused(found)) if found else PASS

    def lists_below(self, host: str) -> tuple[str, ...]:
        """The lists that have a page, prefix or parameter entry on this host, so that its path matters.

        A list of exceptions alone has none: where its host is blocked, that is why the path matters. Nor has
        a guarded list on a protected host, which is not to be decrypted for it: clients that take no
        certificate but their own would lose all of it.

        Raises:
            UrlError: `host` is not one.
        """
        lists = [place.list for place in self._hosts.state(host).places if place.list.pages_block]
        if any(li.guarded for li in lists) and self.protects(host):
            lists = [li for li in lists if not li.guarded]
        return tuple(li.name for li in lists)

    def protects(self, host: str) -> bool:
        """Whether a host is protected from being blocked whole by guarded lists.

        Raises:
            UrlError: `host` is not one.
        """
        return self._hosts.protects(canonical_host(host))

    def level(self, host: str, now: float = 0.0) -> Level:
        """How much of a host is listed; a lookup in a dictionary where nothing is, and it has been asked for
        lately in the same spelling.

        Path sequences that block are on no host, and do not count.

        Raises:
            UrlError: `host` is not one.
        """
        state = self._recent.get(host)
        if state is None:
            state = self._hosts.state(host)
        return "" if state is QUIET else level_of(state, self._floating_allows, now)

    def check_address(
        self, address: str, ports: Sequence[int] = (), now: float = 0.0, decide: Decide = decide
    ) -> Verdict:
        """Decide on a destination address; what is not an address passes."""
        rules = self._hosts.address_rules(address)
        if not rules:
            return PASS
        found: list[Verdict] = []
        for rule in rules:
            self._judge(rule.list, rule.row, rule.shape, ports, now, found)
        return decide(self._excused(found)) if found else PASS

    def _excused(self, found: list[Verdict]) -> list[Verdict]:
        """All that is found but what guarded lists excuse themselves from: an exception in one of them counts
        against its own entries alone, and not at all where another list has an entry."""
        excusing = {v.list for v in found if v.action == "allow"} & self._guarded
        if not excusing:
            return found
        others = [v for v in found if v.list not in excusing]
        return others or [v for v in found if v.action == "allow"]

    def _may_float(self, head: str) -> bool:
        """False where no path sequence can begin in these segments of a canonical path."""
        crcs = set(map(crc32, head.encode().split(b"/")))
        if self._floating_nocase:
            crcs.update(map(crc32, head.lower().encode().split(b"/")))
        return any(li.sieve.segments is None or not li.sieve.segments.isdisjoint(crcs) for li in self.lists)

    def _check_place(
        self,
        place: Place,
        path: str,
        letters: str,
        query: str,
        ports: Sequence[int],
        now: float,
        found: list[Verdict],
    ) -> None:
        self._search_place(place, path, letters, query, False, ports, now, found)
        if place.list.nocase:
            lower = path.lower()
            if lower != path:
                letters = "".join(map(self._segments[place.keyed], lower[1:].split("/"))) + PATH_END
                self._search_place(place, lower, letters, query, True, ports, now, found)

    def _search_place(
        self,
        place: Place,
        path: str,
        letters: str,
        query: str,
        nocase: bool,
        ports: Sequence[int],
        now: float,
        found: list[Verdict],
    ) -> None:
        li = place.list
        letters = place.letters + letters
        shard = place.shard or li.shard(letters)
        if shard is None:
            return
        required = (Flag.NOCASE if nocase else 0) | (Flag.SUBDOMAINS if place.subdomains else 0)
        params: dict[bytes, None] | None = None
        for _, row, end in li.groups(shard, letters):
            for kind, length in li.forms(row, end):
                if kind not in PAGE_KINDS:
                    continue
                digests: Iterable[bytes]
                whole_host = kind == Kind.PREFIX and not length
                if kind == Kind.PAGE:
                    digests = (li.key.digest(page_text(place.host, path)),)
                elif kind == Kind.PREFIX:
                    prefix = _leading(path, length)
                    digests = (li.key.digest(prefix_text(place.host, prefix)),) if prefix else ()
                else:
                    if params is None:
                        params = _param_digests(li.key, place.host, path, query)
                    digests = params
                for digest in digests:
                    for r in li.table.matching(row, end, digest):
                        shape = li.table.shape(r)
                        if shape.kind != kind or shape.flags & required != required:
                            continue
                        if place.spared and not shape.allow and (place.spared == "all" or whole_host):
                            continue
                        if shape.flags & Flag.SEVERAL_PARAMS and not all(
                            d in (params or ()) for d in li.table.further_params(r)
                        ):
                            continue
                        self._judge(li, r, shape, ports, now, found)

    def _check_floating_nocase(
        self, path: str, ports: Sequence[int], now: float, found: list[Verdict]
    ) -> None:
        lower = path.lower()
        if lower == path:
            return
        segments = lower[1:].split("/")
        letters = ["".join(map(segment, segments)) for segment in self._segments]
        for li, keyed, automaton in self._floating:
            if li.floating_nocase:
                for last, value in automaton.iter(letters[keyed]):
                    self._floating_candidate(li, last, value, segments, True, ports, now, found)

    def _floating_candidate(
        self,
        li: LoadedList,
        last: int,
        value: int,
        segments: list[str],
        nocase: bool,
        ports: Sequence[int],
        now: float,
        found: list[Verdict],
    ) -> None:
        row, end = li.group(value)
        first, odd = divmod(last + 1 - li.pattern_lengths[row - li.floating_row], SEGMENT_LETTERS)
        if odd:
            return
        for kind, length in li.forms(row, end):
            # The sequence ends with a slash, so a segment, if an empty one, follows it.
            if kind != Kind.PATH or first + length >= len(segments):
                continue
            text = path_text("/" + "/".join(segments[first : first + length]) + "/")
            for r in li.table.matching(row, end, li.key.digest(text)):
                shape = li.table.shape(r)
                if shape.kind == kind and (not nocase or shape.flags & Flag.NOCASE):
                    self._judge(li, r, shape, ports, now, found)

    def _judge(
        self,
        li: LoadedList,
        row: int,
        shape: Shape,
        ports: Sequence[int],
        now: float,
        found: list[Verdict],
    ) -> None:
        """Add a confirmed row's verdict, unless its port or date says otherwise."""
        if row in li.removed:
            return
        if shape.port and ports and shape.port not in ports:
            return
        if shape.is_over(now):
            return
        table = li.table
        found.append(
            Verdict(
                "allow" if shape.allow else "block",
                Kind(shape.kind).label,
                table.id(row) or table.digest(row)[:8].hex(),
                li.artifact.meta["categories"][shape.category],
                li.name,
                shape.kind << 17 | table.length(row),
            )
        )


def _param_digests(key: Key, host: str, path: str, query: str) -> dict[bytes, None]:
    params = query_parameters(canonical_query(query))
    return dict.fromkeys(key.digest(param_text(host, path, p)) for p in params)


def _leading(path: str, segments: int) -> str:
    """The first so many segments of a path with their slash, or empty where it has no more."""
    parts = path[1:].split("/")
    if segments >= len(parts):
        return ""
    return "/" + "".join(f"{part}/" for part in parts[:segments])
