from urlward.records.exposition import MOST_GONE, Sums
from urlward.records.metrics import Counts, Snapshot

A, B = ("a",), ("b",)


def said(started: float, a: float = 0, b: float = 0, *, told: bool = False) -> Snapshot:
    counts: Counts = {A: a, B: b}
    return Snapshot(started, counts, told=told)


def test_a_worker_that_lost_its_connection_is_not_counted_twice() -> None:
    sums = Sums()
    sums.take("w", said(1, a=5))
    sums.gone("w")
    assert (sums.total()[A], sums.live) == (5, {})
    sums.take("w", said(1, a=6))
    assert sums.total()[A] == 6


def test_each_counter_by_itself_never_goes_down() -> None:
    sums = Sums()
    sums.take("w", said(1, a=5, b=1))
    sums.take("w", said(1, a=4, b=2))
    assert sums.total() == {A: 5, B: 2}


def test_another_of_the_same_name() -> None:
    sums = Sums()
    sums.take("w", said(1, a=5))
    sums.take("w", said(2, a=1))
    sums.gone("w")
    sums.take("w", said(3, a=1))
    assert sums.total()[A] == 7
    assert sums.live["w"].counts[A] == 1


def test_those_long_gone_are_added_up() -> None:
    sums = Sums()
    for number in range(MOST_GONE * 3):
        sums.take(f"w{number}", said(1, a=1))
        sums.gone(f"w{number}")
        sums.gone(f"w{number}")
    assert sums.total()[A] == MOST_GONE * 3
    assert len(sums._gone) == MOST_GONE


def test_totals_are_no_part_of_it() -> None:
    sums = Sums()
    sums.take("w", said(1, a=5))
    sums.total()[A] = 9
    assert sums.total()[A] == 5


def test_what_another_has_added_up_before_is_left_out() -> None:
    sums = Sums()
    sums.take("old", said(1, a=50, b=5, told=True))
    assert sums.total() == {A: 0, B: 0}
    sums.take("old", said(1, a=53, b=5, told=True))
    # Nobody before has had what these have counted, however long they have waited for one who takes it.
    sums.take("waited", said(1, a=10))
    sums.take("late", said(1001, a=100))
    assert sums.total() == {A: 113, B: 0}
    for worker, started in (("old", 1), ("waited", 1)):
        sums.gone(worker)
        sums.take(worker, said(started, a=54, b=6, told=True))
    assert sums.total() == {A: 158, B: 7}
    # Another process of its name, that is new.
    sums.take("old", said(1002, a=1))
    assert sums.total() == {A: 159, B: 7}
