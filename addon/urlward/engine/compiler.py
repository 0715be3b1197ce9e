"""Compiler: entries to the flat form that an artifact stores and a matcher loads.

A pattern is the shortest beginning that few entries have: the automaton only has to find candidates, the
digest decides. That is what keeps a million entries at a fraction of a node each.
"""

import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain, islice, zip_longest
from operator import attrgetter
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from urlward.engine.digest import DIGEST_SIZE, HOST_END, SEGMENT_LETTERS, Key, mark_of
from urlward.engine.entry import PDQ, Entry, Kind
from urlward.engine.errors import UrlwardError
from urlward.engine.perceptual import record
from urlward.engine.record import (
    BEGINNINGS,
    MARKER,
    Flag,
    PatternSet,
    Shape,
    below_text,
    domain_letters,
    file_text,
    labels_of,
    marker_text,
    name_letters,
    network_letters,
    page_text,
    param_text,
    prefix_letters,
)
from urlward.engine.sieve import write_sieve
from urlward.engine.topics import page_by_number
from urlward.engine.url import is_address

MAX_PATTERN = 255
"""Letters of a pattern at most: pyahocorasick frees a trie by recursion, one frame a letter.
Entries that agree in as many share a pattern and are told apart by their digests alone."""

BUCKET = 32
"""Entries of unlike letters that share a pattern, at most. Nodes cost more than looking at some rows more."""

MOST_ALIKE = 1_000
"""Entries of one text, such as a host's for many ports. A request there looks at all of them, at some
microseconds each where it names a new subdomain, and meanwhile all others wait."""

MAX_LENGTH = 0xFFFF
"""Labels or segments an entry may have; a URL of 64 KiB cannot have more."""


_MOST_PLACES = 1 << 16
_BEHIND_ALL = "\u0100"  # letters are Latin-1

# While compiling a row is one text, whose characters are bytes: a million of more objects take long to make,
# to sort and to free. It has the letters that begin the haystack of each request that it matches, which of an
# entry on a host are that host's; `_END`, which is no letter but the first; and its *tail*, `_WIDTH` bytes of
# fields, further digests and its id. So rows are in the order of their letters, and those of one pattern in
# that of their tails.
_END = "\0"
_BEHIND_END = "\1"
_DIGEST, _SHAPE, _LENGTH, _BELOW = slice(0, 16), slice(16, 20), slice(20, 22), slice(22, 26)
_WIDTH = 27
_FORM = Struct(">IH")  # shape and length
_NOWHERE = "\0" * 4
# The last of the fields, and what is behind a further digest: whether there is another.
_LAST, _MORE = "\0", "\1"


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
    """A pool's rows in order, column by column, as an artifact stores them; those of one pattern are in the
    order of their digests.

    Attributes:
        digests: 16 bytes each, of their texts.
        shapes: numbers of their shapes.
        lengths: see `RowTable.lengths`.
        below: 4 bytes each, which say what host it is on.
        more: digests of further parameters, of those rows that have any.
        ids: the list body's references.
    """

    digests: bytes
    shapes: "array[int]"
    lengths: "array[int]"
    below: bytes
    more: dict[int, list[bytes]]
    ids: list[str]

    @classmethod
    def of(cls, tails: Sequence[str]) -> "Rows":
        """Rows out of their tails."""
        fields = "".join([tail[:_WIDTH] for tail in tails]).encode("latin-1")
        ids, more = [tail[_WIDTH:] for tail in tails], dict[int, list[bytes]]()
        marks, row = fields[_WIDTH - 1 :: _WIDTH].decode(), -1
        while (row := marks.find(_MORE, row + 1)) >= 0:
            more[row], ids[row] = _further(tails[row])
        shapes, lengths = array("I", _column(fields, _SHAPE)), array("H", _column(fields, _LENGTH))
        if sys.byteorder == "little":
            shapes.byteswap()
            lengths.byteswap()
        return cls(_column(fields, _DIGEST), shapes, lengths, _column(fields, _BELOW), more, ids)

    def __len__(self) -> int:
        return len(self.ids)


