"""Who reads events of clients, as the audit log is told."""

from pathlib import Path

from urlward.records.reading import Readings
from urlward.records.store import EventQuery
from urlward.state.audit import read_audit

MINUTE = 60_000
BEGAN = 1_795_000_000_000


def test_a_search_whose_times_move_is_told_a_few_times_an_hour(tmp_path: Path) -> None:
    now = [BEGAN / 1000]
    readings = Readings(tmp_path, lambda: now[0])

    def lines(*searches: EventQuery) -> int:
        before = len([*read_audit(tmp_path)])
        for search in searches:
            readings.tell("Ann", search, "api")
        return len([*read_audit(tmp_path)]) - before

    open_ended = [EventQuery(since=BEGAN + n * MINUTE) for n in range(50)]
    assert lines(*open_ended) == 1
    windows = [
        EventQuery(list="a", since=BEGAN + n * MINUTE, until=BEGAN + (n + 1) * MINUTE) for n in range(50)
    ]
    assert lines(*windows) == 2
    *_, last = read_audit(tmp_path)
    assert last
    assert last["since"] == "2026-11-18T00:00:00Z"
    assert "until" not in last
    # Backwards, a day at a time; and all there is.
    assert lines(*(EventQuery(list="a", since=BEGAN - n * 60 * MINUTE) for n in range(48))) <= 3
    assert lines(EventQuery(list="a"), *windows, EventQuery(list="a", until=BEGAN)) == 1
    now[0] += 3_601
    assert lines(open_ended[-1], open_ended[0]) == 2
