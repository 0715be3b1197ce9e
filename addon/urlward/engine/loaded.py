"""A list in memory: flat table, automata, and the loading that builds them in slices.

pyahocorasick does its work under the interpreter lock, and finishing an automaton is one call that
nothing can interrupt. So patterns go into many automata of bounded size. The anchored ones are cut
at *boundaries* in sorted order: every pattern that can begin a haystack lies in the automaton
where the haystack itself would sort, once the patterns that a boundary extends are repeated behind
it. One bisection then says which single automaton to search.
"""

from bisect import bisect_right
from collections.abc import Buffer, Generator, Iterator
from copy import copy
from typing import NamedTuple

import ahocorasick

from urlward.engine.artifact import Artifact, Section, check_key, parsing, unpack
from urlward.engine.compiler import MAX_PATTERN
from urlward.engine.digest import Key
from urlward.engine.entry import Kind
from urlward.engine.errors import DamagedError
from urlward.engine.record import MARKER, Flag, Shape
from urlward.engine.sieve import Sieve, read_sieve
from urlward.engine.steps import exhaust
from urlward.engine.table import Table

SHARD = 1 << 14
"""Patterns an anchored automaton holds at most; finishing one takes about 1 ms."""

FLOATING_SHARD = 1 << 17
"""Likewise for path sequences, each of which costs every request a pass."""

SLICE = 1024
"""Patterns added between two points at which loading can be interrupted."""

_AFTER_ANY_LETTER = "\uffff"


class Group(NamedTuple):
    """What the rows of one pattern have between them, for groups too large to walk."""

    forms: frozenset[tuple[int, int]]
    """Pairs of kind and length."""
    below: frozenset[bytes]


