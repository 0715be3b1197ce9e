from rows import each_row
from urlward.lab.outcome import Observations, Result, judge

SERVED = Observations(status=200, served=1, stage=1)
PAGE = Observations(status=451, blocked=True, stage=3, entry="E-1")
RESET = Observations(error="reset", stage=1)


@each_row(
    ("expect", "seen", "result"),
    [
        ("block", PAGE, Result.CAUGHT),
        ("block", SERVED, Result.MISSED),
        # Whatever the client says: what the origin has served was missed.
        ("block", Observations(status=451, blocked=True, served=1, stage=3), Result.MISSED),
        ("block", RESET, Result.UNEXPECTED),
        ("block", Observations(error="tls alert", stage=2, entry="E-1"), Result.CAUGHT),
        ("refuse", RESET, Result.CAUGHT),
        ("refuse", PAGE, Result.CAUGHT),
        ("refuse", SERVED, Result.MISSED),
        ("pass", SERVED, Result.PASSED),
        ("pass", PAGE, Result.WRONG),
        ("pass", RESET, Result.WRONG),
        ("pass", Observations(status=200, served=0), Result.WRONG),
        ("pass", Observations(status=200, served=1, error="reset"), Result.WRONG),
    ],
)
def test_judged(expect: str, seen: Observations, result: Result) -> None:
    assert judge(expect, None, None, seen, monitor=False)[0] is result


def test_stage_and_entry_count() -> None:
    assert judge("block", 3, "E-1", PAGE, monitor=False)[0] is Result.CAUGHT
    assert judge("block", 2, None, PAGE, monitor=False) == (Result.UNEXPECTED, "decided by stage 3 match")
    assert judge("block", None, "E-2", PAGE, monitor=False) == (Result.UNEXPECTED, "by entry E-1")
    assert judge("pass", 2, None, SERVED, monitor=False) == (Result.UNEXPECTED, "decided by stage 1 kernel")


def test_monitored() -> None:
    told = Observations(status=200, served=1, stage=3, entry="E-1")
    assert judge("block", 3, "E-1", told, monitor=True)[0] is Result.CAUGHT
    assert judge("block", None, None, SERVED, monitor=True)[0] is Result.MISSED
    assert judge("block", None, None, PAGE, monitor=True)[0] is Result.WRONG
    assert judge("pass", None, None, SERVED, monitor=True)[0] is Result.PASSED
