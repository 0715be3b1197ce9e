"""Compiler: entries to the flat form that an artifact stores and a matcher loads.

A pattern is the shortest beginning that few entries have: the automaton only has to find candidates, the
digest decides. That is what keeps a million entries at a fraction of a node each.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice, zip_longest
from operator import attrgetter, eq
from typing import Any, NamedTuple
from zlib import crc32

from urlward.engine.digest import SEGMENT_LETTERS, Key, mark_of
from urlward.engine.entry import PDQ, Entry, Kind
from urlward.engine.perceptual import record
from urlward.engine.record import (
    MARKER,
    PAGE_KINDS,
    Flag,
    PatternSet,
    Shape,
    below_digest,
    domain_letters,
    domain_text,
    file_text,
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
    path_text,
    prefix_letters,
    prefix_text,
)
from urlward.engine.sieve import write_sieve
from urlward.engine.url import is_address

MAX_PATTERN = 255
"""Letters of a pattern at most: pyahocorasick frees a trie by recursion, one frame a letter.
Entries that agree in as many share a pattern and are told apart by their digests alone."""

BUCKET = 32
"""Entries of unlike letters that share a pattern, at most. Nodes cost more than looking at some rows more."""

MAX_LENGTH = 0xFFFF
"""Labels or segments an entry may have; a URL of 64 KiB cannot have more."""


_NOWHERE = bytes(4)
_ID = 5
_CHUNK = 1 << 12
_MOST_PLACES = 1 << 16
_BEHIND_ALL = "\u0100"  # letters are Latin-1


class Row(NamedTuple):
    """One record while compiling; those of one pattern are in this order.

    Attributes:
        digest: of its text.
        shape: number of its shape.
        length: see `RowTable.lengths`.
        below: 4 bytes that say which host it is on.
        more: digests of further parameters.
        id: the list body's reference.
        letters: that begin the haystack of each request it matches. Of an entry on a host they are that
            host's: of its pages, the digest finds the one.
    """

    digest: bytes
    shape: int
    length: int
    below: bytes
    more: tuple[bytes, ...]
    id: str
    letters: str


class Pattern(NamedTuple):
    """Pattern of the automaton, which leads to one or more rows.

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
    """A pool's patterns, column by column: many small objects cost time to make and to free."""

    letters: list[str] = field(default_factory=list)
    rows: "array[int]" = field(default_factory=lambda: array("I"))
    shared: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self.letters)

    def __iter__(self) -> Iterator[Pattern]:
        return map(Pattern, self.letters, self.rows, self.shared)

    def add(self, letters: str, row: int) -> None:
        """Add a pattern behind those that sort before it, and the first row of its group."""
        self.shared.append(_common(self.letters[-1], letters) if self.letters else 0)
        self.letters.append(letters)
        self.rows.append(row)


