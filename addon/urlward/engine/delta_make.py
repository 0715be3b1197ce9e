"""Making deltas: what differs between two artifacts, found without their plaintext.

Nothing here is trusted: the delta is applied before it is given out.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Buffer, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from urlward.engine.artifact import Artifact, Section, check_key, pack, parse, unpack
from urlward.engine.delta_apply import apply_delta
from urlward.engine.delta_columns import (
    CONTRADICTIONS,
    META_SEPARATOR,
    NETWORK_SEPARATOR,
    Column,
    is_plain,
    shape_numbers,
)
from urlward.engine.delta_format import (
    DELTA_MAGIC,
    MOST,
    DeltaError,
    NoDeltaError,
    gaps,
    pack_numbers,
    write_frame,
)
from urlward.engine.delta_script import Script, diff, script_of, tokens
from urlward.engine.digest import Key
from urlward.engine.sieve import split_sieve
from urlward.engine.table import Table

WORTH = 0.5
"""Share of the new artifact's bytes beyond which that is better fetched itself."""


def make_delta(old: Buffer, new: Buffer, key: Key) -> bytes:
    """Make the delta from one artifact to another.

    Takes some seconds at a million entries, and about as much memory as compiling them.

    Args:
        old: the artifact to be replaced.
        new: the one to come.
        key: that both were compiled under.

    Raises:
        ArtifactError: one of them is damaged, or compiled under another key.
        NoDeltaError: they are the same, or have so little in common that a delta is not worth it.
    """
    before, after = parse(old), parse(new)
    for artifact in (before, after):
        check_key(artifact.header, key)
        if not is_plain(artifact) or artifact.header.size > MOST:
            raise NoDeltaError("no delta: an artifact has sections that this release does not know")
    if before.header.checksum == after.header.checksum:
        raise NoDeltaError("no delta: both artifacts are the same")
    try:
        columns = _columns(before, after, key)
    except CONTRADICTIONS as e:
        raise NoDeltaError("no delta: an artifact contradicts itself") from e
    delta = write_frame(
        DELTA_MAGIC, before.header, after.header, [columns[c] for c in Column], key, deflate=True
    )
    if len(delta) > WORTH * after.header.size:
        raise NoDeltaError(f"no delta: it would take {len(delta)} bytes, the artifact {after.header.size}")
    try:
        apply_delta(old, delta, key)
    except DeltaError as e:
        raise NoDeltaError(f"no delta: an artifact is not as this release writes them: {e}") from e
    return delta


type Columns = dict[Column, bytes]


def _columns(before: Artifact, after: Artifact, key: Key) -> Columns:
    columns = dict.fromkeys(Column, b"")
    columns[Column.HEADER] = after.header.raw
    _meta(before, after, columns)
    rows = _rows(before, after)
    _row_columns(after, rows, columns)
    _group_columns(after, rows, columns)
    _pattern_columns(before, after, rows, columns)
    _network_columns(before, after, key, columns)
    _sieve_columns(before, after, key, columns)
    return columns


def _meta(before: Artifact, after: Artifact, columns: Columns) -> None:
    old, new = (tokens(bytes(a.sections[Section.META]), META_SEPARATOR) for a in (before, after))
    _put_items(diff(old, new), new, META_SEPARATOR, Column.META, columns)


def _put_items(script: Script, new: Sequence[bytes], joint: bytes, into: Column, columns: Columns) -> None:
    columns[into] = script.column()
    columns[Column(into + 1)] = joint.join(_taken(script, new))


def _taken[T](script: Script, new: Sequence[T]) -> Iterator[T]:
    for inserted in script.put_in():
        for index in inserted:
            yield new[index]


def _rows(before: Artifact, after: Artifact) -> Script:
    """Edit script of the rows: rows with the same content are the same; numbers of shapes may differ."""
    old, new = Table(before), Table(after)
    numbers = shape_numbers(before.meta, after.meta)
    digests = [old.digest(row) for row in range(old.rows)]
    first = dict(zip(reversed(digests), range(old.rows - 1, -1, -1), strict=True))
    old_shapes = [numbers[number] for number in old.shape_numbers]

    def sources() -> Iterator[int]:
        end = 0
        for row in range(new.rows):
            digest = new.digest(row)
            source = max(first.get(digest, old.rows), end)
            while source < old.rows and digests[source] == digest:
                if old_shapes[source] == new.shape_numbers[row] and _facts(old, source) == _facts(new, row):
                    end = source + 1
                    yield source
                    break
                source += 1
            else:
                yield -1

    return script_of(sources(), old.rows)


def _facts(table: Table, row: int) -> tuple[int, int, str, list[bytes]]:
    return table.lengths[row], table.below[row], table.id(row), table.further_params(row)


