from unittest.mock import patch

import pytest

from engine.delta_support import FILLER, issue
from engine.support import OTHER_SECRET, key
from urlward.engine.artifact import HEADER_SIZE, parse
from urlward.engine.change import read_change
from urlward.engine.delta_apply import apply_delta
from urlward.engine.delta_format import (
    CHANGE_MAGIC,
    DamagedDeltaError,
    DeltaError,
    DeltaKeyError,
    NotADeltaError,
    write_frame,
)
from urlward.engine.delta_make import make_delta
from urlward.engine.digest import Key
from urlward.engine.table import Table

OLD = issue([*FILLER, "a.test id=1", "b.test id=2"])
NEW = issue([*FILLER, "b.test id=2", "c.test id=3"], 2)


def change(old: bytes, new: bytes) -> bytes:
    return apply_delta(old, make_delta(old, new, key()), key()).change


CHANGE = change(OLD, NEW)


def test_what_was_removed_and_what_was_added() -> None:
    found = read_change(CHANGE, key())
    table = Table(parse(OLD))
    assert [table.id(row) for row in found.removed] == ["1"]
    assert [Table(parse(found.added)).id(row) for row in range(1)] == ["3"]
    assert parse(found.added).header.serial == 2
    assert (found.old_checksum, found.new_checksum) == tuple(parse(d).header.checksum for d in (OLD, NEW))
    assert found.header == parse(NEW).header


def test_nothing_added() -> None:
    found = read_change(change(OLD, issue([*FILLER, "b.test id=2"], 2)), key())
    assert (len(found.removed), found.added) == (1, b"")


def test_nothing_but_a_serial() -> None:
    found = read_change(change(OLD, issue([*FILLER, "a.test id=1", "b.test id=2"], 2)), key())
    assert (found.removed, found.added, found.header.serial) == (frozenset(), b"", 2)


def test_a_row_with_another_category_is_removed_and_added() -> None:
    found = read_change(change(OLD, issue([*FILLER, "a.test id=1 category=new", "b.test id=2"], 2)), key())
    assert len(found.removed) == 1
    assert parse(found.added).meta["by_category"] == {"new": 1}


@pytest.mark.parametrize(("added", "removed"), [(3, 0), (0, 3)])
def test_so_much_that_the_list_is_better_loaded_whole(added: int, removed: int) -> None:
    old = issue([*FILLER, *(f"{n}.test" for n in range(removed))])
    new = issue([*FILLER, *(f"{n}.example" for n in range(added))], 2)
    for most, none in ((3, False), (2, True)):
        with patch("urlward.engine.change.MOST_ROWS", most):
            assert (change(old, new) == b"") is none


def test_another_key() -> None:
    with pytest.raises(DeltaKeyError):
        read_change(CHANGE, Key(OTHER_SECRET))


@pytest.mark.parametrize("data", [b"", OLD, make_delta(OLD, NEW, key())])
def test_not_a_change(data: bytes) -> None:
    with pytest.raises(NotADeltaError):
        read_change(data, key())


def test_truncated_at_every_length() -> None:
    for length in range(len(CHANGE)):
        with pytest.raises(DeltaError):
            read_change(CHANGE[:length], key())


@pytest.mark.parametrize(
    "columns",
    [
        [b"", b"", b""],
        [NEW[:HEADER_SIZE], b"x", b""],
        [NEW[:HEADER_SIZE], b"", b"x"],
        [NEW[:HEADER_SIZE], b"", NEW[:-1]],
        [NEW[: HEADER_SIZE + 1], b"", b""],
        [OLD[:HEADER_SIZE], b"", b""],
    ],
)
def test_one_that_contradicts_itself(columns: list[bytes]) -> None:
    headers = parse(OLD).header, parse(NEW).header
    with pytest.raises(DamagedDeltaError):
        read_change(write_frame(CHANGE_MAGIC, *headers, columns, key(), deflate=False), key())
