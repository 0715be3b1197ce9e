import json

import msgspec

from urlward.records.metrics import (
    BUCKETS,
    HOOKED,
    MAX_CATEGORIES,
    MAX_LISTS,
    MAX_PAIRS,
    Labels,
    ListFacts,
    Metrics,
    read_snapshot,
)


def test_a_snapshot_is_json_and_says_what_was_bumped() -> None:
    metrics = Metrics(started=5.0)
    metrics.requests("match", "pass")
    metrics.requests("match", "block")
    metrics.blocked("one", "phishing")
    metrics.blocked("one", "")
    metrics.blocked("one", "", would=True)
    metrics.connections(+1)
    metrics.connections(+1)
    metrics.connections(-1)
    metrics.error()
    metrics.error("page")
    metrics.failed_reload()
    metrics.queue(7, 2)
    metrics.lists([ListFacts("one", 3, 10, 99)])
    found = json.loads(json.dumps(metrics.snapshot()))
    assert found["requests"] == {"match": {"pass": 1, "block": 1}}
    assert found["blocks"] == {"one": {"phishing": 1, "none": 1}}
    assert found["would_blocks"] == {"one": {"none": 1}}
    assert (found["opened"], found["open"]) == (2, 1)
    assert (found["errors"]["decision"], found["errors"]["page"], found["failed_reloads"]) == (1, 1, 1)
    assert (found["queue"], found["dropped"], found["started"]) == (7, 2, 5.0)
    assert found["lists"] == [["one", 3, 10, 99]]


def test_lengths_of_time_fall_into_their_buckets() -> None:
    metrics = Metrics(0.0)
    for seconds in (BUCKETS["check"][0], BUCKETS["check"][0] * 1.5, 1e9):
        metrics.check(seconds)
    metrics.added(0.0)
    metrics.reload(0.3)
    found = metrics.snapshot()["histograms"]
    assert found["check"]["counts"][:2] == [1, 1]
    assert found["check"]["counts"][-1] == 1
    assert found["check"]["sum"] > 1e9
    assert found["added"]["counts"][0] == 1
    assert (sum(found["reload"]["counts"]), found["reload"]["sum"]) == (1, 0.3)


def test_the_longest_stall_is_of_this_window_and_the_one_before() -> None:
    metrics = Metrics(0.0)
    metrics.stall(0.5)
    metrics.stall(0.1)
    assert metrics.snapshot()["stall_longest"] == 0.5
    metrics.stall_window()
    metrics.stall(0.2)
    assert metrics.snapshot()["stall_longest"] == 0.5
    metrics.stall_window()
    assert metrics.snapshot()["stall_longest"] == 0.2
    assert sum(metrics.snapshot()["histograms"]["stall"]["counts"]) == 3


def test_what_nobody_foresaw_is_other() -> None:
    metrics = Metrics(0.0)
    metrics.requests("a.example", "block")
    metrics.requests("match", "a.example")
    metrics.error("a.example")
    metrics.blocked("http://a.example/", "a.example")
    text = json.dumps(metrics.snapshot())
    assert "example" not in text
    assert metrics.snapshot()["blocks"] == {"other": {"other": 1}}


def test_no_label_grows_without_bound() -> None:
    metrics = Metrics(0.0)
    for number in range(5000):
        metrics.blocked(f"list{number}", f"category{number}")
    blocks = metrics.snapshot()["blocks"]
    assert len(blocks) == MAX_LISTS + 1
    assert len(json.dumps(metrics.snapshot())) < 1 << 18
    assert len({name for row in blocks.values() for name in row}) == MAX_CATEGORIES + 1
    assert sum(sum(row.values()) for row in blocks.values()) == 5000


def test_nor_do_labels_together() -> None:
    metrics = Metrics(0.0)
    for number in range(50_000):
        metrics.blocked(f"{number % 150:064}", f"{number // 150 % 70:064}")
        metrics.blocked(f"{number % 150:064}", f"{number // 150 % 70:064}", would=True)
    found = metrics.snapshot()
    assert sum(len(row) for row in found["blocks"].values()) <= MAX_PAIRS + 1
    assert sum(sum(row.values()) for row in found["would_blocks"].values()) == 50_000
    assert len(json.dumps(found)) < 1 << 18


def test_the_newest_stall_is_of_the_last_two_snapshots() -> None:
    metrics = Metrics(0.0)
    found = []
    for stall in (0.0, 1.0, 0.0, 0.0):
        metrics.stall(stall)
        found.append(metrics.snapshot()["stall_newest"])
    assert found == [0.0, 1.0, 1.0, 0.0]
    assert metrics.snapshot()["stall_longest"] == 1.0


def test_a_path_that_is_not_text_keeps_nothing_else_from_being_reported() -> None:
    metrics = Metrics(0.0)
    metrics.refused({"one": "l\udcffst.txt: empty"})
    metrics.trouble("users", "us\udcffers: No such file")
    said = msgspec.json.decode(msgspec.json.encode(metrics.snapshot()))
    assert said["refused"] == {"one": r"l\udcffst.txt: empty"}
    assert said["troubles"] == {"users": r"us\udcffers: No such file"}


def test_resolvers_are_told_of_where_some_can_connect() -> None:
    metrics = Metrics(0.0)
    assert (metrics.snapshot()["resolvers"], metrics.snapshot()["hooked"]) == (None, {})
    connections = 3
    metrics.resolvers = lambda: connections
    for outcome in HOOKED:
        metrics.hooked(outcome)
    found = read_snapshot(metrics.snapshot(), Labels())
    assert found.resolvers == 3
    assert [found.counts["hooked", outcome] for outcome in HOOKED] == [1, 1, 1, 1]
    connections = 0
    assert read_snapshot(metrics.snapshot(), Labels()).resolvers == 0


def test_what_passes_between_nodes_is_told_where_there_are_some() -> None:
    metrics = Metrics(0.0)
    assert metrics.snapshot()["fleet"] == {}
    metrics.shares = True
    metrics.fleet("late")
    metrics.fleet("sent", 3)
    metrics.settle(0.004)
    found = read_snapshot(metrics.snapshot(), Labels())
    assert found.shares
    assert (found.counts["fleet", "late"], found.counts["fleet", "sent"]) == (1, 3)
    assert (found.counts["fleet", "settled"], found.counts["settle", "sum"]) == (0, 0.004)


def test_bodies_are_counted_where_they_are_looked_at() -> None:
    metrics = Metrics(0.0)
    metrics.files("hashed")
    assert metrics.snapshot()["files"] == metrics.snapshot()["matches"] == {}
    metrics.looks_at_files = True
    metrics.files("bytes", 5_000)
    metrics.files("late")
    metrics.matched("one", "sha256")
    metrics.matched("one", "sha256")
    metrics.matched("", "classifier")
    metrics.matched("http://a.example/", "a.example")
    assert "example" not in json.dumps(metrics.snapshot())
    found = read_snapshot(metrics.snapshot(), Labels())
    assert found.looks_at_files
    assert {
        key: count for key, count in found.counts.items() if key[0] in ("files", "matches") and count
    } == {
        ("files", "hashed"): 1,
        ("files", "bytes"): 5_000,
        ("files", "late"): 1,
        ("matches", "one", "sha256"): 2,
        ("matches", "none", "classifier"): 1,
        ("matches", "other", "other"): 1,
    }
