"""A delta makes the new artifact or raises what its caller expects, whoever made it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.delta_support import FILLER, forged, issue, opened
from engine.support import OTHER_SECRET, build, examples, key
from engine.test_artifact import LINES, forge, repaired, use
from urlward.engine.artifact import HEADER_SIZE, Section, parse, section_table
from urlward.engine.change import read_change
from urlward.engine.delta_apply import Applied, apply_delta, extent, read_rows
from urlward.engine.delta_columns import CONTRADICTIONS, Column
from urlward.engine.delta_format import (
    DamagedDeltaError,
    DeltaError,
    DeltaKeyError,
    MismatchError,
    NotADeltaError,
    WrongBaseError,
    pack_numbers,
    unpack_numbers,
)
from urlward.engine.delta_make import make_delta
from urlward.engine.delta_sections import new_sections
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, WrongKeyError
from urlward.engine.table import Table

OLD_LINES = [*FILLER, *LINES[::2], "http://sub.test/dir/page?a=1&b=2 id=16", "*/two/three/* id=17"]
NEW_LINES = [
    *FILLER[2:],
    *LINES[1:],
    "http://sub.test/dir/page?a=1&b=3&c=4 id=18",
    "203.0.113.7 category=new",
]
OLD, NEW = issue(OLD_LINES), issue(NEW_LINES, 2)
DELTA = make_delta(OLD, NEW, key())


def test_the_new_artifact() -> None:
    assert apply_delta(OLD, DELTA, key()).artifact == NEW
    assert apply_delta(memoryview(OLD), memoryview(DELTA), key()).artifact == NEW


def test_header_and_signature_come_as_they_were() -> None:
    signed = bytearray(NEW)
    signed[64:80] = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    signed[80:176] = bytes(range(96))
    new = repaired(signed)
    made = apply_delta(OLD, make_delta(OLD, new, key()), key()).artifact
    assert made == new
    assert parse(made).header.signature == bytes(range(32, 96))


def test_a_sieve_of_another_size() -> None:
    few, many = issue([f"{n}.test" for n in range(250)]), issue([f"{n}.test" for n in range(260)], 2)
    for old, new in ((few, many), (many, few)):
        delta = make_delta(old, new, key())
        assert opened(delta)[Column.SIEVE]
        assert apply_delta(old, delta, key()).artifact == new


def test_shapes_in_more_bytes() -> None:
    """As where there are more than 65,536 of them."""
    found = parse(NEW)
    wide = b"".join(number.to_bytes(4, "little") for number in Table(found).shape_numbers)
    meta = json.dumps(found.meta | {"shape_bytes": 4}, separators=(",", ":")).encode()
    other = forge(NEW, {Section.META: meta, Section.SHAPES: wide})
    for old, new in ((OLD, other), (other, OLD), (other, NEW)):
        assert apply_delta(old, make_delta(old, new, key()), key()).artifact == new


def test_extent() -> None:
    added, removed = extent(OLD, DELTA, key())
    assert added == len(set(NEW_LINES) - set(OLD_LINES))
    assert removed == len(set(OLD_LINES) - set(NEW_LINES))


# -- each way to be wrong


def test_another_base() -> None:
    for base in (NEW, issue(OLD_LINES, 7)):
        with pytest.raises(WrongBaseError, match="full artifact"):
            apply_delta(base, DELTA, key())
        with pytest.raises(WrongBaseError):
            extent(base, DELTA, key())


def test_a_damaged_base() -> None:
    with pytest.raises(ArtifactError):
        apply_delta(OLD[:-1], DELTA, key())


def test_another_key() -> None:
    other = Key(OTHER_SECRET)
    with pytest.raises(WrongKeyError):
        apply_delta(OLD, DELTA, other)
    with pytest.raises(DeltaKeyError):
        apply_delta(OLD, DELTA[:24] + other.id + DELTA[32:], key())


def test_a_base_under_another_key() -> None:
    old, new = (build(lines, Key(OTHER_SECRET)) for lines in (OLD_LINES, NEW_LINES))
    with pytest.raises(WrongBaseError):
        apply_delta(old, DELTA, key())
    assert apply_delta(old, make_delta(old, new, Key(OTHER_SECRET)), Key(OTHER_SECRET)).artifact == new


@pytest.mark.parametrize("data", [b"", OLD, b"<!doctype html>" * 20])
def test_not_a_delta(data: bytes) -> None:
    with pytest.raises(NotADeltaError):
        apply_delta(OLD, data, key())


def test_truncated_at_every_length() -> None:
    for length in range(0, len(DELTA), 3):
        with pytest.raises(DeltaError):
            apply_delta(OLD, DELTA[:length], key())


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_any_changed_byte(mask: int) -> None:
    for at in [*range(72), *range(72, len(DELTA), 7)]:
        data = bytearray(DELTA)
        data[at] ^= mask
        try:
            assert apply_delta(OLD, data, key()).artifact == NEW
            assert 12 <= at < 16  # these bytes mean nothing yet
        except DeltaError:
            continue


def test_a_delta_that_makes_something_else() -> None:
    changed = opened(DELTA)[Column.DIGESTS][:-1] + b"?"
    with pytest.raises(MismatchError):
        apply_delta(OLD, forged(OLD, NEW, DELTA, {Column.DIGESTS: changed}), key())


def test_a_delta_that_makes_another_artifact_than_it_says() -> None:
    other = issue([*NEW_LINES, "more.test"], 3)
    columns = opened(make_delta(OLD, other, key()))
    with pytest.raises(MismatchError, match="another size than it says"):
        apply_delta(OLD, forged(OLD, NEW, DELTA, columns), key())
    columns = opened(make_delta(OLD, issue(NEW_LINES, 3), key()))
    with pytest.raises(MismatchError, match="another artifact than it says"):
        apply_delta(OLD, forged(OLD, NEW, DELTA, columns), key())


def test_columns_that_open_to_far_more_than_the_delta() -> None:
    old = issue([f"{n}.test" for n in range(20_000)])
    delta = make_delta(old, issue([f"{n}.test" for n in range(20_001)], 2), key())
    changes = {Column.SIEVE: bytes(500_000)}
    with pytest.raises(DamagedDeltaError, match="sizes"):
        apply_delta(old, forged(old, NEW, delta, changes), key())


def test_parameters_of_rows_that_are_not_there() -> None:
    numbers = unpack_numbers(opened(DELTA)[Column.PARAM_ROWS], 99)
    for column in (Column.PARAM_ROWS, Column.PARAM_COUNTS):
        forgery = {column: pack_numbers([*numbers, 50])}
        with pytest.raises(DamagedDeltaError):
            apply_delta(OLD, forged(OLD, NEW, DELTA, forgery), key())


@pytest.mark.parametrize("column", Column)
@pytest.mark.parametrize("content", [b"", b"\xff", b"\xff" * 12, bytes(4000), b"\xff" * 4000])
def test_forged_columns(column: Column, content: bytes) -> None:
    if content == opened(DELTA)[column]:
        return
    with pytest.raises(DeltaError):
        apply_delta(OLD, forged(OLD, NEW, DELTA, {column: content}), key())


NUMBERS = {
    *(Column.META, Column.ROWS, Column.SHAPES, Column.LENGTHS, Column.ID_LENGTHS, Column.PARAM_ROWS),
    *(Column.PARAM_COUNTS, Column.PATTERNS, Column.GROUP_ROWS, Column.GROUP_SIZES, Column.NETWORKS),
    *(Column.SIEVE_AT, Column.NAMES, Column.SEGMENTS),
}
WILD = st.sampled_from([0, 1, 2, 3, 50, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])


@given(st.sampled_from(sorted(NUMBERS)), st.lists(WILD, max_size=12))
@examples(300)
def test_forged_numbers(column: Column, numbers: list[int]) -> None:
    try:
        delta = forged(OLD, NEW, DELTA, {column: pack_numbers(numbers)})
        assert apply_delta(OLD, delta, key()).artifact == NEW
    except DeltaError:
        return


@given(
    st.dictionaries(
        st.sampled_from(Column),
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.binary(max_size=9)),
        min_size=1,
        max_size=3,
    )
)
@examples(300)
def test_columns_changed_somewhere(changes: dict[Column, tuple[float, int, bytes]]) -> None:
    made = {column: changed(opened(DELTA)[column], to) for column, to in changes.items()}
    try:
        assert apply_delta(OLD, forged(OLD, NEW, DELTA, made), key()).artifact[256:] == NEW[256:]
    except (DeltaError, ArtifactError):
        return


# -- what a list body could make that means harm: its checksum is right, and its sections are not


def completed(columns: dict[Column, bytes]) -> bytes:
    """The delta of these columns, and the header that what they make needs.

    Raises:
        DeltaError, ValueError, IndexError, KeyError, TypeError, OverflowError: they make nothing.
    """
    before, values = parse(OLD), list(columns.values())
    rows = read_rows(before, values)
    parts = [b"".join(pieces) for pieces in new_sections(before, values, rows, key())]
    new = bytearray(b"".join([NEW[:HEADER_SIZE], section_table(map(len, parts)), *parts]))
    new[16:24] = len(new).to_bytes(8, "little")
    head = repaired(new)[:HEADER_SIZE]
    return forged(OLD, head, DELTA, columns | {Column.HEADER: head})


def use_change(made: Applied) -> None:
    """Put it in force."""
    change = read_change(made.change, key())
    if change.added:
        use(change.added)


def test_a_delta_that_is_completed_works() -> None:
    use_change(apply_delta(OLD, completed(opened(DELTA)), key()))


@given(
    st.dictionaries(
        st.sampled_from([column for column in Column if column is not Column.HEADER]),
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 9), st.binary(max_size=9))
        | st.lists(WILD, max_size=9),
        min_size=1,
        max_size=3,
    )
)
@examples(400)
def test_a_new_artifact_that_contradicts_itself(
    changes: dict[Column, tuple[float, int, bytes] | list[int]],
) -> None:
    try:
        delta = completed(opened(DELTA) | {c: changed(opened(DELTA)[c], to) for c, to in changes.items()})
    except (DeltaError, ArtifactError, *CONTRADICTIONS):
        return
    try:
        use_change(apply_delta(OLD, delta, key()))
    except (DeltaError, ArtifactError):
        return


@pytest.mark.parametrize(
    "changes",
    [
        {Column.SHARED: b"\xff"},
        {Column.SHARED: b"\0"},
        {Column.ADDED: b"\0"},
        {Column.GROUP_ROWS: pack_numbers([0, 1]), Column.GROUP_SIZES: pack_numbers([9, 9])},
        {Column.GROUP_ROWS: pack_numbers([0]), Column.GROUP_SIZES: pack_numbers([0x7FFFFFFF])},
        {Column.GROUP_ROWS: pack_numbers([0x7FFFFFFF]), Column.GROUP_SIZES: pack_numbers([1])},
        {Column.SHAPES: pack_numbers([0xFFFF])},
        {Column.PARAM_COUNTS: pack_numbers([0x7FFFFFFF])},
    ],
)
def test_inserted_rows_that_point_anywhere(changes: dict[Column, bytes]) -> None:
    columns = opened(DELTA)
    for column, content in changes.items():
        rest = (
            columns[column][len(content) :] if column not in (Column.GROUP_ROWS, Column.GROUP_SIZES) else b""
        )
        columns[column] = content + rest
    try:
        use_change(apply_delta(OLD, completed(columns), key()))
    except (DeltaError, ArtifactError):
        return


def changed(content: bytes, to: tuple[float, int, bytes] | list[int]) -> bytes:
    if isinstance(to, list):
        return pack_numbers(to)
    where, removed, added = to
    at = int(where * (len(content) + 1))
    return content[:at] + added + content[at + removed :]
