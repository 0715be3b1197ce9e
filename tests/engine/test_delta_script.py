import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples
from urlward.engine.delta_format import DamagedDeltaError, pack_numbers
from urlward.engine.delta_script import (
    Script,
    diff,
    ends_of,
    read_script,
    script_of,
    shift,
    splice,
    splice_text,
    tokens,
)

ITEMS = st.lists(st.integers(0, 12), max_size=14)


def edited(script: Script, old: list[int], new: list[int]) -> list[int]:
    """What a script makes of `old`, what is inserted being taken from `new`."""
    inserted = bytes(new[at] for span in script.put_in() for at in span)
    return list(b"".join(splice(script, memoryview(bytes(old)), memoryview(inserted), 1)))


@given(ITEMS, ITEMS)
@examples(500)
def test_a_script_makes_the_new_of_the_old(old: list[int], new: list[int]) -> None:
    script = diff(old, new)
    assert edited(script, old, new) == new
    assert (script.before, script.after) == (len(old), len(new))
    assert script.inserted == sum(map(len, script.put_in()))
    assert len(old) - sum(map(len, script.left_out())) + script.inserted == len(new)
    assert read_script(script.column(), len(old), script.inserted) == script


@given(st.sets(st.integers(0, 200), max_size=60), st.sets(st.integers(0, 200), max_size=60))
@examples(200)
def test_items_in_order_are_inserted_only_where_they_are_new(old: set[int], new: set[int]) -> None:
    before, after = sorted(old), sorted(new)
    script = diff(before, after)
    assert {after[at] for span in script.put_in() for at in span} == new - old
    assert {before[at] for span in script.left_out() for at in span} == old - new


def test_steps_say_where_they_are() -> None:
    script = script_of([-1, 0, 1, 3, -1, -1], 5)
    assert [tuple(step) for step in script.steps] == [(0, 0, 0, 1, 0), (0, 2, 1, 1, 1), (3, 4, 1, 3, 3)]
    assert list(script.left_out()) == [range(2, 3), range(4, 5)]
    assert list(script.put_in()) == [range(1), range(4, 6)]


@pytest.mark.parametrize(
    "numbers",
    [
        *[(0, 6, 1), (6, 0, 1), (5, 1, 1), (0, 0xFFFFFFFF, 1)],
        *[(0, 5, 0), (0, 5, 2), (0, 5, 0xFFFFFFFF), (1,), (1, 2, 3, 4)],
        (0,) * 3 * 7,
    ],
)
def test_a_script_about_other_items_than_there_are(numbers: tuple[int, ...]) -> None:
    with pytest.raises(DamagedDeltaError):
        read_script(pack_numbers(numbers), 5, 1)


def test_columns_that_do_not_fit_their_script() -> None:
    script = script_of([0, -1], 2)
    for old, inserted in ((b"abc", b"x"), (b"ab", b"xy"), (b"ab", b"")):
        with pytest.raises(DamagedDeltaError, match="fit"):
            splice(script, memoryview(old), memoryview(inserted), 1)
    for inserted in (b"", b"x,y"):
        with pytest.raises(DamagedDeltaError):
            splice_text(script.column(), b"a,b", inserted, b",")


WORDS = st.lists(st.text("ab", min_size=1, max_size=3).map(str.encode), max_size=8)


@given(WORDS, WORDS)
@examples(200)
def test_texts(old: list[bytes], new: list[bytes]) -> None:
    script = diff(old, new)
    inserted = b"; ".join(new[at] for span in script.put_in() for at in span)
    assert splice_text(script.column(), b"; ".join(old), inserted, b"; ") == b"; ".join(new)
    assert tokens(b"; ".join(old), b"; ") == old


@given(
    st.lists(st.integers(1000, 100_000), max_size=40),
    st.integers(-1000, 100_000),
    st.sampled_from([4, 8]),
    st.sampled_from([1, 900]),
)
@examples(150)
def test_shifting_many_numbers(numbers: list[int], by: int, lane: int, times: int) -> None:
    """Also more of them than are shifted at once."""
    packed = b"".join(number.to_bytes(lane, "little") for number in numbers * times)
    expected = b"".join((number + by).to_bytes(lane, "little") for number in numbers) * times
    assert shift(memoryview(packed), by, lane) == expected


def test_shifting_two_numbers_at_once() -> None:
    pair = (7).to_bytes(4, "little") + (1).to_bytes(4, "little")
    shifted = shift(memoryview(pair), -3 + (5 << 32), 8)
    assert shifted == (4).to_bytes(4, "little") + (6).to_bytes(4, "little")


@pytest.mark.parametrize(("number", "by"), [(1, -2), (0xFFFFFFFF, 1)])
def test_shifting_out_of_range(number: int, by: int) -> None:
    with pytest.raises(OverflowError):
        shift(memoryview(number.to_bytes(4, "little")), by)


def test_ends() -> None:
    assert list(ends_of([2, 0, 3])) == [0, 2, 2, 5]
