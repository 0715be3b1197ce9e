"""Entries to the flat form that an artifact stores and a matcher loads.

Patterns are cut where they differ from their neighbours in sorted order: the automaton only has to
find candidates, the digest decides. That is what keeps a million entries at a few nodes each.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from urlward.engine.digest import SEGMENT_LETTERS, Key
from urlward.engine.entry import Entry, Kind
from urlward.engine.record import (
    MARKER,
    PAGE_KINDS,
    Flag,
    Pool,
    Shape,
    below_text,
    domain_letters,
    domain_text,
    host_letters,
    host_text,
    labels_of,
    marker_text,
    name_letters,
    name_text,
    network_letters,
    network_text,
    page_text,
    param_text,
    path_letters,
    path_text,
    prefix_letters,
    prefix_text,
)

MAX_PATTERN = 255
"""Letters of a pattern at most: pyahocorasick frees a trie by recursion, one frame a letter.
Entries that agree in as many share a pattern and are told apart by their digests alone."""

MAX_LENGTH = 0xFFFF
"""Labels or segments an entry may have; a URL of 64 KiB cannot have more."""


class Row(NamedTuple):
    """One record while compiling, in sort order."""

    letters: str
    digest: bytes
    shape: int
    length: int
    below: bytes
    more: tuple[bytes, ...]
    id: str


class Pattern(NamedTuple):
    """What the automaton holds for one or more rows.

    Attributes:
        letters: the pattern.
        row: index of its first row in its pool.
        shared: how many letters it begins with that the pattern before it has too.
    """

    letters: str
    row: int
    shared: int


class Compiled(NamedTuple):
    """A compiled list, not yet serialised.

    Attributes:
        rows: by pool, sorted by letters and digest.
        patterns: by pool, sorted.
        shapes: what `Row.shape` points to.
        categories: what `Shape.category` points to; the first is empty.
        networks: addresses and networks in CIDR form, to be sealed.
        counts: entries by kind, `allow` in front where they allow.
        by_category: entries by category.
        duplicates: entries left out because an equal one was there.
    """

    rows: tuple[list[Row], list[Row]]
    patterns: tuple[list[Pattern], list[Pattern]]
    shapes: list[Shape]
    categories: list[str]
    networks: list[str]
    counts: Counter[str]
    by_category: Counter[str]
    duplicates: int


class Compiler:
    """Takes entries one by one, gives the compiled list at the end and keeps none of their text.

    Args:
        key: the key that all digests are made under.
    """

    def __init__(self, key: Key) -> None:
        # The tokens it remembers are words of entries, which must not live on in the caller's key.
        self._key = key.fresh()
        self._rows: tuple[list[Row], list[Row]] = ([], [])
        self._shapes: dict[tuple[int, int, int, int, int], int] = {}
        self._categories: dict[str, int] = {"": 0}
        self._networks: dict[str, None] = {}
        self._params: list[Entry] = []
        self._markers: set[str] = set()

    def __len__(self) -> int:
        """Entries taken so far."""
        return len(self._rows[0]) + len(self._rows[1]) + len(self._params)

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        kind = entry.kind
        if kind is Kind.PARAMS:
            # Which parameter finds the entry is settled when all of a page's entries are known.
            self._params.append(entry)
            return
        key = self._key
        below = b"\0\0\0\0"
        pool = Pool.ANCHORED
        if kind is Kind.DOMAIN:
            labels = labels_of(entry.host)
            letters, text, length = domain_letters(key, labels), domain_text(entry.host), len(labels)
        elif kind is Kind.PAGE:
            letters = host_letters(key, labels_of(entry.host)) + path_letters(key, entry.path)
            text, length = page_text(entry.host, entry.path), 0
        elif kind is Kind.PREFIX:
            letters = host_letters(key, labels_of(entry.host)) + prefix_letters(key, entry.path)
            text, length = prefix_text(entry.host, entry.path), entry.path.count("/") - 1
        elif kind is Kind.HOST:
            letters, text, length = host_letters(key, labels_of(entry.host)), host_text(entry.host), 0
        elif kind is Kind.NAME:
            labels = entry.host.split(".")[::-1]
            letters, text, length = name_letters(key, labels), name_text(entry.host), len(labels)
        elif kind is Kind.PATH:
            pool = Pool.FLOATING
            letters, text = prefix_letters(key, entry.path), path_text(entry.path)
            length = entry.path.count("/") - 1
        else:
            self._networks[entry.host] = None
            letters, text = network_letters(key, entry.host), network_text(entry.host)
            length = int(entry.host.rpartition("/")[2])
        if kind in PAGE_KINDS:
            below = key.digest(below_text(entry.host))[:4]
            self._mark(entry)
        self._append(pool, letters, text, entry, length, below)

    def finish(self, progress: Callable[[int], None] = lambda _: None) -> Compiled:
        """Sort, cut the patterns and settle the parameter entries.

        Args:
            progress: called with the number of rows done, now and then.
        """
        self._add_params()
        for domain in self._markers:
            letters = domain_letters(self._key, labels_of(domain))[:MAX_PATTERN]
            marker = self._shape((MARKER, 0, 0, 0, 0))
            digest = self._key.digest(marker_text(domain))
            row = Row(letters, digest, marker, domain.count(".") + 1, b"\0\0\0\0", (), "")
            self._rows[Pool.ANCHORED].append(row)
        self._markers = set()
        shapes = [Shape(*shape) for shape in self._shapes]
        counts: Counter[str] = Counter()
        by_category: Counter[str] = Counter()
        categories = list(self._categories)
        duplicates = 0
        pools: list[list[Row]] = []
        patterns: list[list[Pattern]] = []
        done = 0
        for pool in Pool:
            rows = self._rows[pool]
            rows.sort()
            unique = list(_unique(rows))
            duplicates += len(rows) - len(unique)
            rows.clear()
            for number, times in Counter([row.shape for row in unique]).items():
                shape = shapes[number]
                if shape.kind != MARKER:
                    counts[("allow " if shape.allow else "") + Kind(shape.kind).label] += times
                    by_category[categories[shape.category]] += times
            pools.append(unique)
            cut: list[Pattern] = []
            for pattern in _cut(unique, SEGMENT_LETTERS if pool is Pool.FLOATING else 1):
                cut.append(pattern)
                if not len(cut) & 0x3FFF:
                    progress(done + pattern.row)
            done += len(unique)
            progress(done)
            patterns.append(cut)
        listed = sorted(self._networks)
        self._networks = {}
        self._key = self._key.fresh()
        return Compiled(
            (pools[0], pools[1]),
            (patterns[0], patterns[1]),
            shapes,
            categories,
            listed,
            counts,
            by_category,
            duplicates,
        )

    def _mark(self, entry: Entry) -> None:
        if entry.subdomains:
            self._markers.add(entry.host)

    def _append(
        self,
        pool: Pool,
        letters: str,
        text: str,
        entry: Entry,
        length: int,
        below: bytes,
        more: tuple[bytes, ...] = (),
    ) -> None:
        flags = (
            (Flag.ALLOW if entry.allow else 0)
            | (Flag.NOCASE if entry.nocase else 0)
            | (Flag.SUBDOMAINS if entry.subdomains else 0)
            | (Flag.SEVERAL_PARAMS if more else 0)
        )
        category = self._categories.setdefault(entry.category, len(self._categories))
        shape = self._shape((int(entry.kind), flags, category, entry.expires, entry.port))
        digest = self._key.digest(text)
        # Cut here, so that rows which share a pattern are sorted by digest.
        letters = letters[:MAX_PATTERN]
        self._rows[pool].append(Row(letters, digest, shape, min(length, MAX_LENGTH), below, more, entry.id))

    def _shape(self, shape: tuple[int, int, int, int, int]) -> int:
        return self._shapes.setdefault(shape, len(self._shapes))

    def _add_params(self) -> None:
        key = self._key
        # The rarest parameter finds the entry: of `view=1&id=7`, the one that the page's other
        # entries do not share.
        frequency = Counter((e.host, e.path, p) for e in self._params for p in e.params)
        for entry in self._params:
            host, path = entry.host, entry.path
            first, *others = sorted(entry.params, key=lambda p: (frequency[host, path, p], p))
            letters = host_letters(key, labels_of(host)) + path_letters(key, path)
            below = key.digest(below_text(host))[:4]
            more = tuple(key.digest(param_text(host, path, p)) for p in others)
            self._mark(entry)
            self._append(Pool.ANCHORED, letters, param_text(host, path, first), entry, 0, below, more)
        self._params = []


def _unique(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave out rows that say the same; of several ids the last in order stays, so any before none."""
    last = None
    for row in rows:
        if last is not None and (row.digest != last.digest or row[:-1] != last[:-1]):
            yield last
        last = row
    if last is not None:
        yield last


def _cut(rows: list[Row], granularity: int) -> Iterator[Pattern]:
    """The shortest prefixes that tell rows' letters apart, in multiples of `granularity` letters.

    Floating patterns keep whole tokens, since every segment of every request is tried on them.
    """
    shared_before = 0
    start = 0
    for index in range(1, len(rows) + 1):
        current = rows[start].letters
        following = rows[index].letters if index < len(rows) else ""
        if following == current and index < len(rows):
            continue
        shared_after = _common(current, following)
        need = max(shared_before, shared_after) + 1
        need += -need % granularity
        yield Pattern(current[:need], start, shared_before)
        shared_before, start = shared_after, index


def _common(a: str, b: str) -> int:
    """Length of the common prefix."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        low += 1
    return low
