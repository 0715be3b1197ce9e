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
from functools import partial
from itertools import islice, zip_longest
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple
from zlib import crc32

from urlward.engine.digest import HOST_END, SEGMENT_LETTERS, Key, mark_of
from urlward.engine.entry import PDQ, Entry, Kind
from urlward.engine.perceptual import record
from urlward.engine.record import (
    BEGINNINGS,
    MARKER,
    Flag,
    PatternSet,
    Shape,
    below_digest,
    domain_letters,
    file_text,
    labels_of,
    marker_text,
    name_letters,
    network_letters,
    param_text,
    prefix_letters,
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
_ID: Final = 5
_CHUNK = 1 << 12
_MOST_PLACES = 1 << 16
_BEHIND_ALL = "\u0100"  # letters are Latin-1


type _Row = tuple[bytes, int, int, bytes, tuple[bytes, ...], str, str]
"""A `Row` without its names: to make a million of these takes a third of the time."""


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
    def of(cls, rows: Sequence[_Row]) -> "Rows":
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
        self._begun = {kind: key.begun(beginning) for kind, beginning in BEGINNINGS.items()}
        self._rows: tuple[list[_Row], list[_Row]] = ([], [])
        self._shapes: dict[tuple[int, int, int, int, int], int] = {}
        self._shape_of: dict[tuple[object, ...], int] = {}
        self._files: list[FileRow] = []
        self._file_shapes: dict[tuple[int, int, int, int, int], int] = {}
        self._categories: dict[str, int] = {"": 0}
        self._networks: dict[str, None] = {}
        self._params: list[Entry] = []
        self._markers: set[str] = set()
        self._above: dict[str, str] = {}
        self._places: dict[str, tuple[str, bytes, int]] = {}
        self._sieve_hosts = array("I")
        self._sieve_names: set[int] = set()
        self._sieve_segments: set[int] = set()

    def __len__(self) -> int:
        """Entries taken so far."""
        return len(self._rows[0]) + len(self._rows[1]) + len(self._params) + len(self._files)

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        kind, host, path, _, allow, id_, category, expires, port, nocase, subdomains, _ = entry
        rows, below, length = self._rows[PatternSet.ANCHORED], _NOWHERE, 0
        if kind is Kind.DOMAIN:
            letters, length = self._domain(host), host.count(".") + 1
            self._sieve_hosts.append(crc32(host.encode()))
        elif kind is Kind.PAGE or kind is Kind.PREFIX:
            letters, below, value = self._places.get(host) or self._place(host)
            self._sieve_hosts.append(value)
            if subdomains:
                self._markers.add(host)
            if kind is Kind.PREFIX:
                length = path.count("/") - 1
        elif kind is Kind.HOST:
            letters = self._domain(host) + HOST_END
            self._sieve_hosts.append(crc32(host.encode()))
        elif kind is Kind.PARAMS:
            # Which parameter finds the entry is settled when all of a page's entries are known.
            self._params.append(entry)
            return
        elif kind is Kind.FILE:
            self._add_file(entry)
            return
        elif kind is Kind.NAME:
            labels = host.split(".")[::-1]
            letters, length = name_letters(self._key, labels), len(labels)
            self._sieve_names.add(crc32(labels[0].encode()))
        elif kind is Kind.PATH:
            rows = self._rows[PatternSet.FLOATING]
            letters, length = prefix_letters(self._key, path), path.count("/") - 1
            self._sieve_segments.add(crc32(path[1:].partition("/")[0].encode()))
        else:
            self._networks[host] = None
            letters, length = network_letters(self._key, host), int(host.rpartition("/")[2])
        look: tuple[object, ...] = (kind, category)
        if allow or nocase or subdomains or expires or port:
            look = (kind, category, allow, nocase, subdomains, expires, port)
        shape = self._shape_of.get(look)
        if shape is None:
            shape = self._shape_of[look] = self._shape(entry)
        if length > MAX_LENGTH:
            length = MAX_LENGTH
        # What is canonical is ASCII.
        digest = self._begun[kind]()
        digest.update((host + path).encode())
        rows.append((digest.digest(), shape, length, below, (), id_, letters[:MAX_PATTERN]))

    def finish(self, progress: Callable[[int], None] = lambda _: None) -> Compiled:
        """Sort, cut the patterns and settle the parameter entries.

        Args:
            progress: called with the number of rows done, now and then.
        """
        self._add_params()
        for domain in self._markers:
            letters = domain_letters(self._key, labels_of(domain))[:MAX_PATTERN]
            marker = self._shapes.setdefault((MARKER, 0, 0, 0, 0), len(self._shapes))
            digest, length = self._key.digest(marker_text(domain)), domain.count(".") + 1
            self._rows[PatternSet.ANCHORED].append((digest, marker, length, _NOWHERE, (), "", letters))
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
            rows = self._rows[pool]
            order: Callable[[_Row], Any] = _digest
            if len(set(map(_digest, rows))) < len(rows):
                taken, rows[:] = len(rows), _without_duplicates(rows)
                duplicates += taken - len(rows)
                order = partial(_in_order, numbers)
            rows.sort(key=_letters)
            texts = list(map(_letters, rows))
            cut = Patterns()
            step, most = (SEGMENT_LETTERS, 1) if pool is PatternSet.FLOATING else (1, BUCKET)
            for length, shared, start, end in _cut(texts, step, most):
                cut.letters.append(texts[start][:length])
                cut.rows.append(start)
                cut.shared.append(shared)
                if end - start > 1:
                    rows[start:end] = sorted(rows[start:end], key=order)
                if not len(cut) & 0x3FFF:
                    progress(done + start)
            unique = Rows.of(rows)
            rows.clear()
            del texts
            unique.shapes = array("I", map(numbers.__getitem__, unique.shapes))
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
        self._above, self._places = {}, {}
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

    def _shape(self, entry: Entry) -> int:
        """Number of what an entry has in common with others."""
        flags = (
            (Flag.ALLOW if entry.allow else 0)
            | (Flag.NOCASE if entry.nocase else 0)
            | (Flag.SUBDOMAINS if entry.subdomains else 0)
            | (Flag.SEVERAL_PARAMS if len(entry.params) > 1 else 0)
        )
        category = self._categories.setdefault(entry.category, len(self._categories))
        shape = int(entry.kind), flags, category, entry.expires, entry.port
        return self._shapes.setdefault(shape, len(self._shapes))

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

    def _domain(self, host: str) -> str:
        """Letters of a domain. Nearly all differ from others' in their first label alone."""
        label, dot, above = host.partition(".")
        letters = self._above.get(above)
        if letters is None:
            if not dot or is_address(host):
                return domain_letters(self._key, labels_of(host))
            if len(self._above) >= _MOST_PLACES:
                self._above.clear()
            letters = self._above[above] = domain_letters(self._key, labels_of(above))
        return letters + self._key.labels[label]

    def _place(self, host: str) -> tuple[str, bytes, int]:
        """Letters of a host that has pages, which it is, and its number in the sieve; many have several."""
        if is_address(host):
            # No name leads there: who asks for a page goes straight to the address.
            self._networks[host.strip("[]")] = None
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        place = self._domain(host) + HOST_END, below_digest(self._key, host), crc32(host.encode())
        self._places[host] = place
        return place

    def _add_params(self) -> None:
        key = self._key
        # The rarest parameter finds the entry: of `view=1&id=7`, the one that the page's other
        # entries do not share.
        several = {(entry.host, entry.path) for entry in self._params if len(entry.params) > 1}
        frequency = Counter(
            (e.host, e.path, p) for e in self._params if (e.host, e.path) in several for p in e.params
        )
        for entry in self._params:
            host, path = entry.host, entry.path
            first, *others = sorted(entry.params, key=lambda p: (frequency[host, path, p], p))
            letters, below, value = self._places.get(host) or self._place(host)
            if entry.subdomains:
                self._markers.add(host)
            self._sieve_hosts.append(value)
            digest, *more = (key.digest(param_text(host, path, p)) for p in (first, *others))
            row = digest, self._shape(entry), 0, below, tuple(more), entry.id, letters[:MAX_PATTERN]
            self._rows[PatternSet.ANCHORED].append(row)
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


_digest, _letters = itemgetter(0), itemgetter(6)
_said = attrgetter("pool", "digest", "shape", "record")
_FILE_SHAPE = FileRow._fields.index("shape")


def _in_order(numbers: Sequence[int], row: _Row) -> tuple[Any, ...]:
    """What rows of one pattern are sorted by, where some have one digest: with the number that their shape
    gets."""
    digest, shape, *rest = row
    return digest, numbers[shape], *rest


def _without_duplicates(rows: Iterable[_Row]) -> list[_Row]:
    """Rows without those that say the same: of some that differ in their ids alone the last in order stays,
    so any before none."""
    unique: dict[tuple[Any, ...], _Row] = {}
    for row in rows:
        said = row[:_ID]
        if said not in unique or unique[said][_ID] < row[_ID]:
            unique[said] = row
    return list(unique.values())


def _cut(texts: Sequence[str], step: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut sorted texts into groups that share a beginning.

    Args:
        texts: sorted.
        step: a beginning has a multiple of so many letters, unless it is all of a text.
        most: texts in a group, unless they are equal.

    Yields:
        In order, the length of the beginning, how much of it the group before shares, the group's first text
        and the one behind its last.
    """
    todo = [(0, len(texts), 0, 0)] if texts else []
    while todo:
        start, end, length, shared = todo.pop()
        if length and end - start <= most:
            yield length, shared, start, end
            continue
        first = texts[start]
        common = _common(first, texts[end - 1])
        length = max(length, common - common % step)
        if length and len(first) <= length:
            # What ends here comes first, and is all that ends here.
            group, start = start, bisect_right(texts, first, start, end)
            yield length, shared, group, start
            shared = length
        parts = []
        while start < end:
            beginning = texts[start][: length + step]
            behind = start + 1
            if start + most < end and texts[start + most].startswith(beginning):
                behind = bisect_left(texts, beginning + _BEHIND_ALL, start + most, end)
            else:
                while behind < end and texts[behind].startswith(beginning):
                    behind += 1
            parts.append((start, behind, length + step, shared))
            start = behind
            if start < end:
                shared = length if step == 1 else _common(beginning, texts[start])
        todo.extend(reversed(parts))


def _common(text: str, other: str) -> int:
    """Length of the common prefix of two texts."""
    length = 0
    for x, y in zip(text, other, strict=False):
        if x != y:
            break
        length += 1
    return length
