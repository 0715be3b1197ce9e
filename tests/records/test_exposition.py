from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lists.support import artifact
from urlward.config import FeedTable
from urlward.feeds.store import Facts, FeedStore
from urlward.records.delivery import RecorderState, StoreState
from urlward.records.exposition import FIGURES_FOR, SILENT_AFTER, Exposition
from urlward.records.metrics import MAX_CATEGORIES, ListFacts, Metrics, RulesFacts
from urlward.records.status import readiness_of

NOW = 1_800_000_000.0
FEEDS = (FeedTable(name="one", path="none", stale_after=3600.0), FeedTable(name="two", path="none"))


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def made(state: Path, **more: Any) -> Exposition:
    return Exposition(FEEDS, state, clock=lambda: NOW, **({"steady": lambda: 0.0} | more))


def samples(exposition: Exposition) -> dict[tuple[str, ...], float]:
    """By name and values of labels, in order of the labels' names."""
    families = text_string_to_metric_families(exposition.render().decode())
    return {
        (s.name, *(value for _, value in sorted(s.labels.items()))): s.value
        for family in families
        for s in family.samples
    }


def counted(started: float = NOW, blocks: int = 1) -> Metrics:
    metrics = Metrics(started)
    for _ in range(blocks):
        metrics.requests("match", "block")
        metrics.blocked("one", "phishing")
        metrics.check(2e-6)
        metrics.connections(+1)
    return metrics


BLOCKS = ("urlward_blocks_total", "phishing", "one")


def test_a_gateways_rules_are_not_summed(tmp_path: Path) -> None:
    """Each worker says what the one watch has said."""
    exposition = made(tmp_path, expected=2)
    exposition.take("a", counted().snapshot())
    assert ("urlward_rules_up",) not in samples(exposition)
    metrics = counted()
    for worker in "ab":
        metrics.rules(RulesFacts(3, "nft", ("missing",)))
        exposition.take(worker, metrics.snapshot())
    found = samples(exposition)
    assert (found["urlward_rules_restored_total",], found["urlward_rules_up",]) == (3, 0)
    metrics.rules(RulesFacts(4, "nft"))
    exposition.take("b", metrics.snapshot())
    assert exposition.rules() == RulesFacts(4, "nft")


def test_workers_are_summed(tmp_path: Path) -> None:
    exposition = made(tmp_path, expected=2)
    exposition.take("a", counted(blocks=2).snapshot())
    exposition.take("b", counted(blocks=3).snapshot())
    found = samples(exposition)
    assert found[BLOCKS] == 5
    assert found["urlward_requests_total", "match", "block"] == 5
    assert found["urlward_requests_total", "peek", "pass"] == 0
    assert found["urlward_check_seconds_count",] == 5
    assert found["urlward_check_seconds_bucket", "1e-06"] == 0
    assert found["urlward_check_seconds_bucket", "2.5e-06"] == 5
    assert found["urlward_check_seconds_bucket", "+Inf"] == 5
    assert found["urlward_connections_total",] == found["urlward_open_connections",] == 5
    assert (found["urlward_workers",], found["urlward_workers_expected",]) == (2, 2)


def test_counters_never_go_down(tmp_path: Path) -> None:
    exposition = made(tmp_path)
    exposition.take("a", counted(blocks=2).snapshot())
    exposition.take("b", counted(blocks=3).snapshot())
    exposition.gone("a")
    assert samples(exposition)[BLOCKS] == 5
    assert samples(exposition)["urlward_open_connections",] == 3
    # It had only lost its connection.
    exposition.take("a", counted(blocks=4).snapshot())
    assert samples(exposition)[BLOCKS] == 7
    # Another worker has its name.
    exposition.take("a", counted(started=NOW + 1).snapshot())
    assert samples(exposition)[BLOCKS] == 8
    exposition.gone("a")
    exposition.take("a", counted(started=NOW + 2).snapshot())
    assert samples(exposition)[BLOCKS] == 9
    # Late.
    exposition.take("b", counted(blocks=1).snapshot())
    assert samples(exposition)[BLOCKS] == 9


def test_workers_without_number_come_and_go(tmp_path: Path) -> None:
    exposition = made(tmp_path)
    for number in range(1000):
        exposition.take(f"w{number}", counted().snapshot())
        exposition.gone(f"w{number}")
    assert samples(exposition)[BLOCKS] == 1000


def test_labels_stay_bounded_over_workers(tmp_path: Path) -> None:
    exposition = made(tmp_path)
    for number in range(200):
        metrics = Metrics(NOW)
        metrics.blocked("one", f"category{number}")
        exposition.take(f"w{number}", metrics.snapshot())
    blocks = {key: n for key, n in samples(exposition).items() if key[0] == BLOCKS[0]}
    assert len(blocks) == MAX_CATEGORIES + 1
    assert sum(blocks.values()) == 200


def test_what_is_no_snapshot_is_refused_and_counted(tmp_path: Path) -> None:
    exposition = made(tmp_path)
    good = counted().snapshot()
    bad: list[Any] = [
        {},
        [],
        {**good, "version": 2},
        {**good, "started": "now"},
        {**good, "opened": -1},
        {**good, "opened": float("nan")},
        {**good, "requests": {"match": {"block": "many"}}},
        {**good, "requests": {"match": {"block": True}}},
        {**good, "lists": [["one", 1]]},
        {**good, "histograms": {**good["histograms"], "check": {"counts": [1], "sum": 1}}},
    ]
    for each in bad:
        exposition.take("a", each)
    found = samples(exposition)
    assert found["urlward_errors_total", "snapshot"] == exposition.refused == len(bad)
    assert found["urlward_workers",] == 0


