from urlward.feeds.status import STATES
from urlward.records.delivery import RecorderState, StoreState
from urlward.records.exposition import FeedFigures
from urlward.records.metrics import ListFacts, RulesFacts
from urlward.records.status import REPORT_WITHIN, healthy, ready

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
    # Those that are there filter on, and none that ends is replaced.
    stopped = healthy({"a": 0.0}, 1, stopped=True)
    assert stopped.as_json()["failing"] == {"workers": ["the supervisor is stopped"]}


def test_ready() -> None:
    feeds = [FeedFigures(state, state) for state in STATES if state not in ("alarm", "waiting")]
    in_force = [(*LISTS[0], *(ListFacts(feed.name, 1, 10) for feed in feeds))]
    well = ready(in_force, feeds, RecorderState(stores={"sqlite": StoreState()}))
    assert (well.ok, well.status) == (True, 200)
    assert not ready(LISTS, feeds, RecorderState()).ok, "no list of theirs is in force"


def test_a_feed_that_a_worker_has_not_loaded_is_not_ready() -> None:
    feeds = [FeedFigures("f", "ok")]
    with_it, without = (ListFacts("f", 1, 10),), (ListFacts("one", 1, 10),)
    assert ready([with_it, with_it], feeds, RecorderState()).ok
    found = ready([with_it, without], feeds, RecorderState())
    assert found.as_json()["failing"] == {"feeds": ["f"]}
    assert ready([(*without, ListFacts("other", 1, 10))], feeds, RecorderState()).ok, "of very many lists"


def test_a_feed_that_never_loaded_is_not_ready() -> None:
    feeds = [FeedFigures("f", "alarm", reason="connect", alarms=("missing",))]
    assert ready(LISTS, feeds, RecorderState()).as_json()["failing"] == {"feeds": ["f"]}


def test_what_fails_is_named() -> None:
    feeds = [FeedFigures("stale", "alarm"), FeedFigures("new", "waiting")]
    recorder = RecorderState(stores={"sqlite": StoreState(), "pg": StoreState(up=False)})
    found = ready([(), *LISTS], feeds, recorder)
    assert found.as_json() == {
        "ok": False,
        "checks": ["lists", "stores", "feeds", "canary"],
        "failing": {"lists": ["1 of 2 workers have none"], "stores": ["pg"], "feeds": ["new", "stale"]},
    }
    assert found.passed == {"lists": False, "stores": False, "feeds": False, "canary": True}
    assert ready([], [], RecorderState()).as_json()["failing"] == {"lists": ["no worker has reported"]}


def test_traffic_that_is_not_filtered_is_not_ready() -> None:
    said = {("canary", "gw1-1"): "redirect: not for 9 s", ("steer-set", "gw1-0"): "full"}
    found = ready(LISTS, [], RecorderState(), said)
    assert found.as_json()["failing"] == {"canary": ["worker gw1-1: redirect: not for 9 s"]}


def test_a_list_without_entries_does_not_filter() -> None:
    assert not ready([(ListFacts("one", 1, 0),)], [], RecorderState()).ok


def test_rules_of_a_gateway() -> None:
    well, gone, down = RulesFacts(3, "nft"), RulesFacts(3, "nft", ("missing",)), RulesFacts(wrong=("down",))
    assert healthy({"a": 0.0}, 1, well).ok
    assert ready(LISTS, [], RecorderState(), rules=well).ok
    assert healthy({"a": 0.0}, 1, gone).as_json()["failing"] == {"rules": ["missing"]}
    assert ready(LISTS, [], RecorderState(), rules=gone).as_json()["failing"] == {"rules": ["missing"]}
    assert healthy({"a": 0.0}, 1, down).ok, "what the operator wants is cured by no other process"
    assert not ready(LISTS, [], RecorderState(), rules=down).ok
