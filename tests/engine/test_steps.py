from collections.abc import Generator

import pytest

from rows import each_row
from urlward.engine.steps import Steps, exhaust


def count(n: int) -> Generator[None, None, int]:
    for _ in range(n):
        yield
    return n


def test_each_step_is_an_iteration_and_the_result_comes_last() -> None:
    steps = Steps(count(3))
    assert len(list(steps)) == 3
    assert steps.result == 3


def test_no_result_before_the_end() -> None:
    steps = Steps(count(2))
    next(iter(steps))
    with pytest.raises(AttributeError):
        _ = steps.result


@each_row("n", [0, 1, 5])
def test_exhaust(n: int) -> None:
    assert exhaust(count(n)) == n


def test_an_error_in_a_step_is_the_callers() -> None:
    def steps() -> Generator[None, None, int]:
        yield
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        exhaust(steps())