def _row_columns(after: Artifact, rows: Script, columns: Columns) -> None:
    table = Table(after)
    inserted = [row for span in rows.put_in() for row in span]
    ids = [table.id(row) for row in inserted]
    params = {at: more for at, row in enumerate(inserted) if (more := table.further_params(row))}
    columns[Column.ROWS] = rows.column()
    columns[Column.DIGESTS] = b"".join(map(table.digest, inserted))
    columns[Column.SHAPES] = pack_numbers(table.shape_numbers[row] for row in inserted)
    columns[Column.LENGTHS] = pack_numbers(table.lengths[row] for row in inserted)
    columns[Column.BELOW] = pack(array("I", map(table.below.__getitem__, inserted)))
    columns[Column.ID_LENGTHS] = pack_numbers(map(len, ids))
    columns[Column.IDS] = "".join(ids).encode("ascii")
    columns[Column.PARAM_ROWS] = pack_numbers(gaps(params))
    columns[Column.PARAM_COUNTS] = pack_numbers(map(len, params.values()))
    columns[Column.PARAMS] = b"".join(digest for more in params.values() for digest in more)


def _group_columns(after: Artifact, rows: Script, columns: Columns) -> None:
    """Columns for the groups that are not well inside a run of rows that stay."""
    runs = [(step.at, step.at + step.end - step.start) for step in rows.steps]
    starts = [start for start, _ in runs]
    numbers = unpack("I", after.sections[Section.GROUPS])
    touched = []
    for first, end in zip(numbers[::2], numbers[1::2], strict=True):
        start, stop = runs[bisect_right(starts, first) - 1]
        if not (start < first and end < stop):
            touched.append((first, end - first))
    columns[Column.GROUP_ROWS] = pack_numbers(gaps(first for first, _ in touched))
    columns[Column.GROUP_SIZES] = pack_numbers(size for _, size in touched)


@dataclass(slots=True)
class _Patterns:
    """Patterns as they are stored, and the first row of each."""

    shared: bytes
    added: bytes
    letters: list[bytes]
    rows: list[int]

    @classmethod
    def of(cls, artifact: Artifact) -> "_Patterns":
        shared, added, letters = (
            bytes(artifact.sections[s]) for s in (Section.SHARED, Section.ADDED, Section.LETTERS)
        )
        numbers = unpack("I", artifact.sections[Section.GROUPS])
        ends = dict(zip(numbers[::2], numbers[1::2], strict=True))
        rows, row = [], 0
        for _ in shared:
            rows.append(row)
            row = ends.get(row, row + 1)
        places = accumulate(added, initial=0)
        return cls(shared, added, [letters[a:b] for a, b in pairwise(places)], rows)

    def stored(self, index: int) -> tuple[int, bytes]:
        return self.shared[index], self.letters[index]


def _pattern_columns(before: Artifact, after: Artifact, rows: Script, columns: Columns) -> None:
    """Columns for the patterns: one goes with its first row, where its neighbours still cut it the same."""
    old, new = _Patterns.of(before), _Patterns.of(after)
    of_row = {row: index for index, row in enumerate(old.rows)}
    steps = iter(rows.steps)
    step = next(steps, None)

    def sources() -> Iterator[int]:
        nonlocal step
        for index, row in enumerate(new.rows):
            while step and row >= step.at + step.end - step.start + step.last - step.first:
                step = next(steps, None)
            source = -1
            if step and row < step.at + step.end - step.start:
                source = of_row.get(row - step.at + step.start, -1)
            yield source if source >= 0 and old.stored(source) == new.stored(index) else -1

    script = script_of(sources(), len(old.shared))
    columns[Column.PATTERNS] = script.column()
    columns[Column.SHARED] = bytes(_taken(script, new.shared))
    columns[Column.ADDED] = bytes(_taken(script, new.added))
    columns[Column.LETTERS] = b"".join(_taken(script, new.letters))


def _network_columns(before: Artifact, after: Artifact, key: Key, columns: Columns) -> None:
    old, new = (
        tokens(key.unseal(bytes(a.sections[Section.NETWORKS]))[1:-1], NETWORK_SEPARATOR)
        for a in (before, after)
    )
    _put_items(diff(old, new), new, NETWORK_SEPARATOR, Column.NETWORKS, columns)


def _sieve_columns(before: Artifact, after: Artifact, key: Key, columns: Columns) -> None:
    old, new = (split_sieve(key.unseal(bytes(a.sections[Section.SIEVE]))) for a in (before, after))
    if len(old.bits) == len(new.bits):
        differ = int.from_bytes(old.bits, "little") ^ int.from_bytes(new.bits, "little")
        changed = differ.to_bytes(len(new.bits), "little")
        places = [found.start() for found in re.finditer(rb"[^\0]", changed, re.DOTALL)]
        columns[Column.SIEVE_AT] = pack_numbers(gaps(places))
        columns[Column.SIEVE_XOR] = bytes(changed[at] for at in places)
    else:
        columns[Column.SIEVE] = bytes(new.bits)
    for was, now, into in (
        (old.names, new.names, Column.NAMES),
        (old.segments, new.segments, Column.SEGMENTS),
    ):
        items = _numbers(now)
        _put_items(diff(_numbers(was), items), items, b"", into, columns)


def _numbers(data: memoryview) -> list[bytes]:
    return [bytes(data[at : at + 4]) for at in range(0, len(data), 4)]
