from urlward.records.feed_figures import FeedFigures
from urlward.records.health import REPORT_WITHIN, healthy, ready
from urlward.records.metrics import ListFacts
from urlward.records.recorder_state import RecorderState, StoreState

LISTS = [(ListFacts("one", 1, 10),)]


def test_each_worker_has_to_report_in_time() -> None:
    assert healthy({"a": 0.0, "b": REPORT_WITHIN}, 2).as_json() == {
        "ok": True,
        "checks": ["workers"],
        "failing": {},
    }
    late = healthy({"a": 0.0, "b": REPORT_WITHIN + 0.1}, 2)
    assert (late.ok, late.status, late.as_json()["failing"]) == (False, 503, {"workers": ["1 of 2 report"]})
    assert not healthy({}, 1).ok
    # One that is being replaced may overlap with its successor.
    assert healthy({"a": 0.0, "b": 0.0, "c": 9.0}, 2).ok


def test_ready() -> None:
    feeds = [FeedFigures("f", "ok"), FeedFigures("g", "failed")]
    well = ready(LISTS, feeds, RecorderState(stores={"sqlite": StoreState()}))
    assert (well.ok, well.status) == (True, 200)


def test_what_fails_is_named() -> None:
    feeds = [FeedFigures("stale", "alarm"), FeedFigures("new", "waiting"), FeedFigures("well", "ok")]
    recorder = RecorderState(stores={"sqlite": StoreState(), "pg": StoreState(up=False)})
    found = ready([(), *LISTS], feeds, recorder)
    assert found.as_json() == {
        "ok": False,
        "checks": ["lists", "stores", "feeds"],
        "failing": {"lists": ["1 of 2 workers have none"], "stores": ["pg"], "feeds": ["new", "stale"]},
    }
    assert found.passed == {"lists": False, "stores": False, "feeds": False}
    assert ready([], [], RecorderState()).as_json()["failing"] == {"lists": ["no worker has reported"]}


def test_a_list_without_entries_does_not_filter() -> None:
    assert not ready([(ListFacts("one", 1, 0),)], [], RecorderState()).ok
