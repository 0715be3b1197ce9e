from typing import Any

from urlward.commands.status import lines

FEED = {
    "name": "feed", "state": "ok", "serial": 3, "entries": 10, "age": 120,
    "last_success": "2027-01-15T07:58:00Z",
    "next_run": None, "failures": 0, "reason": "", "alarms": [],
}  # fmt: skip


def alone(**feed: Any) -> list[str]:
    return list(lines({"running": False, "ok": False, "feeds": [FEED | feed]}))


def test_columns_stand_below_each_other() -> None:
    head, row = alone()[1:]
    assert head == "feed  entries  serial  last success                   next run  state"
    assert row == "feed       10       3  2027-01-15T07:58:00Z (2m ago)  -         ok"


def test_what_is_wrong_with_a_feed() -> None:
    assert alone(alarms=["stale"], reason="html", failures=3)[-2:] == [
        "feed feed: stale",
        "feed feed: html (3 times)",
    ]


def test_no_feeds_and_no_recorder() -> None:
    assert list(lines({"running": False, "ok": False, "feeds": []})) == []
