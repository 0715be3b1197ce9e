import re
from itertools import chain

from prometheus_client.core import Metric

from urlward.records.delivery import RecorderState, StoreState
from urlward.records.exposition import FeedFigures, of_feeds, of_filter, of_recorder, of_workers
from urlward.records.metrics import BUCKETS, ListFacts, Snapshot


def families() -> list[Metric]:
    live = [Snapshot(lists=(ListFacts("one", 1, 2, 3),))]
    return list(
        chain(
            of_filter("1.0", 1, 1),
            of_workers({}, live, 10.0),
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
