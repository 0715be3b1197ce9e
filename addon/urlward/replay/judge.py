"""Judge of logged requests, which decides as ``urlward check`` does and counts: numbers only, never a client,
a host or a URL.

What is the same for all requests to one host is worked out once and kept, since a log names the same hosts
again and again. Any host without an entry may stand in for any other: what a list says of a request to it
depends on the path alone.

Each block of lines is counted by itself and the counts are added up, so everything here can be added.
"""

import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from heapq import nsmallest
from secrets import token_hex
from typing import Literal

from urlward.engine.entry import Kind
from urlward.engine.errors import UrlwardError
from urlward.engine.matcher import Matcher
from urlward.engine.url import DEFAULT_PORTS, canonical_host, split_authority, split_url
from urlward.engine.verdict import PASS, Verdict
from urlward.replay.formats import NONE, Columns, LogFormat

KEPT_LINES = 5
"""Numbers of unreadable lines that are kept for each reason."""

_SKETCH = 1 << 16
_HASHES = 1 << 64

KEPT = 1 << 17
"""Beginnings of URLs, and clients, that are kept; when full, all are forgotten."""

HOUR = 3600
_NO_AUTHORITY = re.compile(r"[/?#\\]").search
TLS_PORT = 443
TLS_SCHEMES = ("https", "wss")

Clock = Literal["log", "now"]


class Hasher:
    """Texts as hashes under a key that is in no file and is never shown.

    Python's own keyed hash of strings (SipHash-1-3), which costs a tenth of BLAKE2b here. Its key differs
    between processes, but not between those that have been forked from one; with a salt, since it can be
    set from outside (``PYTHONHASHSEED``).

    Args:
        key: under which processes that are not forked from one hash alike, by BLAKE2b; or empty.
    """

    def __init__(self, key: bytes = b"") -> None:
        self._salt = secrets.token_hex(16)
        self._key = key

    def __call__(self, text: str) -> int:
        """Hash of a text, a number below 2^64."""
        if self._key:
            return int.from_bytes(blake2b(text.encode(), key=self._key, digest_size=8).digest())
        return hash(self._salt + text) & _HASHES - 1


class Distinct:
    """Counter of different hashes in bounded memory.

    Exact up to 2^17; beyond, an estimate from the 2^16 smallest ones (Bar-Yossef and others, "Counting
    distinct elements in a data stream", 2002), with a standard error of 0.4 %.
    """

    __slots__ = ("_below", "_kept")

    def __init__(self) -> None:
        self._kept: set[int] = set()
        self._below = _HASHES

    def add(self, hashes: Iterable[int]) -> None:
        """Count these hashes, each below 2^64."""
        below = self._below
        self._kept.update(h for h in hashes if h < below)
        if len(self._kept) > 2 * _SKETCH:
            self._kept = set(nsmallest(_SKETCH, self._kept))
            self._below = max(self._kept) + 1

    def update(self, other: "Distinct") -> None:
        """Count what another has counted."""
        if other._below < self._below:
            self._below = other._below
            self._kept = {h for h in self._kept if h < self._below}
        self.add(other._kept)

    @property
    def exact(self) -> bool:
        """Whether `count` is exact, and no estimate."""
        return self._below == _HASHES

    @property
    def count(self) -> int:
        """Number of different hashes."""
        return len(self._kept) if self.exact else round((len(self._kept) - 1) * _HASHES / max(self._kept))


class BadLines(dict[str, tuple[int, list[tuple[int, int]]]]):
    """Unjudged lines by reason: how many, and the first ones as (log, line)."""

    def add(self, reason: str, count: int, lines: Iterable[tuple[int, int]]) -> None:
        """Count more of them."""
        before, first = self.get(reason, (0, []))
        self[reason] = before + count, sorted([*first, *lines])[:KEPT_LINES]


