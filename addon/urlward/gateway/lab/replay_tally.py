"""What is counted while a log is replayed: numbers only, never a client, a host or a URL.

Each process counts for itself and the counts are added up, so everything here can be added.
"""

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nsmallest

KEPT_LINES = 5
"""Numbers of unreadable lines that are told for each reason."""

_SKETCH = 1 << 16
_HASHES = 1 << 64


class Hasher:
    """Texts as hashes under a key that is in no file and is never told.

    Python's own keyed hash of strings (SipHash-1-3), which costs a tenth of BLAKE2b here. Its key differs
    between processes, but not between those that have been forked from one; with a salt, since it can be
    set from outside (``PYTHONHASHSEED``).
    """

    def __init__(self) -> None:
        self._salt = secrets.token_hex(16)

    def __call__(self, text: str) -> int:
        """A number below 2^64."""
        return hash(self._salt + text) & _HASHES - 1


class Distinct:
    """Counts different hashes in bounded memory.

    Exact up to 2^17; beyond, an estimate from the 2^16 smallest ones (Bar-Yossef and others, "Counting
    distinct elements in a data stream", 2002), with a standard error of 0.4 %.
    """

    __slots__ = ("_below", "_kept")

    def __init__(self) -> None:
        self._kept: set[int] = set()
        self._below = _HASHES

    def add(self, hashes: Iterable[int]) -> None:
        """See these hashes, each below 2^64."""
        below = self._below
        self._kept.update(h for h in hashes if h < below)
        if len(self._kept) > 2 * _SKETCH:
            self._shrink()

    def merge(self, other: "Distinct") -> None:
        """See what another has seen."""
        self._below = min(self._below, other._below)
        kept = {h for h in self._kept if h < self._below}
        self._kept = kept
        self.add(other._kept)

    @property
    def exact(self) -> bool:
        """Whether `count` is no estimate."""
        return self._below == _HASHES

    @property
    def count(self) -> int:
        """How many there were."""
        if self.exact:
            return len(self._kept)
        return round((len(self._kept) - 1) * _HASHES / max(self._kept))

    def _shrink(self) -> None:
        self._kept = set(nsmallest(_SKETCH, self._kept))
        self._below = max(self._kept) + 1


@dataclass(slots=True)
class Bad:
    """Lines that were not judged, for one reason: how many, and the first ones as (log, line)."""

    count: int = 0
    first: list[tuple[int, int]] = field(default_factory=list)

    def add(self, count: int, lines: Iterable[tuple[int, int]]) -> None:
        """Count more of them."""
        self.count += count
        self.first = sorted([*self.first, *lines])[:KEPT_LINES]


@dataclass(slots=True)
class Tunnels:
    """Connections over TLS, or requests inside, by what the lists say of the host.

    Attributes:
        all: of them.
        whole: to a host that is listed whole.
        below: to one that has a page, prefix or parameter entry, so that it would be decrypted.
    """

    all: int = 0
    whole: int = 0
    below: int = 0

    def add(self, other: "Tunnels") -> None:
        """Count those of another."""
        self.all += other.all
        self.whole += other.whole
        self.below += other.below


@dataclass(slots=True)
class Tally:
    """All counts.

    Attributes:
        lines: read, blank ones and headings too.
        requests: judged.
        verdicts: requests by action (``block`` or ``allow``), list, category, kind and entry.
        bad: lines that were not judged, by reason.
        hours, blocked_hours: requests, and blocked ones, by hour (UTC) since 1970-01-01.
        statuses, blocked_statuses: likewise by HTTP status as logged.
        clients, clients_hit: different ones, and those with a blocked request.
        hosts, hosts_hit, hosts_below: different ones, those with a blocked request, and those that TLS
            connections went to and would be decrypted for.
        connects: CONNECT requests.
        https: requests whose URL says ``https``.
        unseen: blocked requests inside TLS that the filter would not decrypt, since only a path sequence
            matches.
    """

    lines: int = 0
    requests: int = 0
    verdicts: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    bad: dict[str, Bad] = field(default_factory=dict)
    hours: Counter[int] = field(default_factory=Counter)
    blocked_hours: Counter[int] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    blocked_statuses: Counter[str] = field(default_factory=Counter)
    clients: Distinct = field(default_factory=Distinct)
    clients_hit: Distinct = field(default_factory=Distinct)
    hosts: Distinct = field(default_factory=Distinct)
    hosts_hit: Distinct = field(default_factory=Distinct)
    hosts_below: Distinct = field(default_factory=Distinct)
    connects: Tunnels = field(default_factory=Tunnels)
    https: Tunnels = field(default_factory=Tunnels)
    unseen: int = 0

    @property
    def blocked(self) -> int:
        """Requests that would be blocked."""
        return sum(n for (action, *_), n in self.verdicts.items() if action == "block")

    @property
    def not_judged(self) -> int:
        """Lines that were not judged."""
        return sum(bad.count for bad in self.bad.values())

    def add_bad(self, reason: str, count: int, lines: Iterable[tuple[int, int]]) -> None:
        """Count lines that were not judged, at these places (log, line)."""
        self.bad.setdefault(reason, Bad()).add(count, lines)

    def merge(self, other: "Tally") -> None:
        """Add another's counts to these."""
        self.lines += other.lines
        self.requests += other.requests
        self.unseen += other.unseen
        for mine, theirs in (
            (self.verdicts, other.verdicts),
            (self.hours, other.hours),
            (self.blocked_hours, other.blocked_hours),
            (self.statuses, other.statuses),
            (self.blocked_statuses, other.blocked_statuses),
        ):
            mine.update(theirs)  # type: ignore[arg-type]
        for reason, bad in other.bad.items():
            self.add_bad(reason, bad.count, bad.first)
        for name in ("clients", "clients_hit", "hosts", "hosts_hit", "hosts_below"):
            getattr(self, name).merge(getattr(other, name))
        self.connects.add(other.connects)
        self.https.add(other.https)
