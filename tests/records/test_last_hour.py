from urlward.records.exposition import HOUR, STEP, LastHour

A = ("a",)


def test_before_any_look() -> None:
    hour = LastHour()
    assert hour.is_due(0.0)
    assert hour.since(0.0, {A: 5}) == {}


def test_since_the_first_look() -> None:
    hour = LastHour()
    hour.note(0.0, {A: 5})
    assert not hour.is_due(STEP - 1)
    assert hour.is_due(STEP)
    assert hour.since(10.0, {A: 7, ("b",): 1}) == {A: 2, ("b",): 1}


def test_what_is_older_than_an_hour_does_not_count() -> None:
    hour = LastHour()
    for minute in range(200):
        hour.note(minute * STEP, {A: minute})
    assert hour.since(199 * STEP, {A: 199}) == {A: HOUR / STEP}
    assert hour.since(199 * STEP + 1.5 * HOUR, {A: 300}) == {}