@dataclass(slots=True)
class Tally:
    """Counts of a replay.

    Attributes:
        lines: read, blank ones and headings too.
        requests: judged.
        verdicts: requests by action (``block`` or ``allow``), list, category, kind and entry.
        bad: lines that were not judged.
        hours, blocked_hours: requests, and blocked ones, by hour (UTC) since 1970-01-01.
        statuses, blocked_statuses: the same by HTTP status as logged.
        clients, clients_hit: different ones, and those with a blocked request.
        hosts, hosts_hit, hosts_below: different ones, those with a blocked request, and those that TLS
            connections went to and would be decrypted for.
        connects, https: CONNECT requests, and requests whose URL says ``https``: ``all``, those whose host
            is listed ``whole``, and those whose host has a page, prefix or parameter entry ``below``, so that
            it would be decrypted.
        unseen: blocked requests inside TLS that the filter would not decrypt, since only a path sequence
            matches.
    """

    lines: int = 0
    requests: int = 0
    unseen: int = 0
    verdicts: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    bad: BadLines = field(default_factory=BadLines)
    hours: Counter[int] = field(default_factory=Counter)
    blocked_hours: Counter[int] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    blocked_statuses: Counter[str] = field(default_factory=Counter)
    clients: Distinct = field(default_factory=Distinct)
    clients_hit: Distinct = field(default_factory=Distinct)
    hosts: Distinct = field(default_factory=Distinct)
    hosts_hit: Distinct = field(default_factory=Distinct)
    hosts_below: Distinct = field(default_factory=Distinct)
    connects: Counter[str] = field(default_factory=Counter)
    https: Counter[str] = field(default_factory=Counter)

    @property
    def blocked(self) -> int:
        """Requests that would be blocked."""
        return sum(n for (action, *_), n in self.verdicts.items() if action == "block")

    @property
    def allowed(self) -> int:
        """Requests that an ``@@`` entry allows."""
        return sum(n for (action, *_), n in self.verdicts.items() if action == "allow")

    @property
    def not_judged(self) -> int:
        """Lines that were not judged."""
        return sum(count for count, _ in self.bad.values())

    def merge(self, other: "Tally") -> None:
        """Add another's counts to these."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if isinstance(mine, int):
                setattr(self, one.name, mine + theirs)
            elif isinstance(mine, BadLines):
                for reason, (count, first) in theirs.items():
                    mine.add(reason, count, first)
            else:
                mine.update(theirs)


@dataclass(slots=True)
class UrlOrigin:
    """The part of a URL in front of its path, or the host and port of CONNECT.

    Attributes:
        host: as written.
        ports: to judge with.
        tls: whether TLS is spoken there.
        quiet: whether nothing is listed on it.
        below: whether a page, prefix or parameter entry is on it.
        hashed: the host's hash.
    """

    host: str
    ports: tuple[int, ...]
    tls: bool
    quiet: bool
    below: bool
    hashed: int


class LogJudge:
    """Judge of blocks of lines.

    Args:
        matcher: the lists.
        now: seconds since 1970-01-01 UTC.
        clock: whether entries that expire are judged at the time in the log, where it has one, or at `now`.
        hashes: as of `Hasher`.
    """

    def __init__(self, matcher: Matcher, now: float, clock: Clock = "log", hashes: bytes = b"") -> None:
        self._matcher = matcher
        self._now = now
        self._clock = clock
        self._hash = Hasher(hashes)
        self._origins: dict[str, UrlOrigin] = {}
        self._tunnels: dict[str, UrlOrigin] = {}
        self._clients: set[str] = {"", NONE}
        self._stand_in = _quiet_host(matcher)
        self._tally = Tally()

    def judge(self, log_format: LogFormat, text: str, log: int = 1, first: int = 1) -> Tally:
        """Judge whole lines.

        Args:
            log_format: theirs.
            text: a byte string.
            log: number of the log that they are from.
            first: number of the first of them.

        Returns:
            Their counts. Hosts and clients are in them that were not in those before.
        """
        columns = log_format.columns(text)
        tally = self._tally = Tally(lines=len(columns.targets))
        seconds = {time: _second(log_format, time) for time in set(columns.times)}
        times = {time: self._now if s is None or self._clock == "now" else s for time, s in seconds.items()}
        keys = columns.origins
        if log_format.paths:
            site = log_format.site
            pairs = zip(columns.origins, columns.targets, strict=True)
            keys = [target and (origin or site) for origin, target in pairs]
        origins, tunnels = self._origins.get, self._tunnels.get
        check, stand_in = self._matcher.check, self._stand_in
        decided: list[tuple[int, UrlOrigin, Verdict]] = []
        not_judged: set[int] = set()
        connects = https = 0
        for row, (key, target, tunnel, time) in enumerate(
            zip(keys, columns.targets, columns.tunnels, columns.times, strict=True)
        ):
            origin = tunnels(tunnel) if tunnel else origins(key)
            if origin is None:
                try:
                    origin, target = self._find(log_format, columns, row)
                except UrlwardError as e:
                    tally.bad.add(str(e), 1, [(log, first + row)])
                if origin is None:
                    not_judged.add(row)
                    continue
            if tunnel:
                connects += 1
                if origin.quiet:
                    continue
                verdict = self._judge_host(tally.connects, origin, times[time])
            elif origin.quiet:
                https += origin.tls
                verdict = check(stand_in, target, origin.ports, times[time])
            else:
                verdict = check(origin.host, target, origin.ports, times[time])
                if origin.tls:
                    https += 1
                    self._judge_host(tally.https, origin, times[time])
            if verdict is not PASS:
                decided.append((row, origin, verdict))
        tally.requests = tally.lines - len(not_judged)
        tally.connects["all"] = connects
        tally.https["all"] = https
        tally.statuses.update(_without(columns.statuses, not_judged))
        del tally.statuses[""]
        for time, count in Counter(_without(columns.times, not_judged)).items():
            if (second := seconds[time]) is not None:
                tally.hours[second // HOUR] += count
        clients = set(_without(columns.clients, not_judged)) - self._clients
        tally.clients.add(map(self._hash, clients))
        if len(self._clients) >= KEPT:
            self._clients = {"", NONE}
        self._clients |= clients
        for row, origin, verdict in decided:
            decision = verdict.action, verdict.list, verdict.category, verdict.kind, verdict.entry
            tally.verdicts[decision] += 1
            if verdict.blocked:
                self._count_blocked(columns, row, origin, verdict, seconds[columns.times[row]])
        return tally

    def _find(self, log_format: LogFormat, columns: Columns, row: int) -> tuple[UrlOrigin | None, str]:
        """The origin and the target of a line that is odd, or whose origin is not kept; None if it has none.

        Raises:
            UrlwardError: it cannot be read.
            UrlError: its URL has no canonical form.
        """
        if tunnel := columns.tunnels[row]:
            return self._meet(self._tunnels, tunnel, "", tunnel), ""
        beginning, target = columns.origins[row], columns.targets[row]
        scheme, _, authority = beginning.rpartition("://")
        if columns.others[row] or not authority or _NO_AUTHORITY(authority):
            url = log_format.url(columns, row)
            if not url:
                return None, ""
            scheme, authority, target = split_url(url.encode("latin-1"))
            beginning = f"{scheme}://{authority}" if scheme else authority
        kept = self._origins.get(beginning)
        return kept or self._meet(self._origins, beginning, scheme, authority), target

    def _meet(self, kept: dict[str, UrlOrigin], key: str, scheme: str, authority: str) -> UrlOrigin:
        """A host that is not kept.

        Raises:
            UrlError: it is none.
        """
        host, port = split_authority(authority)
        if port is None:
            port = DEFAULT_PORTS.get(scheme)
        quiet = self._matcher.is_quiet((host,), "")
        origin = UrlOrigin(
            host,
            () if port is None else (port,),
            scheme in TLS_SCHEMES or (not scheme and port == TLS_PORT),
            quiet,
            not quiet and bool(self._matcher.lists_below(host)),
            self._hash(canonical_host(host)),
        )
        self._tally.hosts.add((origin.hashed,))
        if len(kept) >= KEPT:
            kept.clear()
        kept[key] = origin
        return origin

    def _judge_host(self, counts: Counter[str], origin: UrlOrigin, now: float) -> Verdict:
        """Judge a TLS connection, by its host alone."""
        verdict = self._matcher.check_host(origin.host, origin.ports, now)
        if verdict.blocked:
            counts["whole"] += 1
        elif origin.below:
            counts["below"] += 1
            self._tally.hosts_below.add((origin.hashed,))
        return verdict

    def _count_blocked(
        self, columns: Columns, row: int, origin: UrlOrigin, verdict: Verdict, second: int | None
    ) -> None:
        tally, status, client = self._tally, columns.statuses[row], columns.clients[row]
        tally.hosts_hit.add((origin.hashed,))
        if second is not None:
            tally.blocked_hours[second // HOUR] += 1
        if status:
            tally.blocked_statuses[status] += 1
        if client not in ("", NONE):
            tally.clients_hit.add((self._hash(client),))
        if origin.tls and not origin.below and verdict.kind == Kind.PATH.label:
            tally.unseen += 1


def _without(column: Sequence[str], rows: Collection[int]) -> Sequence[str]:
    return [item for row, item in enumerate(column) if row not in rows] if rows else column


def _second(log_format: LogFormat, time: str) -> int | None:
    try:
        return log_format.second(time) if log_format.second and time else None
    except ValueError:
        return None


def _quiet_host(matcher: Matcher) -> str:
    """A name that nothing is listed on, as good as surely the first."""
    while True:
        host = f"a{token_hex(8)}.a{token_hex(8)}"
        if matcher.is_quiet((host,), ""):
            return host
