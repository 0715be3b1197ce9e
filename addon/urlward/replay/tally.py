"""Counts of a replay: numbers only, never a client, a host or a URL.

Each block of lines is counted by itself and the counts are added up, so everything here can be added.
"""

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from heapq import nsmallest

KEPT_LINES = 5
"""Numbers of unreadable lines that are kept for each reason."""

_SKETCH = 1 << 16
_HASHES = 1 << 64


class Hasher:
    """Texts as hashes under a key that is in no file and is never shown.

    Python's own keyed hash of strings (SipHash-1-3), which costs a tenth of BLAKE2b here. Its key differs
    between processes, but not between those that have been forked from one; with a salt, since it can be
    set from outside (``PYTHONHASHSEED``).
    """

    def __init__(self) -> None:
        self._salt = secrets.token_hex(16)

    def __call__(self, text: str) -> int:
        """Hash of a text, a number below 2^64."""
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
