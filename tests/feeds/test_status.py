from pathlib import Path
from typing import Any

from lists.support import artifact
from urlward.config import FeedTable
from urlward.feeds.status import status, table
from urlward.feeds.store import Accepted, Facts, FeedStore, Refused

NOW = 1_800_000_000.0
FEED = FeedTable(name="one", path="none", stale_after=3600.0)


def row(state: Path, facts: Facts | None = None, *, stored: bool = True) -> dict[str, Any]:
    store = FeedStore(state, "one")
    with store.locked():
        if stored:
            store.write_artifact(artifact(["a.example", "b.example"]))
        if facts is not None:
            store.write_facts(facts)
    return status(FEED, state, NOW)


def test_looking_changes_nothing(tmp_path: Path) -> None:
    found = status(FEED, tmp_path / "state", NOW)
    assert (found["state"], found["entries"], found["last_success"], found["age"]) == (
        "waiting",
        0,
        None,
        None,
    )
    assert not (tmp_path / "state").exists()


def test_states(tmp_path: Path) -> None:
    good = Facts(last_success=NOW - 60, next_run=NOW + 60)
    assert row(tmp_path, good)["state"] == "ok"
    assert row(tmp_path, Facts(last_success=NOW - 60, reason="html", error="x"))["state"] == "failed"
    assert row(tmp_path, Facts(last_success=NOW - 7200))["state"] == "alarm"


def test_times(tmp_path: Path) -> None:
    found = row(tmp_path, Facts(last_success=NOW - 60, next_run=NOW + 60))
    assert (found["last_success"], found["age"], found["next_run"]) == (
        "2027-01-15T07:59:00Z",
        60,
        "2027-01-15T08:01:00Z",
    )


def test_a_success_of_before_the_clock_was_set_back_is_of_now(tmp_path: Path) -> None:
    assert row(tmp_path, Facts(last_success=NOW + 3_600))["age"] == 0


def test_the_table(tmp_path: Path) -> None:
    facts = Facts(
        last_success=NOW - 7200,
        next_run=NOW + 60,
        added=2,
        removed=1,
        failures=3,
        reason="shrunk",
        error="1 entry after 20",
        refused=Refused("shrunk", "0123", 1, 20, NOW),
    )
    assert table([row(tmp_path, facts)]) == [
        "feed  entries  serial  last success                   change  next run              state",
        "one         2       1  2027-01-15T06:00:00Z (2h ago)  +2 -1   2027-01-15T08:01:00Z  alarm",
        "  stale: no successful refresh since 2027-01-15T06:00:00Z, for 2h; the limit is 1h",
        "  shrunk: 1 entry after 20 (3 times)",
        "  refused: 1 entry; urlward feeds accept one --why TEXT",
    ]
    facts.accepted = Accepted("0123", 1, NOW)
    assert table([row(tmp_path, facts)])[-1] == "  refused: 1 entry; accepted, the next refresh takes it"
