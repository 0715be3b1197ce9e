from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.feeds.schedule import Waiting, after_failure, after_success, at_start, is_due

HOUR, DAY = 3600.0, 86_400.0
INTERVALS = st.floats(1, 30 * DAY)
SHARES = st.floats(0, 0.5)
RANDOM = st.floats(0, 1, exclude_max=True)


def middle() -> float:
    return 0.5


def test_after_a_success() -> None:
    assert after_success(1000, 6 * HOUR, 0.1, middle) == 1000 + 6 * HOUR
    assert after_success(1000, 6 * HOUR, 0.1, lambda: 0.0) == 1000 + 5.4 * HOUR
    assert after_success(1000, 6 * HOUR, 0.1, lambda: 0.75) == 1000 + 6.3 * HOUR


@each_row(
    ("fresh_for", "wait"),
    [(None, HOUR), (0.0, HOUR), (60.0, HOUR), (3 * HOUR, 3 * HOUR), (365 * DAY, 4 * HOUR)],
)
def test_an_answer_that_is_fresh(fresh_for: float | None, wait: float) -> None:
    assert after_success(0, HOUR, 0.1, middle, fresh_for=fresh_for) == wait


def test_back_off_doubles_to_a_cap() -> None:
    waits = [after_failure(0, 6 * HOUR, 0.1, middle, failures=n) for n in range(1, 10)]
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    waits = [after_failure(0, 10, 0.1, middle, failures=n) for n in range(1, 8)]
    assert waits == [10, 20, 40, 80, 160, 160, 160]
    assert after_failure(0, 6 * HOUR, 0.1, middle, failures=10**9) == 3600


@each_row(("retry_after", "wait"), [(None, 60), (30, 60), (7200, 7200), (30 * DAY, DAY)])
def test_retry_after(retry_after: float | None, wait: float) -> None:
    assert after_failure(0, HOUR, 0, middle, failures=1, retry_after=retry_after) == wait


@given(INTERVALS, SHARES, RANDOM, st.integers(0, 1000), st.none() | st.floats(0, 1e12))
def test_never_at_once_and_never_for_ever(
    interval: float, jitter: float, at: float, failures: int, given: float | None
) -> None:
    run = after_success(0, interval, jitter, lambda: at, fresh_for=given)
    assert 0.5 * interval <= run <= max(1.5 * interval, DAY)
    run = after_failure(0, interval, jitter, lambda: at, failures=failures, retry_after=given)
    assert 0.5 <= run <= max(1.5 * HOUR, DAY)


def start(**changes: float | bool) -> float:
    known: dict[str, float | bool] = {"next_run": 0.0, "not_before": 0.0, "has_artifact": True} | changes
    return at_start(1000, 6 * HOUR, middle, **known)  # type: ignore[arg-type]


def test_at_the_start() -> None:
    # Whoever has no list gets one at once, unless the server said when.
    assert start(has_artifact=False, next_run=5000.0) == 1000
    assert start(has_artifact=False, not_before=2000.0) == 2000
    # What is due is spread; what was planned is kept to.
    assert start(next_run=900.0) == 1015
    assert start(next_run=900.0, not_before=2000.0) == 2000
    assert start(next_run=5000.0) == 5000
    # That of a longer interval, which was configured before, is not.
    assert start(next_run=1000 + 30 * HOUR) == 1000 + 24 * HOUR
    assert start(next_run=1000 + 30 * HOUR, not_before=1000 + 30 * HOUR) == 1000 + DAY
    # A clock that was wrong does not hold for ever.
    assert start(next_run=1e12) == 1015
    assert start(next_run=1e12, not_before=1e12) == 1000 + DAY


def test_when_it_is_due() -> None:
    assert is_due(1000, 60, 1000)
    assert not is_due(1000, 60, 1001)
    assert not is_due(1000, 60, 1000 + DAY)
    assert not is_due(1000, 30 * DAY, 1000 + 120 * DAY)
    assert is_due(1000, 60, 1000 + 2 * DAY)


@each_row("jump", [-DAY, -3600, -60, 0, 60, 3600, DAY])
@each_row("interval", [60.0, 3600.0])
def test_a_clock_that_is_set_puts_no_run_off(jump: float, interval: float) -> None:
    now, steady = 1_795_500_000.0, 50.0
    waiting = Waiting(now + interval, interval, now, steady)
    assert waiting.left(now, steady) == interval
    for passed in range(0, int(interval), 10):
        left = waiting.left(now + passed + jump, steady + passed)
        assert left <= interval - passed
    assert waiting.left(now + interval + jump, steady + interval) == 0
    if jump > interval:
        assert waiting.left(now + jump, steady) == 0, "what is past is past"


def test_a_machine_that_was_asleep_makes_up_for_it() -> None:
    """A clock that is not set stands still meanwhile (clock_gettime(2), CLOCK_MONOTONIC)."""
    assert Waiting(2000, 1000, 1000, 5).left(2000, 6) == 0
