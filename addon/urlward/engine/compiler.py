"""Entries to the flat form that an artifact stores and a matcher loads.

Patterns are cut where they differ from their neighbours in sorted order: the automaton only has to
find candidates, the digest decides. That is what keeps a million entries at a few nodes each.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import eq
from typing import Any, NamedTuple
from zlib import crc32

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
from urlward.engine.sieve import write_sieve
from urlward.engine.url import is_address

MAX_PATTERN = 255
"""Letters of a pattern at most: pyahocorasick frees a trie by recursion, one frame a letter.
Entries that agree in as many share a pattern and are told apart by their digests alone."""

MAX_LENGTH = 0xFFFF
"""Labels or segments an entry may have; a URL of 64 KiB cannot have more."""


_NOWHERE = bytes(4)


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


@dataclass(slots=True)
class Patterns:
    """A pool's patterns, column by column: a million small objects cost a second to make and to free."""

    letters: list[str] = field(default_factory=list)
    rows: "array[int]" = field(default_factory=lambda: array("I"))
    shared: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self.letters)

    def __iter__(self) -> Iterator[Pattern]:
        return map(Pattern, self.letters, self.rows, self.shared)

    def add(self, letters: str, row: int, before: int, after: int, granularity: int) -> None:
        """Add the shortest prefix that differs from both neighbours.

        Args:
            letters: of the row.
            row: the group's first.
            before: letters shared with the row before.
            after: letters shared with the one behind.
            granularity: the prefix has a multiple of so many letters.
        """
        need = (before if before > after else after) + 1
        if granularity > 1:
            need += -need % granularity
        self.letters.append(letters[:need])
        self.rows.append(row)
        self.shared.append(before)


