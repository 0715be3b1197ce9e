"""Pattern reader: random access to an artifact's front-coded patterns.

Each is stored as what it adds to a beginning of the one before, a million in a chain. A letter that it does
not add itself comes from the last one before it that shares less than that with its own predecessor. So
what it takes is the last place of each number of shared letters, which `bytes.rfind` looks for at the
speed of memory.
"""

from bisect import bisect_right
from itertools import accumulate
from operator import le, sub
from typing import NamedTuple

from urlward.engine.artifact import Artifact, Section, unpack
from urlward.engine.compiler import MAX_PATTERN

_BLOCK = 1 << 10
"""Patterns between two whose place in the letters is remembered."""


class Found(NamedTuple):
    """Pattern that was read.

    Attributes:
        text: its letters, Latin-1.
        beginnings: the patterns that it begins with: index and length of each.
    """

    text: bytes
    beginnings: tuple[tuple[int, int], ...]


class Patterns:
    """Reader of patterns, in ascending order."""

    def __init__(self, artifact: Artifact) -> None:
        self._shared = bytes(artifact.sections[Section.SHARED])
        self._added = bytes(artifact.sections[Section.ADDED])
        self._letters = artifact.sections[Section.LETTERS]
        blocks = (sum(self._added[at : at + _BLOCK]) for at in range(0, len(self._added), _BLOCK))
        self._places = list(accumulate(blocks, initial=0))
        self._last = [-1] * (max(self._shared, default=0) + 1)
        self._done = 0

    def read(self, index: int) -> Found:
        """The pattern at an index no lower than the last one that was asked for.

        Raises:
            IndexError: there is none.
            ValueError: the patterns are not front-coded.
        """
        for count in range(len(self._last)):
            at = self._shared.rfind(count, self._done, index + 1)
            if at >= 0:
                self._last[count] = at
        self._done = index + 1
        need = self._shared[index]
        pieces = [self._stored(index, self._added[index])]
        beginnings = []
        while need:
            index = max(self._last[:need])
            if index < 0 or self._shared[index] + self._added[index] < need:
                raise ValueError
            if self._shared[index] + self._added[index] == need:
                beginnings.append((index, need))
            pieces.append(self._stored(index, need - self._shared[index]))
            need = self._shared[index]
        text = b"".join(reversed(pieces))
        if not 0 < len(text) <= MAX_PATTERN:
            raise ValueError
        return Found(text, tuple(beginnings))

    def _stored(self, index: int, count: int) -> bytes:
        block = index // _BLOCK
        place = self._places[block] + sum(self._added[block * _BLOCK : index])
        return bytes(self._letters[place : place + count])


class Groups:
    """Mapping between patterns and rows.

    Raises:
        ValueError: groups overlap.
    """

    def __init__(self, artifact: Artifact) -> None:
        numbers = unpack("I", artifact.sections[Section.GROUPS])
        self._firsts: list[int] = numbers[::2].tolist()
        self._ends: list[int] = numbers[1::2].tolist()
        if not all(map(le, self._firsts, self._ends)) or not all(map(le, self._ends, self._firsts[1:])):
            raise ValueError
        extra = map(sub, map(sub, self._ends, self._firsts), [1] * len(self._ends))
        self._extra: list[int] = list(accumulate(extra, initial=0))
        self._patterns: list[int] = list(map(sub, self._firsts, self._extra))

    def pattern(self, row: int) -> int:
        """Index of the pattern that finds a row."""
        group = bisect_right(self._firsts, row) - 1
        if group >= 0 and row < self._ends[group]:
            return self._patterns[group]
        return row - self._extra[group + 1]

    def rows(self, pattern: int) -> range:
        """The rows that a pattern finds."""
        group = bisect_right(self._patterns, pattern) - 1
        if group >= 0 and self._patterns[group] == pattern:
            return range(self._firsts[group], self._ends[group])
        row = pattern + self._extra[group + 1]
        return range(row, row + 1)
