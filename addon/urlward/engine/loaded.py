"""A list in memory: flat table, automata, and the loading that builds them in slices.

pyahocorasick does its work under the interpreter lock, and finishing an automaton is one call that
nothing can interrupt. So patterns go into many automata of bounded size. The anchored ones are cut
at *boundaries* in sorted order: every pattern that can begin a haystack lies in the automaton
where the haystack itself would sort, once the patterns that a boundary extends are repeated behind
it. One bisection then says which single automaton to search.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Buffer, Collection, Generator, Iterable, Iterator, Mapping
from itertools import batched, islice
from typing import NamedTuple

import ahocorasick

from urlward.engine.artifact import Artifact, Section, check_key, parsing, unpack
from urlward.engine.compiler import BUCKET, MAX_PATTERN
from urlward.engine.digest import HOST_END, Key
from urlward.engine.entry import LABELS, Kind
from urlward.engine.errors import ArtifactError
from urlward.engine.record import Flag, Shape
from urlward.engine.sieve import Sieve, read_sieve
from urlward.engine.steps import exhaust
from urlward.engine.table import FileTable, RowTable, file_table
from urlward.engine.verdict import RANK_BITS, STRENGTHS, Action, Verdict

SHARD = 1 << 14
"""Letters with which an anchored automaton is full, those that patterns share counted once; finishing it
takes 1 ms."""

FLOATING_SHARD = 1 << 18
"""Likewise, of path sequences; each of these automata costs a request a pass that may have one."""

SLICE = 1024
"""Patterns added between two points at which loading can be interrupted."""

_COUNTED = 1 << 13
"""Rows counted between two such points."""

_ON_PAGES = int(Kind.PREFIX)
"""The first of the kinds that have a path on a host."""

_SAID = 1 << 13
"""Digests whose verdicts are kept; all are forgotten when there are more."""

_AFTER_ANY_LETTER = "\uffff"


class PageForms(NamedTuple):
    """Forms of the pages, prefixes and parameters that rows on a host have.

    Attributes:
        pages: whether any is a page.
        prefixes: the numbers of segments that prefixes have, ascending.
        params: whether any has parameters.
        nocase: whether letters of either case are the same in any.
    """

    pages: bool
    prefixes: tuple[int, ...]
    params: bool
    nocase: bool


type PageGroup = tuple[range, bytes | None, PageForms]
"""Rows that share a pattern, their digests where they are few, and what those on a host are."""

type Digests = Mapping[tuple[int, int], Collection[bytes]]
"""Digests that confirm a row, by kind and length (`RowTable.lengths`); has every key that is looked up."""


type _Alike = tuple[tuple[int, int, int], ...]
"""Of a large group one row of each kind, length and host, with and without `nocase`: number of its shape,
length, `below`."""


_SIZE_BITS = 8
_MOST_SIZE = (1 << _SIZE_BITS) - 1
# An automaton's value is the first row of a pattern's group and how many there are; this many, or more.
assert BUCKET < _MOST_SIZE


class LoadedList:
    """Loaded list: immutable, ready to be searched.

    Attributes:
        key: that it was compiled under.
        name: from the artifact, or the one it was loaded under.
        guarded: whether it cannot block protected hosts at host level.
        said: verdicts of rows with a path that were hit lately, by digest, where nothing else of the row
            or the request matters.
        serial: from the artifact.
        artifact: what it was loaded from.
        sieve: what could be listed at all.
        table: the flat part.
        ends: whether any entry expires.
        files: the digests of files; None where it has none.
        floating: automata of path sequences; all are searched.
        pages_block: whether any page, prefix or parameter entry blocks.
        pages_end: whether any page, prefix or parameter entry expires or is for one port alone.
        pages_only_block: whether no page, prefix or parameter entry allows or expires.
    """

    __slots__ = (
        "_bounds",
        "_file_words",
        "_forms",
        "_groups",
        "_has_paths",
        "_of_file_shape",
        "_of_shape",
        "_shards",
        "_summaries",
        "_words",
        "artifact",
        "ends",
        "files",
        "floating",
        "floating_nocase",
        "floating_row",
        "guarded",
        "has_names",
        "has_pages",
        "key",
        "name",
        "nocase",
        "pages_block",
        "pages_end",
        "pages_only_block",
        "pattern_lengths",
        "prefixes4",
        "prefixes6",
        "said",
        "serial",
        "sieve",
        "table",
    )

    def __init__(
        self, artifact: Artifact, key: Key, sieve: Sieve, name: str = "", *, guarded: bool = False
    ) -> None:
        self.artifact = artifact
        self.key = key
        self.sieve = sieve
        self.name: str = name or artifact.meta["name"]
        self.guarded = guarded
        self.said: dict[bytes, Verdict] = {}
        self.serial = artifact.header.serial
        self.table = RowTable(artifact)
        self.files = file_table(artifact)
        self.prefixes4: list[int] = artifact.meta["prefixes4"]
        self.prefixes6: list[int] = artifact.meta["prefixes6"]
        self.floating_row: int = artifact.meta["floating_row"]
        self.floating: list[ahocorasick.Automaton] = []
        self.pattern_lengths = bytearray(self.table.rows - self.floating_row)
        # There may be as many shapes as entries, but few of them differ in more than category, date or port.
        unlike = {(s.kind, s.flags, s.expires > 0, s.port > 0) for s in self.table.shapes}
        pages = [each for each in unlike if each[0] >= Kind.PREFIX]
        of_files = self.files.shapes if self.files is not None else ()
        self.ends = any(expires for _, _, expires, _ in unlike) or any(shape.expires for shape in of_files)
        self.has_names = any(kind == Kind.NAME for kind, *_ in unlike)
        self.has_pages = bool(pages)
        self.pages_block = any(not flags & Flag.ALLOW for _, flags, _, _ in pages)
        self.pages_end = any(expires or port for _, _, expires, port in pages)
        self.pages_only_block = not any(flags & Flag.ALLOW or expires for _, flags, expires, _ in pages)
        self.nocase = any(flags & Flag.NOCASE and kind != Kind.PATH for kind, flags, *_ in unlike)
        self.floating_nocase = any(flags & Flag.NOCASE and kind == Kind.PATH for kind, flags, *_ in unlike)
        self._shards: list[ahocorasick.Automaton] = []
        self._bounds: list[str] = []
        self._has_paths = False
        self._words: list[tuple[Action, str, str]] = []
        self._file_words: list[tuple[Action, str, str]] = []
        self._groups = unpack("I", artifact.sections[Section.GROUPS])
        self._of_shape = Counter[int]()
        self._of_file_shape = Counter[int]()
        self._summaries: dict[int, _Alike] = {}
        self._forms: dict[frozenset[tuple[int, int, int]], PageForms] = {}

    @property
    def entries(self) -> int:
        """Number of entries."""
        return self.artifact.entries

    def expired(self, now: float) -> int:
        """Number of entries that have expired, at a number of seconds since 1970-01-01 UTC."""
        if not self.ends:
            return 0
        counted = [(self.table.shapes, self._of_shape)]
        if self.files is not None:
            counted.append((self.files.shapes, self._of_file_shape))
        return sum(
            of_shape[number]
            for shapes, of_shape in counted
            for number, shape in enumerate(shapes)
            if shape.is_over(now) and shape.is_entry
        )

    def shard(self, letters: str) -> ahocorasick.Automaton | None:
        """The one anchored automaton that has every pattern these letters can begin with."""
        if not self._shards:
            return None
        return self._shards[max(bisect_right(self._bounds, letters) - 1, 0)]

    def group(self, value: int) -> range:
        """The rows of the group that an automaton's value stands for."""
        row, size = value >> _SIZE_BITS, value & _MOST_SIZE
        if size == _MOST_SIZE:
            at = bisect_left(range(0, len(self._groups), 2), row, key=self._groups.__getitem__)
            return range(row, self._groups[2 * at + 1])
        return range(row, row + size)

    def look(
        self, groups: Iterable[range], digests: Digests | None, below: int = -1
    ) -> tuple[list[int], tuple[PageGroup, ...]]:
        """All that is in groups of rows, at which each is read once.

        Args:
            groups: such as letters lead to.
            digests: that confirm a row; None where no rows are asked for.
            below: the number of a host (`RowTable.below`); none where no pages are.

        Returns:
            The rows without a path that have the digest that they must have, and the groups that have all
            pages, prefixes and parameters on the host.
        """
        table = self.table
        shapes, numbers, lengths, belows = table.shapes, table.shape_numbers, table.lengths, table.below
        rows: list[int] = []
        pages: list[PageGroup] = []
        for group in groups:
            start, stop = group.start, group.stop
            among = table.digests(group)
            alike: Iterable[tuple[int, int, int]]
            if stop - start == 1:
                alike = ((numbers[start], lengths[start], belows[start]),)
            elif stop - start <= BUCKET:
                # Most of so few are unlike.
                part = slice(start, stop)
                alike = zip(
                    numbers[part].tolist(), lengths[part].tolist(), belows[part].tolist(), strict=True
                )
            else:
                alike = self._summary(group)
            wanted: dict[bytes, None] = {}
            forms: list[tuple[int, int, int]] = []
            for number, length, place in alike:
                shape = shapes[number]
                kind = shape.kind
                if kind >= _ON_PAGES:
                    if place == below:
                        forms.append((kind, length, shape.flags & Flag.NOCASE))
                elif digests is not None:
                    # An address and a network have one digest, by which each row is found once.
                    for digest in digests[kind, length]:
                        wanted[digest] = None
            for digest in wanted:
                if among is None or among.find(digest) >= 0:
                    rows += table.matching(group, digest, among)
            if forms:
                pages.append((group, among, self._page_forms(frozenset(forms))))
        return rows, tuple(pages)

    def confirmed(self, group: range, digests: Digests) -> list[int]:
        """The rows of a group whose text has the digest that it must have."""
        return self.look((group,), digests)[0]

    def groups(self, letters: str) -> list[range]:
        """The groups of rows that letters lead to."""
        shard = self.shard(letters)
        if shard is None:
            return []
        return [
            range(row := value >> _SIZE_BITS, row + size)
            if (size := value & _MOST_SIZE) < _MOST_SIZE
            else self.group(value)
            for _, value in shard.iter(letters)
        ]

    def goes_on(self, letters: str) -> bool:
        """Whether patterns go on behind the letters of a host, so that the path decides which groups have
        what is on it."""
        if not self._has_paths:
            return False
        behind = bisect_right(self._bounds, letters)
        if behind < len(self._bounds) and self._bounds[behind].startswith(letters):
            return True
        shard = self._shards[max(behind - 1, 0)]
        return len(list(islice(shard.values(letters), 2))) > (letters in shard)

    def page_groups(self, letters: str, below: int) -> tuple[PageGroup, ...]:
        """The groups that have all pages, prefixes and parameters on a host.

        Args:
            letters: of the host, or of it and a path where it `goes_on`.
            below: the number of it (`RowTable.below`).
        """
        return self.look(self.groups(letters), None, below)[1]

    def _page_forms(self, forms: frozenset[tuple[int, int, int]]) -> PageForms:
        found = self._forms.get(forms)
        if found is None:
            # One object for all hosts: they are few, and so in the processor's caches.
            kinds = {kind for kind, _, _ in forms}
            lengths = sorted({length for kind, length, _ in forms if kind == Kind.PREFIX})
            nocase = any(nocase for _, _, nocase in forms)
            found = PageForms(Kind.PAGE in kinds, tuple(lengths), Kind.PARAMS in kinds, nocase)
            self._forms[forms] = found
        return found

    def say(self, row: int) -> tuple[Shape, Verdict]:
        """Shape of a row and its verdict on a request that it matches."""
        table = self.table
        number = table.shape_numbers[row]
        shape = table.shapes[number]
        action, kind, category = self._words[number]
        entry = table.id(row) or table.digest(row)[:8].hex()
        rank = shape.kind << RANK_BITS | table.lengths[row]
        # A named tuple's own constructor takes three times as long.
        return shape, tuple.__new__(Verdict, (action, kind, entry, category, self.name, rank, False))

    def keep(self, digest: bytes, verdict: Verdict) -> None:
        """Have `said` say this of a digest from now on."""
        if len(self.said) >= _SAID:
            self.said.clear()
        self.said[digest] = verdict

    def file_verdict(self, row: int, algorithm: str) -> Verdict:
        """Verdict of a row of `files` on a file that has its digest of this algorithm."""
        files = self.files
        assert files is not None
        action, kind, category = self._file_words[files.shape_numbers[row]]
        entry = files.id(row) or files.digest(row)[:8].hex()
        rank = Kind.FILE << RANK_BITS | STRENGTHS[algorithm]
        return tuple.__new__(Verdict, (action, kind, entry, category, self.name, rank, False))

    def lists_below(self, letters: str, below: int) -> bool:
        """Whether a page, prefix or parameter entry is on the host with these letters."""
        return any(self._are_below(group, below) for group in self._groups_below(letters))

    def shapes_below(self, letters: str, below: int) -> Iterator[Shape]:
        """The entries of `lists_below`, by shape."""
        for group in self._groups_below(letters):
            for row in group:
                if self._is_below(row, below):
                    yield self.table.shape(row)

    def _groups_below(self, letters: str) -> Iterator[range]:
        shard = self.shard(letters)
        if shard is None:
            return
        for _, value in shard.iter(letters[:-1]):
            yield self.group(value)
        # Patterns that go on beyond the host: those of this host, and of any other whose labels
        # have the same letters (one in 2^24 a label), which is why each is asked.
        low = max(bisect_right(self._bounds, letters) - 1, 0)
        high = max(bisect_right(self._bounds, letters + _AFTER_ANY_LETTER) - 1, 0)
        for shard in self._shards[low : high + 1]:
            if shard.match(letters):
                yield from map(self.group, shard.values(letters))

    def _are_below(self, group: range, below: int) -> bool:
        if len(group) > BUCKET:
            shapes = self.table.shapes
            return any(
                place == below and shapes[number].kind >= _ON_PAGES
                for number, _, place in self._summary(group)
            )
        return any(self._is_below(row, below) for row in group)

    def _is_below(self, row: int, below: int) -> bool:
        table = self.table
        return table.below[row] == below and table.shape(row).kind >= _ON_PAGES

    def _summary(self, rows: range) -> "_Alike":
        alike = self._summaries.get(rows.start)
        if alike is None:
            alike = self._summaries[rows.start] = exhaust(self._summarise(rows))
        return alike

    def _summarise(self, rows: range) -> Generator[None, None, "_Alike"]:
        table = self.table
        kinds: dict[tuple[int, int, int, int], tuple[int, int, int]] = {}
        for first in range(rows.start, rows.stop, _COUNTED):
            part = slice(first, min(first + _COUNTED, rows.stop))
            numbers, lengths, belows = table.shape_numbers[part], table.lengths[part], table.below[part]
            for number, length, place in set(
                zip(numbers.tolist(), lengths.tolist(), belows.tolist(), strict=True)
            ):
                kind, flags, _, _, _ = table.shapes[number]
                kinds[kind, flags & Flag.NOCASE, length, place] = number, length, place
            yield
        return tuple(kinds.values())

    def release(self) -> Iterator[None]:
        """Free the automata one by one and let go of the flat part, when nothing uses the list any more.

        Freeing a million patterns at once would stop every other thread for as long, and waiting until the
        list itself goes could take for ever: a matcher is part of a cycle, which the collector need never
        look at (`gc.freeze`).
        """
        del self.sieve
        while self._shards:
            self._shards.pop()
            yield
        while self.floating:
            self.floating.pop()
            yield
        self.artifact = self.artifact._replace(sections=())
        if self.files is not None:
            self.files.release()
        del self.table, self.files, self._groups

    def _build(self) -> Generator[None]:
        sections = self.artifact.sections
        shared, added = sections[Section.SHARED], sections[Section.ADDED]
        letters = str(sections[Section.LETTERS], "latin-1")
        yield
        yield from self.table.check()
        yield from self._say(self.table, self._words, self._of_shape)
        if self.files is not None:
            yield from self.files.check()
            yield from self._say(self.files, self._file_words, self._of_file_shape)
        split = self.artifact.meta["floating_pattern"]
        position, row, at = 0, 0, 0
        groups = self._groups
        several = groups[0] if groups else -1
        pattern = ""
        shard = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        size = 0
        ancestors: list[tuple[str, int]] = []
        for index in range(len(shared)):
            if index == split:
                yield from self._finish(self._shards, shard)
                shard, size, pattern, ancestors = ahocorasick.Automaton(ahocorasick.STORE_INTS), 0, "", []
                if row != self.floating_row:
                    raise ArtifactError("its patterns do not fit its rows")
            floating = index >= split
            common, step = shared[index], added[index]
            pattern = pattern[:common] + letters[position : position + step]
            position += step
            if not 0 < len(pattern) == common + step <= MAX_PATTERN:
                raise ArtifactError("a pattern is empty, too long, or not whole")
            end = row + 1
            if row == several:
                end = groups[at + 1]
                if end <= row:
                    raise ArtifactError("a group of rows ends before it begins")
                at += 2
                several = groups[at] if at < len(groups) else -1
            value = row << _SIZE_BITS | min(end - row, _MOST_SIZE)
            if floating:
                for r in range(row, end):
                    self.pattern_lengths[r - self.floating_row] = len(pattern)
                full = size >= FLOATING_SHARD
            else:
                while ancestors and not pattern.startswith(ancestors[-1][0]):
                    ancestors.pop()
                full = size >= SHARD
            if full:
                yield from self._finish(self.floating if floating else self._shards, shard)
                shard, size = ahocorasick.Automaton(ahocorasick.STORE_INTS), 0
            if not floating:
                if not size:
                    self._bounds.append(pattern)
                    for ancestor, ancestor_value in ancestors:
                        shard.add_word(ancestor, ancestor_value)
                ancestors.append((pattern, value))
                if not pattern.endswith(HOST_END) and HOST_END in pattern:
                    self._has_paths = True  # as those of older releases
            shard.add_word(pattern, value)
            size += step if size else len(pattern)
            row = end
            if not index % SLICE:
                yield
        yield from self._finish(self.floating if len(shared) > split else self._shards, shard)
        if row != self.table.rows or position != len(letters) or at != len(groups):
            raise ArtifactError("its patterns do not fit its rows")
        for at in range(0, len(groups), 2):
            if groups[at + 1] - groups[at] > _COUNTED:
                # As of a host with very many pages, whose first request is not to wait.
                rows = range(groups[at], groups[at + 1])
                self._summaries[rows.start] = yield from self._summarise(rows)
            if not at % _COUNTED:
                yield

    def _say(
        self, table: RowTable | FileTable, said: list[tuple[Action, str, str]], of_shape: Counter[int]
    ) -> Generator[None]:
        """Put a table's shapes in words, and count their rows where any expires."""
        categories = self.artifact.meta["categories"]
        for some in batched(table.shapes, _COUNTED):
            said += [
                ("allow" if s.allow else "block", LABELS.get(s.kind, ""), categories[s.category])
                for s in some
            ]
            yield
        if self.ends:
            for first in range(0, table.rows, _COUNTED):
                of_shape.update(table.shape_numbers[first : first + _COUNTED])
                yield

    @staticmethod
    def _finish(into: list[ahocorasick.Automaton], shard: ahocorasick.Automaton) -> Generator[None]:
        if len(shard):
            yield
            shard.make_automaton()
            into.append(shard)
            yield