@dataclass(slots=True)
class Rows:
    """A pool's rows in order, column by column, as an artifact stores them."""

    digests: list[bytes] = field(default_factory=list)
    shapes: "array[int]" = field(default_factory=lambda: array("I"))
    lengths: "array[int]" = field(default_factory=lambda: array("H"))
    below: list[bytes] = field(default_factory=list)
    more: list[tuple[bytes, ...]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Rows":
        """Rows as columns."""
        made = cls()
        columns = made._columns()
        # Some at a time: a row is nowhere near the one before it in memory, and to visit it costs most.
        for start in range(0, len(rows), _CHUNK):
            for column, values in zip(columns, zip(*rows[start : start + _CHUNK], strict=True), strict=True):
                column.extend(values)
        return made

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[Row]:
        return map(Row, *self._columns())

    def _columns(self) -> tuple[Any, ...]:
        return (
            self.digests,
            self.shapes,
            self.lengths,
            self.below,
            self.more,
            self.ids,
            self.letters,
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
        columns = self._columns()
        rows = sorted(zip(*(column[start:end] for column in columns), strict=True))
        for at, row in enumerate(rows, start):
            for column, value in zip(columns, row, strict=True):
                column[at] = value


class FilePool(IntEnum):
    """The parts that the rows of files are stored in, in order."""

    EXACT = 0  # blocked and excused
    LISTED = 1  # PDQ digests that pictures are compared with
    EXCUSED = 2  # PDQ digests of exceptions, which excuse the same listed digest


class FileRow(NamedTuple):
    """One file entry; an artifact has them in this order.

    Attributes:
        pool: a `FilePool`.
        mark: the keyed digest's first 8 bytes as a number: rows are found by it.
        digest: keyed, of its text.
        shape: number of its shape.
        record: what is sealed of a PDQ digest that blocks; empty of others.
        id: the list body's reference.
        algorithm: one of `urlward.engine.entry.ALGORITHMS`.
    """

    pool: int
    mark: int
    digest: bytes
    shape: int
    record: bytes
    id: str
    algorithm: str


class CompiledFiles(NamedTuple):
    """File entries of a compiled list.

    Attributes:
        rows: in order, without duplicates.
        shapes: what `FileRow.shape` points to.
        algorithms: for each algorithm its entries that block, and those that excuse.
    """

    rows: list[FileRow]
    shapes: list[Shape]
    algorithms: dict[str, list[int]]


class Compiled(NamedTuple):
    """A compiled list, not yet serialised.

    Attributes:
        rows: by pool, in the order of their patterns and of `Row`.
        patterns: by pool, sorted.
        shapes: what `Row.shape` points to.
        categories: what `Shape.category` points to; the first is empty.
        networks: addresses and networks in CIDR form, to be sealed.
        sieve: what `urlward.engine.sieve` makes of the entries, likewise.
        counts: entries by kind, `allow` in front where they allow.
        by_category: entries by category.
        duplicates: entries left out because an equal one was there.
        files: the entries of kind FILE, which are among no rows.
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
    files: CompiledFiles


class Compiler:
    """Takes entries one by one, gives the compiled list at the end and keeps none of their text then.

    Args:
        key: the key that all digests are made under.
    """

    def __init__(self, key: Key) -> None:
        # The tokens it remembers are words of entries, which must not live on in the caller's key.
        self._key = key.fresh()
        self._rows: tuple[list[Row], list[Row]] = ([], [])
        self._shapes: dict[tuple[int, int, int, int, int], int] = {}
        self._shape_of: dict[tuple[object, ...], int] = {}
        self._files: list[FileRow] = []
        self._file_shapes: dict[tuple[int, int, int, int, int], int] = {}
        self._categories: dict[str, int] = {"": 0}
        self._networks: dict[str, None] = {}
        self._params: list[Entry] = []
        self._markers: set[str] = set()
        self._places: dict[str, tuple[str, bytes]] = {}
        self._sieve_hosts = array("I")
        self._sieve_names: set[int] = set()
        self._sieve_segments: set[int] = set()

    def __len__(self) -> int:
        """Entries taken so far."""
        return len(self._rows[0]) + len(self._rows[1]) + len(self._params) + len(self._files)

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        kind, host, path, _, _, _, _, _, _, _, subdomains, _ = entry
        if kind is Kind.FILE:
            self._add_file(entry)
            return
        if (kind is Kind.PARAMS or kind in PAGE_KINDS) and is_address(host):
            # No name leads there: who asks for the page goes straight to the address.
            self._networks[host.strip("[]")] = None
        if kind is Kind.PARAMS:
            # Which parameter finds the entry is settled when all of a page's entries are known.
            self._params.append(entry)
            return
        key = self._key
        pool, below = 0, _NOWHERE
        if kind is Kind.DOMAIN:
            labels = labels_of(host)
            letters, text, length = domain_letters(key, labels), domain_text(host), len(labels)
        elif kind is Kind.PAGE:
            letters, below = self._place(host, subdomains)
            text, length = page_text(host, path), 0
        elif kind is Kind.PREFIX:
            letters, below = self._place(host, subdomains)
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
            row = Row(digest, marker, domain.count(".") + 1, _NOWHERE, (), "", letters)
            self._rows[PatternSet.ANCHORED].append(row)
        self._markers = set()
        categories, taken = sorted(self._categories), len(self._files)  # the empty one first
        shapes, numbers = _numbered(self._shapes, list(self._categories), categories)
        files = self._finish_files(*_numbered(self._file_shapes, list(self._categories), categories))
        counts: Counter[str] = Counter()
        by_category: Counter[str] = Counter()
        duplicates = taken - len(files.rows)
        pools: list[Rows] = []
        patterns: list[Patterns] = []
        done = 0
        for pool in PatternSet:

            def tell(row: int, before: int = done) -> None:
                progress(before + row)

            rows = _without_duplicates(self._rows[pool])
            duplicates += len(self._rows[pool]) - len(rows)
            self._rows[pool].clear()
            rows.sort(key=_letters)
            cut = Patterns()
            step, most = (SEGMENT_LETTERS, 1) if pool is PatternSet.FLOATING else (1, BUCKET)
            for length, start, end in _cut(list(map(_letters, rows)), step, most):
                cut.add(rows[start].letters[:length], start)
                if end - start > 1:
                    rows[start:end] = sorted(rows[start:end])
                if not len(cut) & 0x3FFF:
                    tell(start)
            unique = Rows.of(rows)
            del rows
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
        for number, times in Counter(row.shape for row in files.rows).items():
            shape = files.shapes[number]
            counts[("allow " if shape.allow else "") + Kind.FILE.label] += times
            by_category[categories[shape.category]] += times
        listed = sorted(self._networks)
        self._networks = {}
        sieve = write_sieve(self._sieve_hosts, self._sieve_names, self._sieve_segments)
        self._key = self._key.fresh()
        self._places = {}
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
            files,
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
        kind, _, _, _, allow, id_, category, expires, port, nocase, subdomains, _ = entry
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
        row = (
            self._key.digest(text),
            shape,
            min(length, MAX_LENGTH),
            below,
            more,
            id_,
            letters[:MAX_PATTERN],
        )
        # A named tuple's own constructor takes twice as long, a million times over.
        self._rows[pool].append(tuple.__new__(Row, row))

    def _add_file(self, entry: Entry) -> None:
        algorithm, allow = entry.host, entry.allow
        pool, kept = FilePool.EXACT, b""
        if algorithm == PDQ:
            pool = FilePool.EXCUSED if allow else FilePool.LISTED
            kept = b"" if allow else record(bytes.fromhex(entry.path), entry.distance)
        number = self._categories.setdefault(entry.category, len(self._categories))
        look = (int(Kind.FILE), Flag.ALLOW if allow else 0, number, entry.expires, 0)
        shape = self._file_shapes.setdefault(look, len(self._file_shapes))
        digest = self._key.digest(file_text(algorithm, entry.path))
        row = (pool, mark_of(digest), digest, shape, kept, entry.id, algorithm)
        self._files.append(tuple.__new__(FileRow, row))

    def _finish_files(self, shapes: list[Shape], numbers: Sequence[int]) -> CompiledFiles:
        # A named tuple's own constructor takes twice as long, a million times over.
        rows: list[FileRow] = sorted(
            tuple.__new__(FileRow, (*row[:_FILE_SHAPE], numbers[row.shape], *row[_FILE_SHAPE + 1 :]))
            for row in self._files
        )
        self._files = []
        # Of some that differ in their ids alone the last stays.
        behind = islice(rows, 1, None)
        unique = [row for row, after in zip_longest(rows, behind) if not after or _said(row) != _said(after)]
        algorithms: dict[str, list[int]] = {}
        for row in unique:
            algorithms.setdefault(row.algorithm, [0, 0])[shapes[row.shape].allow] += 1
        return CompiledFiles(unique, shapes, dict(sorted(algorithms.items())))

    def _place(self, host: str, subdomains: bool) -> tuple[str, bytes]:
        """Letters of a host that a page is on, and which it is; many have more than one."""
        if subdomains:
            self._markers.add(host)
        place = self._places.get(host)
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            key = self._key
            place = self._places[host] = (host_letters(key, labels_of(host)), below_digest(key, host))
        return place

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
            letters, below = self._place(host, entry.subdomains)
            more = tuple(key.digest(param_text(host, path, p)) for p in others)
            self._sieve_hosts.append(crc32(host.encode()))
            self._append(PatternSet.ANCHORED, letters, param_text(host, path, first), entry, 0, below, more)
        self._params = []


def _numbered(
    shapes: Iterable[tuple[int, int, int, int, int]], names: Sequence[str], categories: Sequence[str]
) -> tuple[list[Shape], list[int]]:
    """Shapes in an order independent of that of the entries, so that the artifacts of nearly equal lists are
    nearly equal; and the new number of each.

    Args:
        shapes: with the numbers of categories in `names`.
        names: of the categories, as they came.
        categories: the same in the order that they get.
    """
    of_category = {name: number for number, name in enumerate(categories)}
    found = [Shape(*shape)._replace(category=of_category[names[shape[2]]]) for shape in shapes]
    sorted_shapes = sorted(found)
    of_shape = {shape: number for number, shape in enumerate(sorted_shapes)}
    return sorted_shapes, [of_shape[shape] for shape in found]


_letters, _digest = attrgetter("letters"), attrgetter("digest")
_said = attrgetter("pool", "digest", "shape", "record")
_FILE_SHAPE = FileRow._fields.index("shape")


def _without_duplicates(rows: list[Row]) -> list[Row]:
    """Rows without those that say the same: of some that differ in their ids alone the last in order stays,
    so any before none."""
    if len(set(map(_digest, rows))) == len(rows):
        return rows.copy()
    unique: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        said = row[:_ID]
        if said not in unique or unique[said].id < row.id:
            unique[said] = row
    return list(unique.values())


def _cut(texts: Sequence[str], step: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Cut sorted texts into groups that share a beginning.

    Args:
        texts: sorted.
        step: a beginning has a multiple of so many letters, unless it is all of a text.
        most: texts in a group, unless they are equal.

    Yields:
        The length of the beginning, the group's first text and the one behind its last, in order.
    """
    todo = [(0, len(texts), 0)] if texts else []
    while todo:
        start, end, length = todo.pop()
        if length and end - start <= most:
            yield length, start, end
            continue
        first = texts[start]
        common = _common(first, texts[end - 1])
        length = max(length, common - common % step)
        if length and len(first) <= length:
            # What ends here comes first, and is all that ends here.
            group, start = start, bisect_right(texts, first, start, end)
            yield length, group, start
        parts = []
        while start < end:
            beginning = texts[start][: length + step]
            behind = start + 1
            if start + most < end and texts[start + most].startswith(beginning):
                behind = bisect_left(texts, beginning + _BEHIND_ALL, start + most, end)
            else:
                while behind < end and texts[behind].startswith(beginning):
                    behind += 1
            parts.append((start, behind, length + step))
            start = behind
        todo.extend(reversed(parts))


def _common(text: str, other: str) -> int:
    """Length of the common prefix of two texts."""
    length = 0
    for x, y in zip(text, other, strict=False):
        if x != y:
            break
        length += 1
    return length
