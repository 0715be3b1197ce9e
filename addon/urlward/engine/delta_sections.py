"""The sections of a new artifact, made of those of the old one and a delta's columns.

Between two edits everything is copied in one piece. Where an artifact stores numbers of rows or running
totals, the same is added to all of a piece, at once. So the time goes with the artifact's bytes and the
delta's edits, not with the rows.
"""

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Buffer, Iterable, Sequence
from itertools import accumulate
from typing import Any

from urlward.engine.artifact import Artifact, Section, pack, unpack
from urlward.engine.delta_columns import META_SEPARATOR, NETWORK_SEPARATOR, Column, shape_numbers
from urlward.engine.delta_format import DamagedDeltaError, unpack_numbers
from urlward.engine.delta_script import Script, ends_of, read_script, shift, splice, splice_text
from urlward.engine.digest import DIGEST_SIZE, Key
from urlward.engine.sieve import join_sieve, split_sieve

type Columns = Sequence[bytes]
type Sections = Sequence[memoryview]
type Pieces = list[Buffer]


def new_sections(before: Artifact, columns: Columns, rows: Script, key: Key) -> list[Pieces]:
    """The sections of the new artifact, each in pieces.

    Args:
        before: the old one.
        columns: of the delta.
        rows: how the old rows become the new ones.
        key: to open what is sealed.

    Raises:
        DeltaError: a column does not fit another, or the old artifact.
        CONTRADICTIONS: likewise.
    """
    old = before.sections
    meta = splice_text(
        columns[Column.META], bytes(old[Section.META]), columns[Column.META_ITEMS], META_SEPARATOR
    )
    ids, id_ends = _ids(old, columns, rows)
    params, param_rows = _params(old, columns, rows)
    shared, added, letters = _patterns(old, columns)
    pieces: dict[Section, Pieces] = {
        Section.META: [meta],
        Section.DIGESTS: _spliced(old, Section.DIGESTS, rows, columns[Column.DIGESTS], DIGEST_SIZE),
        Section.SHAPES: _shapes(before, json.loads(meta), columns, rows),
        Section.LENGTHS: _spliced(
            old, Section.LENGTHS, rows, _narrowed(columns[Column.LENGTHS], "H", rows), 2
        ),
        Section.BELOW: _spliced(old, Section.BELOW, rows, columns[Column.BELOW], 4),
        Section.ID_ENDS: id_ends,
        Section.IDS: ids,
        Section.SHARED: shared,
        Section.ADDED: added,
        Section.LETTERS: letters,
        Section.GROUPS: _groups(old, columns, rows),
        Section.PARAM_ROWS: param_rows,
        Section.PARAMS: params,
        Section.NETWORKS: [_networks(old, columns, key)],
        Section.SIEVE: [_sieve(old, columns, key)],
    }
    return [pieces[section] for section in Section]


def _spliced(old: Sections, section: Section, script: Script, inserted: bytes, width: int) -> Pieces:
    return [*splice(script, old[section], memoryview(inserted), width)]


def _narrowed(column: bytes, typecode: str, rows: Script) -> bytes:
    return pack(array(typecode, unpack_numbers(column, rows.inserted)))


def _shapes(before: Artifact, meta: dict[str, Any], columns: Columns, rows: Script) -> Pieces:
    width, typecode = (2, "H") if meta["shape_bytes"] == 2 else (4, "I")
    was = "H" if before.meta["shape_bytes"] == 2 else "I"
    numbers = shape_numbers(before.meta, meta)
    stored = before.sections[Section.SHAPES]
    if was != typecode or numbers != list(range(len(numbers))):
        known = [max(number, 0) for number in numbers]  # no row that stays has a shape that does not
        stored = memoryview(pack(array(typecode, map(known.__getitem__, unpack(was, stored)))))
    return [*splice(rows, stored, memoryview(_narrowed(columns[Column.SHAPES], typecode, rows)), width)]


def _ids(old: Sections, columns: Columns, rows: Script) -> tuple[Pieces, Pieces]:
    lengths = unpack_numbers(columns[Column.ID_LENGTHS], rows.inserted)
    if len(lengths) != rows.inserted:
        raise DamagedDeltaError("a column does not fit its edit script")
    packed = old[Section.ID_ENDS] or memoryview(bytes(4 * rows.before))
    ends, texts = unpack("I", packed), old[Section.IDS]
    starts, inserted = ends_of(lengths), memoryview(columns[Column.IDS])
    ids: Pieces = []
    id_ends: Pieces = []
    total = 0
    for start, end, first, last, _ in rows.steps:
        if end > start:
            begin, stop = ends[start - 1] if start else 0, ends[end - 1]
            ids.append(texts[begin:stop])
            id_ends.append(shift(packed[4 * start : 4 * end], total - begin))
            total += stop - begin
        if last > first:
            ids.append(inserted[starts[first] : starts[last]])
            id_ends.append(pack(array("I", accumulate(lengths[first:last], initial=total)))[4:])
            total += starts[last] - starts[first]
    return ids, id_ends if total else []


