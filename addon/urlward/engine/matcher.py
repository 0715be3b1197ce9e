"""Matcher: from a request to a verdict.

What a host means for the lists is worked out once (`urlward.engine.hosts`); the path of a request to a
host without an entry is only looked at for path sequences. Nothing here changes after construction but
caches, and a matcher serves one set of lists: a reload makes a new one.
"""

import re
from binascii import hexlify
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple
from zlib import crc32

from urlward.engine.compiler import FilePool
from urlward.engine.digest import PATH_END, SEGMENT_LETTERS, Key
from urlward.engine.entry import ALGORITHMS, PDQ, Kind
from urlward.engine.extensions import is_file
from urlward.engine.hosts import (
    ALL_QUIET,
    QUIET,
    Hosts,
    HostState,
    Level,
    ListedHost,
    is_below,
    is_excused,
    level_of,
)
from urlward.engine.loaded import LoadedList, PageGroup
from urlward.engine.nat64 import NO_NAT64, Nat64
from urlward.engine.perceptual import PerceptualList
from urlward.engine.readings import (
    BEGINS_A_HOST,
    Reading,
    Work,
    has_path_behind,
    hosts_in_path,
    indexed,
    is_one_page,
    is_one_query,
    is_plain_path,
    target_readings,
)
from urlward.engine.record import Flag, Shape, file_text, page_text, param_text, path_text, prefix_text
from urlward.engine.slugs import asks_wordpress, is_own_slug, slug_paths
from urlward.engine.table import FileTable
from urlward.engine.url import (
    DEFAULT_PORTS,
    PLAIN_MARKS,
    canonical_host,
    canonical_path,
    canonical_query,
    has_plain_parameters,
    host_readings,
    is_address,
    lowered,
    name_and_value,
    query_parameters,
    request_parameters,
    split_authority,
    split_url,
    unescape_once,
)
from urlward.engine.verdict import PASS, Decide, Verdict, decide

_BACKSLASHES = re.compile(r"\\|%5[cC]").sub

_COMPARED = 8
"""Characters to compare that cost what rewriting one does (`Work`)."""

_SEGMENTS_A_TEXT, _PARAMS_A_TEXT = 32, 8
"""Segments of a path, and parameters to take apart, that cost what looking at one more text does (`Work`)."""

_HASHED = 64
"""Characters to hash that cost what rewriting one does."""

_NOTHING: Mapping[bytes, Verdict] = {}

_LONG_PATH = 8 * _SEGMENTS_A_TEXT
"""Characters from which a path's segments are counted."""

_DECIDED = ("block", "allow")
"""What a verdict on a page says of it without the slash at its end too."""

_PAGE, _PREFIX, _PARAM = page_text("", ""), prefix_text("", ""), param_text("", "", "")[:-1]
"""What texts of pages, prefixes and parameters begin with; host and path follow."""

_DIGEST, _PLACE, _ROW, _SEQUENCE = 8, 16, 32, 64
"""Characters that cost what one more digest of a parameter does, looking at one more host in a list, at one
more row, and at one more sequence that may be in a path (`Work`)."""

EXACT = tuple(algorithm for algorithm in ALGORITHMS if algorithm != PDQ)
"""Algorithms whose digests are compared as a whole, those that say most of a file first."""

HOSTS = 1 << 16
"""Hosts with an entry, and addresses, whose state is kept."""


