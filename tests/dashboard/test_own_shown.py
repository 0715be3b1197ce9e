"""Which of many own entries a page shows."""

from urlward.dashboard.own_pages import SHOWN, shown_of

ENTRIES = [{"id": f"o-{n}"} for n in range(2 * SHOWN + 1)]


def test_the_newest_come_first_and_all_are_reached() -> None:
    found, before, pages = [], "", 0
    while pages == 0 or before:
        rows, before = shown_of(ENTRIES, before)
        assert len(rows) <= SHOWN
        found += rows
        pages += 1
    assert found == ENTRIES[::-1]
    assert pages == 3


def test_few() -> None:
    assert shown_of([], "") == ([], "")
    assert shown_of(ENTRIES[:SHOWN], "") == (ENTRIES[:SHOWN][::-1], "")
    assert shown_of(ENTRIES[:2], "gone")[0] == ENTRIES[:2][::-1]
    assert shown_of(ENTRIES, "o-0") == ([], "")


def test_what_was_revealed_is_shown_wherever_it_is() -> None:
    assert shown_of(ENTRIES, "", {"o-1": "a line"}) == ([{"id": "o-1"}], "")
