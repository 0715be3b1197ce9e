from pathlib import Path

from lists.support import artifact
from urlward.config import FeedTable
from urlward.feeds.status import status
from urlward.feeds.store import Facts, FeedStore
from urlward.records.exposition import FeedFigures, feed_figures

NOW = 1_800_000_000.0
FEED = FeedTable(name="one", path="none", stale_after=3600.0)


def figures(state: Path, facts: Facts | None = None, *, valid_until: int = 0) -> FeedFigures:
    if facts is not None:
        store = FeedStore(state, "one")
        with store.locked():
            store.write_artifact(artifact(["a.example"], valid_until=valid_until))
            store.write_facts(facts)
    (found,) = feed_figures([FEED], state, NOW)
    # The two ways to look at a feed agree.
    assert found.state == status(FEED, state, NOW)["state"]
    return found


def test_nothing_yet(tmp_path: Path) -> None:
    assert figures(tmp_path / "none") == FeedFigures("one", "waiting")


def test_one_that_never_loaded_is_an_alarm(tmp_path: Path) -> None:
    store = FeedStore(tmp_path, "one")
    with store.locked():
        store.write_facts(Facts(since=NOW - 60, last_attempt=NOW - 1, reason="connect", failures=1))
    found = figures(tmp_path)
    assert (found.state, found.alarms, found.reason) == ("alarm", ("missing",), "connect")


def test_states(tmp_path: Path) -> None:
    well = figures(tmp_path, Facts(last_success=NOW - 60, next_run=NOW + 60, entries=1))
    assert (well.state, well.serial, well.entries, well.alarms) == ("ok", 1, 1, ())
    failed = figures(tmp_path, Facts(last_success=NOW - 60, reason="html", failures=2))
    assert (failed.state, failed.reason, failed.failures) == ("failed", "html", 2)
    assert figures(tmp_path, Facts(last_success=NOW - 7200)).alarms == ("stale",)


def test_expiry(tmp_path: Path) -> None:
    expired = figures(tmp_path, Facts(last_success=NOW), valid_until=int(NOW) - 30 * 86_400)
    assert (expired.state, expired.alarms) == ("alarm", ("expired",))
    assert expired.valid_until == int(NOW) - 30 * 86_400


def test_a_state_that_is_not_to_be_had(tmp_path: Path) -> None:
    (tmp_path / "feeds/one.json").mkdir(parents=True)
    (found,) = feed_figures([FEED], tmp_path, NOW)
    assert found.state == "waiting"