@dataclass(slots=True)
class Rows:
    """A pool's rows in order, column by column, as an artifact stores them."""

    letters: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    shapes: "array[int]" = field(default_factory=lambda: array("I"))
    lengths: "array[int]" = field(default_factory=lambda: array("H"))
    below: list[bytes] = field(default_factory=list)
    more: list[tuple[bytes, ...]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[Row]:
        return map(
            Row, self.letters, self.digests, self.shapes, self.lengths, self.below, self.more, self.ids
        )

    def renumber(self, numbers: Sequence[int]) -> None:
        """Give each row the shape that stands in `numbers` at its present one, and keep the order by it."""
        self.shapes = array("I", map(numbers.__getitem__, self.shapes))
        digests = self.digests
        done = 0
        # Rows of one digest stand together, and are few.
        for start in [at for at, same in enumerate(map(eq, digests, islice(digests, 1, None))) if same]:
            if start >= done:
                done = start + 2
                while done < len(digests) and digests[done] == digests[start]:
                    done += 1
                self._sort(start, done)

    def _sort(self, start: int, end: int) -> None:
        columns: tuple[Any, ...] = (
            self.letters,
            self.digests,
            self.shapes,
            self.lengths,
            self.below,
            self.more,
            self.ids,
        )
        rows = sorted(zip(*(column[start:end] for column in columns), strict=True))
        for at, row in enumerate(rows, start):
            for column, value in zip(columns, row, strict=True):
                column[at] = value


class Compiled(NamedTuple):
    """A compiled list, not yet serialised.

    Attributes:
        rows: by pool, sorted by letters and digest.
        patterns: by pool, sorted.
        shapes: what `Row.shape` points to.
        categories: what `Shape.category` points to; the first is empty.
        networks: addresses and networks in CIDR form, to be sealed.
        sieve: what `urlward.engine.sieve` makes of the entries, likewise.
        counts: entries by kind, `allow` in front where they allow.
        by_category: entries by category.
        duplicates: entries left out because an equal one was there.
    """

    rows: tuple[Rows, Rows]
    patterns: tuple[Patterns, Patterns]
    shapes: list[Shape]
    categories: list[str]
    networks: list[str]
    sieve: bytes
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
        self._shape_of: dict[tuple[object, ...], int] = {}
        self._categories: dict[str, int] = {"": 0}
        self._networks: dict[str, None] = {}
        self._params: list[Entry] = []
        self._markers: set[str] = set()
        self._last_host = ""
        self._last_below = _NOWHERE
        self._sieve_hosts = array("I")
        self._sieve_names: set[int] = set()
        self._sieve_segments: set[int] = set()

    def __len__(self) -> int:
        """Entries taken so far."""
        return len(self._rows[0]) + len(self._rows[1]) + len(self._params)

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        kind, host, path, _, _, _, _, _, _, _, subdomains = entry
        if (kind is Kind.PARAMS or kind in PAGE_KINDS) and is_address(host):
            # No name leads there: who asks for the page goes straight to the address.
            self._networks[host.strip("[]")] = None
        if kind is Kind.PARAMS:
            # Which parameter finds the entry is settled when all of a page's entries are known.
            self._params.append(entry)
            return
        key = self._key
        below = _NOWHERE
        pool = 0
        if kind is Kind.DOMAIN:
            labels = labels_of(host)
            letters, text, length = domain_letters(key, labels), domain_text(host), len(labels)
        elif kind is Kind.PAGE:
            letters = host_letters(key, labels_of(host)) + path_letters(key, path)
            text, length = page_text(host, path), 0
        elif kind is Kind.PREFIX:
            letters = host_letters(key, labels_of(host)) + prefix_letters(key, path)
            text, length = prefix_text(host, path), path.count("/") - 1
        elif kind is Kind.HOST:
            letters, text, length = host_letters(key, labels_of(host)), host_text(host), 0
        elif kind is Kind.NAME:
            labels = host.split(".")[::-1]
            letters, text, length = name_letters(key, labels), name_text(host), len(labels)
            self._sieve_names.add(crc32(labels[0].encode("latin-1")))
        elif kind is Kind.PATH:
            pool = 1
            letters, text, length = prefix_letters(key, path), path_text(path), path.count("/") - 1
            self._sieve_segments.add(crc32(path[1:].partition("/")[0].encode("latin-1")))
        else:
            self._networks[host] = None
            letters, text = network_letters(key, host), network_text(host)
            length = int(host.rpartition("/")[2])
        if kind in PAGE_KINDS:
            below = self._below(host)
            if subdomains:
                self._markers.add(host)
        if kind >= Kind.DOMAIN:
            self._sieve_hosts.append(crc32(host.encode()))
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
            row = Row(letters, digest, marker, domain.count(".") + 1, _NOWHERE, (), "")
            self._rows[Pool.ANCHORED].append(row)
        self._markers = set()
        shapes, categories, numbers = _numbered(self._shapes, self._categories)
        counts: Counter[str] = Counter()
        by_category: Counter[str] = Counter()
        duplicates = 0
        pools: list[Rows] = []
        patterns: list[Patterns] = []
        done = 0
        for pool in Pool:
            rows = self._rows[pool]
            rows.sort()

            def tell(row: int, before: int = done) -> None:
                progress(before + row)

            unique, cut = _cut(rows, SEGMENT_LETTERS if pool is Pool.FLOATING else 1, tell)
            duplicates += len(rows) - len(unique)
            rows.clear()
            unique.renumber(numbers)
            for number, times in Counter(unique.shapes).items():
                shape = shapes[number]
                if shape.kind != MARKER:
                    counts[("allow " if shape.allow else "") + Kind(shape.kind).label] += times
                    by_category[categories[shape.category]] += times
            pools.append(unique)
            patterns.append(cut)
            done += len(unique)
            progress(done)
        listed = sorted(self._networks)
        self._networks = {}
        sieve = write_sieve(self._sieve_hosts, self._sieve_names, self._sieve_segments)
        self._key = self._key.fresh()
        self._last_host = ""
        return Compiled(
            (pools[0], pools[1]),
            (patterns[0], patterns[1]),
            shapes,
            categories,
            listed,
            sieve,
            counts,
            by_category,
            duplicates,
        )

    def _append(
        self,
        pool: int,
        letters: str,
        text: str,
        entry: Entry,
        length: int,
        below: bytes,
        more: tuple[bytes, ...] = (),
    ) -> None:
        kind, _, _, _, allow, id_, category, expires, port, nocase, subdomains = entry
        look: tuple[object, ...] = (kind, category)
        if allow or nocase or subdomains or expires or port or more:
            look = (kind, category, allow, nocase, subdomains, expires, port, not more)
        shape = self._shape_of.get(look)
        if shape is None:
            flags = (
                (Flag.ALLOW if allow else 0)
                | (Flag.NOCASE if nocase else 0)
                | (Flag.SUBDOMAINS if subdomains else 0)
                | (Flag.SEVERAL_PARAMS if more else 0)
            )
            number = self._categories.setdefault(category, len(self._categories))
            shape = self._shape_of[look] = self._shape((int(kind), flags, number, expires, port))
        # Cut here, so that rows which share a pattern are sorted by digest.
        row = (
            letters[:MAX_PATTERN],
            self._key.digest(text),
            shape,
            min(length, MAX_LENGTH),
            below,
            more,
            id_,
        )
        # A named tuple's own constructor takes twice as long, a million times over.
        self._rows[pool].append(tuple.__new__(Row, row))

    def _below(self, host: str) -> bytes:
        """Which host a page is on; lists name the pages of one host together."""
        if host != self._last_host:
            self._last_host, self._last_below = host, self._key.digest(below_text(host))[:4]
        return self._last_below

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
            below = self._below(host)
            more = tuple(key.digest(param_text(host, path, p)) for p in others)
            if entry.subdomains:
                self._markers.add(host)
            self._sieve_hosts.append(crc32(host.encode()))
            self._append(Pool.ANCHORED, letters, param_text(host, path, first), entry, 0, below, more)
        self._params = []


def _numbered(
    shapes: Iterable[tuple[int, int, int, int, int]], categories: Iterable[str]
) -> tuple[list[Shape], list[str], list[int]]:
    """Shapes and categories in an order that does not hang on that of the entries, so that the artifacts of
    nearly equal lists are nearly equal; and the new number of each shape."""
    names = list(categories)
    sorted_names = sorted(names)  # the empty one first
    of_category = {name: number for number, name in enumerate(sorted_names)}
    found = [Shape(*shape)._replace(category=of_category[names[shape[2]]]) for shape in shapes]
    sorted_shapes = sorted(found)
    of_shape = {shape: number for number, shape in enumerate(sorted_shapes)}
    return sorted_shapes, sorted_names, [of_shape[shape] for shape in found]


def _cut(rows: list[Row], granularity: int, progress: Callable[[int], None]) -> tuple[Rows, Patterns]:
    """Sorted rows without those that say the same, and the shortest prefixes that tell letters apart.

    Of rows that differ in their ids alone the last in order stays, so any before none. A prefix has a
    multiple of `granularity` letters: floating patterns keep whole tokens, since every segment of a
    request may be tried on them.
    """
    unique, patterns = Rows(), Patterns()
    texts, digests, shapes, lengths = unique.letters, unique.digests, unique.shapes, unique.lengths
    belows, mores, ids = unique.below, unique.more, unique.ids
    last: Row | None = None
    current = ""
    start = before = 0
    for row in rows:
        letters, digest, shape, length, below, more, id_ = row
        if last is not None and digest == last[1] and row[:-1] == last[:-1]:
            ids[-1] = id_
            last = row
            continue
        if letters != current:
            if last is not None:
                # Letters that neighbours share, counted here for want of a faster call.
                after = 0
                for x, y in zip(current, letters, strict=False):
                    if x != y:
                        break
                    after += 1
                patterns.add(current, start, before, after, granularity)
                before = after
            current, start = letters, len(digests)
            if not len(patterns) & 0x3FFF:
                progress(start)
        # All at once: a row is nowhere near the one before it in memory, and to visit it costs most.
        texts.append(letters)
        digests.append(digest)
        shapes.append(shape)
        lengths.append(length)
        belows.append(below)
        mores.append(more)
        ids.append(id_)
        last = row
    if last is not None:
        patterns.add(current, start, before, 0, granularity)
    return unique, patterns
