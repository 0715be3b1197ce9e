"""Subset: an artifact of some rows of another, made without their plaintext.

A row keeps the pattern that finds it there. It is as good here, if longer than it had to be: any beginning
of a row's letters will do, and rows that share a pattern are in the order of their digests in both.
"""

import json
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, takewhile
from operator import eq
from typing import Any

from urlward.engine.artifact import Artifact, Section, pack, write
from urlward.engine.digest import Key
from urlward.engine.entry import Kind
from urlward.engine.patterns import Groups, Patterns
from urlward.engine.record import MARKER, Flag
from urlward.engine.table import Table


def subset(artifact: Artifact, rows: Sequence[int], networks: bytes, key: Key) -> bytes:
    """An unsigned artifact of these rows, and of those that they need to be found.

    Name, serial and dates are the original's, and so is the sieve, as it does not say which of
    its bits are whose.

    Args:
        artifact: the original.
        rows: in ascending order.
        networks: JSON, to be sealed.
        key: that it was compiled under.

    Raises:
        IndexError, ValueError: the original contradicts itself.
    """
    table, groups = Table(artifact), Groups(artifact)
    texts, rows = _with_markers(artifact, table, groups, rows)
    floating = bisect_left(rows, artifact.meta["floating_row"])
    ids = [table.id(row) for row in rows]
    mores = [(at, more) for at, row in enumerate(rows) if (more := table.further_params(row))]
    params = [digest for _, more in mores for digest in more]
    if sum(map(len, ids)) > len(artifact.sections[Section.IDS]) or len(params) > table.params:
        raise ValueError
    param_ends = accumulate(len(more) for _, more in mores)
    param_rows = [n for (at, _), end in zip(mores, param_ends, strict=True) for n in (at, end)]
    numbers = [table.shape_numbers[row] for row in rows]
    used = sorted(set(numbers))
    of_shape = {number: index for index, number in enumerate(used)}
    coded = _coded(texts, groups, rows, floating)
    meta = _meta(artifact, table, numbers, used) | {
        "floating_row": floating,
        "floating_pattern": coded.floating,
    }
    sections: dict[Section, bytes] = {
        Section.META: json.dumps(meta, separators=(",", ":")).encode(),
        Section.DIGESTS: b"".join(map(table.digest, rows)),
        Section.SHAPES: pack(array("I", map(of_shape.__getitem__, numbers))),
        Section.LENGTHS: pack(array("H", map(table.lengths.__getitem__, rows))),
        Section.BELOW: pack(array("I", map(table.below.__getitem__, rows))),
        Section.ID_ENDS: pack(array("I", accumulate(map(len, ids)))) if any(ids) else b"",
        Section.IDS: "".join(ids).encode("ascii"),
        Section.SHARED: bytes(coded.shared),
        Section.ADDED: bytes(coded.added),
        Section.LETTERS: b"".join(coded.letters),
        Section.GROUPS: pack(coded.groups),
        Section.PARAM_ROWS: pack(array("I", param_rows)),
        Section.PARAMS: b"".join(params),
        Section.NETWORKS: key.seal(networks),
        Section.SIEVE: bytes(artifact.sections[Section.SIEVE]),
    }
    head = artifact.header
    issue = (head.serial, head.created, head.valid_from, head.valid_until)
    return write([sections[section] for section in Section], key, issue)


def _with_markers(
    artifact: Artifact, table: Table, groups: Groups, rows: Sequence[int]
) -> tuple[dict[int, bytes], list[int]]:
    """The letters of the patterns by their indices, and the rows, with the markers of their domains.

    A marker's letters are the beginning of those of any row on its domain, which is why its pattern is
    all of them, and so the beginning of the row's pattern.
    """
    patterns = Patterns(artifact)
    texts: dict[int, bytes] = {}
    wanted = set(rows)
    seen: set[int] = set()
    for row in rows:
        index = groups.pattern(row)
        text, beginnings = patterns.read(index)
        texts[index] = text
        if not table.shape(row).flags & Flag.SUBDOMAINS:
            continue
        for other, length in ((index, len(text)), *beginnings):
            if other not in seen:
                seen.add(other)
                texts[other] = text[:length]
                wanted.update(r for r in groups.rows(other) if table.shape(r).kind == MARKER)
    return texts, sorted(wanted)


@dataclass(slots=True)
class _Coded:
    """Front-coded patterns, as they are stored.

    Attributes:
        floating: how many come before those of the floating pool.
    """

    shared: bytearray = field(default_factory=bytearray)
    added: bytearray = field(default_factory=bytearray)
    letters: list[bytes] = field(default_factory=list)
    groups: "array[int]" = field(default_factory=lambda: array("I"))
    floating: int = 0


def _coded(texts: dict[int, bytes], groups: Groups, rows: Sequence[int], floating: int) -> _Coded:
    coded = _Coded()
    before = b""
    at = 0
    for pattern, members in groupby(rows, groups.pattern):
        if at == floating:
            before = b""
        text, end = texts[pattern], at + len(list(members))
        common = sum(takewhile(bool, map(eq, before, text)))
        coded.shared.append(common)
        coded.added.append(len(text) - common)
        coded.letters.append(text[common:])
        coded.floating += at < floating
        if end - at > 1:
            coded.groups.extend((at, end))
        before, at = text, end
    return coded


def _meta(artifact: Artifact, table: Table, numbers: Sequence[int], used: Sequence[int]) -> dict[str, Any]:
    """The original's META, its counts and shapes those of the rows that are here."""
    counts: Counter[str] = Counter()
    by_category: Counter[str] = Counter()
    categories = artifact.meta["categories"]
    for number, times in Counter(numbers).items():
        shape = table.shapes[number]
        if shape.kind != MARKER:
            counts[("allow " if shape.allow else "") + Kind(shape.kind).label] += times
            by_category[categories[shape.category]] += times
    return artifact.meta | {
        "entries": sum(counts.values()),
        "counts": dict(sorted(counts.items())),
        "by_category": dict(sorted(by_category.items())),
        "shapes": [list(table.shapes[number]) for number in used],
        "shape_bytes": 4,
    }