def _column(fields: bytes, place: slice) -> bytes:
    """One of the fields of all rows."""
    size = place.stop - place.start
    column = bytearray(len(fields) // _WIDTH * size)
    for at in range(size):
        column[at::size] = fields[place.start + at :: _WIDTH]
    return bytes(column)


def _further(tail: str) -> tuple[list[bytes], str]:
    """A row's further digests, and its id."""
    digests, behind = list[bytes](), _WIDTH
    while tail[behind - 1] == _MORE:
        digests.append(tail[behind : behind + DIGEST_SIZE].encode("latin-1"))
        behind += DIGEST_SIZE + 1
    return digests, tail[behind:]


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
        self._rows: tuple[list[str], list[str]] = ([], [])
        self._shapes: dict[tuple[int, int, int, int, int], int] = {}
        self._forms: dict[tuple[object, ...], str] = {}
        self._files: list[FileRow] = []
        self._file_shapes: dict[tuple[int, int, int, int, int], int] = {}
        self._categories: dict[str, int] = {"": 0}
        self._networks: dict[str, None] = {}
        self._data: dict[str, str] = {}
        self._of_one: list[Entry] = []
        self._of_several: list[Entry] = []
        self._markers: set[str] = set()
        self._label, self._below = key.labels.letters, key.behind(below_text(""))
        self._above: dict[str, tuple[str, int]] = {}
        self._places: dict[str, tuple[str, str, int]] = {}
        self._sieve_hosts = array("I")
        self._sieve_names: set[int] = set()
        self._sieve_segments: set[int] = set()

    def __len__(self) -> int:
        """Entries taken so far."""
        return len(self._rows[0]) + len(self._rows[1]) + len(self._of_several) + len(self._files)

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        kind, host, path, params, allow, id_, category, expires, port, nocase, subdomains, _ = entry
        rows, below, length = self._rows[0], _NOWHERE, 0
        text = (host + path).encode()  # what is canonical is ASCII
        if kind is Kind.DOMAIN:
            letters, length = self._domain(host)
            self._sieve_hosts.append(crc32(text))
        elif kind is Kind.HOST:
            letters = self._domain(host)[0] + HOST_END
            self._sieve_hosts.append(crc32(text))
        elif kind is Kind.PAGE or kind is Kind.PREFIX or kind is Kind.PARAMS:
            if kind is Kind.PARAMS:
                if len(params) > 1:
                    # Which of them finds the entry is settled when all of a page's entries are known.
                    self._of_several.append(entry)
                    return
                self._of_one.append(entry)
                (param,) = params
                text += f"?{param}".encode()
            letters, below, value = self._places.get(host) or self._place(host)
            self._sieve_hosts.append(value)
            if subdomains:
                self._markers.add(host)
            if kind is Kind.PREFIX:
                length = path.count("/") - 1
        elif kind is Kind.FILE:
            self._add_file(entry)
            return
        elif kind is Kind.NAME:
            labels = host.split(".")[::-1]
            letters, length = name_letters(self._key, labels), len(labels)
            self._sieve_names.add(crc32(labels[0].encode()))
        elif kind is Kind.PATH:
            rows = self._rows[1]
            letters, length = prefix_letters(self._key, path), path.count("/") - 1
            self._sieve_segments.add(crc32(path[1:].partition("/")[0].encode()))
        else:
            self._networks[host] = None
            letters, length = network_letters(self._key, host), int(host.rpartition("/")[2])
        look: tuple[object, ...] = (kind, category, length)
        if allow or nocase or subdomains or expires or port:
            look = (kind, category, length, allow, nocase, subdomains, expires, port)
        form = self._forms.get(look) or self._form(look, entry, length)
        digest = self._begun[kind]()
        digest.update(text)
        of_text = digest.digest()
        rows.append(f"{letters[:MAX_PATTERN]}{_END}{of_text.decode('latin-1')}{form}{below}{_LAST}{id_}")
        if kind is Kind.PAGE and (other := page_by_number(path)):
            # By the entry's own id, also where that is its digest.
            of_other = self._key.digest(page_text(host, other)).decode("latin-1")
            form = _form(self._shape(entry, Flag.DATA), length)
            row = f"{letters[:MAX_PATTERN]}{_END}{of_other}{form}{below}{_LAST}"
            self._data[row] = id_ or of_text[:8].hex()

    def finish(self, progress: Callable[[int], None] = lambda _: None) -> Compiled:
        """Sort, cut the patterns and settle the parameter entries.

        Args:
            progress: called with the number of rows done, now and then.

        Raises:
            UrlwardError: more than `MOST_ALIKE` entries of one text.
        """
        self._add_params()
        self._rows[PatternSet.ANCHORED].extend([f"{row}{id_}" for row, id_ in self._data.items()])
        self._data = {}
        for domain in self._markers:
            letters = domain_letters(self._key, labels_of(domain))[:MAX_PATTERN]
            marker = self._shapes.setdefault((MARKER, 0, 0, 0, 0), len(self._shapes))
            digest = self._key.digest(marker_text(domain)).decode("latin-1")
            form = _form(marker, domain.count(".") + 1)
            self._rows[PatternSet.ANCHORED].append(f"{letters}{_END}{digest}{form}{_NOWHERE}{_LAST}")
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
            rows.sort()
            step, most = (SEGMENT_LETTERS, 1) if pool is PatternSet.FLOATING else (1, BUCKET)

            def tell(row: int, before: int = done) -> None:
                progress(before + row)

            unique, alike = _without_duplicates(rows)
            duplicates += len(rows) - len(unique)
            rows.clear()
            final: Sequence[int] = numbers
            if alike:  # such are in the order of the numbers that their shapes get
                unique = sorted([_renumbered(row, numbers) for row in unique])
                final = range(len(numbers))
            cut, columns = _patterns(unique, step, most, tell)
            columns.shapes = array("I", map(final.__getitem__, columns.shapes))
            for number, times in Counter(columns.shapes).items():
                shape = shapes[number]
                if shape.is_entry:
                    counts[("allow " if shape.allow else "") + Kind(shape.kind).label] += times
                    by_category[categories[shape.category]] += times
            pools.append(columns)
            patterns.append(cut)
            done += len(columns)
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

    def _form(self, look: tuple[object, ...], entry: Entry, length: int) -> str:
        """Shape and length of an entry, as they are in a row, remembered by what they are found by."""
        form = self._forms[look] = _form(self._shape(entry), length)
        return form

    def _shape(self, entry: Entry, more: int = 0) -> int:
        """Number of what an entry has in common with others; `more` are flags besides its own."""
        flags = (
            more
            | (Flag.ALLOW if entry.allow else 0)
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
        unique = [
            row
            for row, after in zip_longest(rows, behind)
            if not after or _file_said(row) != _file_said(after)
        ]
        algorithms: dict[str, list[int]] = {}
        for row in unique:
            algorithms.setdefault(row.algorithm, [0, 0])[shapes[row.shape].allow] += 1
        return CompiledFiles(unique, shapes, dict(sorted(algorithms.items())))

    def _domain(self, host: str) -> tuple[str, int]:
        """Letters of a domain, and its labels. Nearly all differ from others' in their first label alone."""
        label, dot, name = host.partition(".")
        above = self._above.get(name)
        if above is None:
            if not dot or is_address(host):
                return domain_letters(self._key, labels_of(host)), 1
            if len(self._above) >= _MOST_PLACES:
                self._above.clear()
            above = self._above[name] = domain_letters(self._key, labels_of(name)), host.count(".") + 1
        letters, labels = above
        return letters + self._label(label), labels

    def _place(self, host: str) -> tuple[str, str, int]:
        """Letters of a host that has pages, which it is, and its number in the sieve; many have several."""
        if is_address(host):
            # No name leads there: who asks for a page goes straight to the address.
            self._networks[host.strip("[]")] = None
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        text = host.encode()
        place = self._domain(host)[0] + HOST_END, self._below(text)[:4].decode("latin-1"), crc32(text)
        self._places[host] = place
        return place

    def _add_params(self) -> None:
        key = self._key
        # The rarest parameter finds the entry: of `view=1&id=7`, the one that the page's other
        # entries do not share.
        pages = {(entry.host, entry.path) for entry in self._of_several}
        frequency = Counter(
            (e.host, e.path, p)
            for e in chain(self._of_one if pages else (), self._of_several)
            if (e.host, e.path) in pages
            for p in e.params
        )
        for entry in self._of_several:
            host, path = entry.host, entry.path
            first, *others = sorted(entry.params, key=lambda p: (frequency[host, path, p], p))
            letters, below, value = self._places.get(host) or self._place(host)
            if entry.subdomains:
                self._markers.add(host)
            self._sieve_hosts.append(value)
            digest, *more = (
                key.digest(param_text(host, path, p)).decode("latin-1") for p in (first, *others)
            )
            further = "".join(f"{_MORE}{each}" for each in more) + _LAST
            tail = f"{digest}{_form(self._shape(entry), 0)}{below}{further}{entry.id}"
            self._rows[PatternSet.ANCHORED].append(f"{letters[:MAX_PATTERN]}{_END}{tail}")
        self._of_one, self._of_several = [], []


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


_file_said = attrgetter("pool", "digest", "shape", "record")
_FILE_SHAPE = FileRow._fields.index("shape")


def _form(shape: int, length: int) -> str:
    """A row's shape and length."""
    return _FORM.pack(shape, min(length, MAX_LENGTH)).decode("latin-1")


def _without_duplicates(rows: Iterable[str]) -> tuple[list[str], bool]:
    """Rows without those that say the same, of which the last in order stays, so any with an id before none;
    and whether any that are left have one digest.

    Args:
        rows: sorted.

    Raises:
        UrlwardError: too many of one digest.
    """
    unique: list[str] = []
    alike, beginning, begun = False, _BEHIND_ALL, 0
    for row in rows:
        if row.startswith(beginning):
            if _said(row) == _said(unique[-1]):
                unique.pop()
            else:
                alike = True
                if len(unique) - begun >= MOST_ALIKE and not _further(row[row.index(_END, 1) + 1 :])[0]:
                    told = f"more than {MOST_ALIKE} entries that differ by attributes alone"
                    raise UrlwardError(f"{told} (port=, category=, expires=): write one without them")
        else:
            beginning, begun = row[: row.index(_END, 1) + 1 + DIGEST_SIZE], len(unique)
        unique.append(row)
    return unique, alike


def _said(row: str) -> str:
    """A row without its id."""
    return row[: len(row) - len(_further(row[row.index(_END, 1) + 1 :])[1])]


def _renumbered(row: str, numbers: Sequence[int]) -> str:
    """A row with the number that its shape gets."""
    tail = row.index(_END, 1) + 1
    start, end = tail + _SHAPE.start, tail + _LENGTH.stop
    shape, length = _FORM.unpack(row[start:end].encode("latin-1"))
    return row[:start] + _form(numbers[shape], length) + row[end:]


def _patterns(
    rows: Sequence[str], step: int, most: int, progress: Callable[[int], None]
) -> tuple[Patterns, Rows]:
    """Cut sorted rows into patterns (`_cut`), and order those of each."""
    cut, tails = Patterns(), list[str]()
    for length, shared, start, end in _cut(rows, step, most):
        letters = rows[start][: rows[start].index(_END, 1)]
        cut.letters.append(letters[:length])
        cut.rows.append(start)
        cut.shared.append(shared)
        tails += sorted([row[row.index(_END, 1) + 1 :] for row in rows[start:end]])
        if not len(cut) & 0x3FFF:
            progress(start)
    return cut, Rows.of(tails)


def _cut(rows: Sequence[str], step: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut sorted rows into groups whose letters share a beginning.

    Args:
        rows: sorted.
        step: a beginning has a multiple of so many letters, unless it is all of a row's.
        most: rows in a group, unless their letters are equal.

    Yields:
        In order, the length of the beginning, how much of it the group before shares, the group's first row
        and the one behind its last.
    """
    todo = [(0, len(rows), 0, 0)] if rows else []
    while todo:
        start, end, length, shared = todo.pop()
        if length and end - start <= most:
            yield length, shared, start, end
            continue
        first = rows[start][: rows[start].index(_END, 1)]
        common = _common(first, rows[end - 1])
        length = max(length, common - common % step)
        if length and len(first) <= length:
            # What ends here comes first, and is all that ends here.
            group, start = start, bisect_left(rows, first + _BEHIND_END, start, end)
            yield length, shared, group, start
            shared = length
        parts = []
        while start < end:
            beginning = rows[start][: length + step]
            if step > 1:  # letters that were cut off at `MAX_PATTERN` may be fewer
                beginning = beginning.partition(_END)[0]
            behind = start + 1
            if start + most < end and rows[start + most].startswith(beginning):
                behind = bisect_left(rows, beginning + _BEHIND_ALL, start + most, end)
            else:
                while behind < end and rows[behind].startswith(beginning):
                    behind += 1
            parts.append((start, behind, length + step, shared))
            start = behind
            if start < end:
                shared = length if step == 1 else _common(beginning, rows[start])
        todo.extend(reversed(parts))


def _common(text: str, other: str) -> int:
    """Length of the common prefix of two texts."""
    length = 0
    for x, y in zip(text, other, strict=False):
        if x != y:
            break
        length += 1
    return length