def _params(old: Sections, columns: Columns, rows: Script) -> tuple[Pieces, Pieces]:
    packed, digests = old[Section.PARAM_ROWS], old[Section.PARAMS]
    pairs = unpack("I", packed)
    of_row, ends = pairs[::2], pairs[1::2]
    which = list(accumulate(unpack_numbers(columns[Column.PARAM_ROWS], rows.inserted)))
    counts = unpack_numbers(columns[Column.PARAM_COUNTS], rows.inserted)
    starts, inserted = ends_of(counts), memoryview(columns[Column.PARAMS])
    params: Pieces = []
    param_rows: Pieces = []
    total = low = done = 0
    for start, end, first, last, at in rows.steps:
        low = bisect_left(of_row, start, low)
        high = bisect_left(of_row, end, low)
        if high > low:
            begin, stop = ends[low - 1] if low else 0, ends[high - 1]
            params.append(digests[begin * DIGEST_SIZE : stop * DIGEST_SIZE])
            param_rows.append(shift(packed[8 * low : 8 * high], at - start + (total - begin << 32), 8))
            total += stop - begin
        while done < len(which) and which[done] < last:
            params.append(inserted[starts[done] * DIGEST_SIZE : starts[done + 1] * DIGEST_SIZE])
            total += counts[done]
            param_rows.append(pack(array("I", (at + end - start + which[done] - first, total))))
            done += 1
    if done < len(which) or done < len(counts):
        raise DamagedDeltaError("parameters are of rows that are not inserted")
    return params, param_rows


def _patterns(old: Sections, columns: Columns) -> tuple[Pieces, Pieces, Pieces]:
    added, letters = bytes(old[Section.ADDED]), old[Section.LETTERS]
    script = read_script(columns[Column.PATTERNS], len(added), len(columns[Column.ADDED]))
    inserted_added, inserted = columns[Column.ADDED], memoryview(columns[Column.LETTERS])
    pieces: Pieces = []
    place = inserted_place = at = 0
    for start, end, first, last, _ in script.steps:
        begin = place + sum(added[at:start])
        place, at = begin + sum(added[start:end]), end
        pieces.append(letters[begin:place])
        begin = inserted_place
        inserted_place += sum(inserted_added[first:last])
        pieces.append(inserted[begin:inserted_place])
    return (
        _spliced(old, Section.SHARED, script, columns[Column.SHARED], 1),
        _spliced(old, Section.ADDED, script, inserted_added, 1),
        pieces,
    )


def _groups(old: Sections, columns: Columns, rows: Script) -> Pieces:
    """Groups well inside a run of rows that stay move with it; those that an edit touches are rewritten."""
    packed = old[Section.GROUPS]
    numbers = unpack("I", packed)
    firsts, ends = numbers[::2], numbers[1::2]
    told_rows = list(accumulate(unpack_numbers(columns[Column.GROUP_ROWS], rows.after)))
    told = list(zip(told_rows, unpack_numbers(columns[Column.GROUP_SIZES], rows.after), strict=True))
    pieces: Pieces = []
    done = low = 0
    for start, end, _, _, at in rows.steps:
        upto = bisect_right(told_rows, at, done)
        pieces.append(_pairs(told[done:upto]))
        done = upto
        low = bisect_right(firsts, start, low)
        high = bisect_left(ends, end, low)
        pieces.append(shift(packed[8 * low : 8 * high], at - start))
        low = max(low, high)
    pieces.append(_pairs(told[done:]))
    return pieces


def _pairs(groups: Iterable[tuple[int, int]]) -> bytes:
    return pack(array("I", (number for first, size in groups for number in (first, first + size))))


def _networks(old: Sections, columns: Columns, key: Key) -> bytes:
    sealed = bytes(old[Section.NETWORKS])
    text = key.unseal(sealed)
    made = splice_text(columns[Column.NETWORKS], text[1:-1], columns[Column.NETWORK_ITEMS], NETWORK_SEPARATOR)
    return sealed if made == text[1:-1] else key.seal(b"[" + made + b"]")


def _sieve(old: Sections, columns: Columns, key: Key) -> bytes:
    sieve = split_sieve(key.unseal(bytes(old[Section.SIEVE])))
    bits = bytearray(columns[Column.SIEVE] or sieve.bits)
    places = accumulate(unpack_numbers(columns[Column.SIEVE_AT], len(bits)))
    for at, changed in zip(places, columns[Column.SIEVE_XOR], strict=True):
        bits[at] ^= changed
    names = _edited(sieve.names, columns, Column.NAMES)
    return key.seal(join_sieve(bits, names, _edited(sieve.segments, columns, Column.SEGMENTS)))


def _edited(packed: memoryview, columns: Columns, script: Column) -> bytes:
    inserted = memoryview(columns[script + 1])
    return b"".join(
        splice(read_script(columns[script], len(packed) // 4, len(inserted) // 4), packed, inserted, 4)
    )
