"""Edit scripts: how one sequence becomes another that is nearly equal and in the same order."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from urlward.engine.delta_format import DamagedDeltaError, pack_numbers, unpack_numbers

_CHUNK = 1 << 13
"""Bytes that are shifted at once: numbers so long stay in the processor's cache."""

_ONES = {lane: int.from_bytes((1).to_bytes(lane, "little") * (_CHUNK // lane), "little") for lane in (4, 8)}


class Step(NamedTuple):
    """Take ``old[start:end]``, then ``inserted[first:last]``; `at` items are there before."""

    start: int
    end: int
    first: int
    last: int
    at: int


class Script(NamedTuple):
    """An edit script.

    Attributes:
        steps: in order; what no step takes of the old is left out.
        before: items of the old sequence.
        inserted: items that are inserted.
        after: items of the new one.
    """

    steps: tuple[Step, ...]
    before: int
    inserted: int
    after: int

    def left_out(self) -> Iterator[range]:
        """The ranges of old items that no step takes."""
        at = 0
        for step in self.steps:
            if step.start > at:
                yield range(at, step.start)
            at = step.end
        if at < self.before:
            yield range(at, self.before)

    def put_in(self) -> Iterator[range]:
        """The ranges of new items that are inserted."""
        for start, end, first, last, at in self.steps:
            if last > first:
                yield range(at + end - start, at + end - start + last - first)

    def column(self) -> bytes:
        """The script as numbers: for each step what is left out before, what is taken, what is inserted."""
        ends = [0, *(step.end for step in self.steps)]
        return pack_numbers(
            [
                *(step.start - end for step, end in zip(self.steps, ends, strict=False)),
                *(step.end - step.start for step in self.steps),
                *(step.last - step.first for step in self.steps),
            ]
        )


def read_script(column: bytes, before: int, inserted: int) -> Script:
    """Undo `Script.column`.

    Args:
        column: the script.
        before: items of the old sequence.
        inserted: items there are to be inserted.

    Raises:
        DamagedDeltaError: it is about more, or others.
    """
    # Every step takes an item or inserts one.
    numbers = unpack_numbers(column, 3 * (before + inserted))
    count, odd = divmod(len(numbers), 3)
    if odd:
        raise DamagedDeltaError("an edit script is not whole")
    steps, at, done, after = [], 0, 0, 0
    for skip, copy, insert in zip(
        numbers[:count], numbers[count : 2 * count], numbers[2 * count :], strict=True
    ):
        at += skip
        steps.append(Step(at, at + copy, done, done + insert, after))
        at += copy
        done += insert
        after += copy + insert
    if at > before or done != inserted:
        raise DamagedDeltaError("an edit script is about other items than there are")
    return Script(tuple(steps), before, inserted, after)


def script_of(sources: Iterable[int], before: int) -> Script:
    """The script that takes each new item from an old one.

    Args:
        sources: for each new item the old one's index, or one that a script cannot go to, such as -1: then
            it is inserted.
        before: items of the old sequence.
    """
    steps: list[Step] = []
    start = end = first = last = at = 0
    for source in sources:
        if source < end:
            last += 1
        elif source == end and first == last:
            end += 1
        else:
            if end > start or last > first:
                steps.append(Step(start, end, first, last, at))
                at += end - start + last - first
            start, end, first = source, source + 1, last
    if end > start or last > first:
        steps.append(Step(start, end, first, last, at))
        at += end - start + last - first
    return Script(tuple(steps), before, last, at)


def diff[T](old: Sequence[T], new: Sequence[T]) -> Script:
    """A script for sequences of items that are nearly all different, in nearly the same order."""
    places = {item: index for index, item in enumerate(old)}
    return script_of((places.get(item, -1) for item in new), len(old))


def splice(script: Script, old: memoryview, inserted: memoryview, width: int) -> list[memoryview]:
    """Apply a script to a sequence of items of `width` bytes; gives the result in pieces.

    Raises:
        DamagedDeltaError: there are not as many items as the script says.
    """
    if len(old) != script.before * width or len(inserted) != script.inserted * width:
        raise DamagedDeltaError("a column does not fit its edit script")
    pieces = []
    for start, end, first, last, _ in script.steps:
        if end > start:
            pieces.append(old[start * width : end * width])
        if last > first:
            pieces.append(inserted[first * width : last * width])
    return pieces


def tokens(text: bytes, separator: bytes) -> list[bytes]:
    """Cut a text into the items that `splice_text` edits; none of an empty one."""
    return text.split(separator) if text else []


def splice_text(column: bytes, old: bytes, inserted: bytes, separator: bytes) -> bytes:
    """Edit a text, item by item.

    Raises:
        DamagedDeltaError: the script is about other items.
    """
    old_items, new_items = tokens(old, separator), tokens(inserted, separator)
    script = read_script(column, len(old_items), len(new_items))
    items: list[bytes] = []
    for start, end, first, last, _ in script.steps:
        items += old_items[start:end]
        items += new_items[first:last]
    return separator.join(items)


def shift(numbers: memoryview, by: int, lane: int = 4) -> bytes:
    """Add a number to each of many, as one long number: ten times as fast as one by one.

    Args:
        numbers: little-endian, of `lane` bytes each.
        by: what to add, below 0 too; no number may leave its lane by it.
        lane: 4 or 8.

    Raises:
        OverflowError: the last one does.
    """
    if not by:
        return bytes(numbers)
    pieces = []
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        size = len(chunk)
        ones = _ONES[lane] if size == _CHUNK else _ONES[lane] & ((1 << 8 * size) - 1)
        pieces.append((int.from_bytes(chunk, "little") + by * ones).to_bytes(size, "little"))
    return b"".join(pieces)


def ends_of(lengths: Sequence[int]) -> "array[int]":
    """Offsets where items of these lengths begin, and where the last ends."""
    return array("Q", accumulate(lengths, initial=0))
