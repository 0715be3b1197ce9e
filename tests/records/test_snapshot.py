import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rows import each_row
from urlward.records.metrics import (
    BUCKETS,
    Labels,
    ListFacts,
    Metrics,
    RulesFacts,
    read_snapshot,
)


def good() -> dict[str, Any]:
    metrics = Metrics(5.0)
    metrics.requests("match", "block")
    metrics.blocked("one", "phishing")
    metrics.blocked("one", "phishing", would=True)
    metrics.check(0.0)
    metrics.error("page")
    metrics.connections(1)
    metrics.lists([ListFacts("one", 3, 10, 99)])
    metrics.rules(RulesFacts(2, "nft", ("missing",)))
    metrics.looks_at_files = True
    metrics.files("hashed")
    metrics.matched("one", "md5")
    found: dict[str, Any] = json.loads(json.dumps(metrics.snapshot()))
    return found


def test_it_is_taken_apart() -> None:
    found = read_snapshot(good(), Labels())
    assert (found.started, found.open, found.lists) == (5.0, 1, (ListFacts("one", 3, 10, 99),))
    assert found.rules == RulesFacts(2, "nft", ("missing",))
    assert found.said == good()
    for key in [
        ("requests", "match", "block"),
        ("blocks", "one", "phishing"),
        ("would_blocks", "one", "phishing"),
        ("errors", "page"),
        ("opened",),
        ("files", "hashed"),
        ("matches", "one", "md5"),
        ("check", "0"),
    ]:
        assert found.counts[key] == 1, key
    assert len([key for key in found.counts if key[0] == "check"]) == len(BUCKETS["check"]) + 2


def test_labels_that_nobody_foresaw() -> None:
    data = good() | {"requests": {"x": {"block": 1, "y": 2}, "z": {"block": 3}}, "errors": {"e": 1, "f": 1}}
    counts = read_snapshot(data, Labels()).counts
    assert counts["requests", "other", "block"] == 4
    assert counts["requests", "other", "other"] == 2
    assert counts["errors", "other"] == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(part=st.sampled_from(sorted(good())), value=JSON)
def test_whatever_comes_is_a_snapshot_or_refused(part: str, value: Any) -> None:
    try:
        found = read_snapshot(good() | {part: value}, Labels())
    except ValueError:
        return
    assert all(0 <= count < 2**64 for count in found.counts.values())


@each_row("data", [None, [], "x", 1, {}, {"version": 1}])
def test_what_is_none_at_all(data: Any) -> None:
    with pytest.raises(ValueError):
        read_snapshot(data, Labels())
