import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import OTHER_SECRET, SECRET, build, examples
from urlward.engine import delta_format
from urlward.engine.artifact import Header, parse
from urlward.engine.delta_format import (
    CHANGE_MAGIC,
    DELTA_MAGIC,
    MOST,
    DamagedDeltaError,
    DeltaError,
    DeltaKeyError,
    Frame,
    NewerDeltaError,
    NotADeltaError,
    gaps,
    pack_numbers,
    read_columns,
    read_frame,
    unpack_numbers,
    write_frame,
)
from urlward.engine.digest import Key

UNDER = Key(SECRET)
HEADER: Header = parse(build(["a.test"], UNDER)).header
COLUMNS = [b"", b"x" * 1000, bytes(range(256)), b"ab"]
MADE = write_frame(DELTA_MAGIC, HEADER, HEADER._replace(checksum=b"n" * 16), COLUMNS, UNDER, deflate=True)


def sealed(payload: bytes) -> Frame:
    """A frame with anything inside, as one who has the key could make it."""
    return read_frame(DELTA_MAGIC, MADE)._replace(sealed=UNDER.seal(payload))


def test_what_stands_outside() -> None:
    frame = read_frame(DELTA_MAGIC, MADE)
    assert frame[:4] == (UNDER.id, HEADER.checksum, b"n" * 16, HEADER.size)


@pytest.mark.parametrize("deflate", [True, False])
def test_columns_come_back(deflate: bool) -> None:
    made = write_frame(DELTA_MAGIC, HEADER, HEADER, COLUMNS, UNDER, deflate=deflate)
    assert read_columns(DELTA_MAGIC, read_frame(DELTA_MAGIC, made), UNDER, len(COLUMNS)) == COLUMNS
    assert (len(made) < sum(map(len, COLUMNS))) is deflate


def test_nothing_is_readable_inside() -> None:
    made = write_frame(DELTA_MAGIC, HEADER, HEADER, [b"some.test"], UNDER, deflate=False)
    assert b"some.test" not in made


def test_another_key() -> None:
    with pytest.raises(DeltaKeyError, match=Key(OTHER_SECRET).id.hex()):
        read_columns(DELTA_MAGIC, read_frame(DELTA_MAGIC, MADE), Key(OTHER_SECRET), len(COLUMNS))


def test_truncated_at_every_length() -> None:
    for length in range(len(MADE)):
        with pytest.raises(NotADeltaError if length < 8 else DamagedDeltaError):
            read_frame(DELTA_MAGIC, MADE[:length])
    with pytest.raises(DamagedDeltaError):
        read_frame(DELTA_MAGIC, MADE + b"\0")


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_any_changed_byte_of_what_is_sealed(mask: int) -> None:
    for at in range(72, len(MADE)):
        data = bytearray(MADE)
        data[at] ^= mask
        with pytest.raises(DamagedDeltaError, match="open"):
            read_columns(DELTA_MAGIC, read_frame(DELTA_MAGIC, data), UNDER, len(COLUMNS))


def test_a_newer_version() -> None:
    with pytest.raises(NewerDeltaError, match="update urlward"):
        read_frame(DELTA_MAGIC, MADE[:8] + b"\2\0" + MADE[10:])


def test_another_kind_of_file() -> None:
    with pytest.raises(NotADeltaError):
        read_frame(CHANGE_MAGIC, MADE)
    renamed = CHANGE_MAGIC + MADE[8:]
    with pytest.raises(DamagedDeltaError, match="something else"):
        read_columns(CHANGE_MAGIC, read_frame(CHANGE_MAGIC, renamed), UNDER, len(COLUMNS))


def test_an_artifact_larger_than_any() -> None:
    with pytest.raises(DamagedDeltaError, match="larger than any"):
        read_frame(DELTA_MAGIC, MADE[:64] + (MOST + 1).to_bytes(8, "little") + MADE[72:])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        DELTA_MAGIC,
        DELTA_MAGIC + bytes(7),
        DELTA_MAGIC + bytes(8) + b"more",
        DELTA_MAGIC + b"\5\0\0\0" + b"\5\0\0\0" + b"four",
        DELTA_MAGIC + b"\4\0\0\0" + b"\0\0\0\0" + b"four",
        DELTA_MAGIC + b"\4\0\0\0" + b"\5\0\0\0" + b"four",
    ],
)
def test_columns_that_lie(payload: bytes) -> None:
    with pytest.raises(DamagedDeltaError):
        read_columns(DELTA_MAGIC, sealed(payload), UNDER, 1)


@pytest.mark.parametrize(
    ("stored", "whole"),
    [
        (zlib.compress(bytes(99)), 98),
        (zlib.compress(bytes(99)), 100),
        (zlib.compress(bytes(99))[:-1], 99),
        (zlib.compress(bytes(99)) + b"\0", 99),
        (zlib.compress(bytes(99)), 0),
    ],
)
def test_a_column_of_another_size_than_it_says(stored: bytes, whole: int) -> None:
    sizes = len(stored).to_bytes(4, "little") + whole.to_bytes(4, "little")
    with pytest.raises(DamagedDeltaError, match="size it says"):
        read_columns(DELTA_MAGIC, sealed(DELTA_MAGIC + sizes + stored), UNDER, 1)


def test_columns_are_not_inflated_beyond_what_they_may_have() -> None:
    bomb = zlib.compress(bytes(1 << 20))
    sizes = len(bomb).to_bytes(4, "little") + (1 << 20).to_bytes(4, "little")
    frame = sealed(DELTA_MAGIC + sizes + bomb)
    assert len(read_columns(DELTA_MAGIC, frame, UNDER, 1, 1 << 20)[0]) == 1 << 20
    with pytest.raises(DamagedDeltaError, match="sizes"):
        read_columns(DELTA_MAGIC, frame, UNDER, 1, (1 << 20) - 1)


@given(st.lists(st.integers(0, 0xFFFFFFFF)))
def test_numbers_come_back(numbers: list[int]) -> None:
    assert unpack_numbers(pack_numbers(numbers), len(numbers)).tolist() == numbers


def test_numbers_that_are_not_whole_or_too_many() -> None:
    for most in (1, 9):
        with pytest.raises(DamagedDeltaError):
            unpack_numbers(b"abcde", most)
    with pytest.raises(DamagedDeltaError):
        unpack_numbers(bytes(8), 1)


def test_gaps() -> None:
    assert list(gaps([0, 3, 3, 10])) == [0, 3, 0, 7]


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda b: DELTA_MAGIC + b"\1\0\x48\0" + b))
@examples(300)
def test_any_bytes_are_a_frame_or_a_delta_error(data: bytes) -> None:
    with pytest.raises(DeltaError):
        read_columns(DELTA_MAGIC, read_frame(DELTA_MAGIC, data), UNDER, 3)


def test_the_header_has_the_size_that_the_docstring_says() -> None:
    assert delta_format._HEADER.size == 72
