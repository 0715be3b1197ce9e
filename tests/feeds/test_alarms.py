from urlward.config import FeedTable
from urlward.engine.artifact import Header
from urlward.feeds.status import alarms
from urlward.feeds.store import Facts

DAY = 86_400
NOW = 1_800_000_000.0
FEED = FeedTable(name="a", path="b", stale_after=2.0 * DAY, grace=3.0 * DAY)


def header(until: int) -> Header:
    return Header(bytes(8), 0, bytes(16), 1, int(NOW) - 100 * DAY, 0, until, bytes(32), bytes(64), b"")


def test_nothing_known_is_no_alarm() -> None:
    assert alarms(FEED, Facts(), None, NOW) == {}


def test_no_list() -> None:
    missing = {"missing": "no list is in force: nothing on it is blocked"}
    assert alarms(FEED, Facts(since=NOW - 1, last_attempt=NOW), None, NOW) == missing
    assert alarms(FEED, Facts(since=NOW - DAY, last_success=NOW), None, NOW) == missing
    assert alarms(FEED, Facts(since=NOW - DAY, last_success=NOW), header(0), NOW) == {}


def test_stale() -> None:
    assert alarms(FEED, Facts(since=1.0, last_success=NOW - 2 * DAY), header(0), NOW) == {}
    assert alarms(FEED, Facts(last_success=NOW - 3 * DAY), header(0), NOW) == {
        "stale": "no successful refresh since 2027-01-12T08:00:00Z, for 3d; the limit is 2d"
    }
    assert alarms(FEED, Facts(since=NOW - 3 * DAY), header(0), NOW) == {
        "stale": "no successful refresh yet, for 3d; the limit is 2d"
    }


def test_dates() -> None:
    fresh = Facts(last_success=NOW)
    assert alarms(FEED, fresh, header(0), NOW) == {}
    assert alarms(FEED, fresh, header(int(NOW) + 50 * DAY), NOW) == {}
    assert list(alarms(FEED, fresh, header(int(NOW) + DAY), NOW)) == ["expiring"]
    assert list(alarms(FEED, fresh, header(int(NOW) - DAY), NOW)) == ["expired"]
    assert list(alarms(FEED, fresh, header(int(NOW) - 30 * DAY), NOW)) == ["expired"]