class Matcher:
    """Matcher of requests against a set of lists.

    Args:
        lists: under any keys.
        hosts: how many listed hosts' states to keep.
        protected: lists of hosts and addresses that guarded lists cannot block whole.
        nat64: as of `Hosts`.

    Attributes:
        lists: as given.
        file_algorithms: those by whose digests a file is listed, of `urlward.engine.entry.ALGORITHMS`; none
            where no file need be looked at.
        identity: tells one matcher from another without keeping it, and its lists, in memory.

    A host, path or query passed in is a byte string as it came off the wire: a ``str`` whose
    characters are bytes. Times are seconds since 1970-01-01 UTC. Where several entries match on a host,
    `decide` makes the verdict; nothing is asked of it where none does.
    """

    def __init__(
        self,
        lists: Sequence[LoadedList],
        hosts: int = HOSTS,
        protected: Sequence[LoadedList] = (),
        nat64: Nat64 = NO_NAT64,
    ) -> None:
        self.lists = tuple(lists)
        self.identity = object()
        self._hosts = Hosts(self.lists, hosts, protected, nat64)
        self._recent, self._are_quiet = self._hosts.recent, self._hosts.are_quiet
        self._guarded = frozenset(li.name for li in self.lists if li.guarded)
        self._segments = [key.segments.__getitem__ for key in self._hosts.keys]
        numbers = {key.id: number for number, key in enumerate(self._hosts.keys)}
        self._floating = [
            (li, numbers[li.key.id], automaton) for li in self.lists for automaton in li.floating
        ]
        self._floating_nocase = any(li.floating_nocase for li in self.lists)
        floating = [li.sieve.segments for li in self.lists if li.floating]
        # The common case asks one set in one call, or none.
        alone = floating[0] if len(floating) == 1 and not self._floating_nocase else None
        self._none_begins: Callable[[Iterable[int]], bool] | None = (
            alone.isdisjoint if alone is not None else None
        )
        self._of_files = [(li, li.files) for li in self.lists if li.files is not None]
        self._exact = [(algorithm, groups) for algorithm in EXACT if (groups := self._keyed_files(algorithm))]
        self.file_algorithms = frozenset(
            algorithm
            for _, files in self._of_files
            for algorithm, (blocking, _) in files.algorithms.items()
            if blocking
        )
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
        """Decide on one request that names one host, and goes to it where that is an address; otherwise as
        `check_request`."""
        states = self._recent.get(host)
        if states is None:
            # As `Hosts.states`, without the call.
            states = ALL_QUIET if self._are_quiet(host) else self._hosts.loud_states(host)
        # The way of nearly all requests: one host, and a plain path.
        verdict = None
        if states is ALL_QUIET or len(states) == 1:
            path, _, query = target.partition("?")
            if path[:1] == "/" and not (query and "?" in query and has_path_behind(query)):
                text = path.encode()
                marks = text.translate(PLAIN_MARKS)  # of what is beyond ASCII there is a `?` too
                # Of bytes, `in` asks first whether they are a number.
                if b"?"[0] not in marks and marks.find(b"//") < 0:
                    # A segment follows a path sequence, so the last one, which is dear because it is
                    # seldom seen twice, cannot begin one. A number with zeros in front may be another's.
                    head = text[1 : path.rfind("/")]
                    none_begins = self._none_begins
                    if not head or (
                        text.find(b"/0") < 0
                        and (
                            none_begins(map(crc32, head.split(b"/")))
                            if none_begins is not None
                            else not self._may_float(head)
                        )
                    ):
                        # Whatever the path, nothing is on this host, or the same. No other host is in it.
                        if states is ALL_QUIET:
                            return PASS
                        state = states[0]
                        if state.whole:
                            found = [*state.said]
                            return decide(self._excused(found) if self._guarded else found)
                        may_float = False
                    else:
                        may_float = True
                    verdict = self._check_plain(states, target, path, query, may_float, ports, now, decide)
        if verdict is None:
            verdict = self._check_states(states, target, _Judging(ports, now), decide)
        if verdict.action == "allow":
            for address in filter(is_address, host_readings(host)):
                # A page of it is excused, or a path, and not the connection's destination.
                of_address = self.check_address(address.strip("[]"), ports, now, decide)
                if of_address.listed:
                    return of_address
        return verdict

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
            hosts: all hosts that the request names, without port. A block under any host that one of them
                could mean counts, or under one that the target begins with (``//host/path``), and an ``@@``
                entry excuses only the host that it is on. One of a path sequence excuses only readings that
                have it, one with parameters only where their names have no other value. Beside a name an
                address with no entry on it does not count: every request that is not sent to a proxy has
                one, and no exception on its host would excuse it from a path sequence.
            target: path and query (and fragment) as sent.
            ports: every port the request names; an entry with a port matches any of them, an ``@@`` entry
                only where it is the only one. Empty stands for unknown, and matches all.
            now: for entries that expire.
            decide: makes a host's verdict.

        Raises:
            UrlError: one of `hosts` cannot be judged.
        """
        named = not all(map(is_address, hosts))
        states = [
            state
            for host in hosts
            for state in self._hosts.states(host)
            if not (state is QUIET and named and is_address(host))
        ]
        if len(states) == 1:
            path, _, query = target.partition("?")
            if is_plain_path(path):
                return self._check_plain(states, target, path, query, True, ports, now, decide)
        return self._check_states(states, target, _Judging(ports, now), decide)

    def _check_plain(
        self,
        states: Sequence[HostState],
        target: str,
        path: str,
        query: str,
        may_float: bool,
        ports: Sequence[int],
        now: float,
        decide: Decide,
    ) -> Verdict:
        """The verdict on one host where the path is plain (`is_plain_path`): the page that it names is asked
        for first, since only a miss need know what else it may be to origins.

        Args:
            states: of the host.
            target: as of `check_request`.
            path: of the target, as `query`.
            query: likewise.
            may_float: whether a path sequence may be in the path.
            ports: as of `check_request`.
            now: likewise.
            decide: likewise.
        """
        judging, state = _Judging(ports, now), states[0]
        if "#" in query:
            return self._check_states(states, target, judging, decide)
        looks = may_float or len(path) > _LONG_PATH
        anywhere = self._check_floating(path, judging, may_float=may_float) if looks else ()
        verdict = self._check_state(state, path, query, False, anywhere, judging, decide)
        if verdict.action == "block":
            return verdict
        if not is_one_page(path) or (query and not is_one_query(query)):
            return self._check_states(states, target, judging, decide, verdict)
        if query and verdict.action not in _DECIDED and (other := indexed(path)):
            of_index = self._check_state(state, other, query, True, anywhere, judging, decide)
            if of_index.action == "block":
                return of_index
            if of_index.action == "monitor" and verdict is PASS:
                verdict = of_index
        if verdict.action not in _DECIDED and path[-1] != "/" and asks_wordpress(query) and not is_file(path):
            return self._check_slugs(states, (f"{path}/",), verdict, judging, decide)
        # In front of `:` are the slash and the digits of a page's part (`slug_path`).
        if path[-1] > "9" or path == "/" or verdict.action in _DECIDED:
            return verdict
        if path[-1] == "/":
            path_without = path[:-1]
            anywhere = self._check_floating(path_without, judging, may_float=may_float) if looks else ()
            without = self._check_state(state, path_without, query, False, anywhere, judging, decide)
            if without.action == "block":
                return without
            if without.action == "monitor" and verdict is PASS:
                verdict = without
            if is_own_slug(path):
                return verdict
        elif "page" not in path:
            return verdict
        return self._check_slugs(states, (path,), verdict, judging, decide)

    def _check_states(
        self,
        states: Sequence[HostState],
        target: str,
        judging: "_Judging",
        decide: Decide,
        asked: Verdict | None = None,
    ) -> Verdict:
        """The verdict on hosts, whatever the target is to their origins.

        Args:
            states: of them.
            target: as of `check_request`.
            judging: the target.
            decide: as of `check_request`.
            asked: the verdict on the first reading, where that is known.
        """
        if target[1:2] in BEGINS_A_HOST and (others := hosts_in_path(target)):
            states = [*states, *(state for host in others for state in self._hosts.states(host))]
        if not states or (not self._floating and all(state is QUIET for state in states)):
            return PASS
        passed: Verdict | None = None
        rest = not_allowed = states
        short_not_allowed: Sequence[HostState] | None = None
        readings = target_readings(target, judging)
        for reading in readings:
            if not reading.respelled:
                considered = rest if reading.shorter else states
            elif reading.shorter:
                considered = rest if short_not_allowed is None else short_not_allowed
            else:
                considered = not_allowed
            if not considered:
                continue
            verdicts = [asked] if asked else self._check_reading(considered, reading, judging, decide)
            asked = None
            verdict = verdicts[0] if len(verdicts) == 1 else _told(verdicts)
            if verdict.action == "block":
                return verdict
            if verdict is PASS and not reading.shorter:
                passed = passed or PASS
                continue
            if passed is None and verdict is not PASS:
                # Excused as written, a host is so under what is left of it; no other is. A path sequence says
                # nothing of the host, nor of what stands before it in the path.
                rest = [s for s, v in zip(states, verdicts, strict=True) if not _excuses_all(v)]
                not_allowed = [s for s, v in zip(states, verdicts, strict=True) if v.action != "allow"]
            elif reading.shorter and not reading.respelled:
                found = [s for s, v in zip(considered, verdicts, strict=True) if v.action != "allow"]
                short_not_allowed = [*(short_not_allowed or ()), *found]
            if passed is None or (verdict.action == "monitor" and passed.action != "monitor"):
                passed = verdict
        paths = dict.fromkeys(_as_asked(r.path, r.query) for r in readings if not r.shorter)
        path, _, query = target.partition("?")
        if (bare := _BACKSLASHES("", path)) != path:
            # To WordPress no slash, but a mark as any other.
            paths[_as_asked(canonical_path(bare), query)] = None
        return self._check_slugs(not_allowed, paths, passed or PASS, judging, decide)

    def _check_slugs(
        self,
        states: Sequence[HostState],
        paths: Iterable[str],
        passed: Verdict,
        judging: "_Judging",
        decide: Decide,
    ) -> Verdict:
        """The verdict on the pages that WordPress gives for others' paths.

        Args:
            states: of hosts on which nothing allows what was sent.
            paths: of readings.
            passed: the verdict on all readings.
            judging: the target.
            decide: as of `check_request`.
        """
        places = [(state, place) for state in states for place in state.places]
        for path in paths if places else ():
            judging.spend(len(path) // _COMPARED, 0)
            found: dict[int, list[Verdict]] = {}
            for slug in slug_paths(path):
                for state, place in places:
                    pages = found.setdefault(id(state), [])
                    self._search_place(place, slug, "", False, judging, False, pages, alone=True)
            for several in filter(None, found.values()):
                verdict = decide(self._excused(several) if self._guarded else several)
                if verdict.action == "block":
                    return verdict
                if verdict.action == "monitor" and passed.action != "monitor":
                    passed = verdict
        return passed

    def _check_reading(
        self, states: Sequence[HostState], reading: Reading, judging: "_Judging", decide: Decide
    ) -> list[Verdict]:
        """The verdict on each host, up to the first that blocks."""
        path, query, shorter, script, _, host = reading
        verdicts: list[Verdict] = []
        anywhere = self._check_floating(path, judging)
        for state in states:
            if host and not state.is_of(host):
                verdicts.append(PASS)
                continue
            verdict = self._check_state(
                state, path, query, script, anywhere, judging, decide, slashed=not (shorter and is_file(path))
            )
            verdicts.append(verdict)
            if verdict.action == "block":
                break
        return verdicts

    def _check_state(
        self,
        state: HostState,
        path: str,
        query: str,
        script: bool,
        anywhere: Sequence[Verdict],
        judging: "_Judging",
        decide: Decide,
        *,
        slashed: bool = True,
    ) -> Verdict:
        """The verdict on a host.

        Args:
            state: of the host.
            path: of a reading, as `query` and `script`.
            query: likewise.
            script: likewise.
            anywhere: what path sequences say of the path, on whichever host.
            judging: the target.
            decide: as of `check_request`.
            slashed: whether the page with a slash more is looked for, too.
        """
        found = [*anywhere, *state.said]
        if len(state.said) != len(state.rules):
            for _, _, shape, verdict in state.rules:
                if shape.port or shape.expires:
                    _judge(verdict, shape, judging, found)
        lower: str | None = None
        for place in state.places:
            self._search_place(place, path, query, script, judging, False, found)
            if not place.nocase:
                continue
            if lower is None:  # once for all lists
                lower = lowered(path)
                judging.left -= (len(path) + len(query)) // _COMPARED
                # What a query is escaped for has capitals once it is.
                if lower == path and query.lower() == query and is_one_query(query):
                    lower = ""
            if lower:
                judging.spend(len(lower) // _COMPARED, 0)
                self._search_place(place, lower, query, script, judging, True, found)
        if slashed and path[-1] != "/" and state.places and not any(each.action == "block" for each in found):
            # To most frameworks it is one page with the one that has a slash more.
            pages: list[Verdict] = []
            for place in state.places:
                self._search_place(place, f"{path}/", query, script, judging, False, pages, alone=True)
                if place.nocase and lower:
                    self._search_place(place, f"{lower}/", query, script, judging, True, pages, alone=True)
            found += [each for each in pages if each.action == "block"]
        if judging.left < 0:
            judging.spend(0, 0)
        if not found:
            return PASS
        return decide(self._excused(found) if self._guarded else found)

    def _check_floating(self, path: str, judging: "_Judging", *, may_float: bool = True) -> Sequence[Verdict]:
        """The verdicts of path sequences on a path, which are kept until there is another; none where it is
        known that none may be in it, and only its segments are counted."""
        if judging.path is path:
            return judging.anywhere
        judging.path, judging.anywhere = path, ()
        # As `Work.spend`, without the call.
        judging.left -= len(path) // _COMPARED
        if len(path) > _LONG_PATH and (segments := path.count("/") // _SEGMENTS_A_TEXT):
            judging.spend(0, segments)
        if not may_float:
            return ()
        head = path[1 : path.rfind("/")].encode()
        none_begins = self._none_begins
        if not head or (
            none_begins(map(crc32, head.split(b"/")))
            if none_begins is not None
            else not self._may_float(head)
        ):
            return ()
        found: list[Verdict] = []
        self._search_floating(path, False, judging, found)
        if self._floating_nocase and (lower := lowered(path)) != path:
            self._search_floating(lower, True, judging, found)
        judging.anywhere = found
        return found

    def is_quiet(self, hosts: Sequence[str], address: str) -> bool:
        """Whether nothing is listed on any of these hosts, nor the address, so that `check` of the first
        decides on a request.

        Raises:
            UrlError: one of `hosts` cannot be judged.
        """
        return all(self._hosts.states(host) is ALL_QUIET for host in hosts) and not (
            address and (self._hosts.address_rules(address) or self._has_pages(address))
        )

    def _has_pages(self, address: str) -> bool:
        """Whether an entry is on an address as a host."""
        return self._hosts.states(_as_host(address)) is not ALL_QUIET

    def check_url(self, url: str | bytes, now: float = 0.0, decide: Decide = decide) -> Verdict:
        """Decide on a whole URL.

        Raises:
            UrlError: it has no canonical form.
        """
        scheme, authority, target = split_url(url)
        host, port = split_authority(authority)
        if port is None:
            port = DEFAULT_PORTS.get(scheme)
        return self.check(canonical_host(host), target, () if port is None else (port,), now, decide)

    def check_host(
        self, host: str, ports: Sequence[int] = (), now: float = 0.0, decide: Decide = decide
    ) -> Verdict:
        """Decide on a host alone: CONNECT, or a TLS connection by its SNI.

        Raises:
            UrlError: `host` cannot be judged.
        """
        passed, judging = PASS, _Judging(ports, now)
        for state in self._hosts.states(host):
            found: list[Verdict] = []
            for rule in state.rules:
                _judge(rule.verdict, rule.shape, judging, found)
            if found:
                verdict = decide(self._excused(found))
                if verdict.blocked:
                    return verdict
                passed = verdict if passed.action != "monitor" else passed
        return passed

    def lists_below(self, host: str, ports: Sequence[int] = (), now: float = 0.0) -> tuple[str, ...]:
        """The lists that have a page, prefix or parameter entry on this host, so that its path matters.

        One that has expired, or is for a port that is none of these, is none; as in `level`, a host with very
        many that might be is not searched to the last. Nor has one any on a host that an exception is on.

        Exceptions are none on a host that nothing else is on, and a list of exceptions alone has none: where
        its host is blocked, that is why the path matters. Nor has
        a guarded list on a protected host, which is not to be decrypted for it: clients that take no
        certificate but their own would lose all of it.

        Raises:
            UrlError: `host` cannot be judged.
        """
        states = self._hosts.states(host)
        lists = [
            place.list
            for state in states
            if state.places and not is_excused(state, now)
            for place in state.places
            if place.list.pages_block and is_below(place, ports, now, excuses=bool(state.rules))
        ]
        if any(li.guarded for li in lists) and self.protects(host):
            lists = [li for li in lists if not li.guarded]
        return tuple(li.name for li in lists)

    def protects(self, host: str) -> bool:
        """Whether a host is protected from being blocked whole by guarded lists.

        Raises:
            UrlError: `host` cannot be judged.
        """
        return self._hosts.protects(host)

    def level(self, host: str, now: float = 0.0) -> Level:
        """How much of a host is listed; a lookup in a dictionary where nothing is, and it has been asked for
        lately in the same spelling.

        Path sequences that block are on no host, and do not count.

        Raises:
            UrlError: `host` cannot be judged.
        """
        states = self._hosts.states(host)
        if states is ALL_QUIET:
            return ""
        levels = {level_of(state, self._floating_allows, now) for state in states}
        return "whole" if "whole" in levels else "below" if "below" in levels else ""

    def check_address(
        self,
        address: str,
        ports: Sequence[int] = (),
        now: float = 0.0,
        decide: Decide = decide,
        target: str = "",
    ) -> Verdict:
        """Decide on a destination address, and on what is asked for there if an entry is on the address as a
        host: by whatever name a client gets there. What is not an address passes.

        Raises:
            UrlError: the target cannot be judged.
        """
        verdict = PASS
        if rules := self._hosts.address_rules(address):
            found: list[Verdict] = []
            judging = _Judging(ports, now)
            for rule in rules:
                _judge(rule.verdict, rule.shape, judging, found)
            verdict = decide(self._excused(found)) if found else PASS
        if target and not verdict.blocked and self._has_pages(address):
            page = self.check_request((_as_host(address),), target, ports, now, decide)
            if page.listed and (page.blocked or not verdict.listed):
                return page
        return verdict

    def check_file(self, digests: Mapping[str, bytes], now: float = 0.0, decide: Decide = decide) -> Verdict:
        """Decide on a file by its digests; `Verdict.algorithm` says by which.

        An ``@@`` entry excuses the one digest that it names, so a file that is listed by others too stays
        blocked. PDQ digests are like each other, and not looked up: `perceptual` is for those.

        Args:
            digests: of the whole file, by algorithm; others than `file_algorithms` need not be there.
            now: as of `check_request`.
            decide: likewise.
        """
        told, judging = PASS, _Judging((), now)
        for algorithm, groups in self._exact:
            digest = digests.get(algorithm)
            if digest is None:
                continue
            text = hexlify(digest)
            found: list[Verdict] = []
            for keyed_of, lists in groups:
                keyed = keyed_of(text)
                for rows_with, li, files in lists:
                    for row in rows_with(keyed):
                        _judge(li.file_verdict(row, algorithm), files.shape(row), judging, found)
            if found:
                verdict = decide(self._excused(found))
                if verdict.blocked:
                    return verdict
                if told is PASS or (verdict.action == "monitor" and told.action != "monitor"):
                    told = verdict
        return told

    def _keyed_files(self, algorithm: str) -> "_KeyedFiles":
        """The lists that have digests of an algorithm, by their keys."""
        by_key: dict[bytes, tuple[Key, list[tuple[LoadedList, FileTable]]]] = {}
        for li, files in self._of_files:
            if algorithm in files.algorithms:
                by_key.setdefault(li.key.id, (li.key, []))[1].append((li, files))
        return [
            (key.behind(file_text(algorithm, "")), [(files.exact, li, files) for li, files in lists])
            for key, lists in by_key.values()
        ]

    def perceptual(self) -> list[PerceptualList]:
        """The PDQ digests that each list blocks, in plain form, for a process that looks at pictures.

        Raises:
            ArtifactError: a list's do not open under its key.
        """
        return [
            files.perceptual(li.key, li.name, li.serial)
            for li, files in self._of_files
            if files.algorithms.get(PDQ, [0])[0]
        ]

    def file_verdict(
        self,
        list_name: str,
        row: int,
        now: float = 0.0,
        decide: Decide = decide,
        *,
        distance: int = 0,
    ) -> Verdict:
        """Decide on a picture that is near to a listed one.

        An ``@@`` entry excuses the listed digest that it names, however near the picture is.

        Args:
            list_name: of the list.
            row: of `PerceptualList.rows`, perhaps of another issue of the list; what is not on it any more
                passes.
            now: as of `check_request`.
            decide: likewise.
            distance: between the two; an entry that asks for less passes.

        Raises:
            ArtifactError: the digest does not open under its list's key.
        """
        found: list[Verdict] = []
        judging = _Judging((), now)
        digest = b""
        for li, files in self._of_files:
            for at in files.marked(FilePool.LISTED, row) if li.name == list_name else ():
                listed, most = files.listed(li.key, at)
                if distance <= most:
                    digest = listed
                    _judge(li.file_verdict(at, PDQ), files.shape(at), judging, found)
        if not found:
            return PASS
        for li, files in self._of_files:
            for at in files.excusing(li.key, digest):
                _judge(li.file_verdict(at, PDQ), files.shape(at), judging, found)
        return decide(self._excused(found))

    def _excused(self, found: list[Verdict]) -> list[Verdict]:
        """All that is found but what guarded lists excuse themselves from: an exception in one of them counts
        against its own entries alone, and not at all where another list has an entry."""
        excusing = {v.list for v in found if v.action == "allow"} & self._guarded
        if not excusing:
            return found
        others = [v for v in found if v.list not in excusing]
        return others or [v for v in found if v.action == "allow"]

    def _may_float(self, head: bytes) -> bool:
        """False where no path sequence can begin in these segments of a canonical path.

        Where there is `_none_begins`, that says so without a call of Python's.
        """
        if not self._floating:
            return False
        crcs = set(map(crc32, head.split(b"/")))
        if self._floating_nocase:
            crcs.update(map(crc32, lowered(head.decode()).encode().split(b"/")))
        return any(li.sieve.segments is None or not li.sieve.segments.isdisjoint(crcs) for li in self.lists)

    def _search_place(
        self,
        place: ListedHost,
        path: str,
        query: str,
        script: bool,
        judging: "_Judging",
        nocase: bool,
        found: list[Verdict],
        *,
        alone: bool = False,
    ) -> None:
        """Add the verdicts of pages, prefixes and parameters; with `nocase` the path is in lower case, with
        `alone` no prefix counts."""
        li, host, groups = place.list, place.host, place.groups
        if groups is None:
            groups = self._groups_on(place, path)
        judging.left -= len(path) // _COMPARED + _PLACE
        begin, matching = li.key.begin, li.table.matching
        said = li.said if not (place.subdomains or place.spared or nocase) else _NOTHING
        page = b""
        params: Mapping[bytes, str] = {}
        for rows, among, (has_pages, prefixes, has_params, _) in groups:
            if has_pages and not script:
                if not page:
                    # As `Key.digest`, without the call.
                    text = begin()
                    text.update(f"{_PAGE}{host}{path}".encode("latin-1"))
                    page = text.digest()
                if among is None or among.find(page) >= 0:
                    if (verdict := said.get(page)) is not None:
                        found.append(verdict)
                    elif among is not None or matching(rows, page):
                        self._judge_rows(rows, among, page, place, Kind.PAGE, 0, judging, nocase, found)
            cut = segments = 0
            for length in () if alone else prefixes:
                while segments < length and cut >= 0:
                    cut = path.find("/", cut + 1)
                    segments += 1
                if cut < 0:
                    break
                judging.left -= len(path) // _COMPARED
                if judging.left < 0:
                    judging.spend(0, 0)
                text = begin()
                text.update(f"{_PREFIX}{host}{path[: cut + 1]}".encode("latin-1"))
                digest = text.digest()
                if among is None or among.find(digest) >= 0:
                    if (verdict := said.get(digest)) is not None:
                        found.append(verdict)
                    elif among is not None or matching(rows, digest):
                        self._judge_rows(
                            rows, among, digest, place, Kind.PREFIX, length, judging, nocase, found
                        )
            if has_params and query:
                beginning = f"{_PARAM}{host}{path}?"
                params = params or judging.digests(li.key, beginning, query, nocase=nocase)
                for digest in params:
                    if among.find(digest) >= 0 if among is not None else matching(rows, digest):
                        if (verdict := said.get(digest)) is not None and judging.has_names_once(
                            query, params
                        ):
                            found.append(verdict)
                            continue
                        asked = beginning, query, params
                        self._judge_rows(
                            rows, among, digest, place, Kind.PARAMS, 0, judging, nocase, found, asked
                        )

    def _groups_on(self, place: ListedHost, path: str) -> tuple[PageGroup, ...]:
        """The groups that have a path's entries, of a host with very many."""
        on_path = "".join(map(self._segments[place.keyed], path[1:].split("/")))
        return place.list.page_groups(f"{place.letters()}{on_path}{PATH_END}", place.below)

    def _judge_rows(
        self,
        rows: range,
        among: bytes | None,
        digest: bytes,
        place: ListedHost,
        kind: Kind,
        length: int,
        judging: "_Judging",
        nocase: bool,
        found: list[Verdict],
        asked: "_Asked | None" = None,
    ) -> None:
        """Add the verdicts of rows whose digest is confirmed, unless their attributes say otherwise.

        Args:
            rows: of a group.
            among: their digests, as of `PageGroup`.
            digest: that those have which are judged.
            place: they are on.
            kind: of entries that have such a digest.
            length: likewise.
            judging: the target.
            nocase: whether it is in lower case.
            found: what to add to.
            asked: the parameters that the digest is one of.
        """
        li, spared = place.list, place.spared
        same = li.table.matching(rows, digest, among)
        required = (Flag.NOCASE if nocase else 0) | (Flag.SUBDOMAINS if place.subdomains else 0)
        judging.left -= _ROW * len(same)
        for row in same:
            shape, verdict = li.say(row)
            if len(same) == 1 and not (shape.flags & ~Flag.ALLOW or shape.port or shape.expires):
                li.keep(digest, verdict)
            if shape.flags & required != required:
                continue
            if spared and not shape.allow:
                whole_host = kind == Kind.PREFIX and not length
                if whole_host or spared == "all":
                    continue
            doubtful = False
            if asked is not None:
                page, query, params = asked
                several = [digest]
                if shape.flags & Flag.SEVERAL_PARAMS:
                    several += li.table.further_params(row)
                    if not all(d in params for d in several):
                        continue
                doubtful = (
                    not judging.has_names_once(query, params)
                    and _is_doubtful([params[d] for d in several], judging.values(query, nocase=nocase))
                    and not judging.is_own(li.key, page, query, several, nocase=nocase)
                )
            if shape.port or shape.expires or doubtful:
                _judge(verdict, shape, judging, found, doubtful=doubtful)
            else:
                found.append(verdict)
        if judging.left < 0:
            judging.spend(0, 0)

    def _search_floating(
        self,
        path: str,
        nocase: bool,
        judging: "_Judging",
        found: list[Verdict],
    ) -> None:
        """Add the verdicts of path sequences; `nocase` says that the path is in lower case."""
        segments = path[1:].split("/")
        # A segment follows a sequence, so the last is in none.
        letters = ["".join(map(segment, segments[:-1])) for segment in self._segments]
        for li, keyed, automaton in self._floating:
            if nocase and not li.floating_nocase:
                continue
            known: set[int] = set()
            for last, value in automaton.iter(letters[keyed]):
                group = li.group(value)
                if known.issuperset(group):
                    continue  # a sequence says the same wherever it is
                first, odd = divmod(
                    last + 1 - li.pattern_lengths[group.start - li.floating_row], SEGMENT_LETTERS
                )
                if odd:
                    continue
                for row in li.confirmed(group, SequenceDigests(li.key, segments, first, judging)):
                    if row in known:
                        continue
                    known.add(row)
                    shape, verdict = li.say(row)
                    if not nocase or shape.flags & Flag.NOCASE:
                        _judge(verdict, shape, judging, found)


type _KeyedFiles = Sequence[
    tuple[
        Callable[[bytes], bytes],
        Sequence[tuple[Callable[[bytes], Sequence[int]], LoadedList, FileTable]],
    ]
]
"""Keyed digests of a key, and the lists under it with what finds their rows: bound once, not at each file."""


class SequenceDigests(dict[tuple[int, int], Collection[bytes]]):
    """The digests that confirm a path sequence, by kind and length.

    Args:
        key: of the list.
        segments: of the path.
        first: of the sequence.
        work: what judging the target may cost.
    """

    __slots__ = ("_first", "_key", "_segments", "_work")

    def __init__(self, key: Key, segments: Sequence[str], first: int, work: Work) -> None:
        self._key, self._segments, self._first, self._work = key, segments, first, work

    def __missing__(self, form: tuple[int, int]) -> Collection[bytes]:
        kind, length = form
        found: Collection[bytes] = ()
        # The sequence ends with a slash, so a segment, if an empty one, follows it.
        if kind == Kind.PATH and self._first + length < len(self._segments):
            sequence = "/".join(self._segments[self._first : self._first + length])
            self._work.spend(_SEQUENCE + len(sequence) // _COMPARED, 0)
            found = (self._key.digest(path_text(f"/{sequence}/")),)
        self[form] = found
        return found


def _judge(
    verdict: Verdict,
    shape: Shape,
    judging: "_Judging",
    found: list[Verdict],
    *,
    doubtful: bool = False,
) -> None:
    """Add a confirmed row's verdict, unless its port or date says otherwise."""
    ports = judging.ports
    if shape.port and ports:
        if shape.port not in ports:
            return
        doubtful = doubtful or len(set(ports)) > 1
    if shape.is_over(judging.now):
        return
    if doubtful:
        if shape.allow:
            return
        verdict = verdict._replace(doubtful=True)
    found.append(verdict)


def _as_asked(path: str, query: str) -> str:
    """A path as WordPress has it, which by some parameters leads nobody to the slash that it lacks."""
    return f"{path}/" if not path.endswith("/") and asks_wordpress(unescape_once(query)) else path


def _as_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _excuses_all(verdict: Verdict) -> bool:
    """Whether what is excused as written is so under what is left of it."""
    return verdict.action == "allow" and verdict.kind != Kind.PATH.label


def _told(verdicts: list[Verdict]) -> Verdict:
    """The verdict to report of several: one that blocks, else one that is monitored, else the last that
    says anything."""
    if verdicts[-1].action == "block" or len(verdicts) == 1:
        return verdicts[-1]
    said = [verdict for verdict in verdicts if verdict is not PASS]
    return next((verdict for verdict in said if verdict.action == "monitor"), said[-1] if said else PASS)


class _Values(NamedTuple):
    """The parameters of a query, as `name_and_value` has them, and the values that each name has as sent."""

    pairs: Mapping[str, tuple[str, str]]
    of_name: Mapping[str, set[str]]


type _Asked = tuple[str, str, Mapping[bytes, str]]
"""Page, query, and its parameters by their digests on the page."""


class _Judging(Work):
    """A target that is being judged, of which each query is taken apart once, with and without case.

    Args:
        ports: as of `Matcher.check_request`.
        now: likewise.
    """

    # Of the class: few targets have a query that matters.
    _params: dict[tuple[str, bool], Collection[str]] | None = None
    _names_once: tuple[str, int, bool] | None = None
    path = ""
    anywhere: Sequence[Verdict] = ()
    """What path sequences say of `path`, on whichever host."""

    def __init__(self, ports: Sequence[int], now: float) -> None:
        self.ports, self.now = ports, now

    @cached_property
    def _values(self) -> dict[tuple[str, bool], _Values]:
        return {}

    @cached_property
    def _own(self) -> dict[tuple[str, bool], Collection[str]]:
        return {}

    def _params_of(self, query: str, *, nocase: bool) -> Collection[str]:
        known = self._params
        if known is None:
            known = self._params = {}
        found = known.get((query, nocase))
        if found is None:
            params = request_parameters(query)
            self.spend(len(query), len(params) // _PARAMS_A_TEXT)
            if nocase:
                # Artifacts from before `nocase` counted for parameters have them as they were written.
                params |= {lowered(param) for param in params}
            found = known[query, nocase] = params
        return found

    def digests(self, key: Key, page: str, query: str, *, nocase: bool) -> dict[bytes, str]:
        """The parameters of a query by the digests that they have on a page."""
        params = self._params_of(query, nocase=nocase)
        self.spend(len(page) // _COMPARED + len(query) // _HASHED + len(params) * _DIGEST, 0)
        begin, found = key.begun(page), {}
        for param in params:
            text = begin()
            text.update(param.encode("latin-1"))
            found[text.digest()] = param
        return found

    def has_names_once(self, query: str, params: Mapping[bytes, str]) -> bool:
        """Whether a query, of which these are the parameters, plainly has each name once."""
        known = self._names_once
        if known is None or known[:2] != (query, len(params)):
            names = {param.partition("=")[0].lower() for param in params.values()}
            # Of paths, which may have no name, `name_and_value` knows more.
            once = bool(has_plain_parameters(query)) and "/" not in query and len(names) == len(params)
            known = self._names_once = query, len(params), once
        return known[2]

    def values(self, query: str, *, nocase: bool) -> _Values:
        """The parameters of a query, taken apart."""
        found = self._values.get((query, nocase))
        if found is None:
            params = self._params_of(query, nocase=nocase)
            pairs = {param: name_and_value(param, nocase=nocase) for param in params}
            sent = set(pairs.values())
            if any("/." in f"/{value}" or value.isdecimal() for _, value in sent):
                self.spend(len(query))
                alone = request_parameters(query, loosely=False)
                sent = {name_and_value(one, nocase=nocase) for one in alone}
            of_name: dict[str, set[str]] = {}
            for name, value in sent:
                of_name.setdefault(name, set()).add(value)
            found = self._values[query, nocase] = _Values(pairs, of_name)
        return found

    def is_own(self, key: Key, page: str, query: str, digests: Sequence[bytes], *, nocase: bool) -> bool:
        """Whether the parameters with these digests are all that an entry of the same URL has, whatever else
        origins make of them, as of `a=1;b`."""
        own = self._own.get((query, nocase))
        if own is None:
            self.spend(len(query))
            params = query_parameters(canonical_query(query))
            own = self._own[query, nocase] = {lowered(param) for param in params} if nocase else params
        self.spend(len(page) // _COMPARED + len(query) // _HASHED + len(own) * _DIGEST, 0)
        return set(key.digests(page, own)) == set(digests)


def _is_doubtful(params: Iterable[str], values: _Values) -> bool:
    """Whether a name has other values in a request than these: origins differ in which of several they take,
    and in whether `7/../5` is 5."""
    found: dict[str, set[str]] = {}
    for param in params:
        name, value = values.pairs[param]
        found.setdefault(name, set()).add(value)
    return any(values.of_name.get(name) != those for name, those in found.items())