class LoadedList:
    """An immutable list, ready to be searched.

    Attributes:
        key: that it was compiled under.
        name: from the artifact, or the one it was loaded under.
        guarded: whether it cannot block protected hosts at host level.
        serial: from the artifact.
        artifact: what it was loaded from.
        sieve: what could be listed at all.
        table: the flat part.
        floating: automata of path sequences; all are searched.
        pages_block: whether any page, prefix or parameter entry blocks.
        pages_only_block: whether no page, prefix or parameter entry allows or expires.
        removed: rows that no longer count.
    """

    __slots__ = (
        "_bounds",
        "_groups",
        "_shards",
        "_summaries",
        "artifact",
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
        "pages_only_block",
        "pattern_lengths",
        "prefixes4",
        "prefixes6",
        "removed",
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
        self.removed: frozenset[int] = frozenset()
        self.serial = artifact.header.serial
        self.table = Table(artifact)
        self.prefixes4: list[int] = artifact.meta["prefixes4"]
        self.prefixes6: list[int] = artifact.meta["prefixes6"]
        self.floating_row: int = artifact.meta["floating_row"]
        self.floating: list[ahocorasick.Automaton] = []
        self.pattern_lengths = bytearray(self.table.rows - self.floating_row)
        shapes = self.table.shapes
        self.has_names = any(s.kind == Kind.NAME for s in shapes)
        self.has_pages = any(s.kind >= Kind.PREFIX for s in shapes)
        self.pages_block = any(s.kind >= Kind.PREFIX and not s.allow for s in shapes)
        self.pages_only_block = not any(s.kind >= Kind.PREFIX and (s.allow or s.expires) for s in shapes)
        self.nocase = any(s.flags & Flag.NOCASE and s.kind != Kind.PATH for s in shapes)
        self.floating_nocase = any(s.flags & Flag.NOCASE and s.kind == Kind.PATH for s in shapes)
        self._shards: list[ahocorasick.Automaton] = []
        self._bounds: list[str] = []
        pairs = unpack("I", artifact.sections[Section.GROUPS])
        self._groups = dict(zip(pairs[::2], pairs[1::2], strict=True)) if pairs else {}
        self._summaries: dict[int, Group] = {}

    @property
    def entries(self) -> int:
        """Number of entries."""
        gone = sum(self.table.shape(row).kind != MARKER for row in self.removed)
        return int(self.artifact.meta["entries"]) - gone

    def without(self, rows: frozenset[int]) -> "LoadedList":
        """The same list as if these rows were not in it; it shares everything with this one."""
        other = copy(self)
        other.removed = self.removed | rows
        other._summaries = {}
        return other

    def shard(self, letters: str) -> ahocorasick.Automaton | None:
        """The one anchored automaton that has every pattern these letters can begin with."""
        if not self._shards:
            return None
        return self._shards[max(bisect_right(self._bounds, letters) - 1, 0)]

    def sole_shard(self, letters: str) -> ahocorasick.Automaton | None:
        """The automaton for everything that begins with these letters; None where it is several."""
        first = self.shard(letters)
        return first if first is self.shard(letters + _AFTER_ANY_LETTER) else None

    def groups(self, automaton: ahocorasick.Automaton, letters: str) -> Iterator[tuple[int, int, int]]:
        """Search: (index of the last letter, first row, end row) of each candidate pattern."""
        for last, value in automaton.iter(letters):
            yield last, *self.group(value)

    def group(self, value: int) -> tuple[int, int]:
        """First and end row of the group that an automaton's value stands for."""
        row = value >> 1
        return row, self._groups[row] if value & 1 else row + 1

    def forms(self, row: int, end: int) -> frozenset[tuple[int, int]] | tuple[tuple[int, int], ...]:
        """The distinct pairs of kind and length among the rows of a group."""
        table = self.table
        if end - row == 1:
            return ((table.shape(row).kind, table.length(row)),)
        return self._summary(row, end).forms

    def lists_below(self, letters: str, below: bytes) -> bool:
        """Whether a page, prefix or parameter entry is on the host with these letters."""
        return any(self._is_below(row, end, below) for row, end in self._groups_below(letters))

    def shapes_below(self, letters: str, below: bytes) -> Iterator[Shape]:
        """Those entries, by what they have in common with others."""
        table = self.table
        for row, end in self._groups_below(letters):
            for r in range(row, end):
                if self._is_below(r, r + 1, below):
                    yield table.shape(r)

    def _groups_below(self, letters: str) -> Iterator[tuple[int, int]]:
        shard = self.shard(letters)
        if shard is None:
            return
        for _, row, end in self.groups(shard, letters):
            yield row, end
        # Patterns that go on beyond the host: those of this host, and of any other whose labels
        # have the same letters (one in 2^24 a label), which is why each is asked.
        low = max(bisect_right(self._bounds, letters) - 1, 0)
        high = max(bisect_right(self._bounds, letters + _AFTER_ANY_LETTER) - 1, 0)
        for shard in self._shards[low : high + 1]:
            if shard.match(letters):
                yield from map(self.group, shard.values(letters))

    def _is_below(self, row: int, end: int, below: bytes) -> bool:
        if end - row == 1:
            table = self.table
            return (
                table.below(row) == below and table.shape(row).kind >= Kind.PREFIX and row not in self.removed
            )
        return below in self._summary(row, end).below

    def _summary(self, row: int, end: int) -> Group:
        group = self._summaries.get(row)
        if group is None:
            table, removed = self.table, self.removed
            rows = [r for r in range(row, end) if r not in removed] if removed else range(row, end)
            group = Group(
                frozenset((table.shape(r).kind, table.length(r)) for r in rows),
                frozenset(table.below(r) for r in rows if table.shape(r).kind >= Kind.PREFIX),
            )
            self._summaries[row] = group
        return group

    def release(self) -> Iterator[None]:
        """Free the automata one by one and let go of the flat part, when nothing uses the list any more.

        Freeing a million patterns at once would stop every other thread for as long, and waiting until the
        list itself goes could take for ever: a matcher is part of a cycle, which the collector need never
        look at (`gc.freeze`).
        """
        while self._shards:
            self._shards.pop()
            yield
        while self.floating:
            self.floating.pop()
            yield
        self.artifact = self.artifact._replace(sections=())
        del self.table

    def _build(self) -> Generator[None]:
        sections = self.artifact.sections
        shared, added = sections[Section.SHARED], sections[Section.ADDED]
        letters = bytes(sections[Section.LETTERS]).decode("latin-1")
        yield
        yield from self.table.check()
        split = self.artifact.meta["floating_pattern"]
        position, row = 0, 0
        groups = self._groups
        pattern = ""
        shard = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        size = 0
        ancestors: list[tuple[str, int]] = []
        for index in range(len(shared)):
            if index == split:
                yield from self._finish(self._shards, shard)
                shard, size, pattern, ancestors = ahocorasick.Automaton(ahocorasick.STORE_INTS), 0, "", []
                if row != self.floating_row:
                    raise DamagedError("its patterns do not fit its rows")
            floating = index >= split
            common, step = shared[index], added[index]
            pattern = pattern[:common] + letters[position : position + step]
            position += step
            if not 0 < len(pattern) == common + step <= MAX_PATTERN:
                raise DamagedError("a pattern is empty, too long, or not whole")
            end = groups.get(row, 0)
            if 0 < end <= row:
                raise DamagedError("a group of rows ends before it begins")
            value = row << 1 | (end > 0)
            if floating:
                for r in range(row, end or row + 1):
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
            shard.add_word(pattern, value)
            size += 1
            row = end or row + 1
            if not index % SLICE:
                yield
        yield from self._finish(self.floating if len(shared) > split else self._shards, shard)
        if row != self.table.rows or position != len(letters):
            raise DamagedError("its patterns do not fit its rows")

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
        ArtifactError: as `parse` and `check_key`; DamagedError where sections contradict each other.
    """
    artifact = yield from parsing(data)
    check_key(artifact.header, key)
    try:
        sealed = bytes(artifact.sections[Section.SIEVE])
        yield
        unsealed = key.unseal(sealed)
        yield
        sieve = read_sieve(unsealed)
        yield
        loaded = LoadedList(artifact, key, sieve, name, guarded=guarded)
        yield
        yield from loaded._build()
    except (IndexError, KeyError, ValueError, TypeError, OverflowError) as e:
        raise DamagedError("a section contradicts another") from e
    return loaded


def load(data: Buffer, key: Key, name: str = "", *, guarded: bool = False) -> LoadedList:
    """Load an artifact at once.

    Raises:
        ArtifactError: as `loading`.
    """
    return exhaust(loading(data, key, name, guarded=guarded))
