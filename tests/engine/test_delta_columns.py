import pytest

from engine.support import build, key
from urlward.engine.artifact import parse
from urlward.engine.delta_columns import Column, is_plain, shape_numbers


def test_shapes_are_the_same_that_say_the_same() -> None:
    old = {"categories": ["", "b"], "shapes": [[5, 0, 0, 0, 0], [5, 0, 1, 0, 0], [6, 0, 1, 9, 0]]}
    new = {"categories": ["", "a", "b"], "shapes": [[5, 0, 1, 0, 0], [5, 0, 2, 0, 0], [5, 0, 0, 0, 0]]}
    assert shape_numbers(old, new) == [2, 1, -1]


@pytest.mark.parametrize("meta", [{}, [], {"categories": [], "shapes": [[5, 0, 0, 0, 0]]}])
def test_a_meta_that_is_none(meta: dict[str, object]) -> None:
    good = {"categories": [""], "shapes": []}
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        shape_numbers(good, meta)


def test_columns_are_in_the_order_of_their_numbers() -> None:
    assert [int(column) for column in Column] == list(range(28))


def test_the_sections_that_deltas_know() -> None:
    artifact = parse(build(["a.test"], key()))
    assert is_plain(artifact)
    assert not is_plain(artifact._replace(sections=(*artifact.sections, memoryview(b""))))
