from collections.abc import Callable

import pytest

from urlward.dashboard.live_sources import Remembered


def counting() -> Callable[[], int]:
    numbers = iter(range(1, 100))
    return lambda: next(numbers)


def test_an_answer_is_good_for_a_while():
    kept, find = Remembered[int](10.0), counting()
    assert [kept.get("a", now, find) for now in (0.0, 9.9, 10.0, 15.0)] == [1, 1, 2, 2]


def test_another_question_has_another_answer():
    kept, find = Remembered[int](10.0), counting()
    assert [kept.get(of, 0.0, find) for of in ("a", "b", "b", "a")] == [1, 2, 2, 3]


def test_a_clock_that_goes_back_does_not_keep_it():
    kept, find = Remembered[int](10.0), counting()
    assert [kept.get("a", now, find) for now in (100.0, 50.0)] == [1, 2]


def test_what_fails_is_asked_again():
    kept = Remembered[int](10.0)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", 0.0, lambda: 1 // 0)
    assert kept.get("a", 0.0, lambda: 3) == 3
