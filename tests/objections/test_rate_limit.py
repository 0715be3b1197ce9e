import pytest

from urlward.objections.server import RateLimit

HOUR = 3600.0


def test_a_key_may_use_its_hour_at_once_and_gets_it_back_evenly() -> None:
    limit = RateLimit(4, 1000)
    assert [limit.take("a", 0.0) for _ in range(4)] == [0.0] * 4
    assert limit.take("a", 0.0) == HOUR / 4
    assert limit.take("a", HOUR / 4 - 1) == pytest.approx(1.0)
    assert limit.take("a", HOUR / 4) == 0.0
    assert limit.take("a", HOUR / 4) > 0


def test_nobody_saves_up_more_than_an_hour() -> None:
    limit = RateLimit(2, 1000)
    assert [limit.take("a", 100 * HOUR) == 0 for _ in range(4)] == [True, True, False, False]


def test_another_key_is_not_touched() -> None:
    limit = RateLimit(1, 1000)
    assert limit.take("a", 0.0) == 0
    assert limit.take("a", 0.0) > 0
    assert limit.take("b", 0.0) == 0


def test_all_keys_together_have_a_limit_too() -> None:
    limit = RateLimit(5, 3)
    assert [limit.take(str(n), 0.0) == 0 for n in range(5)] == [True, True, True, False, False]
    assert limit.take("late", HOUR) == 0


def test_what_is_refused_takes_nothing() -> None:
    limit = RateLimit(1, 2)
    limit.take("a", 0.0)
    for _ in range(10):
        assert limit.take("a", 0.0) > 0
    assert limit.take("b", 0.0) == 0


def test_memory_is_bounded_and_the_limit_in_all_holds() -> None:
    limit = RateLimit(1, 50, keys=10)
    passed = sum(limit.take(f"{n}", 0.0) == 0 for n in range(1000))
    assert passed == 50
    assert len(limit._buckets) == 10


def test_a_clock_that_goes_back_gives_nothing() -> None:
    limit = RateLimit(1, 100)
    assert limit.take("a", 1000.0) == 0
    assert limit.take("a", 0.0) > 0