def loading(
    data: Buffer, key: Key, name: str = "", *, guarded: bool = False
) -> Generator[None, None, LoadedList]:
    """Load an artifact step by step; the generator's return value is the list.

    Each step takes a few milliseconds at most, whatever the artifact's size. The list keeps views of
    `data`; private are the automata, the sieve and what is remembered while searching.

    Args:
        data: the artifact.
        key: that it was compiled under.
        name: of the list, in place of the artifact's own.
        guarded: see `LoadedList`.

    Raises:
        ArtifactError: as `parse` and `check_key`, and where sections contradict each other.
    """
    artifact = yield from parsing(data)
    check_key(artifact.header, key)
    try:
        unsealed = key.unseal(artifact.sections[Section.SIEVE])
        yield
        sieve = read_sieve(unsealed)
        del unsealed
        yield
        loaded = LoadedList(artifact, key, sieve, name, guarded=guarded)
        yield
        yield from loaded._build()
    except (IndexError, KeyError, ValueError, TypeError, OverflowError) as e:
        raise ArtifactError("a section contradicts another") from e
    return loaded


def load(data: Buffer, key: Key, name: str = "", *, guarded: bool = False) -> LoadedList:
    """Load an artifact at once.

    Raises:
        ArtifactError: as `loading`.
    """
    return exhaust(loading(data, key, name, guarded=guarded))
