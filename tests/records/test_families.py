import re
from itertools import chain

from prometheus_client.core import Metric

from urlward.records.delivery import RecorderState, StoreState
from urlward.records.exposition import (
    FeedFigures,
    FleetFigures,
    of_feeds,
    of_filter,
    of_fleet,
    of_recorder,
    of_resolvers,
    of_workers,
)
from urlward.records.metrics import BUCKETS, ListFacts, Snapshot


def families() -> list[Metric]:
    live = [Snapshot(lists=(ListFacts("one", 1, 2, 3),), shares=True, resolvers=1)]
    return list(
        chain(
            of_filter("1.0", 1, 1),
            of_workers({}, live, 10.0),
            of_fleet({}, live, FleetFigures(True, {"up": 1})),
            of_resolvers({}, live),
            of_feeds([FeedFigures("f", "ok", valid_until=5, last_success=5.0)], 10.0),
            of_recorder(RecorderState(stores={"sqlite": StoreState()}), 0, 0.0),
        )
    )


def test_names_are_as_prometheus_has_them() -> None:
    names = [family.name for family in families()]
    assert len(set(names)) == len(names)
    for family in families():
        assert re.fullmatch(r"urlward_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total")
            assert "milli" not in sample.name


def test_every_metric_has_a_sample() -> None:
    """One that comes only with the first of what it counts cannot be watched."""
    assert [family.name for family in families() if not family.samples] == []


def test_a_histogram_adds_up() -> None:
    counts = {("check", str(number)): 1.0 for number in range(len(BUCKETS["check"]) + 1)}
    (family,) = (f for f in of_workers(counts, [], 0.0) if f.name == "urlward_check_seconds")
    buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    assert buckets == list(range(1, len(BUCKETS["check"]) + 2))
    assert [s.value for s in family.samples if s.name.endswith("_count")] == [buckets[-1]]
    assert family.samples[len(buckets) - 1].labels["le"] == "+Inf"


def test_resolvers_of_all_workers() -> None:
    live = [Snapshot(resolvers=2), Snapshot(), Snapshot(resolvers=1)]
    found = {one.name: one for one in of_resolvers({("hooked", "steered"): 5.0}, live)}
    assert [sample.value for sample in found["urlward_hook_connections"].samples] == [3]
    values = {s.labels["outcome"]: s.value for s in found["urlward_hook_answers"].samples}
    assert values == {"passed": 0, "steered": 5, "replaced": 0, "unread": 0}
    assert not list(of_resolvers({}, [Snapshot()])), "none where none can connect"


def test_valkey_is_there_where_every_process_has_it() -> None:
    for troubles, up, expected in (({}, True, 1), ({"fleet": "x"}, True, 0), ({}, False, 0)):
        live = [Snapshot(troubles=troubles)]
        found = {one.name: one for one in of_fleet({}, live, FleetFigures(up, {"up": 2, "away": 1}))}
        assert [sample.value for sample in found["urlward_fleet_up"].samples] == [expected]
        assert [sample.value for sample in found["urlward_fleet_nodes"].samples] == [2, 1]
        assert len(found) == 2, "nothing of what a worker shares where none does"