def test_lists_show_the_worker_that_is_behind(tmp_path: Path) -> None:
    exposition = made(tmp_path)
    for worker, serial in (("a", 4), ("b", 3)):
        metrics = Metrics(NOW)
        metrics.lists([ListFacts("one", serial, serial * 10, int(NOW) - serial), ListFacts("old", 1, 1)])
        exposition.take(worker, metrics.snapshot())
    found = samples(exposition)
    assert found["urlward_list_serial", "one"] == 3
    assert found["urlward_list_entries", "one"] == 30
    assert found["urlward_list_age_seconds", "one"] == 3
    assert ("urlward_list_age_seconds", "old") not in found
    assert found["urlward_blocks_total", "none", "old"] == 0


def test_feeds(tmp_path: Path) -> None:
    store = FeedStore(tmp_path, "one")
    with store.locked():
        store.write_artifact(artifact(["a.example", "b.example"]))
        store.write_facts(Facts(last_success=NOW - 7200, next_run=NOW + 60, failures=3, entries=2))
    found = samples(made(tmp_path))
    assert found["urlward_feed_age_seconds", "one"] == 7200
    assert ("urlward_feed_age_seconds", "two") not in found
    assert found["urlward_feed_failures", "one"] == 3
    assert found["urlward_feed_entries", "one"] == 2
    assert found["urlward_feed_serial", "one"] > 0
    assert found["urlward_feed_next_run_timestamp_seconds", "one"] == NOW + 60
    assert found["urlward_feed_state", "one", "alarm"] == 1
    assert found["urlward_feed_state", "two", "waiting"] == 1
    assert found["urlward_feed_state", "two", "ok"] == 0
    assert found["urlward_feed_alarm", "stale", "one"] == 1
    (tmp_path / "feeds" / "two.json").mkdir()
    assert samples(made(tmp_path))["urlward_feed_state", "two", "ok"] == 0


def test_feeds_are_not_looked_at_for_each_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can connect may ask whether the filter is ready, as often as they like."""
    steady, looks, facts = Clock(), 0, FeedStore.facts

    def counted(store: FeedStore) -> Facts:
        nonlocal looks
        looks += 1
        return facts(store)

    monkeypatch.setattr(FeedStore, "facts", counted)
    exposition = made(tmp_path, steady=steady)
    for _ in range(10):
        readiness_of(exposition)
        exposition.render()
    assert looks == len(FEEDS)
    steady.now += FIGURES_FOR
    assert not readiness_of(exposition).ok
    assert looks == 2 * len(FEEDS)


def test_the_recorder(tmp_path: Path) -> None:
    recorder = RecorderState(
        events={"block": 5, "a.example": 1},
        queue=2,
        spool_events=3,
        spool_bytes=400,
        spool_limit=1000,
        dropped=6,
        stores={"sqlite": StoreState(up=False, written=5, failures=1)},
        alarms={"probing": "x", "a.example": "y"},
        raised={"probing": 2},
    )
    exposition = made(tmp_path, recorder=lambda: recorder)
    metrics = Metrics(NOW)
    metrics.queue(8, 9)
    exposition.take("a", metrics.snapshot())
    found = samples(exposition)
    assert found["urlward_events_total", "block"] == 5
    assert found["urlward_events_total", "other"] == 1
    assert (found["urlward_queue_events", "worker"], found["urlward_queue_events", "recorder"]) == (8, 2)
    dropped = "urlward_events_dropped_total"
    assert (found[dropped, "worker"], found[dropped, "recorder"]) == (9, 6)
    assert (found["urlward_spool_bytes",], found["urlward_spool_limit_bytes",]) == (400, 1000)
    assert (found["urlward_store_up", "sqlite"], found["urlward_store_written_total", "sqlite"]) == (0, 5)
    assert found["urlward_store_failures_total", "sqlite"] == 1
    assert (found["urlward_alarm", "probing"], found["urlward_alarm", "store-down"]) == (1, 0)
    assert found["urlward_alarms_total", "probing"] == 2
    assert b"example" not in exposition.render()


def test_a_silent_worker_does_not_report(tmp_path: Path) -> None:
    steady = Clock()
    exposition = made(tmp_path, steady=steady)
    exposition.take("a", counted().snapshot())
    steady.now += SILENT_AFTER + 1
    assert samples(exposition)["urlward_workers",] == 0
    assert exposition.silence() == {"a": SILENT_AFTER + 1}
    assert exposition.snapshots() == {"a": counted().snapshot()}
    exposition.gone("a")
    assert exposition.silence() == exposition.snapshots() == {}


def test_the_last_hour(tmp_path: Path) -> None:
    steady = Clock()
    exposition = made(tmp_path, steady=steady)
    metrics = Metrics(NOW)
    exposition.take("a", metrics.snapshot())
    for _ in range(90):
        metrics.requests("match", "block")
        metrics.blocked("one", "")
        steady.now += 60
        exposition.take("a", metrics.snapshot())
    assert exposition.last_hour() == {"judged": 60, "blocked": 60, "would_block": 0, "errors": 0}


def test_after_a_restart_counters_begin_anew(tmp_path: Path) -> None:
    """What its predecessor has shown must not come again as if it had happened now."""
    exposition = made(tmp_path)
    exposition.take("old", counted(NOW - 3600, blocks=5).snapshot() | {"told": True})
    assert samples(exposition)[BLOCKS] == 0
    exposition.take("old", counted(NOW - 3600, blocks=7).snapshot() | {"told": True})
    assert samples(exposition)[BLOCKS] == 2
    exposition.take("new", counted(NOW - 1, blocks=5).snapshot())
    assert samples(exposition)[BLOCKS] == 7
    assert exposition.last_hour()["blocked"] == 7
    assert samples(exposition)["urlward_open_connections",] == 12
